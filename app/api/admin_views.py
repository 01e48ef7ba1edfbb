"""What the `/admin` routes answer with: the JSON of `app.runs.administration.details`, described."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.runs.administration.backlog import Backlog
from app.runs.administration.details import RunDetail, detail_json, summary_json
from app.runs.administration.listing import Listing


class _RunView(BaseModel):
    """What every view of a run begins with."""

    run_id: str
    thread_id: str
    tenant: str
    user: str
    graph: str
    release: str
    status: str = Field(description="pending, running, success, error, timeout, interrupted or cancelled")
    attempt: int = Field(description="Attempts begun so far.")
    created_at: datetime
    ended_at: datetime | None


class RunSummaryView(_RunView):
    """A run in a list."""

    error: str = Field(description="Kind of the error that it failed with; empty when it did not.")
    last_error: str = Field(description="Class of the last attempt's error; empty when there was none.")
    checkpoint_id: str = Field(description="Of a dead letter: the checkpoint from which a replay goes on.")
    replayed_by: str | None = Field(description="The run that goes on with its work.")


class RunList(BaseModel):
    """Runs, newest first."""

    runs: list[RunSummaryView]
    complete: bool = Field(description="false: only the newest ones were looked at, older ones may fit the filter too.")

    @classmethod
    def of(cls, listing: Listing) -> RunList:
        return cls.model_validate({"runs": map(summary_json, listing.runs), "complete": listing.complete})


class PlaceView(BaseModel):
    """Where an unfinished run stands."""

    state: str = Field(
        description="pending, waiting (behind another run of its thread), running, or how it was asked to stop."
    )
    position: int | None = Field(description="Its place in the queue or in its thread's line; 1 is next.")
    due_at: datetime | None = Field(description="When a worker may take it.")
    lease_ends_at: datetime | None = Field(description="Until when its worker holds it, unless that renews its lease.")


class EffectView(BaseModel):
    """What one tool call did."""

    tool: str
    state: str = Field(description="intent, done, failed, unknown, or again (a person decided so).")
    call_id: str
    run_id: str = Field(description="The run that made the call.")
    attempt: int
    at: datetime
    result: str
    reason: str = Field(description="Why its outcome is unknown.")
    decided_by: str = Field(description="The user who decided its outcome; empty when the tool did.")


class EventView(BaseModel):
    """An event of the run's stream."""

    id: str
    event: str
    attempt: str
    data: Any


class RunDetailView(_RunView):
    """A run with all that is known of it."""

    input: dict[str, Any]
    command: dict[str, Any] | None = Field(description="The answer of a person that it began with.")
    result: dict[str, Any] | None
    last_error: str = Field(description="Class of the last attempt's error; empty when there was none.")
    checkpoint_id: str = Field(description="Of a dead letter: the checkpoint from which a replay goes on.")
    effects_root: str = Field(description="The run under which the effects of its tools are kept.")
    replays: list[str] = Field(description="The runs whose work it goes on with.")
    request_id: str
    place: PlaceView | None = Field(description="Where it stands; null once it has ended.")
    dead_letter: bool
    replayed_by: str | None = Field(description="The run that goes on with its work.")
    effects: list[EffectView]
    events: list[EventView] = Field(description="Its last events, oldest first.")

    @classmethod
    def of(cls, detail: RunDetail) -> RunDetailView:
        return cls.model_validate(detail_json(detail))


class ThreadSummaryView(BaseModel):
    """A thread in a list."""

    thread_id: str
    tenant: str
    release: str = Field(description="The release that the thread stays on.")
    status: Literal["idle", "busy", "interrupted"] = Field(description="interrupted: it waits for a person's answer.")
    created_at: datetime
    updated_at: datetime | None = Field(description="When its last run ended.")
    active_run_id: str | None = Field(description="Its unfinished run, if any.")


class ThreadExport(BaseModel):
    """A thread with all that was said and done in it."""

    thread: dict[str, Any]
    messages: list[dict[str, Any]] = Field(description="Each with `type` (human, ai, tool…), `id` and `content`.")
    runs: list[dict[str, Any]] = Field(description="Its runs with input and result, oldest first.")


class Replay(BaseModel):
    """What became of one dead letter."""

    replayed: str
    run_id: str | None = Field(description="The run that goes on with its work; null when it was refused.")
    error: str = Field("", description="Why it was refused.")


class Dropped(BaseModel):
    dropped: int = Field(description="How many dead letters there were.")


class ReleaseBacklogView(BaseModel):
    """One release's queue."""

    release: str
    due: int = Field(description="Runs that a worker could take now.")
    running: int
    pausing: int = Field(description="Runs due within a minute: put off, or before another attempt.")
    oldest_due_seconds: float = Field(description="How long the longest-due run has been due.")
    workers_seen_seconds: float | None = Field(description="How long ago a worker was heard; null: never.")


class BacklogView(BaseModel):
    """What of the tenant's waits and runs."""

    releases: list[ReleaseBacklogView]
    behind: int = Field(description="Runs behind another run of their thread.")
    later: int = Field(description="Runs that begin more than a minute from now.")
    dead: int = Field(description="Dead letters.")
    complete: bool = Field(description="false: there is too much to count it all, these numbers are the least.")

    @classmethod
    def of(cls, backlog: Backlog) -> BacklogView:
        return cls.model_validate(asdict(backlog))
