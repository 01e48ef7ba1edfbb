"""Which node comes next: plain functions of the state, tested alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from app.agents.planner import DEFAULT, REMEMBER
from app.workflows.state import AgentState, CallResult, known, passages

MAX_PLANS = 2
"""Plans per turn: one more when the first led nowhere."""

END: Literal["__end__"] = "__end__"


def after_classify(state: AgentState) -> Literal["plan", "answer"]:
    """Smalltalk needs no tools; everything else is planned."""
    return "answer" if state.get("intent") == "smalltalk" else "plan"


def after_plan(state: AgentState) -> Literal["execute", "answer", "compose"]:
    """Without calls, a model answers where that was its own plan, or what the user told may hold the answer.

    Else there was nothing to look the answer up in, and a model would make one up.
    """
    if state.get("plan"):
        return "execute"
    if state.get("note"):
        return "compose"
    if state.get("planned_by") not in ("", DEFAULT):
        return "answer"
    return "answer" if state.get("intent") == "memory" and known(state) else "compose"


def after_execute(state: AgentState) -> Literal["plan", "answer", "compose"]:
    """An answer is written only from results: where there are none, another plan is made, or that is said."""
    results = state.get("results", [])
    if only_writes(results) or state.get("note"):
        return "compose"
    if passages(results):
        return "answer"
    return "plan" if may_plan_again(state) else "compose"


def after_answer(state: AgentState) -> Literal["validate", "compose"]:
    """No draft: the model took too long, and the note says so."""
    return "compose" if state.get("draft") is None else "validate"


def after_validate(state: AgentState) -> Literal["plan", "answer", "compose", "__end__"]:
    """The end for an accepted draft, except one that only says that the results do not help: see `led_nowhere`."""
    verdict = state.get("verdict")
    if verdict is None or not verdict["grounded"]:
        return "answer" if state.get("retries_left", -1) >= 0 else "compose"
    return "plan" if led_nowhere(state) else END


def may_plan_again(state: AgentState) -> bool:
    """Whether another plan could differ: a default plan would be the same again."""
    return state.get("planned_by") not in ("", DEFAULT) and state.get("plans", 0) < MAX_PLANS


def led_nowhere(state: AgentState) -> bool:
    """Whether the draft only says that the results do not hold what was asked, and another plan may still be made."""
    verdict = state.get("verdict")
    return verdict is not None and verdict["refusal"] and bool(state.get("results")) and may_plan_again(state)


def beyond_model(state: AgentState) -> bool:
    """Whether the question needs what the model cannot do, queries or web services, as the default plan's note says."""
    needs = state.get("intent") in ("data", "api")
    return needs and state.get("planned_by") == DEFAULT and bool(state.get("note"))


def only_writes(results: Sequence[CallResult]) -> bool:
    """Whether all that was done was to remember something: there is nothing to write an answer from."""
    return bool(results) and all(result["tool"] == REMEMBER for result in results)
