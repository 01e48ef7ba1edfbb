"""Calls whose outcome is unknown, from the tool to the person and back: a worker in this process, real Valkey."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.runtime import Runtime
from langgraph.types import RetryPolicy, interrupt
from pydantic import BaseModel

from app.infra.context import RunContext
from app.infra.ids import STABLE, RunId, ThreadId
from app.infra.keys import Keys
from app.infra.settings import RunSettings, Settings, load
from app.runs.effects import effects_of
from app.runs.execution import Services
from app.runs.ledger import RunLedger
from app.runs.model import Run, Status
from app.runs.worker import Worker
from app.tools.langchain import to_langchain
from app.tools.registry import ToolRegistry
from app.tools.tool import Risk, Tool, ToolCall, ToolResult
from app.workflows.nodes.execute import execute
from app.workflows.services import AgentServices, Node
from app.workflows.state import AgentState
from tests.integration.conftest import TENANT, new_run
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually


class Payment(BaseModel):
    to: str


@dataclass
class Shop:
    """Two tools: `pay` must not be repeated, `note` may be. `doubtful` payments never answer, as often as it says."""

    made: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    doubtful: dict[str, int] = field(default_factory=dict)

    @property
    def tools(self) -> ToolRegistry:
        return ToolRegistry(
            [
                Tool("pay", "Pays.", Payment, self._pay, Risk.CRITICAL, idempotent=False, timeout_seconds=0.2),
                Tool("note", "Notes.", Payment, self._note, Risk.LOW, idempotent=True),
            ]
        )

    async def _pay(self, arguments: Payment, call: ToolCall) -> ToolResult:
        self.made.append(f"pay {arguments.to}")
        self.keys.append(call.key)
        if self.doubtful.get(arguments.to, 0) > 0:
            self.doubtful[arguments.to] -= 1
            await asyncio.Event().wait()
        return ToolResult(ok=True, text=f"paid {arguments.to}")

    async def _note(self, arguments: Payment, call: ToolCall) -> ToolResult:
        self.made.append(f"note {arguments.to}")
        return ToolResult(ok=True, text=f"noted {arguments.to}")


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def settings(valkey_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in {"REDIS_URL": valkey_server.url, "OPENAI_API_KEY": "sk-not-used", "LEASE_SECONDS": "2"}.items():
        monkeypatch.setenv(name, value)
    return load(env_file=None)


@dataclass
class Desk:
    """A thread with a worker behind it."""

    ledger: RunLedger
    client: Any
    keys: Keys

    async def ask(self) -> Run:
        """The first run of a new thread, once it has ended."""
        return await self._ended((await self.ledger.accept(new_run())).run_id)

    async def answer(self, run: Run, value: Any) -> Run:
        """The run that goes on with what `run` asked, once it has ended."""
        new = replace(new_run(run.thread_id), input={}, command={"resume": value})
        return await self._ended((await self.ledger.accept(new)).run_id)

    async def replay(self, run: Run) -> Run:
        """The run that goes on where `run` failed, once it has ended."""
        new = replace(new_run(run.thread_id), input=run.input, command=run.command, replays=run)
        return await self._ended((await self.ledger.accept(new)).run_id)

    async def states(self, run: Run) -> dict[str, str]:
        found = await effects_of(self.client, self.keys, run.effects_root)
        return {effect.call_id: str(effect.state) for effect in found}

    async def _ended(self, run_id: RunId) -> Run:
        return await eventually(lambda: self.ledger.get(run_id, TENANT), until=lambda run: run.status.ended)


@pytest.fixture
def desk(settings: Settings, client: Any, keys: Keys) -> Callable[[Any], contextlib.AbstractAsyncContextManager[Desk]]:
    @contextlib.asynccontextmanager
    async def opened(graph: Any) -> AsyncIterator[Desk]:
        ledger = RunLedger(client, keys, settings.runs, STABLE)
        worker = Worker(
            ledger, Services(redis=client, keys=keys, settings=settings, store=None), {"agent": graph}.__getitem__
        )
        task = asyncio.create_task(worker.run())
        try:
            yield Desk(ledger, client, keys)
        finally:
            worker.stop()
            await task

    return opened


def question(run: Run) -> Any:
    """The one thing that an interrupted run asks."""
    assert run.status is Status.INTERRUPTED, run.result
    assert run.result is not None
    [asked] = run.result["interrupts"]
    return asked["value"]


def asked(run: Run) -> list[str]:
    return [call["call_id"] for call in question(run)["calls"]]


def answer_of(run: Run) -> str:
    assert run.status is Status.SUCCESS, run.result
    assert run.result is not None
    return str(run.result["answer"])


def one_node(act: Callable[[Runtime[RunContext]], Any], **options: Any) -> Any:
    """A user's own graph, whose one node answers with what `act` gives."""

    async def node(state: MessagesState, runtime: Runtime[RunContext]) -> dict[str, Any]:
        return {"messages": [AIMessage(await act(runtime))]}

    graph = StateGraph(MessagesState, context_schema=RunContext)
    graph.add_node("node", node, **options)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    return graph.compile()


