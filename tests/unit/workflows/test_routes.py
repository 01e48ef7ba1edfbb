"""The conditional edges, as plain functions of a state."""

from __future__ import annotations

from typing import Any, cast

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from app.workflows import routes
from app.workflows.state import AgentState

PASSAGE = {"title": "t", "uri": "u", "excerpt": "e"}
CALL = {"id": "c", "tool": "search_documents", "args": {}, "after": []}


def state(**fields: Any) -> AgentState:
    return cast(AgentState, {"messages": [HumanMessage("q")], **fields})


def result(tool: str = "search_documents", *, passages: int = 1) -> dict[str, Any]:
    return {"id": "c", "tool": tool, "ok": True, "text": "", "passages": [PASSAGE] * passages}


def verdict(*, grounded: bool, refusal: bool = False) -> dict[str, Any]:
    return {"grounded": grounded, "score": 1.0, "problems": [], "refusal": refusal}


@pytest.mark.parametrize(
    ("intent", "next_node"),
    [("smalltalk", "answer"), ("documents", "plan"), ("data", "plan"), ("memory", "plan"), ("api", "plan")],
)
def test_only_smalltalk_is_answered_without_a_plan(intent: str, next_node: str) -> None:
    """A greeting must not wait for a search."""
    assert routes.after_classify(state(intent=intent)) == next_node


@pytest.mark.parametrize(
    ("fields", "next_node"),
    [
        ({"plan": [CALL], "planned_by": "default"}, "execute"),
        ({"plan": [], "planned_by": "gpt-5-mini", "intent": "documents"}, "answer"),
        ({"plan": [], "planned_by": "default", "intent": "documents"}, "compose"),
        ({"plan": [], "planned_by": "default", "intent": "memory", "memories": ["m"]}, "answer"),
        ({"plan": [], "planned_by": "default", "intent": "memory"}, "compose"),
        ({"plan": [], "planned_by": "default", "intent": "memory", "note": "memory is off"}, "compose"),
    ],
)
def test_after_the_plan(fields: dict[str, Any], next_node: str) -> None:
    """A model that nothing was looked up for would make an answer up."""
    assert routes.after_plan(state(**fields)) == next_node


def test_what_was_told_in_the_thread_can_answer_a_question_about_the_user() -> None:
    """ "What is my name?" right after it was said needs no long-term memory."""
    told = [HumanMessage("I am Max"), AIMessage("Hello Max"), HumanMessage("Who am I?")]
    assert routes.after_plan(state(messages=told, plan=[], planned_by="default", intent="memory")) == "answer"


@pytest.mark.parametrize(
    ("fields", "next_node"),
    [
        ({"results": [result()], "planned_by": "m", "plans": 1}, "answer"),
        ({"results": [result(passages=0)], "planned_by": "m", "plans": 1}, "plan"),
        ({"results": [result(passages=0)], "planned_by": "m", "plans": routes.MAX_PLANS}, "compose"),
        ({"results": [result(passages=0)], "planned_by": "default", "plans": 1}, "compose"),
        ({"results": [result("remember")], "planned_by": "m", "plans": 1}, "compose"),
        ({"results": [result("remember"), result()], "planned_by": "m", "plans": 1}, "answer"),
        ({"results": [result()], "planned_by": "default", "plans": 1, "note": "too small"}, "compose"),
    ],
)
def test_after_the_tools(fields: dict[str, Any], next_node: str) -> None:
    """Without a result there is nothing to write from; a default plan would only be the same again."""
    assert routes.after_execute(state(**fields)) == next_node


@pytest.mark.parametrize(("draft", "next_node"), [(AIMessage("a"), "validate"), (None, "compose")])
def test_a_draft_that_was_not_finished_is_not_validated(draft: AIMessage | None, next_node: str) -> None:
    """The model took too long: the passage is quoted instead."""
    assert routes.after_answer(state(draft=draft)) == next_node


@pytest.mark.parametrize(
    ("fields", "next_node"),
    [
        ({"verdict": verdict(grounded=True)}, "__end__"),
        ({"verdict": verdict(grounded=False), "retries_left": 0}, "answer"),
        ({"verdict": verdict(grounded=False), "retries_left": -1}, "compose"),
        (
            {"verdict": verdict(grounded=True, refusal=True), "results": [result()], "planned_by": "m", "plans": 1},
            "plan",
        ),
        (
            {"verdict": verdict(grounded=True, refusal=True), "results": [result()], "planned_by": "m", "plans": 2},
            "__end__",
        ),
        ({"verdict": verdict(grounded=True, refusal=True), "planned_by": "m", "plans": 1}, "__end__"),
    ],
)
def test_after_the_verdict(fields: dict[str, Any], next_node: str) -> None:
    """Retries are bounded, and "the results do not say" is the end only when nothing else can be tried."""
    assert routes.after_validate(state(**fields)) == next_node
