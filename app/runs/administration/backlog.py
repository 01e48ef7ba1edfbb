"""What waits and what runs, by release: the picture that an operator looks at first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.infra.ids import STABLE, Release, RunId, TenantId
from app.infra.keys import Keys
from app.infra.redis import clock_ms, outages
from app.runs.model import Status, live_status

_PAGE = 500
MOST_COUNTED = 10_000
"""Entries looked at one by one, of a release's queue or of a tenant's runs."""


@dataclass(frozen=True, slots=True)
class ReleaseBacklog:
    """One release's queue."""

    release: Release
    due: int
    """Runs that a worker could take now."""
    running: int
    pausing: int
    """Runs that are due within a minute: put off, or before another attempt."""
    oldest_due_seconds: float
    """How long the longest-due run has been due; 0 when none is."""
    workers_seen_seconds: float | None
    """How long ago a worker of the release was heard; None when none ever was."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Runs that have not ended, and dead letters."""

    releases: list[ReleaseBacklog]
    behind: int
    """Runs behind another run of their thread."""
    later: int
    """Runs that begin more than a minute from now."""
    dead: int
    complete: bool = True
    """False when only a part was looked at, see `MOST_COUNTED`: then the numbers are at least so high."""


async def backlog(client: Any, keys: Keys, tenants: list[TenantId]) -> Backlog:
    """Of all tenants together; `tenants` are those whose dead letters count. Raises `RedisUnavailable`."""
    with outages():
        async with client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(keys.releases)
            pipe.zcard(keys.later)
            for tenant in tenants:
                pipe.zcard(keys.dead(tenant))
            clock, seen, later, *dead = await pipe.execute()
    now = clock_ms(clock)
    wanted, behind, complete = await _unfinished(client, keys)
    found = []
    for release in sorted({STABLE, *wanted, *(Release(name.decode()) for name in seen)}):
        counted, whole = await _release(client, keys, release, now, seen.get(release.encode()))
        found.append(counted)
        complete = complete and whole
    return Backlog(found, behind, later, sum(dead), complete)


async def _unfinished(client: Any, keys: Keys) -> tuple[set[Release], int, bool]:
    """The releases that have unfinished runs, how many runs are behind another one, and whether all were looked at.

    A release that never had a worker stands nowhere else, and it is the one whose runs wait for ever.
    """
    releases: set[Release] = set()
    behind = looked = cursor = 0
    while True:
        with outages():
            cursor, page = await client.hscan(keys.states, cursor, count=_PAGE)
            async with client.pipeline(transaction=False) as pipe:
                for run in page:
                    pipe.hget(keys.run(RunId(run.decode())), "release")
                releases |= {Release(name.decode()) for name in await pipe.execute() if name}
        behind += list(page.values()).count(b"waiting")
        looked += len(page)
        if cursor == 0 or looked >= MOST_COUNTED:
            return releases, behind, cursor == 0


async def _release(
    client: Any, keys: Keys, release: Release, now: int, seen: bytes | None
) -> tuple[ReleaseBacklog, bool]:
    queue = keys.queue(release)
    with outages():
        async with client.pipeline(transaction=False) as pipe:
            pipe.zcard(queue)
            pipe.zcount(queue, "-inf", now)
            pipe.zrange(queue, 0, 0, withscores=True)
            size, due, head = await pipe.execute()
        running = pausing = 0
        # What is not due is either held by a lease or on a pause: few, however long the queue is.
        for start in range(due, min(size, due + MOST_COUNTED), _PAGE):
            page = await client.zrange(queue, start, start + _PAGE - 1)
            if page:
                held = [live_status(state) for state in await client.hmget(keys.states, page)]
                running += held.count(Status.RUNNING)
                pausing += held.count(Status.PENDING)
    oldest = max(0.0, (now - head[0][1]) / 1000) if head and due else 0.0
    silent = None if seen is None else max(0.0, (now - int(seen)) / 1000)
    return ReleaseBacklog(release, due, running, pausing, oldest, silent), size - due <= MOST_COUNTED


async def backlog_of(client: Any, keys: Keys, tenant: TenantId) -> Backlog:
    """Of one tenant, out of its newest `MOST_COUNTED` runs; says nothing of others. Raises `RedisUnavailable`."""
    with outages():
        async with client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(keys.releases)
            pipe.zcard(keys.dead(tenant))
            pipe.zcard(keys.runs_of(tenant))
            clock, seen, dead, size = await pipe.execute()
        now = clock_ms(clock)
        live: list[_Live] = []
        for start in range(0, min(size, MOST_COUNTED), _PAGE):
            live += await _live(client, keys, await client.zrevrange(keys.runs_of(tenant), start, start + _PAGE - 1))
    found = []
    for release in sorted({STABLE, *(run.release for run in live)}):
        queued = [run for run in live if run.release == release and run.due_ms is not None]
        due = [run.due_ms for run in queued if run.due_ms is not None and run.due_ms <= now]
        running = sum(run.status is Status.RUNNING for run in queued if run.due_ms is not None and run.due_ms > now)
        at = seen.get(release.encode())
        found.append(
            ReleaseBacklog(
                release,
                due=len(due),
                running=running,
                pausing=len(queued) - len(due) - running,
                oldest_due_seconds=(now - min(due)) / 1000 if due else 0.0,
                workers_seen_seconds=None if at is None else max(0.0, (now - int(at)) / 1000),
            )
        )
    later = sum(run.later for run in live)
    behind = sum(run.due_ms is None and not run.later for run in live)
    return Backlog(found, behind, later, dead, size <= MOST_COUNTED)


@dataclass(frozen=True, slots=True)
class _Live:
    """A run that has not ended. `due_ms` is its place in the queue: due, end of its lease, or end of a pause."""

    release: Release
    status: Status
    due_ms: float | None
    later: bool


async def _live(client: Any, keys: Keys, page: list[bytes]) -> list[_Live]:
    if not page:
        return []
    states = await client.hmget(keys.states, page)
    runs = [(RunId(run.decode()), state) for run, state in zip(page, states, strict=True) if state is not None]
    async with client.pipeline(transaction=False) as pipe:
        for run_id, _ in runs:
            pipe.hget(keys.run(run_id), "release")
        releases = [Release((name or STABLE.encode()).decode()) for name in await pipe.execute()]
        for (run_id, _), release in zip(runs, releases, strict=True):
            pipe.zscore(keys.queue(release), run_id)
            pipe.zscore(keys.later, run_id)
        scores = await pipe.execute()
    return [
        _Live(release, live_status(state), due, later is not None)
        for (_, state), release, due, later in zip(runs, releases, scores[::2], scores[1::2], strict=True)
    ]