def agent(shop: Shop, *calls: tuple[str, str, str, list[str]]) -> Any:
    """The built-in execute node with a plan of (id, tool, to, after); it answers with the results' texts."""

    class Tools:
        tools = shop.tools
        tool_concurrency = 2

    async def plan(state: AgentState) -> dict[str, Any]:
        return {
            "plan": [{"id": id_, "tool": tool, "args": {"to": to}, "after": after} for id_, tool, to, after in calls]
        }

    async def answer(state: AgentState) -> dict[str, Any]:
        return {"messages": [AIMessage(", ".join(result["text"] for result in state["results"]))]}

    nodes: dict[str, Any] = {"plan": plan, "execute": execute(cast(AgentServices, Tools())), "answer": answer}
    graph = StateGraph(AgentState, context_schema=RunContext)
    for name, node in nodes.items():
        graph.add_node(name, cast(Node, node))
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "execute")
    graph.add_edge("execute", "answer")
    graph.add_edge("answer", END)
    return graph.compile()


async def test_one_question_is_about_all_unknown_calls_after_the_others(desk: Any, shop: Shop) -> None:
    """Two payments give no answer, a note is taken meanwhile, what depends on a payment waits; each is done once."""
    shop.doubtful = {"ann": 1, "bob": 1}
    plan = [("c1", "pay", "ann", []), ("c2", "pay", "bob", []), ("c3", "note", "x", []), ("c4", "note", "y", ["c1"])]
    async with desk(agent(shop, *plan)) as at:
        run = await at.ask()
        first = question(run)
        assert (first["kind"], asked(run)) == ("effect_unknown", ["c1", "c2"])
        assert set(first["calls"][0]) == {"call_id", "tool", "args", "at", "reason"}
        assert (first["calls"][0]["tool"], first["calls"][0]["args"]) == ("pay", {"to": "ann"})
        assert first["calls"][0]["reason"] == "pay did not answer within 0.2 s"
        assert await at.states(run) == {"c1": "unknown", "c2": "unknown", "c3": "done"}
        left = await at.client.ttl(at.keys.effects(run.effects_root))
        assert left > RunSettings().run_retention_seconds, "the question outlives the journal that it is about"
        said = {
            "c1": {"decision": "done", "result": "paid, says ann"},
            "c2": {"decision": "failed", "reason": "bounced"},
        }
        resumed = await at.answer(run, said)
        assert answer_of(resumed) == "paid, says ann, bounced, noted x, noted y"
        assert await at.states(resumed) == {"c1": "done", "c2": "failed", "c3": "done", "c4": "done"}
    assert (sorted(shop.made[:3]), shop.made[3:]) == (["note x", "pay ann", "pay bob"], ["note y"])


