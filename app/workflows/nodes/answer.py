"""answer: a model writes a draft, from the results or, where no tool was needed, from the conversation."""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from app.agents.writer import Task
from app.infra.context import RunContext
from app.workflows.nodes.progress import progress
from app.workflows.services import AgentServices, Node
from app.workflows.state import AgentState, earlier, passages, question


def answer(services: AgentServices) -> Node:
    """The node over `services`. Its tokens reach the client as they come."""

    async def node(state: AgentState, runtime: Runtime[RunContext]) -> dict[str, Any]:
        progress(runtime, "answer")
        verdict = state.get("verdict")
        task = Task(
            question=question(state["messages"]),
            passages=passages(state.get("results", [])),
            memories=state.get("memories", []),
            earlier=earlier(state["messages"]),
            complexity=state.get("complexity", 0.0),
            problems=verdict["problems"] if verdict else (),
        )
        write = services.writer.answer if task.passages else services.writer.converse
        return {"draft": await write(task)}

    return node
