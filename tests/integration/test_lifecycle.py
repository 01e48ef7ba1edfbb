"""What becomes of a run: stopped, superseded, answered, retried, given up, replayed. One worker in this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt

from app.infra.errors import NothingAsked, ThreadBusy, ThreadFull
from app.infra.ids import STABLE, RunId, ThreadId
from app.infra.keys import Keys
from app.infra.settings import Settings, load
from app.runs.administration.replaying import Replaying
from app.runs.execution import Services
from app.runs.history import history
from app.runs.ledger import RunLedger
from app.runs.model import NewRun, Run, Status, Stop, Strategy
from app.runs.worker import Worker
from tests.integration.conftest import TENANT, new_run
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class Stage:
    """What the graph's nodes do in a test, and what they have seen."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.seen: list[list[str]] = []
        """Texts of the thread as each call of the node found them."""
        self.act: Callable[[], Any] = lambda: None

    def graph(self) -> Any:
        async def first(state: State) -> dict[str, Any]:
            return {"messages": [AIMessage("first step")]}

        async def second(state: State) -> dict[str, Any]:
            self.seen.append([message.text for message in state["messages"]])
            self.entered.set()
            done = self.act()
            if asyncio.iscoroutine(done):
                done = await done
            return {"messages": [AIMessage(f"done {done or ''}".strip())]}

        graph = StateGraph(State)
        graph.add_node("first", first)
        graph.add_node("second", second)
        graph.add_edge(START, "first")
        graph.add_edge("first", "second")
        graph.add_edge("second", END)
        return graph.compile()

    async def wait(self) -> None:
        """A node's work that lasts until the test lets it go on."""
        await self.go_on.wait()