async def test_a_repeated_call_bears_the_same_key_and_is_asked_about_again(desk: Any, shop: Shop) -> None:
    """The person says `repeat`, it hangs again: the first answer does not count for the second doubt."""
    shop.doubtful = {"ann": 2}
    async with desk(agent(shop, ("c1", "pay", "ann", []))) as at:
        run = await at.ask()
        again = await at.answer(run, {"c1": {"decision": "repeat"}})
        assert asked(again) == ["c1"]
        assert shop.made == ["pay ann"] * 2
        assert again.result is not None
        under_its_id = {again.result["interrupts"][0]["id"]: {"c1": {"decision": "repeat"}}}
        assert answer_of(await at.answer(again, under_its_id)) == "paid ann"
    assert shop.made == ["pay ann"] * 3
    assert len(set(shop.keys)) == 1


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("yes", "answer with an object"),
        ({"c1": {"decision": "done", "result": "x"}}, "missing: c2"),
        ({"c1": {"decision": "repeat"}, "c2": {"decision": "maybe"}}, "the decision on c2 must be"),
        ({"c1": {"decision": "repeat"}, "c2": {"decision": "repeat"}, "c9": {"decision": "repeat"}}, "not asked: c9"),
    ],
    ids=["no object", "incomplete", "no decision", "too much"],
)
async def test_an_answer_that_is_not_clear_is_asked_again(desk: Any, shop: Shop, answer: Any, problem: str) -> None:
    """Nothing of it is acted on: half an answer may be a mistake as a whole."""
    shop.doubtful = {"ann": 1, "bob": 1}
    async with desk(agent(shop, ("c1", "pay", "ann", []), ("c2", "pay", "bob", []))) as at:
        run = await at.answer(await at.ask(), answer)
        assert problem in question(run)["problem"]
        assert asked(run) == ["c1", "c2"]
        assert await at.states(run) == {"c1": "unknown", "c2": "unknown"}
        clear = {"c1": {"decision": "repeat"}, "c2": {"decision": "failed", "reason": "no"}}
        assert answer_of(await at.answer(run, clear)) == "paid ann, no"
    assert sorted(shop.made) == ["pay ann", "pay ann", "pay bob"]


async def test_a_users_node_stops_and_goes_on_too(desk: Any, shop: Shop) -> None:
    """Two calls in a row and an interrupt of its own between them: each answer reaches the question it was given to."""
    shop.doubtful = {"ann": 1, "bob": 1}
    tools = shop.tools

    async def act(runtime: Runtime[RunContext]) -> str:
        assert runtime.execution_info is not None
        ids: dict[str, Any] = {"task_id": runtime.execution_info.task_id, "context": runtime.context}
        first = await tools.invoke("pay", {"to": "ann"}, call_id="c1", **ids)
        said = interrupt("and bob?")
        second = await tools.invoke("pay", {"to": "bob"}, call_id="c2", **ids)
        return f"{first.text}, {said}, {second.text}"

    async with desk(one_node(act)) as at:
        run = await at.ask()
        assert asked(run) == ["c1"]
        run = await at.answer(run, {"c1": {"decision": "repeat"}})
        assert question(run) == "and bob?"
        run = await at.answer(run, "yes, bob")
        assert asked(run) == ["c2"]
        run = await at.answer(run, {"c2": {"decision": "done", "result": "paid, says bob"}})
        assert answer_of(run) == "paid ann, yes, bob, paid, says bob"
    assert shop.made == ["pay ann", "pay ann", "pay bob"]


async def test_a_tool_that_asks_a_person_itself_is_called_anew_with_the_answer(desk: Any) -> None:
    """It has not acted yet, so there is no doubt about it, although its call was begun."""
    acted = []

    async def pay(arguments: Payment, _call: ToolCall) -> ToolResult:
        said = interrupt(f"pay {arguments.to}?")
        acted.append(arguments.to)
        return ToolResult(ok=True, text=f"{said}, paid")

    tools = ToolRegistry([Tool("pay", "Pays.", Payment, pay, Risk.CRITICAL, idempotent=False)])

    async def act(runtime: Runtime[RunContext]) -> str:
        assert runtime.execution_info is not None
        task_id = runtime.execution_info.task_id
        return (await tools.invoke("pay", {"to": "ann"}, call_id="c", task_id=task_id, context=runtime.context)).text

    async with desk(one_node(act)) as at:
        run = await at.ask()
        assert (question(run), await at.states(run)) == ("pay ann?", {})
        assert answer_of(await at.answer(run, "yes")) == "yes, paid"
    assert acted == ["ann"]


