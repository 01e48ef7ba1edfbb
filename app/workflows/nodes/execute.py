"""execute: runs the plan's calls, independent ones at the same time."""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from app.agents import executor
from app.agents.passages import passages_of
from app.agents.planner import Call
from app.infra.context import RunContext
from app.tools.registry import ToolResult
from app.workflows.nodes.progress import progress
from app.workflows.services import AgentServices, Node
from app.workflows.state import AgentState, CallResult


def execute(services: AgentServices) -> Node:
    """The node over `services`."""

    async def node(state: AgentState, runtime: Runtime[RunContext]) -> dict[str, Any]:
        calls = [Call(call["id"], call["tool"], call["args"], tuple(call["after"])) for call in state.get("plan", [])]
        progress(runtime, "execute", tools=[call.tool for call in calls])
        # The id of this task is the same after a crash and resume: with the call's id it names the effect.
        task_id = "" if runtime.execution_info is None else runtime.execution_info.task_id

        async def invoke(call: Call) -> ToolResult:
            return await services.tools.invoke(
                call.tool, call.args, call_id=call.id, task_id=task_id, context=runtime.context
            )

        results = await executor.execute(calls, invoke, concurrency=services.tool_concurrency)
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
