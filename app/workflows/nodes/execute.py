"""execute: runs the plan's calls, independent ones at the same time, and asks a person where an outcome is unknown.

The question comes after all other calls, and is about all that need one. When the step is run again with the answer,
what the others gave comes from the effect journal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langgraph.runtime import Runtime

from app.agents import executor
from app.agents.passages import passages_of
from app.agents.planner import Call
from app.infra.context import RunContext
from app.tools.asking import Attempt, Questions
from app.tools.registry import ToolRegistry, ToolResult
from app.workflows.nodes.progress import progress
from app.workflows.services import AgentServices, Node
from app.workflows.state import AgentState, CallResult


def execute(services: AgentServices) -> Node:
    """The node over `services`."""

    async def node(state: AgentState, runtime: Runtime[RunContext]) -> dict[str, Any]:
        calls = [Call(call["id"], call["tool"], call["args"], tuple(call["after"])) for call in state.get("plan", [])]
        progress(runtime, "execute", tools=[call.tool for call in calls])
        results = await _results(services.tools, calls, runtime, concurrency=services.tool_concurrency)
        return {
            "results": [
                CallResult(
                    id=call.id,
                    tool=call.tool,
                    ok=results[call.id].ok,
                    text=results[call.id].text,
                    passages=passages_of(call.tool, results[call.id]),
                )
                for call in calls
            ]
        }

    return node


async def _results(
    tools: ToolRegistry, calls: Sequence[Call], runtime: Runtime[RunContext], *, concurrency: int
) -> dict[str, ToolResult]:
    # The id of this task is the same after a crash and resume: with the call's id it names the effect.
    task_id = "" if runtime.execution_info is None else runtime.execution_info.task_id
    context, questions = runtime.context, Questions()
    made: dict[str, Attempt] = {}

    async def invoke(call: Call) -> ToolResult | None:
        made[call.id] = await tools.attempt(call.tool, call.args, call_id=call.id, task_id=task_id, context=context)
        return made[call.id].result

    while True:
        found = await executor.execute(calls, invoke, concurrency=concurrency)
        in_order = [made[call.id] for call in calls if call.id in made]
        if context is None or not await questions.settle(in_order, context):
            return {id_: result for id_, result in found.items() if result is not None}
        made.clear()  # a person has decided: those calls are made or skipped, the others are in the journal
