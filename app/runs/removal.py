"""Deleting a thread or a tenant: afterwards no key, field, member or value in Redis names it.

A thread is first taken from its tenant, so that no run of it is accepted any more. Then its runs go, whatever their
state: a worker that executes one is fenced off by that, for the run's epoch is gone. Only then go its checkpoints and
last the thread itself. So each step can be repeated, and a deletion that was cut short goes on when it is asked for
again. All of it goes in pages, between which Redis serves others.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from app.infra.errors import NotFound, ThreadNotFound
from app.infra.ids import STABLE, Release, RunId, TenantId, ThreadId
from app.infra.keys import TAG, Keys
from app.infra.redis import Lua, outages

_HERE = Path(__file__).parent
_HIDE = Lua((_HERE / "hide_thread.lua").read_text(), name="hide_thread")
_REMOVE_RUN = Lua((_HERE / "remove_run.lua").read_text(), name="remove_run")
_REMOVE_THREAD = Lua((_HERE / "remove_thread.lua").read_text(), name="remove_thread")

_PAGE = 100
"""Runs removed at a time."""
_SCAN = 1_000
"""Keys that one step of a scan looks at."""
_TOGETHER = 8
"""Threads of a tenant removed at a time."""

Forget = Callable[[TenantId], Awaitable[int]]
"""Deletes a tenant's long-term memories and says how many there were. Raises `Unavailable`."""


class TenantNotFound(NotFound):
    def __init__(self, tenant: str) -> None:
        super().__init__(f"there is nothing of a tenant {tenant}", fix="check the spelling; it may be deleted already")
        self.tenant = tenant


@dataclass(slots=True)
class Removed:
    """How much has been deleted so far."""

    threads: int = 0
    runs: int = 0
    crons: int = 0
    api_keys: int = 0
    memories: int = 0

    @property
    def any(self) -> bool:
        return bool(self.threads or self.runs or self.crons or self.api_keys or self.memories)


Told = Callable[[Removed], None]


_Kind = Literal["thread", "run", "key", "idem"]


@dataclass(frozen=True, slots=True)
class _Found:
    """A key that is a tenant's. `keys` are those of the prefix under which it lies; `rest` is its end, mostly an id."""

    name: str
    keys: Keys
    rest: str


