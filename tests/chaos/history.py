"""The history: what clients sent and saw, what Redis held in the end, what reached the outside world.

Times are seconds since the start. Nothing here judges; `checker.py` does.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.outside import Effect, Held
from tests.chaos.plan import Plan, Turn


@dataclass(slots=True)
class Reply:
    """One request and its answer; `status` 0 when the connection broke instead."""

    at: float
    request: str
    api: int
    status: int
    run_id: str = ""
    note: str = ""


@dataclass(slots=True)
class Seen:
    """One event as a client got it."""

    at: float
    id: str
    name: str
    data: Any


@dataclass(slots=True)
class Stream:
    """One client's view of one run's events, over all its connections."""

    client: str
    run_id: str
    events: list[Seen] = field(default_factory=list)
    connections: list[tuple[float, int, str]] = field(default_factory=list)
    """When, to which api, after which event."""
    refused_over: bool = False
    """An api said (204) that nothing was left to send."""


@dataclass(slots=True)
class Look:
    """One GET /runs/{run_id}."""

    at: float
    run_id: str
    status: str
    result: dict[str, Any] | None


@dataclass(slots=True)
class TurnHistory:
    """Everything that happened around one message. `runs` are the run itself, then one per answer of a person."""

    turn: Turn
    talk: str
    key: str
    thread_id: str = ""
    runs: list[str] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    answers: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Results that `/chat` gave, with their run."""
    decisions: list[tuple[float, str, Any]] = field(default_factory=list)
    """What the person was asked in a run, and said."""
    cancelled: bool = False
    """Its client asked for cancellation and was told that it was taken."""
    unfinished: str = ""
    """Why its client gave up, if it did."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An entry of a run's stream in Redis; `epoch` 0 where the entry names none."""

    id: str
    name: str
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run in Redis at the end."""

    run_id: str
    thread_id: str
    status: str | None
    result: dict[str, Any] | None
    events: tuple[StoredEvent, ...]


@dataclass(frozen=True, slots=True)
class StoredThread:
    """A thread in Redis at the end: its state, and the nodes that still wait to run."""

    thread_id: str
    state: dict[str, Any]
    waiting: tuple[str, ...]
    active: str | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """What one talk comes to without faults: the state, each turn's answer, and its calls with their tools."""

    state: dict[str, Any]
    answers: dict[str, str]
    calls: dict[str, dict[str, str]]


@dataclass(slots=True)
class History:
    """All of it."""

    plan: Plan
    turns: dict[str, TurnHistory] = field(default_factory=dict)
    notes: list[tuple[float, str]] = field(default_factory=list)
    """Faults, and what was put right."""
    runs: dict[str, StoredRun] = field(default_factory=dict)
    threads: dict[str, StoredThread] = field(default_factory=dict)
    leftovers: dict[str, int] = field(default_factory=dict)
    """Keys of the ledger that should be empty when nothing is left to do, with their sizes."""
    effects: list[Effect] = field(default_factory=list)
    claims: list[Held] = field(default_factory=list)
    expected: dict[str, Expected] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    started_wall: float = field(default_factory=time.time)

    def now(self) -> float:
        return time.monotonic() - self.started

    def note(self, text: str) -> None:
        self.notes.append((self.now(), text))

    def talk_of(self, tag: str) -> list[TurnHistory]:
        """All turns of the thread that `tag` is a turn of, in order."""
        return [found for found in self.turns.values() if found.talk == self.turns[tag].talk]

    def tell(self, tag: str) -> str:
        """The history of a turn's thread, one line per thing that happened, in order of time."""
        lines: list[tuple[float, str]] = []
        for turn in self.talk_of(tag):
            lines += self._of_turn(turn)
        first = min((at for at, _ in lines), default=0.0)
        last = max((at for at, _ in lines), default=0.0)
        lines += [(at, f"   !! {text}") for at, text in self.notes if first - 2 <= at <= last + 2]
        told = [f"{at:9.3f}  {text}" for at, text in sorted(lines)]
        for turn in self.talk_of(tag):
            for run_id in turn.runs:
                if (stored := self.runs.get(run_id)) is not None:
                    entries = " ".join(f"{event.id}:{event.name}@{event.epoch or '-'}" for event in stored.events)
                    told.append(f"   stored  {run_id} {stored.status} {entries}")
            if (thread := self.threads.get(turn.thread_id)) is not None:
                told.append(f"   thread  {thread}")
        told.append(f"   without faults {self.expected.get(self.turns[tag].talk)}")
        return "\n".join(told)

    def _of_turn(self, turn: TurnHistory) -> list[tuple[float, str]]:
        tag = turn.turn.tag
        lines = [
            (reply.at, f"{tag} api{reply.api} {reply.request} -> {reply.status} {reply.run_id} {reply.note}")
            for reply in turn.replies
        ]
        for stream in turn.streams:
            who = f"{tag} {stream.client}"
            lines += [(at, f"{who} connects to api{api} after {after}") for at, api, after in stream.connections]
            lines += [(seen.at, f"{who} {seen.id} {seen.name} {str(seen.data)[:160]}") for seen in stream.events]
        lines += [(look.at, f"{tag} looks at {look.run_id}: {look.status}") for look in turn.looks]
        lines += [(at, f"{tag} a person answers {run_id}: {said}") for at, run_id, said in turn.decisions]
        lines += [
            (effect.at - self.started_wall, f"{tag} EFFECT {dataclasses.astuple(effect)}")
            for effect in self.effects
            if effect.tag == tag
        ]
        lines += [
            (held.at - self.started_wall, f"{tag} step of {held.run_id} at epoch {held.epoch} in pid {held.pid}")
            for held in self.claims
            if held.run_id in turn.runs
        ]
        return lines
