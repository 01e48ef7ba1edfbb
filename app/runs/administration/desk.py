"""What an operator does with runs and threads; the command line and the `/admin` routes are two faces of it.

With a tenant everything is confined to that tenant: another one's thing is not found. Without one it is the operator
of the whole place who asks.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from app.infra.auth import CACHE_SECONDS
from app.infra.errors import Conflict, NotFound, RunNotFound, ThreadNotFound
from app.infra.ids import RunId, TenantId, ThreadId
from app.infra.keys import Keys
from app.infra.logging import get_logger
from app.infra.redis import outages
from app.runs.administration.backlog import Backlog, backlog, backlog_of
from app.runs.administration.details import Place, RunDetail, ThreadDetail
from app.runs.administration.listing import (
    THREAD_FIELDS,
    Listing,
    RunFilter,
    ThreadSummary,
    all_tenants,
    newest_runs,
    newest_threads,
    thread_summary,
)
from app.runs.administration.removal import Removal, Removed, Told, nobody
from app.runs.administration.replaying import Replaying
from app.runs.administration.tenant_removal import Forget, TenantRemoval
from app.runs.events import events_of
from app.runs.history import history
from app.runs.ledger import RunLedger
from app.runs.model import Run

_log = get_logger(__name__)

_PAGE = 100
SETTLE_SECONDS = CACHE_SECONDS + 1
"""After a tenant's keys are revoked: api processes believe a key for a little less."""


