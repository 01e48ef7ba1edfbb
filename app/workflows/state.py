"""The state of the built-in agent: the thread's messages, and what belongs to one turn.

Everything but messages is plain JSON, so that a checkpoint can be read by any version of the code and by people.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph.message import add_messages


class PlannedCall(TypedDict):
    """One tool call of the plan. `id` is given in the plan node and stays the same over crash and resume."""

    id: str
    tool: str
    args: dict[str, Any]
    after: list[str]
    """Ids of calls that must have ended before."""


class SourceDict(TypedDict):
    """A source that the answer rests on."""

    title: str
    uri: str
    excerpt: str


class ResultDict(TypedDict):
    """What one call of the plan gave."""

    id: str
    tool: str
    ok: bool
    text: str
    passages: list[SourceDict]
    """The parts that can be named as sources, best first; empty when nothing was found."""


class Verdict(TypedDict):
    """What the validation found."""

    grounded: bool
    score: float
    """Share of the answer's content that the results support, 0 to 1."""
    problems: list[str]
    """What is not supported, in words that a retry can act on."""


class AgentState(TypedDict):
    """State of a thread. All but `messages` is set anew at the beginning of each turn: see `new_turn`."""

    messages: Annotated[list[AnyMessage], add_messages]
    intent: NotRequired[str]
    """documents, data, api, memory or smalltalk."""
    complexity: NotRequired[float]
    """How difficult the question is, 0 to 1."""
    memories: NotRequired[list[str]]
    """What is known about the user and fits the message."""
    plan: NotRequired[list[PlannedCall]]
    plan_note: NotRequired[str]
    """What the user should know about the plan, such as what this model cannot do; empty mostly."""
    results: NotRequired[list[ResultDict]]
    draft: NotRequired[AIMessage | None]
    """The answer while it is not yet validated."""
    verdict: NotRequired[Verdict | None]
    answers: NotRequired[int]
    """Drafts written in this turn."""
    plans: NotRequired[int]
    """Plans made in this turn."""
    sources: NotRequired[list[SourceDict]]
    """What the answer rests on."""


def new_turn() -> dict[str, Any]:
    """The per-turn fields at the beginning of a turn; without it a thread would answer from the last turn's results."""
    return {
        "intent": "",
        "complexity": 0.0,
        "memories": [],
        "plan": [],
        "plan_note": "",
        "results": [],
        "draft": None,
        "verdict": None,
        "answers": 0,
        "plans": 0,
        "sources": [],
    }
