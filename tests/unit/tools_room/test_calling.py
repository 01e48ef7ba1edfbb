"""What is certain of a call after it was made: results, failures, and the cases in which nobody can tell."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.tools import ToolException, tool
from langgraph.errors import GraphInterrupt
from pydantic import BaseModel

from app.infra.context import RunContext
from app.infra.effects import EffectState, Outcome
from app.infra.errors import StaleEpoch
from app.infra.fence import Fence
from app.infra.ids import ID_PATTERN, Release, RunId, TenantId, ThreadId, UserId
from app.tools.calling import MAX_RESULT_BYTES, effect_call, perform
from app.tools.langchain import from_langchain
from app.tools.tool import OutcomeUnknown, Risk, Source, Tool, ToolCall, ToolError, ToolResult, current_call

CALL = ToolCall("act", "c1", "t1", None)


class Nothing(BaseModel):
    pass


def acting(act: Any, **options: Any) -> Tool[Nothing]:
    """A tool that must not be repeated, and does what `act` does."""

    async def call(_arguments: Nothing, _call: ToolCall) -> ToolResult:
        done: Any = act()
        result: ToolResult = await done if asyncio.iscoroutine(done) else done
        return result

    return Tool("act", "Acts.", Nothing, call, Risk.HIGH, **{"idempotent": False, "timeout_seconds": 0.05, **options})


async def outcome(act: Any, **options: Any) -> Outcome:
    return await perform(acting(act, **options), Nothing(), CALL)


def raising(error: Exception) -> Any:
    def act() -> ToolResult:
        raise error

    return act


async def never() -> ToolResult:
    await asyncio.Event().wait()
    raise AssertionError


DOUBTFUL = [
    (raising(ConnectionResetError()), "act failed (ConnectionResetError)"),
    (raising(OutcomeUnknown("no answer")), "no answer"),
    (never, "act did not answer within 0.05 s"),
]


@pytest.mark.parametrize(("act", "reason"), DOUBTFUL, ids=["error", "said so", "time-out"])
async def test_after_a_doubtful_end_the_outcome_is_unknown(act: Any, reason: str) -> None:
    """The tool had begun: it may have acted before it failed."""
    found = await outcome(act)
    assert (found.state, found.reason) == (EffectState.UNKNOWN, reason)
    assert "do not repeat it unasked" in ToolResult.from_json(found.result).text


@pytest.mark.parametrize(("act", "reason"), DOUBTFUL, ids=["error", "said so", "time-out"])
async def test_after_a_doubtful_end_of_what_may_be_repeated_it_has_failed(act: Any, reason: str) -> None:
    """Nothing is lost by trying again, so nobody need be asked."""
    found = await outcome(act, idempotent=True)
    assert found.state is EffectState.FAILED
    assert ToolResult.from_json(found.result).text.startswith(reason)


@pytest.mark.parametrize(
    "act", [raising(ToolError("refused")), lambda: ToolResult.failed("refused")], ids=["raised", "returned"]
)
async def test_a_refusal_is_certain(act: Any) -> None:
    """The tool says that nothing has happened."""
    found = await outcome(act)
    assert (found.state, ToolResult.from_json(found.result).text) == (EffectState.FAILED, "refused")


@pytest.mark.parametrize("error", [StaleEpoch("r", 1, 2), GraphInterrupt(())])
async def test_what_stops_the_run_passes_through(error: Exception) -> None:
    """In a lookup as well: a lost run is not something that could not be found out."""
    with pytest.raises(type(error)):
        await outcome(raising(error))


async def test_a_lookup_that_fails_cannot_tell() -> None:
    """Then a person is asked, who is told why; of the error's text nothing, it may quote anything."""

    async def look_up(_arguments: Nothing, _call: ToolCall) -> ToolResult | None:
        raise ValueError("s3cret")

    described = effect_call(acting(never, lookup=look_up), Nothing(), CALL, {})
    assert described.lookup is not None
    assert await described.lookup() == Outcome(EffectState.UNKNOWN, "", "asking what became of it failed (ValueError)")
    assert effect_call(acting(never, lookup=look_up, idempotent=True), Nothing(), CALL, {}).lookup is None


@pytest.mark.parametrize(
    "result",
    [
        ToolResult(ok=True, text="t\ud800", data={"a": 1}),
        ToolResult(ok=True, text="t", sources=[Source(title="s", uri="u", text="x" * MAX_RESULT_BYTES)]),
    ],
    ids=["half a character", "too large"],
)
async def test_what_cannot_be_kept_is_left_out_and_said(result: ToolResult) -> None:
    """The effect has happened: an error now would leave a doubt that there is no reason for."""
    found = await outcome(lambda: result)
    kept = ToolResult.from_json(found.result)
    assert found.state is EffectState.DONE
    assert kept.text.startswith("t")
    assert "left out" in kept.text
    assert len(found.result) < MAX_RESULT_BYTES


async def test_a_langchain_tool_may_ask_for_its_call_and_say_that_nothing_happened() -> None:
    """Its function has no place for the call; the key is what the other system needs."""
    seen = []

    @tool
    def charge(amount: int) -> Any:
        """Charges."""
        seen.append(current_call().key)
        if amount > 5:
            raise ToolException("too much")
        return {"at": object(), "amount": amount}

    wrapped: Any = from_langchain(charge)
    done = await perform(wrapped, wrapped.arguments(amount=5), CALL)
    refused = await perform(wrapped, wrapped.arguments(amount=7), CALL)
    assert seen == ["-:-:t1:c1"] * 2
    assert (done.state, refused.state) == (EffectState.DONE, EffectState.FAILED)
    assert ToolResult.from_json(done.result).data["output"]["amount"] == 5  # type: ignore[index,call-overload]
    with pytest.raises(LookupError):
        current_call()


IDS = st.from_regex(ID_PATTERN, fullmatch=True)
CALLS = st.tuples(IDS, IDS, st.uuids().map(str), st.text(max_size=20))


def key(tenant: str, thread: str, task: str, call: str) -> str:
    context = RunContext(
        RunId("r"),
        ThreadId(thread),
        TenantId(tenant),
        UserId("u"),
        Release("stable"),
        1,
        Fence(RunId("r"), 1),
        None,  # type: ignore[arg-type]  # not used
    )
    return ToolCall("act", call, task, context).key


@given(CALLS, CALLS)
def test_different_calls_have_different_keys(one: tuple[str, str, str, str], other: tuple[str, str, str, str]) -> None:
    """Of another tenant, thread, task (and so of another run), or with another id, whatever a model makes up."""
    assert (key(*one) == key(*other)) == (one == other)
    shifted = (one[0], one[1], one[2], f"{one[3]}:{other[3]}")
    assert (key(*one) == key(*shifted)) is False