class Removal:
    """Deletes under one prefix; a tenant under every prefix, for shadow releases have a part of its traffic."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self._redis, self._keys = client, keys

    async def thread(self, thread_id: ThreadId, tenant: TenantId, *, told: Told | None = None) -> Removed:
        """Delete a thread with its runs, unfinished ones too, and its crons. Raises `ThreadNotFound`."""
        removed = Removed()
        if not await self._thread(self._keys, thread_id, tenant, removed, told or _nobody):
            raise ThreadNotFound(thread_id)
        return removed

    async def tenant(
        self,
        tenant: TenantId,
        *,
        forget: Forget | None,
        settle_seconds: float,
        told: Told | None = None,
    ) -> Removed:
        """Delete everything of a tenant: API keys, crons, threads, runs and, with `forget`, long-term memories.

        Memories go first: when their store does not answer, `Unavailable` is raised and nothing has been touched.
        Once API keys and crons are gone it waits `settle_seconds`, for processes believe a key a little longer. Looks
        at every key in Redis, in steps. Raises `TenantNotFound` when there was nothing.
        """
        told, removed = told or _nobody, Removed()
        if forget is not None:
            removed.memories = await forget(tenant)
        async for page in self._scan(tenant, "key"):
            await self._unlink([found.name for found in page])
            removed.api_keys += len(page)
            told(removed)
        everywhere = {_prefix(self._keys): self._keys, **{prefix: Keys(prefix) async for prefix in self._prefixes()}}
        for keys in everywhere.values():
            removed.crons += await self._crons(keys, tenant)
        if removed.api_keys or removed.crons:
            await asyncio.sleep(settle_seconds)
        async for page in self._scan(tenant, "thread"):
            for start in range(0, len(page), _TOGETHER):
                some = page[start : start + _TOGETHER]
                await asyncio.gather(
                    *(self._thread(found.keys, ThreadId(found.rest), tenant, removed, told) for found in some)
                )
        async for page in self._scan(tenant, "run"):  # those whose threads have expired before them
            for found in page:
                removed.runs += await self._runs(found.keys, [RunId(found.rest)], None, tenant)
            told(removed)
        async for page in self._scan(tenant, "idem"):
            await self._unlink([found.name for found in page])
        if forget is not None:
            removed.memories += await forget(tenant)  # what a run has still remembered meanwhile
        known = False
        for keys in everywhere.values():
            with outages():
                async with self._redis.pipeline(transaction=True) as pipe:
                    pipe.unlink(keys.runs_of(tenant), keys.threads_of(tenant), keys.dead(tenant))
                    pipe.srem(keys.tenants, tenant)
                    known = any(await pipe.execute()) or known
        if not (removed.any or known):
            raise TenantNotFound(tenant)
        return removed

    async def _thread(self, keys: Keys, thread_id: ThreadId, tenant: TenantId, removed: Removed, told: Told) -> bool:
        """False when the tenant has no such thread."""
        # LangGraph's saver takes 40 MB that an api process may never need, and a while to load: hence the thread.
        await asyncio.to_thread(importlib.import_module, "app.memory.checkpoints")
        from app.memory.checkpoints import RedisSaver

        if not await _HIDE(self._redis, keys=[keys.thread(thread_id)], args=[tenant]):
            return False
        gone_crons = await self._crons(keys, tenant, thread_id)
        removed.crons += gone_crons
        saver = RedisSaver(self._redis, keys, fence=None, ttl_seconds=1)  # only deletes
        gone = False
        while not gone:
            while True:
                with outages():
                    page = await self._redis.zrange(keys.thread_runs(thread_id), 0, _PAGE - 1)
                if not page:
                    break
                runs = [RunId(run.decode()) for run in page]
                gone_runs = await self._runs(keys, runs, thread_id, tenant)
                removed.runs += gone_runs  # not in one line: others add to it during the await
                told(removed)
            await saver.adelete_thread(thread_id)
            gone = await _REMOVE_THREAD(
                self._redis,
                keys=[
                    keys.thread(thread_id),
                    keys.thread_runs(thread_id),
                    keys.thread_waiting(thread_id),
                    keys.threads_of(tenant),
                ],
                args=[thread_id],
            )
        removed.threads += 1
        told(removed)
        return True

    async def _runs(self, keys: Keys, runs: list[RunId], thread_id: ThreadId | None, tenant: TenantId) -> int:
        """Remove runs of one thread, or without a thread those of any that are still there; gives how many."""
        removed, left = 0, runs
        while left:
            with outages():
                async with self._redis.pipeline(transaction=False) as pipe:
                    for run_id in left:
                        pipe.hmget(keys.run(run_id), "thread_id", "release", "effects_root", "idem")
                    records = await pipe.execute()
            found = []
            for run_id, record in zip(left, records, strict=True):
                of_thread, release, root, idem = (value.decode() if value else "" for value in record)
                if thread := thread_id or ThreadId(of_thread):
                    found.append((run_id, thread, release, RunId(root or run_id), idem))
            replies = await asyncio.gather(
                *(
                    _REMOVE_RUN(
                        self._redis,
                        keys=self._keys_of(keys, run_id, thread, release, root, idem, tenant),
                        args=[run_id, thread, release],
                    )
                    for run_id, thread, release, root, idem in found
                )
            )
            left = [run_id for (run_id, *_), reply in zip(found, replies, strict=True) if not reply]
            removed += len(found) - len(left)
        return removed

    @staticmethod
    def _keys_of(
        keys: Keys, run_id: RunId, thread_id: ThreadId, release: str, root: RunId, idem: str, tenant: TenantId
    ) -> list[str]:
        """The keys of `remove_run.lua`."""
        return [
            # Without a record it had ended, and stands in no queue.
            keys.queue(Release(release or STABLE)),
            keys.later,
            keys.epochs,
            keys.states,
            keys.attempts,
            keys.run(run_id),
            keys.events(run_id),
            keys.effects(run_id),
            keys.effects(root),
            keys.thread_waiting(thread_id),
            keys.thread_runs(thread_id),
            keys.runs_of(tenant),
            keys.dead(tenant),
            keys.idempotency(tenant, idem or "none"),
            keys.checkpoint_run(run_id),
            keys.ended,
            keys.grown(run_id),
        ]

    async def _crons(self, keys: Keys, tenant: TenantId, thread_id: ThreadId | None = None) -> int:
        """Remove the tenant's crons; with `thread_id`, those that write to that thread."""
        with outages():
            crons = [cron.decode() for cron in await self._redis.smembers(keys.crons_of(tenant))]
            if thread_id is not None:
                async with self._redis.pipeline(transaction=False) as pipe:
                    for cron in crons:
                        pipe.hget(keys.cron(cron), "thread_id")
                    threads = await pipe.execute()
                crons = [cron for cron, at in zip(crons, threads, strict=True) if at == thread_id.encode()]
            if crons:
                async with self._redis.pipeline(transaction=True) as pipe:
                    pipe.unlink(*(keys.cron(cron) for cron in crons))
                    pipe.zrem(keys.crons, *crons)
                    pipe.srem(keys.crons_of(tenant), *crons)
                    await pipe.execute()
        return len(crons)

    async def _prefixes(self) -> AsyncIterator[str]:
        """Every prefix under which there are tenants."""
        async for page in self._pages(f"*{TAG}:tenants"):
            for name in page:
                yield name.removesuffix(f"{TAG}:tenants")

    async def _scan(self, tenant: TenantId, kind: _Kind) -> AsyncIterator[list[_Found]]:
        """The tenant's things of one kind under every prefix, in pages. What stays meanwhile is found for certain."""
        before = f"{TAG}:{kind}:"
        async for page in self._pages(f"*{before}{f'{tenant}:' if kind == 'idem' else ''}*"):
            found = [_Found(name, Keys(prefix), rest) for name in page for prefix, _, rest in [name.partition(before)]]
            if kind != "idem":
                found = [one for one in found if ":" not in one.rest]  # the others are lists and sets of a thread
                with outages():
                    async with self._redis.pipeline(transaction=False) as pipe:
                        for one in found:
                            pipe.hmget(one.name, "tenant", "removed_by")
                        owners = await pipe.execute()
                found = [one for one, owner in zip(found, owners, strict=True) if tenant.encode() in owner]
            if found:
                yield found

    async def _pages(self, match: str) -> AsyncIterator[list[str]]:
        cursor = 0
        while True:
            with outages():
                cursor, page = await self._redis.scan(cursor, match=match, count=_SCAN)
            if page:
                yield [name.decode() for name in page]
            if cursor == 0:
                return

    async def _unlink(self, names: list[str]) -> None:
        if names:
            with outages():
                await self._redis.unlink(*names)


def _nobody(_: Removed) -> None:
    """Whom progress is told when nobody asks."""


def _prefix(keys: Keys) -> str:
    return keys.tenants.removesuffix(f"{TAG}:tenants")
