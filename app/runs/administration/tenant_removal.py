"""Deleting a tenant: its API keys, crons, threads, runs, long-term memories, and all that names it in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal, NamedTuple

from app.infra.errors import NotFound
from app.infra.ids import RunId, TenantId, ThreadId
from app.infra.keys import TAG, Keys
from app.infra.redis import outages
from app.runs.administration.removal import Removal, Removed, Told, nobody

_TOGETHER = 8
"""Threads removed at a time."""
_SCAN = 1_000
"""Keys that one step of a scan looks at."""

Forget = Callable[[TenantId], Awaitable[int]]
"""Deletes a tenant's long-term memories and says how many there were. Raises `Unavailable`."""

_Kind = Literal["thread", "run", "key", "idem"]


class TenantNotFound(NotFound):
    def __init__(self, tenant: str) -> None:
        super().__init__(f"there is nothing of a tenant {tenant}", fix="check the spelling; it may be deleted already")
        self.tenant = tenant


class _Found(NamedTuple):
    """A key that is a tenant's: `prefix` before the hash tag, `rest` after the kind, mostly an id."""

    name: str
    prefix: str
    rest: str


class TenantRemoval:
    """Deletes tenants under every prefix: shadow releases have a part of their traffic."""

    def __init__(self, client: Any) -> None:
        self._redis = client

    async def tenant(
        self, tenant: TenantId, *, forget: Forget | None, settle_seconds: float, told: Told = nobody
    ) -> Removed:
        """Delete everything of a tenant, with `forget` its long-term memories too. May be repeated.

        Memories go first: when their store does not answer, `Unavailable` is raised and nothing has been touched.
        Once API keys and crons are gone it waits `settle_seconds`, for processes believe a key a little longer. Looks
        at every key in Redis, in steps. Raises `TenantNotFound` when there was nothing.
        """
        removed = Removed()
        if forget is not None:
            removed.memories = await forget(tenant)
        async for page in self._scan(tenant, "key"):
            await self._unlink([found.name for found in page])
            removed.api_keys += len(page)
            told(removed)
        prefixes = {"", *[prefix async for prefix in self._prefixes()]}
        for prefix in prefixes:
            crons = await Removal(self._redis, Keys(prefix)).crons(tenant)
            removed.crons += crons
        if removed.api_keys or removed.crons:
            await asyncio.sleep(settle_seconds)
        async for page in self._scan(tenant, "thread"):
            for start in range(0, len(page), _TOGETHER):
                await asyncio.gather(
                    *(
                        Removal(self._redis, Keys(prefix)).try_thread(ThreadId(thread_id), tenant, removed, told)
                        for _, prefix, thread_id in page[start : start + _TOGETHER]
                    )
                )
        async for page in self._scan(tenant, "run"):  # those whose threads have expired before them
            for _, prefix, run_id in page:
                runs = await Removal(self._redis, Keys(prefix)).runs([RunId(run_id)], tenant)
                removed.runs += runs
            told(removed)
        async for page in self._scan(tenant, "idem"):
            await self._unlink([found.name for found in page])
        if forget is not None:
            memories = await forget(tenant)  # what a run has still remembered meanwhile
            removed.memories += memories
        indexed = [await self._indexes(Keys(prefix), tenant) for prefix in prefixes]
        if not (removed.any or any(indexed)):
            raise TenantNotFound(tenant)
        return removed

    async def _indexes(self, keys: Keys, tenant: TenantId) -> bool:
        """Remove what lists the tenant's things; whether there was any of it."""
        with outages():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.unlink(keys.runs_of(tenant), keys.threads_of(tenant), keys.dead(tenant))
                pipe.srem(keys.tenants, tenant)
                return any(await pipe.execute())

    async def _prefixes(self) -> AsyncIterator[str]:
        """Every prefix under which there are tenants."""
        async for page in self._pages(f"*{TAG}:tenants"):
            for name in page:
                yield name.removesuffix(f"{TAG}:tenants")

    async def _scan(self, tenant: TenantId, kind: _Kind) -> AsyncIterator[list[_Found]]:
        """The tenant's things of one kind under every prefix, in pages. What stays meanwhile is found for certain."""
        before = f"{TAG}:{kind}:"
        async for page in self._pages(f"*{before}{f'{tenant}:' if kind == 'idem' else ''}*"):
            found = [_Found(name, prefix, rest) for name in page for prefix, _, rest in [name.partition(before)]]
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
