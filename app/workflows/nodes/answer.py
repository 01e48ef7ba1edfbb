"""answer: a model writes a draft, from the results or, where no tool was needed, from the conversation."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from langgraph.runtime import Runtime

from app.agents.writer import Task
from app.infra.context import RunContext
from app.workflows.nodes.progress import progress, superseded
from app.workflows.services import AgentServices, Node
from app.workflows.state import AgentState, earlier, known, passages, question


def answer(services: AgentServices) -> Node:
    """The node over `services`. Its tokens reach the client as they come; without time left there is no draft."""

    async def node(state: AgentState, runtime: Runtime[RunContext]) -> dict[str, Any]:
        progress(runtime, "answer")
        verdict = state.get("verdict")
        task = Task(
            question=question(state["messages"]),
            passages=passages(state.get("results", [])),
            memories=known(state) if state.get("intent") == "memory" else state.get("memories", []),
            earlier=earlier(state["messages"]),
            complexity=state.get("complexity", 0.0),
            problems=verdict["problems"] if verdict else (),
        )
        write = services.writer.answer if task.passages else services.writer.converse
        entry, spent = services.writer.entry(task.complexity), state.get("draft_seconds", 0.0)
        started = time.monotonic()
        try:
            async with asyncio.timeout(entry.answer_seconds - spent):
                draft = await write(task)
        except TimeoutError:
            note = f"{entry.name} did not finish an answer within {entry.answer_seconds:g} s."
            superseded(runtime, None, [note])
            return {"draft": None, "note": note}
        return {"draft": draft, "draft_seconds": spent + time.monotonic() - started}

    return node
