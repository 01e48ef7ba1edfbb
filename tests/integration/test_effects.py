"""The effect journal on a real Valkey: each effect once, whatever dies, freezes or loses its connection around it."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.infra.effects import CallIdReused, Decision, Effect, EffectCall, EffectState, Outcome
from app.infra.errors import RedisUnavailable, StaleEpoch
from app.infra.fence import Fence
from app.infra.ids import RunId
from app.infra.keys import Keys
from app.infra.redis import connect
from app.runs import effects
from app.runs.effects import CUT_OFF, RedisEffects, effects_of
from tests.support.proxy import Proxy
from tests.support.valkey import ValkeyServer

ROOT = RunId("root")


refused: list[StaleEpoch] = []


async def at_once() -> None:
    """Everything that a step rests on is stored."""


@dataclass
class Bank:
    """The other system: what was done in it, by key, and how often it was asked to."""

    asked: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    looked_up: int = 0
    looking: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    hangs: bool = False
    outcome: Outcome = field(default_factory=lambda: Outcome(EffectState.DONE, "paid"))

    def call(
        self,
        key: str = "acme:th:task:c1",
        *,
        idempotent: bool = False,
        lookup: Callable[[], Any] | None = None,
        timeout_seconds: float = 0.0,
        fingerprint: str = "pay 5",
        tool: str = "pay",
    ) -> EffectCall:
        async def perform() -> Outcome:
            self.asked.append(key)
            self.reached.set()
            if self.hangs:
                await asyncio.Event().wait()
            self.done.append(key)
            return self.outcome

        return EffectCall(key, tool, "c1", "task", fingerprint, idempotent, timeout_seconds, perform, lookup)

    async def look_up(self) -> Outcome | None:
        """What the other system knows of the one call."""
        self.looked_up += 1
        self.looking.set()
        return Outcome(EffectState.DONE, "paid, says the bank") if self.done else None

    async def look_up_fails(self) -> Outcome | None:
        return Outcome(EffectState.UNKNOWN, "", "the bank is closed")


@pytest.fixture
def bank() -> Bank:
    return Bank()


async def journal(
    client: Any,
    keys: Keys,
    *,
    run: str = ROOT,
    root: str = ROOT,
    epoch: int = 1,
    lease_seconds: float = 5.0,
    own: bool = True,
) -> RedisEffects:
    """The journal of a worker that has taken `run` under `epoch`; `own` False: somebody else has it by now."""
    if own:
        await client.hset(keys.epochs, run, epoch)
    fence = Fence(RunId(run), epoch)
    return RedisEffects(
        client,
        keys,
        fence,
        RunId(root),
        attempt=epoch,
        lease_seconds=lease_seconds,
        ttl_seconds=600,
        kept=at_once,
        on_stale=refused.append,
    )


async def cut_off(client: Any, keys: Keys, bank: Bank, call: EffectCall) -> None:
    """A worker begins the call and is gone before it has an answer."""
    bank.hangs = True
    making = asyncio.create_task((await journal(client, keys)).perform(call))
    await bank.reached.wait()
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    bank.hangs = False


@pytest.mark.parametrize("state", [EffectState.DONE, EffectState.FAILED])
async def test_a_recorded_call_is_not_made_again(client: Any, keys: Keys, bank: Bank, state: EffectState) -> None:
    """A step that runs again, after a crash or by a retry in the same attempt, gets the very result it got before."""
    bank.outcome = Outcome(state, "ü" * 1000)
    first = await (await journal(client, keys)).perform(bank.call())
    for epoch in (1, 2):
        again = await (await journal(client, keys, epoch=epoch)).perform(bank.call())
        assert (again.state, again.result, again.nonce) == (state, first.result, first.nonce)
    assert len(bank.asked) == 1


async def test_an_idempotent_call_that_was_cut_off_is_made_again(client: Any, keys: Keys, bank: Bank) -> None:
    """Under the same key: the other system sees that it is the same."""
    await cut_off(client, keys, bank, bank.call(idempotent=True))
    effect = await (await journal(client, keys, epoch=2)).perform(bank.call(idempotent=True))
    assert (effect.state, effect.result, effect.epoch, effect.attempt) == (EffectState.DONE, "paid", 2, 2)
    assert bank.asked == ["acme:th:task:c1"] * 2


async def test_a_call_that_was_cut_off_and_did_not_happen_is_made_again(client: Any, keys: Keys, bank: Bank) -> None:
    """The tool's lookup says so."""
    await cut_off(client, keys, bank, bank.call(lookup=bank.look_up))
    effect = await (await journal(client, keys, epoch=2)).perform(bank.call(lookup=bank.look_up))
    assert (effect.state, len(bank.done)) == (EffectState.DONE, 1)


