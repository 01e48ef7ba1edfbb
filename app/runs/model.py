"""A run as the rooms above see it: what was asked, where it stands, what came out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

import orjson

from app.infra.fence import Fence
from app.infra.ids import Release, RunId, TenantId, ThreadId, UserId


class Status(StrEnum):
    """Where a run stands; the names of LangGraph's API, and `cancelled`."""

    PENDING = "pending"
    """Written down; no worker has it. Also between two attempts, and behind another run of its thread."""
    RUNNING = "running"
    """A worker holds its lease."""
    SUCCESS = "success"
    ERROR = "error"
    """An attempt failed for good, or the last allowed one failed."""
    TIMEOUT = "timeout"
    """An attempt took longer than RUN_TIMEOUT_SECONDS."""
    INTERRUPTED = "interrupted"
    """The graph asked for a person; the answer is a new run on the same thread."""
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (Status.PENDING, Status.RUNNING)

    @property
    def failed(self) -> bool:
        """Whether a run that ended so is a dead letter; `finish.lua` says the same."""
        return self in (Status.ERROR, Status.TIMEOUT)


class Strategy(StrEnum):
    """What becomes of a thread's unfinished runs when another message comes; the names of LangGraph's API."""

    REJECT = "reject"
    """The new run is refused."""
    ENQUEUE = "enqueue"
    """The new run waits for them."""
    INTERRUPT = "interrupt"
    """They are stopped; the thread keeps what they have done so far."""
    ROLLBACK = "rollback"
    """They are stopped, and the thread is set back to what it was before them."""


class Stop(StrEnum):
    """How an unfinished run is asked to stop; kept as its state until its owner has stopped."""

    CANCEL = "cancelling"
    INTERRUPT = "interrupting"
    ROLLBACK = "rolling_back"

    @property
    def status(self) -> Status:
        """What the run ends as."""
        return Status.INTERRUPTED if self is Stop.INTERRUPT else Status.CANCELLED


STOPS = frozenset(str(stop) for stop in Stop)


def live_status(state: bytes | None) -> Status:
    """The status of a run that has not ended, by its entry in `Keys.states`."""
    held = state is not None and (state == b"running" or state.decode() in STOPS)
    return Status.RUNNING if held else Status.PENDING


@dataclass(frozen=True, slots=True)
class NewRun:
    """What is written when a run is accepted. `thread_id` None begins a thread."""

    run_id: RunId
    thread_id: ThreadId | None
    tenant: TenantId
    user: UserId
    graph: str
    input: dict[str, Any]
    """The graph's input; empty with `command`."""
    command: dict[str, Any] | None = None
    """{"resume": …}: the answer to what the thread's last run asked; it goes on where that run stopped."""
    answers: RunId | None = None
    """The run whose question `command` answers; None: the one that the thread waits for an answer to."""
    replays: Run | None = None
    """The failed run whose work this one goes on with, from its last checkpoint."""
    strategy: Strategy = Strategy.ENQUEUE
    after: timedelta = timedelta()
    """How long from now it may begin at the earliest."""
    request_id: str = ""
    traceparent: str = ""
    idempotency_key: str = ""
    """What the caller sent as Idempotency-Key; empty when it sent none."""
    digest: str = ""
    """SHA-256 of the request, 64 hexadecimal digits: the same key with another request is refused."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a request to start a run."""

    run_id: RunId
    thread_id: ThreadId | None
    """The run's thread; None when an earlier request with the same Idempotency-Key had made the run."""
    superseded: tuple[RunId, ...] = ()
    """Unfinished runs of the thread that this one's strategy stops."""

    @property
    def created(self) -> bool:
        """Whether this request made the run."""
        return self.thread_id is not None


