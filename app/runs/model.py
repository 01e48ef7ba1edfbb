"""A run as the rooms above see it: what was asked, where it stands, what came out."""

from __future__ import annotations

from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class NewRun:
    """What is written when a run is accepted. `input` is the graph's input; `thread_id` None begins a thread."""

    run_id: RunId
    thread_id: ThreadId | None
    tenant: TenantId
    user: UserId
    graph: str
    input: dict[str, Any]
    request_id: str = ""
    traceparent: str = ""
    idempotency_key: str = ""
    """What the caller sent as Idempotency-Key; empty when it sent none."""
    digest: str = ""
    """SHA-256 of the request, 64 hexadecimal digits: the same key with another request is refused."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """`created` is False when an earlier request with the same Idempotency-Key had made the run."""

    run_id: RunId
    created: bool


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

    @property
    def identity(self) -> dict[str, Any]:
        """What every result of the run begins with."""
        return {"run_id": self.run_id, "thread_id": self.thread_id, "release": self.release, "graph": self.graph}

    @classmethod
    def of(cls, record: dict[bytes, bytes], *, state: bytes | None, attempt: bytes | None) -> Run:
        """From the record and, while it is unfinished, its live state and attempt."""
        fields = {name.decode(): value.decode() for name, value in record.items()}
        if "status" in fields:
            status = Status(fields["status"])
        else:
            status = Status.RUNNING if state in (b"running", b"cancelling") else Status.PENDING
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
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt of a run, owned until the lease ends or a newer epoch is handed out."""

    run_id: RunId
    epoch: int
    attempt: int
    cancelling: bool
    """Its cancellation was asked for while nobody executed it: end it, do not start it."""
    waited_seconds: float
    """How long it had been due."""

    @property
    def fence(self) -> Fence:
        return Fence(self.run_id, self.epoch)


@dataclass(frozen=True, slots=True)
class Thread:
    """What the ledger knows of a conversation. `active` is its unfinished run."""

    thread_id: ThreadId
    tenant: TenantId
    release: Release
    active: RunId | None