async def test_a_call_that_was_cut_off_and_did_happen_is_not_made_again(client: Any, keys: Keys, bank: Bank) -> None:
    """What the lookup found is recorded: the next one need not ask."""
    await cut_off(client, keys, bank, bank.call(lookup=bank.look_up))
    bank.done.append("by the worker that died")
    for _ in range(2):
        effect = await (await journal(client, keys, epoch=2)).perform(bank.call(lookup=bank.look_up))
        assert (effect.state, effect.result) == (EffectState.DONE, "paid, says the bank")
    assert (len(bank.asked), bank.looked_up) == (1, 1)


async def test_a_lookup_that_finds_nothing_is_believed_only_when_the_call_is_over(
    client: Any, keys: Keys, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is frozen, or whose request is still on its way, may yet have its effect."""
    monkeypatch.setattr(effects, "_MARGIN_SECONDS", 0.05)
    call = bank.call(lookup=bank.look_up, timeout_seconds=0.3)
    await cut_off(client, keys, bank, call)
    resumed = asyncio.create_task((await journal(client, keys, epoch=2)).perform(call))
    await bank.looking.wait()
    await asyncio.sleep(0)
    bank.done.append("late")
    assert (await resumed).result == "paid, says the bank"
    assert (len(bank.asked), bank.looked_up) == (1, 2)


@pytest.mark.parametrize("looks_up", [False, True])
async def test_any_other_call_that_was_cut_off_is_for_a_person(
    client: Any, keys: Keys, bank: Bank, looks_up: bool
) -> None:
    """Neither to be repeated nor to be found out; the same when the lookup fails."""
    call = bank.call(lookup=bank.look_up_fails if looks_up else None)
    await cut_off(client, keys, bank, call)
    effect = await (await journal(client, keys, epoch=2)).perform(call)
    assert effect.state is EffectState.UNKNOWN
    assert effect.reason == (f"{CUT_OFF}; the bank is closed" if looks_up else CUT_OFF)
    assert len(bank.asked) == 1


@pytest.mark.parametrize(
    ("lookup", "state", "result"),
    [
        ("none", EffectState.UNKNOWN, ""),
        ("happened", EffectState.DONE, "paid"),
        ("nothing", EffectState.FAILED, "told"),
    ],
)
async def test_a_doubt_in_the_same_attempt_is_looked_up_at_once(
    client: Any, keys: Keys, bank: Bank, lookup: str, state: EffectState, result: str
) -> None:
    """A time-out: what happened is done, what did not has failed and is not tried again unasked, else it is unknown."""
    bank.outcome = Outcome(EffectState.UNKNOWN, "told", "it took too long")

    async def look_up() -> Outcome | None:
        return Outcome(EffectState.DONE, "paid") if lookup == "happened" else None

    call = bank.call(lookup=None if lookup == "none" else look_up, timeout_seconds=-1)
    effect = await (await journal(client, keys)).perform(call)
    assert (effect.state, effect.result, len(bank.asked)) == (state, result, 1)
    [kept] = await effects_of(client, keys, ROOT)
    assert (kept.state, kept.result) == (state, result)
    assert kept.reason == ("it took too long" if lookup == "none" else "")


async def test_a_decision_is_kept_and_acted_on_once(client: Any, keys: Keys, bank: Bank) -> None:
    """Done and failed are the result from then on; to repeat allows one more call, under the same key."""
    await cut_off(client, keys, bank, bank.call())
    resumed = await journal(client, keys, run="answer", epoch=7)
    unknown = await resumed.perform(bank.call())
    for _ in range(2):  # a lost reply: the script runs twice
        await resumed.decide([Decision(unknown, EffectState.AGAIN, "")], by="ann", answers=1)
    assert [(kept.state, kept.decided_by) for kept in await effects_of(client, keys, ROOT)] == [
        (EffectState.AGAIN, "ann")
    ]
    effect = await (await journal(client, keys, run="answer", epoch=8)).perform(bank.call())
    assert (effect.state, effect.answers, effect.run_id) == (EffectState.DONE, 1, "answer")
    assert bank.asked == ["acme:th:task:c1"] * 2


async def test_a_call_repeated_on_request_and_cut_off_again_is_asked_about_again(
    client: Any, keys: Keys, bank: Bank
) -> None:
    """A person allows one repetition, not any number."""
    await cut_off(client, keys, bank, bank.call())
    resumed = await journal(client, keys, epoch=2)
    unknown = await resumed.perform(bank.call())
    await resumed.decide([Decision(unknown, EffectState.AGAIN, "")], by="ann", answers=1)
    bank.reached.clear()
    await cut_off(client, keys, bank, bank.call())
    effect = await (await journal(client, keys, epoch=3)).perform(bank.call())
    assert (effect.state, effect.answers, len(bank.asked)) == (EffectState.UNKNOWN, 1, 2)


async def test_what_is_said_of_an_earlier_making_does_not_change_a_later_one(
    client: Any, keys: Keys, bank: Bank
) -> None:
    """An answer that comes twice, the second time after the call was made again."""
    await cut_off(client, keys, bank, bank.call())
    resumed = await journal(client, keys, epoch=2)
    unknown = await resumed.perform(bank.call())
    await resumed.decide([Decision(unknown, EffectState.AGAIN, "")], by="ann", answers=1)
    await resumed.perform(bank.call())
    await resumed.decide([Decision(unknown, EffectState.FAILED, "late")], by="bob", answers=2)
    assert [(kept.state, kept.decided_by) for kept in await effects_of(client, keys, ROOT)] == [(EffectState.DONE, "")]


async def test_a_worker_that_lost_its_run_makes_no_call(client: Any, keys: Keys, bank: Bank) -> None:
    """It was frozen for longer than its lease and wakes up just before the call."""
    zombie = await journal(client, keys, epoch=1)
    await journal(client, keys, epoch=2)
    refused.clear()
    with pytest.raises(StaleEpoch):
        await zombie.perform(bank.call())
    assert len(refused) == 1, "the worker is told even where the graph catches the error"
    assert bank.asked == []
    assert await effects_of(client, keys, ROOT) == []


async def test_a_worker_that_froze_after_its_intent_makes_no_call(client: Any, keys: Keys, bank: Bank) -> None:
    """The intent was written while the run was still its own; the reply is read long after."""

    class Freezing:
        """A client whose process stands still after the first script, while another worker takes the run."""

        frozen = False

        async def evalsha(self, *command: Any) -> Any:
            reply = await client.evalsha(*command)
            if not self.frozen:
                self.frozen = True
                time.sleep(0.06)  # noqa: ASYNC251 - SIGSTOP holds the whole loop up
                await client.hset(keys.epochs, ROOT, 2)
            return reply

        async def eval(self, *command: Any) -> Any:
            return await client.eval(*command)

    await (await journal(client, keys, run="other", root="other")).perform(bank.call())  # the server knows the script
    await client.hset(keys.epochs, ROOT, 1)
    zombie = await journal(Freezing(), keys, epoch=1, lease_seconds=0.1, own=False)
    with pytest.raises(StaleEpoch):
        await zombie.perform(bank.call())
    assert len(bank.asked) == 1, "only that of the other run"


@pytest.mark.parametrize("losing", [1, 2])
async def test_a_lost_reply_changes_nothing(
    valkey_server: ValkeyServer, client: Any, keys: Keys, bank: Bank, losing: int
) -> None:
    """Of the intent, or of the result: the script ran, and runs again under the same nonce."""
    async with Proxy(valkey_server.port) as proxy:
        through = connect(valkey_server.url.replace(str(valkey_server.port), str(proxy.port)))
        await through.ping()
        made = await journal(client, keys)
        made._redis = through
        perform = bank.call()
        if losing == 1:
            proxy.lose_next_reply()
        else:
            inner = perform.perform

            async def then_lose() -> Outcome:
                outcome = await inner()
                proxy.lose_next_reply()
                return outcome

            perform = EffectCall(perform.key, "pay", "c1", "task", perform.fingerprint, False, 0.0, then_lose, None)
        effect = await made.perform(perform)
        assert (effect.state, proxy.lost, len(bank.asked)) == (EffectState.DONE, 1, 1)
        await through.aclose()
    [kept] = await effects_of(client, keys, ROOT)
    assert (kept.state, kept.nonce) == (EffectState.DONE, effect.nonce)


async def test_without_redis_no_call_is_made(bank: Bank, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could tell afterwards that it was made."""
    monkeypatch.setattr(effects, "_BEGIN_SECONDS", 0.0)
    away = connect("redis://127.0.0.1:1/0")
    with pytest.raises(RedisUnavailable):
        await (await journal(away, keys, own=False)).perform(bank.call())
    assert bank.asked == []
    await away.aclose()


async def test_a_result_is_recorded_once_redis_is_back(
    valkey_server: ValkeyServer, client: Any, keys: Keys, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The effect has happened: the run waits until that is written down."""
    monkeypatch.setattr(effects, "_RECONNECT_SECONDS", 0.02)
    made = await journal(client, keys)

    class Away:
        left = 3

        async def evalsha(self, *command: Any) -> Any:
            if bank.done and self.left:
                self.left -= 1
                raise ConnectionError
            return await client.evalsha(*command)

        async def eval(self, *command: Any) -> Any:
            return await client.eval(*command)

    made._redis = Away()
    await made.perform(bank.call())
    assert [kept.state for kept in await effects_of(client, keys, ROOT)] == [EffectState.DONE]


async def test_a_call_that_ends_while_its_task_is_cancelled_is_recorded(client: Any, keys: Keys, bank: Bank) -> None:
    """The run is cancelled in the moment between the tool's answer and its record."""
    made = await journal(client, keys)
    making: list[asyncio.Task[Effect]] = []

    class Cancelling:
        async def evalsha(self, *command: Any) -> Any:
            if bank.done:
                making[0].cancel()
                await asyncio.sleep(0)
            return await client.evalsha(*command)

        async def eval(self, *command: Any) -> Any:
            return await client.eval(*command)

    made._redis = Cancelling()
    making.append(asyncio.create_task(made.perform(bank.call())))
    with pytest.raises(asyncio.CancelledError):
        await making[0]
    assert [kept.state for kept in await effects_of(client, keys, ROOT)] == [EffectState.DONE]


async def test_the_same_call_twice_at_once_is_made_once(client: Any, keys: Keys, bank: Bank) -> None:
    """Models repeat a call with its id; both get the one result."""
    made = await journal(client, keys)
    first, second = await asyncio.gather(made.perform(bank.call()), made.perform(bank.call()))
    assert (first, len(bank.asked)) == (second, 1)


async def test_two_calls_with_one_id_are_told_apart(client: Any, keys: Keys, bank: Bank) -> None:
    """The second must not get the first one's result: its own effect would silently be missing."""
    made = await journal(client, keys)
    found = await asyncio.gather(
        made.perform(bank.call()), made.perform(bank.call(fingerprint="pay 7")), return_exceptions=True
    )
    assert isinstance(found[1], CallIdReused)
    with pytest.raises(CallIdReused):
        await made.perform(bank.call(tool="refund", fingerprint="refund 5"))
    assert len(bank.asked) == 1


async def test_runs_that_go_on_with_a_runs_work_share_its_journal(client: Any, keys: Keys, bank: Bank) -> None:
    """A replay of a failed run does not pay again; another run with the same call id does."""
    await (await journal(client, keys)).perform(bank.call())
    replayed = await (await journal(client, keys, run="replay", epoch=5)).perform(bank.call())
    assert (replayed.run_id, len(bank.asked)) == (ROOT, 1)
    await (await journal(client, keys, run="other", root="other")).perform(bank.call("acme:th:task2:c1"))
    assert len(bank.asked) == 2


async def test_the_journal_expires_when_nobody_ends_its_run_and_never_sooner_than_the_ledger_says(
    client: Any, keys: Keys, bank: Bank
) -> None:
    """The ledger keeps it while the run is unfinished, and sets when it goes: later writes leave that alone."""
    made = await journal(client, keys)
    await made.perform(bank.call())
    assert 590 <= await client.ttl(keys.effects(ROOT)) <= 600
    await client.persist(keys.effects(ROOT))
    await made.perform(bank.call("acme:th:task:c2"))
    assert await client.ttl(keys.effects(ROOT)) == -1


async def test_operators_read_the_calls_in_their_order(client: Any, keys: Keys, bank: Bank) -> None:
    """`slipway runs show`; a run without calls has none."""
    assert await effects_of(client, keys, ROOT) == []
    made = await journal(client, keys)
    await made.perform(bank.call("acme:th:task:b"))
    await asyncio.sleep(0.002)
    await made.perform(bank.call("acme:th:task:a", tool="refund"))
    found = await effects_of(client, keys, ROOT)
    assert [(kept.tool, kept.state, kept.attempt) for kept in found] == [
        ("pay", EffectState.DONE, 1),
        ("refund", EffectState.DONE, 1),
    ]
    assert abs(found[0].at_ms / 1000 - time.time()) < 60


KILLED = """
import asyncio, sys
from app.infra.redis import connect
from app.infra.keys import Keys
from tests.integration.test_effects import Bank, journal

async def main(url):
    bank = Bank(hangs=True)
    made = await journal(connect(url), Keys())
    calls = [
        bank.call("acme:th:task:put", idempotent=True),
        bank.call("acme:th:task:charge"),
        bank.call("acme:th:task:transfer", lookup=bank.look_up),
    ]
    making = [asyncio.create_task(made.perform(call)) for call in calls]
    while len(bank.asked) < len(calls):
        await asyncio.sleep(0.01)
    print("begun", flush=True)
    await asyncio.gather(*making)

asyncio.run(main(sys.argv[1]))
"""


async def test_a_killed_process_leaves_what_each_kind_of_call_needs(
    valkey_server: ValkeyServer, client: Any, keys: Keys, bank: Bank
) -> None:
    """SIGKILL between intent and result: no handler runs, nothing more is written."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, valkey_server.url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"begun\n"
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    bank.done.append("the transfer went through")
    made = await journal(client, keys, epoch=2)
    put, charge, transfer = await asyncio.gather(
        made.perform(bank.call("acme:th:task:put", idempotent=True)),
        made.perform(bank.call("acme:th:task:charge")),
        made.perform(bank.call("acme:th:task:transfer", lookup=bank.look_up)),
    )
    assert (put.state, charge.state, transfer.state) == (EffectState.DONE, EffectState.UNKNOWN, EffectState.DONE)
    assert bank.asked == ["acme:th:task:put"]
