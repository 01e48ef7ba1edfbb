"""Calls that a step makes at the same time ask a person together, and only once the last of them has settled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from typing_extensions import TypedDict

from app.infra.context import RunContext
from app.infra.effects import Decision, Effect, EffectCall, EffectState
from app.infra.fence import Fence
from app.infra.ids import Release, RunId, TenantId, ThreadId, UserId
from app.tools.asking import Attempt, Step
from app.tools.tool import ToolCall, ToolResult

CONFIG: Any = {"configurable": {"thread_id": "th"}}


class Journal:
    """Keeps what persons decide."""

    def __init__(self) -> None:
        self.decided: list[tuple[str, EffectState, str, int]] = []

    async def perform(self, call: EffectCall) -> Effect:
        raise AssertionError("this test makes its attempts itself")

    async def decide(self, decisions: Sequence[Decision], *, by: str, answers: int) -> None:
        self.decided += [(made.effect.call_id, made.state, by, answers) for made in decisions]


class State(TypedDict, total=False):
    results: list[Any]


def attempt(call_id: str, state: EffectState, *, answers: int = 0) -> Attempt:
    effect = Effect(
        id=call_id,
        state=state,
        tool="pay",
        call_id=call_id,
        task_id="t",
        run_id=RunId("r"),
        attempt=1,
        epoch=1,
        nonce="0",
        at_ms=0,
        reason="it was cut off",
        answers=answers,
    )
    result = ToolResult(ok=True, text=call_id) if state is EffectState.DONE else None
    return Attempt(ToolCall("pay", call_id, "t", None), {"to": call_id}, result, effect)


def context(journal: Journal) -> RunContext:
    fence = Fence(RunId("r"), 1)
    return RunContext(RunId("r"), ThreadId("th"), TenantId("acme"), UserId("ann"), Release("stable"), 1, fence, journal)


def graph_of(act: Any) -> Any:
    """One node that gives the results of `act`."""

    async def node(_state: State) -> State:
        return {"results": await act()}

    graph = StateGraph(State)
    graph.add_node("node", cast(Any, node))
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    return graph.compile(checkpointer=InMemorySaver())


async def test_the_question_waits_for_the_last_call_under_way() -> None:
    """A slow call beside an unknown one may become unknown, too: then it belongs into the same question."""
    journal, slow, log = Journal(), asyncio.Event(), []

    async def act() -> list[Any]:
        step = Step(context(journal))

        async def call(call_id: str, *, waits: bool) -> Any:
            with step:
                if waits and not slow.is_set():
                    asyncio.get_running_loop().call_later(0.02, slow.set)
                    await slow.wait()
                log.append(call_id)
                return await step.settled(attempt(call_id, EffectState.UNKNOWN))

        async def quick() -> Any:
            with step:
                return await step.settled(attempt("c3", EffectState.DONE))

        return list(await asyncio.gather(call("c1", waits=False), call("c2", waits=True), quick()))

    graph = graph_of(act)
    found = await graph.ainvoke({}, CONFIG)
    [asked] = found["__interrupt__"]
    assert [call["call_id"] for call in asked.value["calls"]] == ["c1", "c2"]
    assert log == ["c1", "c2"]
    answer = {"c1": {"decision": "repeat"}, "c2": {"decision": "done", "result": "x"}}
    assert (await graph.ainvoke(Command(resume=answer), CONFIG))["results"] == [True, True, False]
    assert journal.decided == [("c1", EffectState.AGAIN, "ann", 1), ("c2", EffectState.DONE, "ann", 1)]


async def test_an_answer_that_was_acted_on_is_not_given_to_the_next_question() -> None:
    """The journal says that one answer has been taken: the person has said nothing yet about the second doubt."""
    journal = Journal()
    attempts = [attempt("c1", EffectState.UNKNOWN), attempt("c1", EffectState.UNKNOWN, answers=1)]

    async def act() -> list[Any]:
        step = Step(context(journal))
        with step:
            return [await step.settled(attempts[len(journal.decided)])]

    graph = graph_of(act)
    await graph.ainvoke({}, CONFIG)
    journal.decided.append(("c1", EffectState.AGAIN, "ann", 1))  # its call was made again, and cut off again
    found = await graph.ainvoke(Command(resume={"c1": {"decision": "repeat"}}), CONFIG)
    assert len(found["__interrupt__"]) == 1
    assert len(journal.decided) == 1
    await graph.ainvoke(Command(resume={"c1": {"decision": "failed", "reason": "no"}}), CONFIG)
    assert journal.decided[1:] == [("c1", EffectState.FAILED, "ann", 2)]


async def test_an_answer_that_is_gone_does_not_stop_what_is_decided() -> None:
    """The decision is in the journal; what LangGraph kept of the answer may be lost with a crash."""

    async def act() -> list[Any]:
        step = Step(context(Journal()))
        with step:
            return [await step.settled(attempt("c1", EffectState.DONE, answers=2))]

    assert (await graph_of(act).ainvoke({}, CONFIG)) == {"results": [False]}


async def test_a_call_without_a_result_cannot_be_taken_for_one() -> None:
    """Whoever forgets to ask must not go on as if nothing were open."""
    with pytest.raises(ValueError, match="'c1' is unknown"):
        attempt("c1", EffectState.UNKNOWN).certain()
