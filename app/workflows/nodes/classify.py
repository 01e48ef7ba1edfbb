"""classify: begins the turn; says what the message is about, how difficult it is, and what is known about its user."""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from app.agents.told import about_user, answering
from app.infra.context import RunContext
from app.infra.errors import Unavailable
from app.infra.logging import get_logger
from app.memory.memories import Memories
from app.workflows.nodes.progress import progress
from app.workflows.services import AgentServices, Node
from app.workflows.state import AgentState, new_turn, question, told

_log = get_logger(__name__)

LEAST_SCORE = 0.25
"""Cosine similarity from which a memory is shown with a question that is not about memory. Low: it only adds a line."""


def classify(services: AgentServices) -> Node:
    """The node over `services`."""

    async def node(state: AgentState, runtime: Runtime[RunContext]) -> dict[str, Any]:
        progress(runtime, "classify")
        asked = question(state["messages"])
        found = await services.classifier.classify(asked)
        entry = services.writer.entry(found.complexity)
        memories = await _memories(runtime, asked, found.intent)
        known = answering(asked, [*told(state["messages"]), *memories])
        return {
            **new_turn(retries=min(services.max_answer_retries, entry.retries)),
            # What the user has told wins over where the examples would look: "my favourite tent" is no product.
            "intent": "memory" if known else found.intent,
            "complexity": found.complexity,
            "memories": memories,
        }

    return node


async def _memories(runtime: Runtime[RunContext], asked: str, intent: str) -> list[str]:
    """What is known of the user and fits the message.

    Nothing without a store or a user, for smalltalk that does not ask about the user, and while the store does not
    answer: an answer without what is known beats none.
    """
    needless = intent == "smalltalk" and not about_user(asked)
    if runtime.store is None or runtime.context is None or needless:
        return []
    least = 0.0 if intent == "memory" else LEAST_SCORE
    try:
        found = await Memories(runtime.store).recall(runtime.context.tenant, runtime.context.user, asked)
    except Unavailable:
        _log.warning("classify.memory_unavailable", exc_info=True)
        return []
    return [memory.text for memory in found if memory.score is None or memory.score >= least]
