"""plan: decides the tool calls and gives each its id, before anything runs."""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from app.agents.planner import Request, with_stable_ids
from app.agents.writer import transcript
from app.infra.context import RunContext
from app.workflows.nodes.progress import progress
from app.workflows.services import AgentServices, Node
from app.workflows.state import AgentState, PlannedCall, earlier, question, turn_id


def plan(services: AgentServices) -> Node:
    """The node over `services`."""

    async def node(state: AgentState, runtime: Runtime[RunContext]) -> dict[str, Any]:
        progress(runtime, "plan")
        before = earlier(state["messages"])
        made = await services.planner.plan(
            Request(
                question=question(state["messages"]),
                intent=state.get("intent", ""),
                previous_question=question(before),
                history=transcript(before),
                memories=state.get("memories", []),
                problem=_problem(state),
            )
        )
        number = state.get("plans", 0) + 1
        calls = with_stable_ids(made.calls, turn=turn_id(state["messages"]), plan=number)
        return {
            "plan": [PlannedCall(id=call.id, tool=call.tool, args=call.args, after=list(call.after)) for call in calls],
            "planned_by": made.by,
            "note": made.note,
            "plans": number,
            "results": [],
            "draft": None,
            "verdict": None,
        }

    return node


def _problem(state: AgentState) -> str:
    """For another plan in the same turn: what the last one gave, so that this one tries something else."""
    if not state.get("plans"):
        return ""
    lines = [
        f"- {result['tool']}: {'nothing useful' if result['ok'] else result['text'][:500]}"
        for result in state.get("results", [])
    ]
    tried = [f"- {call['tool']} {call['args']}" for call in state.get("plan", [])]
    return "\n".join(["An earlier plan did not lead to an answer; try another way.", *tried, "It gave:", *lines])
