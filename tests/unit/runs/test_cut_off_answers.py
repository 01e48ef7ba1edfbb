"""What a run's result says of an answer that the model could not end."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from app.infra.ids import STABLE, RunId, TenantId, ThreadId, UserId
from app.infra.keys import Keys
from app.infra.settings import load
from app.runs.execution import Execution, Services
from app.runs.model import Claim, Run, Status

RUN = Run(
    run_id=RunId("r"),
    thread_id=ThreadId("t"),
    tenant=TenantId("acme"),
    user=UserId("ann"),
    release=STABLE,
    graph="agent",
    status=Status.RUNNING,
    input={},
    attempt=1,
    accepted_ms=0,
    ended_ms=None,
    result=None,
    request_id="",
    traceparent="",
    effects_root=RunId("r"),
)


@pytest.fixture
def execution() -> Execution:
    """An attempt that has ended: its result is read from the state, so no Redis is asked."""
    graph = StateGraph(MessagesState)
    graph.add_node("node", lambda state: {})
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    services = Services(redis=None, keys=Keys(), settings=load(None), store=None)
    claim = Claim(RUN.run_id, epoch=1, attempt=1, stop=None, waited_seconds=0.0)
    return Execution(RUN, claim, graph.compile(), services, on_stale=lambda stale: None)


@pytest.mark.parametrize(
    ("metadata", "ended", "reason"),
    [
        ({"finish_reason": "length"}, "stop", "length"),
        ({"stop_reason": "max_tokens"}, "stop", "length"),
        ({"finish_reason": "stop"}, "stop", "stop"),
        ({"stop_reason": "end_turn"}, "stop", "stop"),
        ({"composed": "quotation"}, "stop", "stop"),
        ({"finish_reason": "length"}, "max_iterations", "max_iterations"),
    ],
)
async def test_an_answer_that_was_cut_off_says_so(
    execution: Execution, metadata: dict[str, Any], ended: str, reason: str
) -> None:
    """A client that is told `stop` takes half an answer for a whole one."""
    messages = [HumanMessage("q"), AIMessage("The lease ends when", response_metadata=metadata)]
    assert execution.result({"messages": messages}, ended)["finish_reason"] == reason


async def test_only_this_turn_s_answer_counts(execution: Execution) -> None:
    """A thread goes on after an answer that was cut off."""
    cut = AIMessage("The lease ends when", response_metadata={"finish_reason": "length"})
    messages = [HumanMessage("q"), cut, HumanMessage("Go on"), AIMessage("the worker is silent.")]
    assert execution.result({"messages": messages}, "stop")["finish_reason"] == "stop"