@dataclass(frozen=True, slots=True)
class Run:
    """A run's record. `result` is there once it has ended; times are milliseconds of Redis's clock."""

    run_id: RunId
    thread_id: ThreadId
    tenant: TenantId
    user: UserId
    release: Release
    graph: str
    status: Status
    input: dict[str, Any] = field(repr=False)
    attempt: int
    accepted_ms: int
    ended_ms: int | None
    result: dict[str, Any] | None = field(repr=False)
    request_id: str
    traceparent: str
    effects_root: RunId
    """The run whose effect journal this one shares: itself, or the first of those whose work it goes on with."""
    command: dict[str, Any] | None = field(default=None, repr=False)
    answers: RunId | None = None
    """The run whose question its `command` answers; None also for the replay of an answer."""
    continues: tuple[RunId, ...] = ()
    """Runs whose checkpoints are this run's own: those that it replays."""
    strategy: Strategy = Strategy.ENQUEUE
    supersedes: tuple[RunId, ...] = ()
    """Runs of the thread that its strategy stopped, the newest first."""
    first: bool = False
    """It began its thread and runs before any other of it: there is no checkpoint yet."""
    last_error: str = ""
    """Class of the error that the last failed attempt ended with."""
    checkpoint_id: str = ""
    """Of a dead letter: the thread's newest checkpoint when the run ended."""

    @property
    def identity(self) -> dict[str, Any]:
        """What every result of the run begins with."""
        return {"run_id": self.run_id, "thread_id": self.thread_id, "release": self.release, "graph": self.graph}

    @classmethod
    def of(cls, record: dict[bytes, bytes], *, state: bytes | None, attempt: bytes | None) -> Run:
        """From the record and, while it is unfinished, its live state and attempt."""
        fields = {name.decode(): value.decode() for name, value in record.items()}
        status = Status(fields["status"]) if "status" in fields else live_status(state)
        result = orjson.loads(fields["result"]) if "result" in fields else None
        return cls(
            run_id=RunId(fields["run_id"]),
            thread_id=ThreadId(fields["thread_id"]),
            tenant=TenantId(fields["tenant"]),
            user=UserId(fields["user"]),
            release=Release(fields["release"]),
            graph=fields["graph"],
            status=status,
            input=orjson.loads(fields["input"]),
            attempt=int(attempt or 0) if result is None else result["attempt"],
            accepted_ms=int(fields["accepted_ms"]),
            ended_ms=int(fields["ended_ms"]) if "ended_ms" in fields else None,
            result=result,
            request_id=fields.get("request_id", ""),
            traceparent=fields.get("traceparent", ""),
            command=orjson.loads(fields["command"]) if fields.get("command") else None,
            answers=RunId(fields["answers"]) if fields.get("answers") else None,
            continues=run_ids(fields.get("continues", "")),
            effects_root=RunId(fields.get("effects_root") or fields["run_id"]),
            strategy=Strategy(fields.get("strategy", Strategy.ENQUEUE)),
            supersedes=run_ids(fields.get("supersedes", "")),
            first="first" in fields,
            last_error=fields.get("last_error", ""),
            checkpoint_id=fields.get("checkpoint_id", ""),
        )


def run_ids(text: str) -> tuple[RunId, ...]:
    """Run ids as records and scripts write them: separated by spaces."""
    return tuple(RunId(part) for part in text.split())


@dataclass(frozen=True, slots=True)
class Failure:
    """What a dead letter tells an operator, beside the result that its caller sees."""

    error: str
    """Class of the last error; empty when no attempt lived to tell."""
    checkpoint_id: str
    """The thread's newest checkpoint; empty when there is none."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt of a run, owned until the lease ends or a newer epoch is handed out."""

    run_id: RunId
    epoch: int
    attempt: int
    stop: Stop | None
    """It was asked to stop while nobody executed it: end it, do not start it."""
    waited_seconds: float
    """How long it had been due."""
    again: bool = False
    """It was claimed before, so that there may be a checkpoint of its own. A hand-over does not count as an attempt."""

    @property
    def fence(self) -> Fence:
        return Fence(self.run_id, self.epoch)


@dataclass(frozen=True, slots=True)
class Thread:
    """What the ledger knows of a conversation."""

    thread_id: ThreadId
    tenant: TenantId
    release: Release
    active: RunId | None
    """Its unfinished run."""
    asked: RunId | None = None
    """The run that ended by asking a person, until another run of the thread is accepted."""
    asked_root: RunId | None = None
    """The root of that run's effects."""
