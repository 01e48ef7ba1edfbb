"""compose: answers without a model: confirms what was remembered, quotes, or says that nothing was found."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage
from langgraph.runtime import Runtime

from app.agents.passages import EXCERPT_CHARS, Passage, fits, window
from app.agents.writer import composed, nothing_found, quotation, remembered
from app.infra.context import RunContext
from app.workflows.nodes.progress import progress
from app.workflows.routes import beyond_model, only_writes
from app.workflows.services import Node
from app.workflows.state import AgentState, known, passages, question


def compose() -> Node:
    """The node; it needs no services."""

    async def node(state: AgentState, runtime: Runtime[RunContext]) -> dict[str, Any]:
        progress(runtime, "compose")
        message, named = _answer(state)
        return {"messages": [message], "sources": named, "draft": None}

    return node


def _answer(state: AgentState) -> tuple[AIMessage, list[Passage]]:
    results, draft = state.get("results", []), state.get("draft")
    model = "" if draft is None else str(draft.response_metadata.get("model_name", ""))
    note, asked = state.get("note", ""), question(state["messages"])
    if only_writes(results):
        return composed("\n".join(result["text"] for result in results), kind="confirmation"), []
    found = passages(results)
    if beyond_model(state):
        # Documents were searched in lieu of the data: what they say may have nothing to do with it.
        found = [passage for passage in found if fits(passage, asked)]
        if not found:
            return composed(note, model=model, kind="note"), []
    if found:
        message, best = quotation(asked, found, model=model, note=note)
        return message, [
            Passage(title=best["title"], uri=best["uri"], excerpt=window(best["excerpt"], asked, EXCERPT_CHARS))
        ]
    if note and not results:
        return composed(note, model=model, kind="note"), []
    if state.get("intent") == "memory":
        return remembered(known(state), model=model), []
    failures = [result["text"] for result in results if not result["ok"]]
    return nothing_found(model=model, note=note, failures=failures), []
