"""Lists of runs and threads, newest first: read in pages from the indexes of tenants, records only as far as shown."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from app.infra.ids import Release, RunId, TenantId, ThreadId, UserId
from app.infra.keys import Keys
from app.infra.redis import outages
from app.runs.model import Status, live_status

_PAGE = 100
MOST_LOOKED_AT = 10_000
"""Index entries that one listing looks at, however few fit its filter."""
THREAD_FIELDS = ("tenant", "release", "created_ms", "updated_ms", "active", "asked")
_FIELDS = ("thread_id", "tenant", "user", "graph", "release", "accepted_ms", "status", "ended_ms")
_FIELDS_OF_ENDED = ("result", "last_error", "checkpoint_id", "replayed_by")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run in a list: without what was asked and answered. Times are milliseconds of Redis's clock."""

    run_id: RunId
    thread_id: ThreadId
    tenant: TenantId
    user: UserId
    graph: str
    release: Release
    status: Status
    attempt: int
    accepted_ms: int
    ended_ms: int | None
    error: str
    """Why it failed: the kind of its result's error; empty when it did not."""
    last_error: str
    """Class of the last attempt's error."""
    checkpoint_id: str
    """From which a replay of a dead letter goes on; empty when it begins anew."""
    replayed_by: RunId | None


@dataclass(frozen=True, slots=True)
class ThreadSummary:
    """A thread in a list. Times are milliseconds of Redis's clock."""

    thread_id: ThreadId
    tenant: TenantId
    release: Release
    created_ms: int
    updated_ms: int | None
    """When its last run ended."""
    active: RunId | None
    """Its unfinished run."""
    asked: RunId | None
    """The run that waits for a person's answer."""

    @property
    def status(self) -> str:
        """As LangGraph's API names it: busy, interrupted (it waits for a person) or idle."""
        return "busy" if self.active else "interrupted" if self.asked else "idle"


@dataclass(frozen=True, slots=True)
class Listing:
    """Runs, newest first. `complete` is False when the look stopped at `MOST_LOOKED_AT` index entries."""

    runs: list[RunSummary]
    complete: bool


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are wanted; None admits any."""

    status: Status | None = None
    graph: str | None = None
    release: str | None = None

    def admits(self, status: Status, record: dict[str, str]) -> bool:
        return (
            self.status in (None, status)
            and self.graph in (None, record["graph"])
            and self.release in (None, record["release"])
        )


async def newest_runs(
    client: Any,
    keys: Keys,
    index: Callable[[TenantId], str],
    tenants: Sequence[TenantId],
    wanted: RunFilter,
    *,
    limit: int,
) -> Listing:
    """At most `limit` runs out of the indexes `index(tenant)`, merged. Raises `RedisUnavailable`.

    Members whose record has expired are passed over.
    """
    found: list[RunSummary] = []
    looked = 0
    async for page in _merged(client, [index(tenant) for tenant in tenants]):
        looked += len(page)
        found += await _summaries(client, keys, [RunId(member) for member in page], wanted)
        if len(found) >= limit:
            return Listing(found[:limit], complete=True)
        if looked >= MOST_LOOKED_AT:
            return Listing(found, complete=False)
    return Listing(found, complete=True)


async def newest_threads(client: Any, keys: Keys, tenants: Sequence[TenantId], *, limit: int) -> list[ThreadSummary]:
    """At most `limit` threads, the last to change first. Raises `RedisUnavailable`. Expired ones are passed over."""
    found: list[ThreadSummary] = []
    async for page in _merged(client, [keys.threads_of(tenant) for tenant in tenants]):
        with outages():
            async with client.pipeline(transaction=False) as pipe:
                for member in page:
                    pipe.hmget(keys.thread(ThreadId(member)), THREAD_FIELDS)
                records = await pipe.execute()
        threads = [thread_summary(ThreadId(member), values) for member, values in zip(page, records, strict=True)]
        found += [thread for thread in threads if thread is not None]
        if len(found) >= limit:
            break
    return found[:limit]


def thread_summary(thread_id: ThreadId, values: Sequence[bytes | None]) -> ThreadSummary | None:
    """From the thread's `THREAD_FIELDS`; None for one that is not there, or is being deleted."""
    tenant, release, created, updated, active, asked = (value.decode() if value else "" for value in values)
    if not tenant:
        return None
    return ThreadSummary(
        thread_id=thread_id,
        tenant=TenantId(tenant),
        release=Release(release),
        created_ms=int(created or 0),
        updated_ms=int(updated) if updated else None,
        active=RunId(active) if active else None,
        asked=RunId(asked) if asked else None,
    )


