"""A run and a thread with all that is known of them, and both as JSON values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from app.infra.effects import Effect
from app.infra.ids import RunId
from app.runs.administration.listing import RunSummary, ThreadSummary
from app.runs.events import Event
from app.runs.model import Run


@dataclass(frozen=True, slots=True)
class Place:
    """Where an unfinished run stands. Times are milliseconds of Redis's clock."""

    state: str
    """pending, waiting (behind another run of its thread), running, or how it was asked to stop."""
    position: int | None
    """Its place in the queue of its release or in its thread's line, 1 is next; None where it stands in none."""
    due_ms: int | None
    """When a worker may take it."""
    lease_ends_ms: int | None
    """Until when its worker holds it, unless that renews its lease."""


@dataclass(frozen=True, slots=True)
class RunDetail:
    """All that is known of a run."""

    run: Run
    place: Place | None
    """None once it has ended."""
    dead: bool
    """Whether it is a dead letter."""
    replayed_by: RunId | None
    effects: list[Effect]
    """What its tools have done, as the effect journal has it."""
    events: list[Event]
    """Its last events, oldest first."""


@dataclass(frozen=True, slots=True)
class ThreadDetail:
    """A thread beside its messages."""

    summary: ThreadSummary
    waiting: int
    """Runs behind the active one."""
    interrupts: list[dict[str, Any]]
    """What it waits for a person to answer, each as {id, value}."""
    runs: int
    """Runs of it that are remembered."""


def _identity(run: Run | RunSummary) -> dict[str, Any]:
    """What every view of a run begins with."""
    return {
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "tenant": run.tenant,
        "user": run.user,
        "graph": run.graph,
        "release": run.release,
        "status": run.status,
        "attempt": run.attempt,
        "created_at": iso(run.accepted_ms),
        "ended_at": iso(run.ended_ms),
    }


def summary_json(run: RunSummary) -> dict[str, Any]:
    """A run of a list."""
    return {
        **_identity(run),
        "error": run.error,
        "last_error": run.last_error,
        "checkpoint_id": run.checkpoint_id,
        "replayed_by": run.replayed_by,
    }


def run_json(run: Run) -> dict[str, Any]:
    """A whole run, what was asked and answered included."""
    return {
        **_identity(run),
        "input": run.input,
        "command": run.command,
        "result": run.result,
        "last_error": run.last_error,
        "checkpoint_id": run.checkpoint_id,
        "effects_root": run.effects_root,
        "replays": list(run.continues),
        "request_id": run.request_id,
    }


def detail_json(detail: RunDetail) -> dict[str, Any]:
    """A whole run with where it stands, what its tools did, and its last events."""
    place = detail.place
    return {
        **run_json(detail.run),
        "place": None
        if place is None
        else {
            "state": place.state,
            "position": place.position,
            "due_at": iso(place.due_ms),
            "lease_ends_at": iso(place.lease_ends_ms),
        },
        "dead_letter": detail.dead,
        "replayed_by": detail.replayed_by,
        "effects": [
            {
                "tool": effect.tool,
                "state": effect.state,
                "call_id": effect.call_id,
                "run_id": effect.run_id,
                "attempt": effect.attempt,
                "at": iso(effect.at_ms),
                "result": effect.result,
                "reason": effect.reason,
                "decided_by": effect.decided_by,
            }
            for effect in detail.effects
        ],
        "events": [
            {"id": event.id, "event": event.name, "attempt": event.attempt, "data": orjson.loads(event.data)}
            for event in detail.events
        ],
    }


def thread_summary_json(thread: ThreadSummary) -> dict[str, Any]:
    """A thread of a list."""
    return {
        "thread_id": thread.thread_id,
        "tenant": thread.tenant,
        "release": thread.release,
        "status": thread.status,
        "created_at": iso(thread.created_ms),
        "updated_at": iso(thread.updated_ms),
        "active_run_id": thread.active,
    }


def thread_json(thread: ThreadDetail) -> dict[str, Any]:
    """A thread beside its messages."""
    asked = thread.summary.asked
    return {
        **thread_summary_json(thread.summary),
        "waiting": thread.waiting,
        "asked": None if asked is None else {"run_id": asked, "interrupts": thread.interrupts},
        "runs": thread.runs,
    }


def exported(thread: ThreadDetail, messages: list[dict[str, Any]], runs: list[Run]) -> dict[str, Any]:
    """A thread as one value: what it is, what was said, and every run with its input and result."""
    return {"thread": thread_json(thread), "messages": messages, "runs": [run_json(run) for run in runs]}


def iso(milliseconds: int | None) -> str | None:
    """A moment of Redis's clock in ISO 8601, UTC."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
