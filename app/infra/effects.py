"""What is kept of a tool call so that its effect happens once: the contract between tools and the journal.

`app.tools` describes a call, `app.runs.effects` keeps the journal in Redis, a run's context carries it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from app.infra.errors import SlipwayError
from app.infra.ids import RunId


class EffectState(StrEnum):
    """Where a call stands."""

    INTENT = "intent"
    """It was about to be made. When nobody is making it any more, its outcome is as unknown as with UNKNOWN."""
    DONE = "done"
    FAILED = "failed"
    """It is certain that it did not do what was asked."""
    UNKNOWN = "unknown"
    """It was begun, and whether it took effect is not known."""
    AGAIN = "again"
    """Its outcome was unknown, and a person has decided that it is to be made again."""


OPEN = frozenset({EffectState.INTENT, EffectState.UNKNOWN})
"""States that say nothing of the outcome."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One call as the journal has it."""

    id: str
    """Digest of the call's key: the same for each making of the call."""
    state: EffectState
    tool: str
    call_id: str
    task_id: str
    run_id: RunId
    """The run that made it; a replay or the answer of a person may show it again."""
    attempt: int
    epoch: int
    nonce: str
    """Names this making of the call: the next one under the same key has another."""
    at_ms: int
    """When it was begun, on Redis's clock."""
    result: str = field(default="", repr=False)
    """What it gave, as text; of DONE and FAILED."""
    reason: str = ""
    """Why its outcome is unknown, for the person who is asked."""
    answers: int = 0
    """How many answers of persons its step had received when its outcome was decided; 0: nobody was asked."""
    decided_by: str = ""
    """The user who decided its outcome; empty when the tool did."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What making a call came to."""

    state: EffectState
    result: str = field(repr=False)
    """Text for the caller. Of UNKNOWN: what it is told should it turn out that nothing happened."""
    reason: str = ""
    """Of UNKNOWN: why."""


@dataclass(frozen=True, slots=True)
class EffectCall:
    """A call as its tool describes it to the journal."""

    key: str
    """Names the effect: tenant, thread, LangGraph's task id and the call's id together."""
    tool: str
    call_id: str
    task_id: str
    fingerprint: str
    """Tells two calls apart that bear the same id: digest of tool and arguments."""
    idempotent: bool
    timeout_seconds: float
    """After this long a call is no longer under way, wherever it was made."""
    perform: Callable[[], Awaitable[Outcome]]
    """Makes the call. What it raises stops the run, and leaves the outcome unknown."""
    lookup: Callable[[], Awaitable[Outcome | None]] | None = None
    """Asks the other system for the outcome; None: it did not happen."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person says of a call whose outcome is unknown."""

    effect: Effect
    state: EffectState
    """DONE, FAILED or AGAIN."""
    result: str = field(repr=False)
    """As a tool's result; empty for AGAIN."""


class CallIdReused(SlipwayError):
    """Two different calls of one step bear the same id: which of them an effect belongs to could not be told."""

    def __init__(self, call_id: str) -> None:
        super().__init__(
            f"the call id {call_id!r} is used twice in this step", fix="give each call of a step an id of its own"
        )


class EffectJournal(Protocol):
    """Makes calls so that each takes effect once for its key, whoever runs the step again."""

    async def perform(self, call: EffectCall) -> Effect:
        """The call's outcome: DONE or FAILED, made now or recorded before; UNKNOWN when a person must be asked.

        Raises `CallIdReused`, `StaleEpoch` (no call was made, the run is another worker's), `RedisUnavailable` (no
        call was made), and what the call raises.
        """
        ...

    async def decide(self, decisions: Sequence[Decision], *, by: str, answers: int) -> None:
        """Record what the person `by` decided with the step's answer number `answers`. Raises `StaleEpoch`,
        `RedisUnavailable`; doing it again changes nothing."""
        ...
