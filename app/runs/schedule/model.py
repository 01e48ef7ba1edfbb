"""What a cron is, and what can be wrong with one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from app.infra.errors import Conflict, NotFound, SlipwayError
from app.infra.ids import Release, RunId, TenantId, ThreadId, UserId
from app.runs.model import Strategy
from app.runs.schedule.times import next_moment

_RUNS = uuid.UUID("5d1c1f0e-9f0b-5a55-9f8e-0f6f2f3b8a61")
"""Namespace of the ids of runs that crons start."""


class CronNotFound(NotFound):
    def __init__(self, cron_id: str) -> None:
        super().__init__(f"there is no cron {cron_id}", fix="GET /crons lists them")
        self.cron_id = cron_id


class TooManyCrons(Conflict):
    def __init__(self, most: int) -> None:
        super().__init__(f"there are {most} crons already", fix="delete some that are no longer needed")


class NeverDue(SlipwayError):
    """The schedule has no moment to come, or none before the cron's end."""

    def __init__(self) -> None:
        super().__init__(
            "the schedule never comes due", fix="choose a day that exists, and an end_at after its first time"
        )


@dataclass(frozen=True, slots=True)
class Cron:
    """A message for `graph` at each moment of `schedule`. Times are ms since 1970."""

    cron_id: str
    tenant: TenantId
    user: UserId
    graph: str
    message: str
    schedule: str
    """Five fields, see `app.runs.schedule.times`."""
    timezone: str
    thread_id: ThreadId | None
    """The conversation to go on with; None begins one each time."""
    strategy: Strategy
    """What to do when that conversation has an unfinished run."""
    release: Release
    """Whose workers execute it, while they are there."""
    enabled: bool
    created_ms: int
    end_ms: int | None = None
    next_ms: int | None = None
    last_ms: int | None = None
    """The last moment that came."""
    last_run_id: RunId | None = None
    last_error: str = ""
    """Why the last moment started no run."""
    revision: str = ""

    def after(self, moment_ms: int) -> int | None:
        """Its next moment after `moment_ms`, paused or not; None when it ends before."""
        found = next_moment(self.schedule, self.timezone, moment_ms)
        return None if found is None or (self.end_ms is not None and found > self.end_ms) else found

    def run_id(self, moment_ms: int) -> RunId:
        """The id of the run that this moment starts."""
        return RunId(str(uuid.uuid5(_RUNS, f"{self.cron_id}:{moment_ms}")))

    def fields(self) -> dict[str, str]:
        """What a caller may set, as it is stored."""
        return {
            "graph": self.graph,
            "message": self.message,
            "schedule": self.schedule,
            "timezone": self.timezone,
            "thread_id": self.thread_id or "",
            "strategy": str(self.strategy),
            "enabled": "1" if self.enabled else "",
            "end_ms": "" if self.end_ms is None else str(self.end_ms),
        }

    @classmethod
    def of(cls, record: Mapping[bytes, bytes], score: float | None) -> Cron:
        """From its record and its place among the moments to come."""
        stored = {name.decode(): value.decode() for name, value in record.items()}
        thread, end, last, run = (stored.get(name) for name in ("thread_id", "end_ms", "last_moment_ms", "last_run_id"))
        return cls(
            cron_id=stored["cron_id"],
            tenant=TenantId(stored["tenant"]),
            user=UserId(stored["user"]),
            graph=stored["graph"],
            message=stored["message"],
            schedule=stored["schedule"],
            timezone=stored["timezone"],
            thread_id=ThreadId(thread) if thread else None,
            strategy=Strategy(stored["strategy"]),
            release=Release(stored["release"]),
            enabled=stored["enabled"] == "1",
            created_ms=int(stored["created_ms"]),
            end_ms=int(end) if end else None,
            next_ms=None if score is None else int(score),
            last_ms=int(last) if last else None,
            last_run_id=RunId(run) if run else None,
            last_error=stored.get("last_error", ""),
            revision=stored["revision"],
        )


@dataclass(frozen=True, slots=True)
class NewCron:
    """What a cron is made from."""

    tenant: TenantId
    user: UserId
    graph: str
    message: str
    schedule: str
    timezone: str = "UTC"
    thread_id: ThreadId | None = None
    strategy: Strategy = Strategy.ENQUEUE
    end_ms: int | None = None
    enabled: bool = True
    idempotency_key: str = ""
    digest: str = ""
    """Of the request, to recognise another one under the same key."""