async def test_tools_of_a_tool_node_ask_together(desk: Any, shop: Shop) -> None:
    """LangChain's way of calling tools: those that a message calls at once are one question, and its ids are kept."""
    shop.doubtful = {"ann": 1, "bob": 1}

    def said(*calls: tuple[str, str, str]) -> dict[str, Any]:
        return {"messages": [AIMessage("", tool_calls=[{"id": i, "name": n, "args": {"to": t}} for i, n, t in calls])]}

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(", ".join(f"{m.name} {m.status} {m.text}" for m in state["messages"][2:]))]}  # type: ignore[union-attr]

    graph = StateGraph(MessagesState, context_schema=RunContext)
    graph.add_node("model", lambda _: said(("c1", "pay", "ann"), ("c2", "note", "x"), ("c3", "pay", "bob")))
    graph.add_node("tools", ToolNode(to_langchain(shop.tools)))
    graph.add_node("answer", answer)
    graph.add_edge(START, "model")
    graph.add_edge("model", "tools")
    graph.add_edge("tools", "answer")
    graph.add_edge("answer", END)
    async with desk(graph.compile()) as at:
        run = await at.ask()
        assert sorted(asked(run)) == ["c1", "c3"]
        run = await at.answer(run, {"c1": {"decision": "repeat"}, "c3": {"decision": "failed", "reason": "bounced"}})
        assert answer_of(run) == "pay success paid ann, note success noted x, pay error bounced"
    assert sorted(shop.made) == ["note x", "pay ann", "pay ann", "pay bob"]


async def test_a_step_that_langgraph_retries_calls_once(desk: Any, shop: Shop) -> None:
    """The node fails after its payment, within one attempt of the run."""
    tools, failures = shop.tools, [ValueError("not yet")]

    async def act(runtime: Runtime[RunContext]) -> str:
        assert runtime.execution_info is not None
        paid = await tools.invoke(
            "pay", {"to": "ann"}, call_id="c1", task_id=runtime.execution_info.task_id, context=runtime.context
        )
        if failures:
            raise failures.pop()
        return f"{paid.text} at attempt {runtime.execution_info.node_attempt}"

    policy = RetryPolicy(initial_interval=0.01, max_attempts=2, retry_on=ValueError)
    async with desk(one_node(act, retry_policy=policy)) as at:
        assert answer_of(await at.ask()) == "paid ann at attempt 2"
    assert shop.made == ["pay ann"]


async def test_an_attempt_that_fails_after_an_answer_keeps_the_decision(desk: Any, shop: Shop) -> None:
    """The person is not asked again, and the payment that they let through is not made again."""
    shop.doubtful = {"ann": 1}
    tools, failures = shop.tools, [ConnectionError("the model does not answer")]

    async def act(runtime: Runtime[RunContext]) -> str:
        assert runtime.execution_info is not None
        paid = await tools.invoke(
            "pay", {"to": "ann"}, call_id="c1", task_id=runtime.execution_info.task_id, context=runtime.context
        )
        if failures:
            raise failures.pop()
        return paid.text

    async with desk(one_node(act)) as at:
        run = await at.answer(await at.ask(), {"c1": {"decision": "repeat"}})
        assert (answer_of(run), run.attempt) == ("paid ann", 2)
    assert shop.made == ["pay ann", "pay ann"]


@pytest.mark.parametrize("asked_first", [False, True])
async def test_a_replay_of_a_failed_run_repeats_no_effect(desk: Any, shop: Shop, asked_first: bool) -> None:
    """It failed after its payment, or after a person had let the payment through once more."""
    shop.doubtful = {"ann": 1} if asked_first else {}
    tools, failures = shop.tools, [ValueError("a bug, mended before the replay")]

    async def act(runtime: Runtime[RunContext]) -> str:
        assert runtime.execution_info is not None
        paid = await tools.invoke(
            "pay", {"to": "ann"}, call_id="c1", task_id=runtime.execution_info.task_id, context=runtime.context
        )
        if failures:
            raise failures.pop()
        return paid.text

    async with desk(one_node(act)) as at:
        failed = await at.ask()
        if asked_first:
            failed = await at.answer(failed, {"c1": {"decision": "repeat"}})
        assert failed.status is Status.ERROR, failed.result
        replayed = await at.replay(failed)
        assert answer_of(replayed) == "paid ann"
        assert replayed.effects_root == failed.effects_root
    assert shop.made == ["pay ann"] * (2 if asked_first else 1)


async def test_no_key_is_ever_used_by_another_run(desk: Any, shop: Shop) -> None:
    """The same plan with the same ids, in two threads and twice in one: three effects."""
    async with desk(agent(shop, ("c1", "pay", "ann", []))) as at:
        first = await at.ask()
        await at.ask()
        again = await at.ledger.accept(new_run(ThreadId(first.thread_id)))
        await eventually(lambda: at.ledger.get(again.run_id, TENANT), until=lambda run: run.status.ended)
    assert len(set(shop.keys)) == len(shop.made) == 3
