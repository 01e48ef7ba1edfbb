"""The state of the built-in agent: the thread's messages, and what belongs to one turn.

Everything but messages is plain JSON, so that a checkpoint can be read by any version of the code and by people.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NotRequired, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph.message import add_messages

from app.agents.passages import Passage
from app.agents.told import facts, relevant


class PlannedCall(TypedDict):
    """One tool call of the plan. `id` is given in the plan node and stays the same over crash and resume."""

    id: str
    tool: str
    args: dict[str, Any]
    after: list[str]
    """Ids of calls that must have ended before."""


class CallResult(TypedDict):
    """What one call of the plan gave."""

    id: str
    tool: str
    ok: bool
    text: str
    passages: list[Passage]
    """The parts that can be named as sources, best first; empty when nothing was found."""


class Verdict(TypedDict):
    """What the validation found."""

    grounded: bool
    score: float
    """Share of the answer's content that the results support, 0 to 1."""
    problems: list[str]
    """What is not supported, in words that a retry can act on."""
    refusal: bool
    """The answer says that the results do not hold what was asked."""


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
    planned_by: NotRequired[str]
    """Name of the model that planned; `default` for the plan that the intent suggests."""
    note: NotRequired[str]
    """Why the answer is composed without a model; empty mostly."""
    plans: NotRequired[int]
    """Plans made in this turn."""
    results: NotRequired[list[CallResult]]
    draft: NotRequired[AIMessage | None]
    """The answer while it is not yet validated."""
    verdict: NotRequired[Verdict | None]
    draft_seconds: NotRequired[float]
    """What writing drafts has taken so far."""
    retries_left: NotRequired[int]
    """Drafts that may still be written when this one is refused."""
    sources: NotRequired[list[Passage]]
    """What the answer rests on."""


def new_turn(*, retries: int) -> dict[str, Any]:
    """The per-turn fields at the beginning of a turn; without it a thread would answer from the last turn's results."""
    return {
        "intent": "",
        "complexity": 0.0,
        "memories": [],
        "plan": [],
        "planned_by": "",
        "note": "",
        "plans": 0,
        "results": [],
        "draft": None,
        "verdict": None,
        "draft_seconds": 0.0,
        "retries_left": retries,
        "sources": [],
    }


def question(messages: Sequence[AnyMessage]) -> str:
    """What the user asked in this turn: the text of their last message."""
    place = _last_human(messages)
    return "" if place is None else messages[place].text


def earlier(messages: Sequence[AnyMessage]) -> list[AnyMessage]:
    """The thread before this turn."""
    place = _last_human(messages)
    return list(messages if place is None else messages[:place])


def told(messages: Sequence[AnyMessage]) -> list[str]:
    """What the user has told in this thread before this turn, sentence by sentence."""
    return facts([message.text for message in earlier(messages) if isinstance(message, HumanMessage)])


def known(state: AgentState) -> list[str]:
    """What the user has told, in the thread or to be remembered, that may answer this turn's question; best first."""
    return relevant(question(state["messages"]), told(state["messages"]), state.get("memories", []))


def turn_id(messages: Sequence[AnyMessage]) -> str:
    """Names the turn: the id of its message."""
    place = _last_human(messages)
    return "" if place is None else str(messages[place].id)


def passages(results: Sequence[CallResult]) -> list[Passage]:
    """All passages of the turn's results, the best of each call first, then the second best, and so on."""
    found = [result["passages"] for result in results]
    longest = max((len(part) for part in found), default=0)
    ranked = [part[rank] for rank in range(longest) for part in found if rank < len(part)]
    return list({(passage["uri"], passage["excerpt"]): passage for passage in ranked}.values())


def _last_human(messages: Sequence[AnyMessage]) -> int | None:
    return next(
        (place for place in range(len(messages) - 1, -1, -1) if isinstance(messages[place], HumanMessage)), None
    )