async def all_tenants(client: Any, keys: Keys) -> list[TenantId]:
    """Every tenant that has had a run, by name."""
    with outages():
        return sorted([TenantId(tenant.decode()) async for tenant in client.sscan_iter(keys.tenants, count=_PAGE)])


async def _summaries(client: Any, keys: Keys, runs: list[RunId], wanted: RunFilter) -> list[RunSummary]:
    with outages():
        async with client.pipeline(transaction=False) as pipe:
            pipe.hmget(keys.states, runs)
            pipe.hmget(keys.attempts, runs)
            for run_id in runs:
                pipe.hmget(keys.run(run_id), _FIELDS)
            states, attempts, *records = await pipe.execute()
    known = []
    for run_id, state, attempt, values in zip(runs, states, attempts, records, strict=True):
        record = {name: value.decode() for name, value in zip(_FIELDS, values, strict=True) if value is not None}
        if "tenant" not in record:
            continue  # expired
        status = Status(record["status"]) if "status" in record else live_status(state)
        if wanted.admits(status, record):
            known.append((run_id, status, int(attempt or 0), record))
    ended: dict[RunId, tuple[bytes | None, ...]] = {}
    if over := [run_id for run_id, status, _, _ in known if status.ended]:
        with outages():
            async with client.pipeline(transaction=False) as pipe:
                for run_id in over:
                    pipe.hmget(keys.run(run_id), _FIELDS_OF_ENDED)
                ended = dict(zip(over, await pipe.execute(), strict=True))
    return [_summary(run_id, status, attempt, record, ended.get(run_id)) for run_id, status, attempt, record in known]


def _summary(
    run_id: RunId, status: Status, attempt: int, record: dict[str, str], ended: tuple[bytes | None, ...] | None
) -> RunSummary:
    raw, last_error, checkpoint_id, replayed_by = ended or (None, None, None, None)
    result = orjson.loads(raw) if raw else {}
    return RunSummary(
        run_id=run_id,
        thread_id=ThreadId(record["thread_id"]),
        tenant=TenantId(record["tenant"]),
        user=UserId(record["user"]),
        graph=record["graph"],
        release=Release(record["release"]),
        status=status,
        attempt=result.get("attempt", attempt),
        accepted_ms=int(record["accepted_ms"]),
        ended_ms=int(record["ended_ms"]) if "ended_ms" in record else None,
        error=result.get("error", {}).get("kind", ""),
        last_error=(last_error or b"").decode(),
        checkpoint_id=(checkpoint_id or b"").decode(),
        replayed_by=RunId(replayed_by.decode()) if replayed_by else None,
    )


async def _merged(client: Any, indexes: list[str]) -> AsyncIterator[list[str]]:
    """The members of several indexes by falling score, in pages; each once, though new ones push others down."""
    waiting: list[deque[tuple[bytes, float]]] = [deque() for _ in indexes]
    offsets = [0] * len(indexes)
    heap: list[tuple[float, int]] = []

    async def refill(which: list[int]) -> None:
        with outages():
            async with client.pipeline(transaction=False) as pipe:
                for i in which:
                    pipe.zrevrange(indexes[i], offsets[i], offsets[i] + _PAGE - 1, withscores=True)
                pages = await pipe.execute()
        for i, page in zip(which, pages, strict=True):
            offsets[i] += len(page)
            waiting[i].extend((member, float(score)) for member, score in page)
            if waiting[i]:
                heapq.heappush(heap, (-waiting[i][0][1], i))

    for start in range(0, len(indexes), _PAGE):
        await refill(list(range(start, min(start + _PAGE, len(indexes)))))
    seen: set[bytes] = set()
    page: list[str] = []
    while heap:
        _, i = heapq.heappop(heap)
        member, _ = waiting[i].popleft()
        if waiting[i]:
            heapq.heappush(heap, (-waiting[i][0][1], i))
        else:
            await refill([i])
        if member not in seen:
            seen.add(member)
            page.append(member.decode())
        if len(page) == _PAGE:
            yield page
            page = []
    if page:
        yield page