@pytest.fixture
def settings(valkey_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    chosen = {
        "REDIS_URL": valkey_server.url,
        "OPENAI_API_KEY": "sk-not-used",
        "LEASE_SECONDS": "1",
        "RUN_MAX_ATTEMPTS": "2",
        "RUN_TIMEOUT_SECONDS": "20",
        "STEP_TIMEOUT_SECONDS": "10",
    }
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    return load(env_file=None)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def changed(settings: Settings, **runs: Any) -> Settings:
    return settings.model_copy(update={"runs": settings.runs.model_copy(update=runs)})


@contextlib.asynccontextmanager
async def working(settings: Settings, client: Any, keys: Keys, stage: Stage) -> AsyncIterator[RunLedger]:
    """A worker at work; gives the ledger."""
    ledger = RunLedger(client, keys, settings.runs, STABLE)
    services = Services(redis=client, keys=keys, settings=settings, store=None)
    worker = Worker(ledger, services, {"agent": stage.graph()}.__getitem__)
    task = asyncio.create_task(worker.run())
    try:
        yield ledger
    finally:
        stage.go_on.set()
        worker.stop()
        await task


async def ended(ledger: RunLedger, run_id: RunId, seconds: float = 10) -> Run:
    return await eventually(lambda: ledger.get(run_id, TENANT), until=lambda run: run.status.ended, seconds=seconds)


async def texts(client: Any, keys: Keys, thread_id: ThreadId) -> list[str]:
    return [message["content"] for message in await history(client, keys, thread_id)]


def says(text: str, thread_id: ThreadId | None = None, **other: Any) -> NewRun:
    return replace(new_run(thread_id), input={"messages": [{"role": "user", "content": text}]}, **other)


def answers(value: Any, thread_id: ThreadId) -> NewRun:
    return replace(new_run(thread_id), input={}, command={"resume": value})


async def test_a_running_run_is_cancelled_within_a_heartbeat(
    settings: Settings, client: Any, keys: Keys, stage: Stage
) -> None:
    stage.act = stage.wait
    async with working(settings, client, keys, stage) as ledger:
        accepted = await ledger.accept(says("hello"))
        await stage.entered.wait()
        await ledger.cancel(accepted.run_id, TENANT)
        run = await ended(ledger, accepted.run_id, seconds=settings.runs.lease_seconds)
    assert run.status is Status.CANCELLED
    assert (await ledger.thread(run.thread_id, TENANT)).active is None


async def test_a_node_that_swallows_its_cancellation_holds_up_no_cancel(
    settings: Settings, client: Any, keys: Keys, stage: Stage
) -> None:
    """The run ends all the same, and what the node still writes is refused."""

    async def stubborn() -> str:
        while not stage.go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await stage.go_on.wait()
        return "after its end"

    stage.act = stubborn
    async with working(settings, client, keys, stage) as ledger:
        accepted = await ledger.accept(says("hello"))
        await stage.entered.wait()
        await ledger.cancel(accepted.run_id, TENANT)
        run = await ended(ledger, accepted.run_id, seconds=15)
    assert run.status is Status.CANCELLED
    assert "done after its end" not in await texts(client, keys, run.thread_id)


async def test_a_cancel_against_an_end_gives_one_of_both(
    settings: Settings, client: Any, keys: Keys, stage: Stage
) -> None:
    """Whichever is first; the run's stream has one `end`, and it tells what the record tells."""
    async with working(settings, client, keys, stage) as ledger:
        found = []
        for _ in range(20):
            accepted = await ledger.accept(says("hello"))
            await asyncio.gather(ledger.cancel(accepted.run_id, TENANT), asyncio.sleep(0))
            run = await ended(ledger, accepted.run_id)
            events = await client.xrange(keys.events(run.run_id))
            ends = [fields for _, fields in events if fields[b"e"] == b"end"]
            assert len(ends) == 1
            assert f'"status":"{run.status}"'.encode() in ends[0][b"d"]
            found.append(run.status)
    assert set(found) <= {Status.CANCELLED, Status.SUCCESS}


async def test_a_busy_thread_refuses_a_message_when_asked_to(ledger: RunLedger) -> None:
    accepted = await ledger.accept(says("one"))
    thread_id = (await ledger.get(accepted.run_id)).thread_id
    with pytest.raises(ThreadBusy):
        await ledger.accept(says("two", thread_id, strategy=Strategy.REJECT))
    assert await ledger.size() == 1


async def test_interrupting_keeps_what_was_done(settings: Settings, client: Any, keys: Keys, stage: Stage) -> None:
    """The running run and the one that waits behind it are stopped; the new message finds the first one's steps."""
    stage.act = stage.wait
    async with working(settings, client, keys, stage) as ledger:
        first = await ledger.accept(says("one"))
        await stage.entered.wait()
        thread_id = (await ledger.get(first.run_id)).thread_id
        second = await ledger.accept(says("two", thread_id))
        stage.act = lambda: "well"
        third = await ledger.accept(says("three", thread_id, strategy=Strategy.INTERRUPT))
        run = await ended(ledger, third.run_id)
        assert third.superseded == (second.run_id, first.run_id)
        assert run.status is Status.SUCCESS
        for stopped in third.superseded:
            found = await ledger.get(stopped)
            assert (found.status, (found.result or {})["error"]) == (Status.INTERRUPTED, {"kind": "superseded"})
    assert await texts(client, keys, thread_id) == ["one", "first step", "three", "first step", "done well"]


async def test_rolling_back_undoes_what_was_done(settings: Settings, client: Any, keys: Keys, stage: Stage) -> None:
    async with working(settings, client, keys, stage) as ledger:
        before = await ended(ledger, (await ledger.accept(says("zero"))).run_id)
        stage.act, thread_id = stage.wait, before.thread_id
        stage.entered.clear()
        first = await ledger.accept(says("one", thread_id))
        await stage.entered.wait()
        second = await ledger.accept(says("two", thread_id))
        stage.act = lambda: "well"
        third = await ledger.accept(says("three", thread_id, strategy=Strategy.ROLLBACK))
        await ended(ledger, third.run_id)
        found = [await ledger.get(run_id) for run_id in (first.run_id, second.run_id)]
    assert [run.status for run in found] == [Status.CANCELLED] * 2
    assert [(run.result or {})["error"]["kind"] for run in found] == ["rolled_back"] * 2
    assert await texts(client, keys, thread_id) == ["zero", "first step", "done", "three", "first step", "done well"]


async def test_a_rollback_holds_although_who_asked_for_it_never_begins(
    settings: Settings, client: Any, keys: Keys, stage: Stage
) -> None:
    """The run that is rolled back undoes itself: what becomes of the one that stopped it does not matter."""
    stage.act = stage.wait
    async with working(settings, client, keys, stage) as ledger:
        first = await ledger.accept(says("one"))
        await stage.entered.wait()
        thread_id = (await ledger.get(first.run_id)).thread_id
        second = await ledger.accept(says("two", thread_id, strategy=Strategy.ROLLBACK))
        await ledger.cancel(second.run_id, TENANT)
        assert (await ended(ledger, first.run_id)).status is Status.CANCELLED
        stage.act = lambda: "well"
        await ended(ledger, (await ledger.accept(says("three", thread_id))).run_id)
    assert await texts(client, keys, thread_id) == ["three", "first step", "done well"]


async def test_a_run_between_two_attempts_is_undone_by_whoever_claims_it(
    settings: Settings, client: Any, keys: Keys, stage: Stage
) -> None:
    stage.act = stage.wait
    hasty = settings.model_copy(update={"service": settings.service.model_copy(update={"drain_seconds": 0.1})})
    async with working(hasty, client, keys, stage) as ledger:
        first = await ledger.accept(says("one"))
        await stage.entered.wait()
        stage.go_on = asyncio.Event()
    thread_id = (await ledger.get(first.run_id)).thread_id
    assert await texts(client, keys, thread_id) == ["one", "first step"]
    await ledger.accept(says("two", thread_id, strategy=Strategy.ROLLBACK))
    assert (await ledger.get(first.run_id)).status is Status.RUNNING, "it has not ended before it is undone"
    stage.act = lambda: "well"
    async with working(settings, client, keys, stage) as ledger:
        assert (await ended(ledger, first.run_id)).status is Status.CANCELLED
        await eventually(
            lambda: texts(client, keys, thread_id), until=lambda found: found == ["two", "first step", "done well"]
        )


async def test_a_run_that_ends_before_it_hears_of_its_rollback_is_undone(ledger: RunLedger) -> None:
    """Nobody is told `success` of what is then undone."""
    accepted = await ledger.accept(says("one"))
    run = await ledger.get(accepted.run_id)
    claim = (await ledger.claim("w1", 1)).runs[0]
    await ledger.accept(says("two", run.thread_id, strategy=Strategy.ROLLBACK))
    assert await ledger.complete(claim, run, Status.SUCCESS, {}) is False
    await ledger.give_back(claim, pause=timedelta(), used=0)
    again = (await ledger.claim("w2", 1)).runs[0]
    assert (again.run_id, again.stop) == (run.run_id, Stop.ROLLBACK)
    assert await ledger.complete(again, run, Status.CANCELLED, {}) is True


async def test_a_line_behind_one_thread_has_an_end(ledger: RunLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.runs.ledger.LONGEST_LINE", 2)
    thread_id = (await ledger.accept(says("one"))).thread_id
    for _ in range(2):
        await ledger.accept(says("more", thread_id))
    with pytest.raises(ThreadFull):
        await ledger.accept(says("too many", thread_id))
    await ledger.accept(says("instead", thread_id, strategy=Strategy.INTERRUPT))


async def test_superseding_again_under_the_same_key_finishes_what_was_cut_short(ledger: RunLedger) -> None:
    """The api may die between accepting a run and stopping the others; its client then asks again."""
    first = await ledger.accept(says("one"))
    thread_id = (await ledger.get(first.run_id)).thread_id
    asked = says("two", thread_id, strategy=Strategy.INTERRUPT, idempotency_key="k", digest="d" * 64)

    async def dies(*_: Any) -> None:
        raise ConnectionError

    cancel, ledger.cancel = ledger.cancel, dies  # type: ignore[method-assign,assignment]
    with pytest.raises(ConnectionError):
        await ledger.accept(asked)
    ledger.cancel = cancel  # type: ignore[method-assign]
    again = await ledger.accept(replace(asked, run_id=RunId("another")))
    assert again.created is False
    assert (await ledger.get(first.run_id)).status is Status.INTERRUPTED


async def test_a_question_is_answered_by_a_new_run_once(
    settings: Settings, client: Any, keys: Keys, stage: Stage
) -> None:
    """A run that waits for a person occupies no worker: it is over. Its thread takes one answer."""
    stage.act = lambda: interrupt("really?")
    async with working(settings, client, keys, stage) as ledger:
        asking = await ended(ledger, (await ledger.accept(says("hello"))).run_id)
        thread_id = asking.thread_id
        assert asking.status is Status.INTERRUPTED
        assert (asking.result or {})["interrupts"][0]["value"] == "really?"
        assert (await ledger.thread(thread_id, TENANT)).asked == asking.run_id
        assert await ledger.size() == 0
        left = await client.ttl(keys.run(asking.run_id))
        assert left > settings.runs.run_retention_seconds, "it names what is asked"
        answer = answers("yes", thread_id)
        run = await ended(ledger, (await ledger.accept(answer)).run_id)
        assert (run.status, run.effects_root) == (Status.SUCCESS, asking.run_id)
        with pytest.raises(NothingAsked):
            await ledger.accept(answers("no", thread_id))
        assert (await ledger.accept(answer)).run_id == run.run_id, "the same answer, sent again, is the same run"
    assert (await texts(client, keys, thread_id))[-1] == "done yes"


async def test_a_question_can_be_passed_over_or_taken_back(
    settings: Settings, client: Any, keys: Keys, stage: Stage
) -> None:
    stage.act = lambda: interrupt("really?")
    async with working(settings, client, keys, stage) as ledger:
        asking = await ended(ledger, (await ledger.accept(says("hello"))).run_id)
        cancelled = await ledger.cancel(asking.run_id, TENANT)
        assert cancelled.status is Status.CANCELLED
        with pytest.raises(NothingAsked):
            await ledger.accept(answers("yes", asking.thread_id))
        again = await ended(ledger, (await ledger.accept(says("hello", asking.thread_id))).run_id)
        assert again.status is Status.INTERRUPTED
        stage.act = lambda: "well"
        await ended(ledger, (await ledger.accept(says("never mind", asking.thread_id))).run_id)
        with pytest.raises(NothingAsked):
            await ledger.accept(answers("yes", asking.thread_id))
    assert (await texts(client, keys, asking.thread_id))[-1] == "done well"


async def test_an_answer_that_was_taken_back_in_the_queue_can_be_given_again(
    settings: Settings, client: Any, keys: Keys, stage: Stage
) -> None:
    stage.act = lambda: interrupt("really?")
    async with working(settings, client, keys, stage) as ledger:
        asking = await ended(ledger, (await ledger.accept(says("hello"))).run_id)
    answer = await ledger.accept(answers("yes", asking.thread_id))
    assert (await ledger.cancel(answer.run_id, TENANT)).status is Status.CANCELLED
    thread = await ledger.thread(asking.thread_id, TENANT)
    assert (thread.asked, thread.asked_root) == (asking.run_id, asking.run_id)


async def test_an_answer_that_failed_is_not_given_to_another_question(
    settings: Settings, client: Any, keys: Keys, stage: Stage
) -> None:
    """A person's yes to one question must not become a yes to the next one, whoever replays the failed run."""
    question = ["delete the file?"]

    def asks() -> str:
        asked = question[0]
        said = interrupt(asked)
        if asked == "delete the file?":
            raise ValueError("a bug")
        return f"{asked} {said}"

    stage.act = asks
    async with working(settings, client, keys, stage) as ledger:
        replaying = Replaying(client, keys, ledger)
        asking = await ended(ledger, (await ledger.accept(says("hello"))).run_id)
        failed = await ended(ledger, (await ledger.accept(answers("yes", asking.thread_id))).run_id)
        replay = await ended(ledger, (await replaying.replay(failed)).run_id)
        assert replay.status is Status.ERROR, "nothing had happened on the thread: it was replayed, and failed again"
        question[0] = "pay a million?"
        other = await ended(ledger, (await ledger.accept(says("and now?", asking.thread_id))).run_id)
        assert other.status is Status.INTERRUPTED
        for run, again in ((replay, False), (replay, True), (failed, True)):
            with pytest.raises(NothingAsked):
                await replaying.replay(run, again=again)
        assert (await ledger.thread(asking.thread_id, TENANT)).asked == other.run_id
        done = await ended(ledger, (await ledger.accept(answers("no", asking.thread_id))).run_id)
    assert (await texts(client, keys, done.thread_id))[-1] == "done pay a million? no"


async def test_a_run_handed_over_goes_on_where_it_was(
    settings: Settings, client: Any, keys: Keys, stage: Stage
) -> None:
    """A stopping worker's hand-over is no attempt, but the graph must not get its input a second time."""
    stage.act = stage.wait
    hasty = settings.model_copy(update={"service": settings.service.model_copy(update={"drain_seconds": 0.1})})
    async with working(hasty, client, keys, stage) as ledger:
        accepted = await ledger.accept(says("hello"))
        await stage.entered.wait()
        stage.go_on = asyncio.Event()  # the worker stops below, and the node does not end before
    assert (await ledger.get(accepted.run_id)).status is Status.PENDING
    stage.act = lambda: "well"
    async with working(settings, client, keys, stage) as ledger:
        run = await ended(ledger, accepted.run_id)
    assert run.attempt == 1
    assert await texts(client, keys, run.thread_id) == ["hello", "first step", "done well"]


async def test_what_may_succeed_later_is_tried_again_and_what_cannot_is_not(
    settings: Settings, client: Any, keys: Keys, stage: Stage
) -> None:
    failures = [ConnectionError("away")]

    def fails() -> str:
        if failures:
            raise failures.pop()
        return "well"

    stage.act = fails
    async with working(settings, client, keys, stage) as ledger:
        run = await ended(ledger, (await ledger.accept(says("hello"))).run_id)
        assert (run.status, run.attempt) == (Status.SUCCESS, 2)
        failures[:] = [ValueError("a bug")]  # type: ignore[list-item]
        run = await ended(ledger, (await ledger.accept(says("hello"))).run_id)
    assert (run.status, run.attempt, run.last_error) == (Status.ERROR, 1, "ValueError")
    assert stage.seen.count(["hello", "first step"]) == 3


async def test_a_run_that_fails_for_good_is_a_dead_letter_and_can_be_replayed(
    settings: Settings, client: Any, keys: Keys, stage: Stage
) -> None:
    """The replay goes on from the last checkpoint: what was done is not done again, nor is the message said twice."""

    def fails() -> None:
        raise ConnectionError("away")

    stage.act = fails
    async with working(settings, client, keys, stage) as ledger:
        dead = await ended(ledger, (await ledger.accept(says("hello"))).run_id)
        assert (dead.status, dead.last_error) == (Status.ERROR, "ConnectionError")
        assert (dead.result or {})["error"] == {"kind": "dependency_unavailable"}
        assert dead.checkpoint_id
        assert await client.zrange(keys.dead(TENANT), 0, -1) == [dead.run_id.encode()]
        stage.act = lambda: "well"
        again = replace(new_run(dead.thread_id), input=dead.input, replays=dead)
        run = await ended(ledger, (await ledger.accept(again)).run_id)
    assert (run.status, run.continues, run.effects_root) == (Status.SUCCESS, (dead.run_id,), dead.run_id)
    assert await texts(client, keys, dead.thread_id) == ["hello", "first step", "done well"]


async def test_attempts_that_were_cut_off_end_as_a_dead_letter(
    settings: Settings, client: Any, keys: Keys, stage: Stage
) -> None:
    """A run that kills its workers must not kill all of them."""
    ledger = RunLedger(client, keys, settings.runs, STABLE)
    accepted = await ledger.accept(says("hello"))
    for worker in ("w1", "w2"):
        await eventually(lambda name=worker: ledger.claim(name, 1), until=lambda claims: bool(claims.runs))  # type: ignore[misc]
    async with working(settings, client, keys, stage):
        run = await ended(ledger, accepted.run_id)
    assert (run.status, (run.result or {})["error"]) == (Status.ERROR, {"kind": "attempts_exhausted"})
    assert stage.seen == []
    assert await client.zcard(keys.dead(TENANT)) == 1


async def test_a_step_that_takes_too_long_is_tried_again(
    settings: Settings, client: Any, keys: Keys, stage: Stage
) -> None:
    stage.act = stage.wait
    short = changed(settings, step_timeout_seconds=0.2)
    async with working(short, client, keys, stage) as ledger:
        run = await ended(ledger, (await ledger.accept(says("hello"))).run_id)
    assert (run.status, run.attempt, run.last_error) == (Status.ERROR, 2, "TimeoutError")


async def test_a_run_that_takes_too_long_is_not(settings: Settings, client: Any, keys: Keys, stage: Stage) -> None:
    stage.act = stage.wait
    short = changed(settings, run_timeout_seconds=1.2)
    async with working(short, client, keys, stage) as ledger:
        run = await ended(ledger, (await ledger.accept(says("hello"))).run_id)
    assert (run.status, run.attempt, (run.result or {})["error"]) == (Status.TIMEOUT, 1, {"kind": "run_timeout"})
    assert await client.zcard(keys.dead(TENANT)) == 1


async def test_a_run_put_off_for_long_waits_outside_the_queue(ledger: RunLedger, client: Any, keys: Keys) -> None:
    """What stands in the queue adds workers; a thread is not held up by what begins in an hour."""
    later = await ledger.accept(says("hello", after=timedelta(hours=1)))
    soon = await ledger.accept(says("hello", after=timedelta(seconds=30)))
    assert await ledger.size() == 1
    assert await client.zrange(keys.later, 0, -1) == [later.run_id.encode()]
    assert (await ledger.claim("w1", 10)).runs == []
    run = await ledger.get(later.run_id)
    assert (run.status, (await ledger.thread(run.thread_id, TENANT)).active) == (Status.PENDING, None)
    assert (await ledger.cancel(later.run_id, TENANT)).status is Status.CANCELLED
    assert await client.zcard(keys.later) == 0
    assert await client.ttl(keys.thread(run.thread_id)) > 0
    assert (await ledger.cancel(soon.run_id, TENANT, Stop.ROLLBACK)).status is Status.CANCELLED
    assert await ledger.size() == 0