class DeadLetterNotFound(NotFound):
    def __init__(self, run_id: RunId) -> None:
        super().__init__(
            f"there is no dead letter {run_id}",
            fix="the list of dead letters names them; one that was replayed is none",
        )


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a dead letter: the run that goes on with its work, or why there is none."""

    run_id: RunId
    by: RunId | None
    refusal: str = ""


class Administration:
    """Every question and every act, over the ledger of one prefix."""

    def __init__(self, client: Any, keys: Keys, ledger: RunLedger) -> None:
        self._redis, self._keys, self._ledger = client, keys, ledger
        self._removal, self._replaying = Removal(client, keys), Replaying(client, keys, ledger)

    async def runs(self, tenant: TenantId | None, wanted: RunFilter, *, limit: int) -> Listing:
        """Runs, newest first. Raises `RedisUnavailable`."""
        return await self._newest(self._keys.runs_of, tenant, wanted, limit)

    async def run(self, run_id: RunId, tenant: TenantId | None, *, events: int = 10) -> RunDetail:
        """A run with all that is known of it and its last `events` events. Raises `RunNotFound`."""
        # The journal belongs to execution, which an api process need not load. In a thread: it takes a second, in
        # which the event loop serves others.
        await asyncio.to_thread(importlib.import_module, "app.runs.effects")
        from app.runs.effects import effects_of

        run = await self._ledger.get(run_id, tenant)
        keys = self._keys
        with outages():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hget(keys.run(run_id), "replayed_by")
                pipe.zscore(keys.dead(run.tenant), run_id)
                pipe.xrevrange(keys.events(run_id), count=max(1, events))
                replayed_by, dead, entries = await pipe.execute()
        return RunDetail(
            run=run,
            place=None if run.status.ended else await self._place(run),
            dead=dead is not None,
            replayed_by=RunId(replayed_by.decode()) if replayed_by else None,
            effects=await effects_of(self._redis, keys, run.effects_root),
            events=events_of(entries[:events])[::-1],
        )

    async def cancel(self, run_id: RunId, tenant: TenantId | None) -> Run:
        """Ask a run to stop, see `RunLedger.cancel`. Raises `RunNotFound`."""
        return await self._ledger.cancel(run_id, tenant)

    async def replay(self, run_id: RunId, tenant: TenantId | None, *, again: bool = False, request_id: str = "") -> Run:
        """Go on with a failed run's work, see `Replaying.replay`. Raises `RunNotFound`, and what that raises."""
        run = await self._ledger.get(run_id, tenant)
        return await self._replaying.replay(run, again=again, request_id=request_id)

    async def dead_letters(self, tenant: TenantId | None, wanted: RunFilter, *, limit: int) -> Listing:
        """Runs that failed for good, the last to fail first. Raises `RedisUnavailable`."""
        return await self._newest(self._keys.dead, tenant, wanted, limit)

    async def dead_letter(self, run_id: RunId, tenant: TenantId | None, *, events: int = 10) -> RunDetail:
        """`run` of a dead letter. Raises `DeadLetterNotFound`."""
        try:
            detail = await self.run(run_id, tenant, events=events)
        except RunNotFound as error:
            raise DeadLetterNotFound(run_id) from error
        if not detail.dead:
            raise DeadLetterNotFound(run_id)
        return detail

    async def replay_dead_letter(self, run_id: RunId, tenant: TenantId | None, *, request_id: str = "") -> Run:
        """`replay` of a dead letter. Raises `DeadLetterNotFound`, and what `replay` raises."""
        try:
            run = await self._ledger.get(run_id, tenant)
        except RunNotFound as error:
            raise DeadLetterNotFound(run_id) from error
        with outages():
            if await self._redis.zscore(self._keys.dead(run.tenant), run_id) is None:
                raise DeadLetterNotFound(run_id)
        return await self._replaying.replay(run, request_id=request_id)

    async def replay_dead_letters(
        self, tenant: TenantId | None, *, limit: int, request_id: str = ""
    ) -> AsyncIterator[Replayed]:
        """Replay the newest dead letters, in the order in which they failed; one that cannot be replayed stays one."""
        found = await self.dead_letters(tenant, RunFilter(), limit=limit)
        for letter in reversed(found.runs):
            try:
                replay = await self.replay(letter.run_id, letter.tenant, request_id=request_id)
            except (Conflict, NotFound) as error:
                yield Replayed(letter.run_id, None, str(error))
            else:
                yield Replayed(letter.run_id, replay.run_id)

    async def drop(self, run_id: RunId, tenant: TenantId | None) -> None:
        """Take a run out of the dead letters; its record stays for as long as any run's. `DeadLetterNotFound`."""
        try:
            run = await self._ledger.get(run_id, tenant)
        except RunNotFound as error:
            raise DeadLetterNotFound(run_id) from error
        with outages():
            if not await self._redis.zrem(self._keys.dead(run.tenant), run_id):
                raise DeadLetterNotFound(run_id)
        _log.info("dead letter dropped", run_id=run_id)

    async def drop_all(self, tenant: TenantId | None) -> int:
        """Empty the list of dead letters; gives how many there were."""
        dropped = 0
        for owner in await self._tenants(tenant):
            with outages():
                async with self._redis.pipeline(transaction=True) as pipe:
                    pipe.zcard(self._keys.dead(owner))
                    pipe.unlink(self._keys.dead(owner))
                    count, _ = await pipe.execute()
            dropped += count
        _log.info("dead letters dropped", count=dropped)
        return dropped

    async def threads(self, tenant: TenantId | None, *, limit: int) -> list[ThreadSummary]:
        """Threads, the last to change first. Raises `RedisUnavailable`."""
        return await newest_threads(self._redis, self._keys, await self._tenants(tenant), limit=limit)

    async def thread(self, thread_id: ThreadId, tenant: TenantId | None) -> ThreadDetail:
        """A thread's state. Raises `ThreadNotFound`, also while it is being deleted."""
        keys = self._keys
        with outages():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hmget(keys.thread(thread_id), THREAD_FIELDS)
                pipe.llen(keys.thread_waiting(thread_id))
                pipe.zcard(keys.thread_runs(thread_id))
                values, waiting, runs = await pipe.execute()
        summary = thread_summary(thread_id, values)
        if summary is None or (tenant is not None and summary.tenant != tenant):
            raise ThreadNotFound(thread_id)
        result = await self._ledger.result(summary.asked) if summary.asked else None
        return ThreadDetail(summary, waiting, (result or {}).get("interrupts", []), runs)

    async def newest_of_thread(self, thread: ThreadSummary, *, limit: int) -> Listing:
        """Runs of a thread, newest first."""
        return await self._newest(lambda _: self._keys.thread_runs(thread.thread_id), thread.tenant, RunFilter(), limit)

    async def runs_of_thread(self, thread_id: ThreadId) -> AsyncIterator[Run]:
        """The runs of a thread, oldest first, as far as their records are kept."""
        start = 0
        while True:
            with outages():
                page = await self._redis.zrange(self._keys.thread_runs(thread_id), start, start + _PAGE - 1)
            for member in page:
                try:
                    yield await self._ledger.get(RunId(member.decode()))
                except RunNotFound:
                    continue
            if len(page) < _PAGE:
                return
            start += _PAGE

    async def messages(self, thread_id: ThreadId) -> list[dict[str, Any]]:
        """The messages of a thread as JSON values, oldest first."""
        return await history(self._redis, self._keys, thread_id)

    async def delete_thread(self, thread_id: ThreadId, tenant: TenantId | None, *, told: Told = nobody) -> Removed:
        """Delete a thread, see `Removal`. Raises `ThreadNotFound`."""
        owner = tenant or await self._owner(thread_id)
        removed = await self._removal.thread(thread_id, owner, told=told)
        _log.info("thread deleted", thread_id=thread_id, runs=removed.runs)
        return removed

    async def delete_tenant(self, tenant: TenantId, *, forget: Forget | None, told: Told = nobody) -> Removed:
        """Delete everything of a tenant, see `TenantRemoval`. Raises `TenantNotFound`, `Unavailable`."""
        removed = await TenantRemoval(self._redis).tenant(
            tenant, forget=forget, told=told, settle_seconds=SETTLE_SECONDS
        )
        _log.info("tenant deleted", deleted=tenant, threads=removed.threads, runs=removed.runs)
        return removed

    async def backlog(self, tenant: TenantId | None) -> Backlog:
        """What waits and runs. Raises `RedisUnavailable`."""
        if tenant is not None:
            return await backlog_of(self._redis, self._keys, tenant)
        return await backlog(self._redis, self._keys, await all_tenants(self._redis, self._keys))

    async def _newest(
        self, index: Callable[[TenantId], str], tenant: TenantId | None, wanted: RunFilter, limit: int
    ) -> Listing:
        tenants = await self._tenants(tenant)
        return await newest_runs(self._redis, self._keys, index, tenants, wanted, limit=limit)

    async def _tenants(self, tenant: TenantId | None) -> list[TenantId]:
        return [tenant] if tenant is not None else await all_tenants(self._redis, self._keys)

    async def _owner(self, thread_id: ThreadId) -> TenantId:
        """Whose thread it is; also of one whose deletion was cut short."""
        with outages():
            owner, before = await self._redis.hmget(self._keys.thread(thread_id), "tenant", "removed_by")
        if not (owner or before):
            raise ThreadNotFound(thread_id)
        return TenantId((owner or before).decode())

    async def _place(self, run: Run) -> Place | None:
        keys, queue = self._keys, self._keys.queue(run.release)
        with outages():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hget(keys.states, run.run_id)
                pipe.zscore(queue, run.run_id)
                pipe.zrank(queue, run.run_id)
                pipe.zscore(keys.later, run.run_id)
                pipe.lpos(keys.thread_waiting(run.thread_id), run.run_id)
                raw, moment, rank, later, line = await pipe.execute()
        if raw is None:
            return None  # it has ended since
        state = raw.decode()
        if state == "waiting":
            return Place(state, None if line is None else line + 1, None, None)
        if moment is None:
            return Place(state, None, None if later is None else int(later), None)
        if state == "pending":
            return Place(state, rank + 1, int(moment), None)
        return Place(state, None, None, int(moment))
