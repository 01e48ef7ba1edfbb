"""validate: accepts the draft as the answer, or says what in it the results do not support."""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from app.agents.passages import sources
from app.agents.text import asks
from app.agents.told import answering
from app.agents.validator import LEAST_SUPPORT, LEAST_TOLD_SUPPORT, Grounding, check, judge
from app.agents.writer import marked
from app.infra.context import RunContext
from app.workflows.nodes.progress import progress, superseded
from app.workflows.routes import led_nowhere
from app.workflows.services import AgentServices, Node
from app.workflows.state import AgentState, Verdict, passages, question, told

SMALL_REFUSAL = "a small model's refusal means little"


def validate(services: AgentServices) -> Node:
    """The node over `services`.

    Accepted: the draft becomes a message, with its sources. Refused: one retry less. A draft that finds nothing in the
    results while another plan may still be made is neither. In both other cases the client is told to drop its tokens.
    """

    async def node(state: AgentState, runtime: Runtime[RunContext]) -> dict[str, Any]:
        progress(runtime, "validate")
        draft = state.get("draft")
        if draft is None:
            raise ValueError("validate runs after answer: there is no draft in the state")
        found = passages(state.get("results", []))
        asked = question(state["messages"])
        grounding = await _ground(services, state, draft.text)
        verdict = Verdict(
            grounded=grounding.grounded,
            score=grounding.score,
            problems=list(grounding.problems),
            refusal=grounding.refusal,
        )
        if not grounding.grounded:
            superseded(runtime, draft.id, verdict["problems"])
            return {"verdict": verdict, "retries_left": state.get("retries_left", 0) - 1}
        if led_nowhere({**state, "verdict": verdict}):
            superseded(runtime, draft.id, ["the results do not hold the answer; looking elsewhere"])
            return {"verdict": verdict}
        named = [] if grounding.refusal else sources(draft.text, services.writer.shown(asked, found))
        return {"verdict": verdict, "messages": [draft], "sources": named}

    return node


async def _ground(services: AgentServices, state: AgentState, text: str) -> Grounding:
    found = passages(state.get("results", []))
    asked, memories = question(state["messages"]), state.get("memories", [])
    if not found:
        if state.get("intent") != "memory" or not asks(asked):
            return Grounding(bool(text.strip()), 1.0, () if text.strip() else ("the answer is empty",))
        return _of_user(services, state, text)
    grounding = check(text, [passage["excerpt"] for passage in found], asked, [*memories, *told(state["messages"])])
    if grounding.refusal and services.writer.entry(state.get("complexity", 0.0)).small:
        # Such a model says so of passages that hold the answer: the passage serves better.
        return Grounding(False, grounding.score, (SMALL_REFUSAL,), refusal=True)
    if services.judge_model is None:
        return grounding
    shown = marked(services.writer.shown(asked, found))
    return await judge(services.models, services.prompts, services.judge_model, text, shown, grounding)


def _of_user(services: AgentServices, state: AgentState, text: str) -> Grounding:
    """What somebody is told about themselves must have come from them."""
    asked = question(state["messages"])
    known = [*told(state["messages"]), *state.get("memories", [])]
    small = services.writer.entry(state.get("complexity", 0.0)).small
    grounding = check(text, known, asked, least=LEAST_SUPPORT if small else LEAST_TOLD_SUPPORT)
    if grounding.refusal and small and answering(asked, known):
        return Grounding(False, grounding.score, (SMALL_REFUSAL,), refusal=True)
    return grounding
