"""Deleting a thread: afterwards no key, field, member or value in Redis names it.

It is first taken from its tenant, so that no run of it is accepted any more. Then its runs go, whatever their state: a
worker that executes one is fenced off by that, for the run's epoch is gone. Only then go its checkpoints and last the
thread itself. So each step can be repeated. A deletion that was cut short goes on when it is asked for again, and else
by itself (`Keys.removing`, `finishing`). It goes in pages, between which Redis serves others.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.infra.errors import RedisUnavailable, ThreadNotFound
from app.infra.ids import STABLE, Release, RunId, TenantId, ThreadId
from app.infra.keys import Keys
from app.infra.logging import get_logger
from app.infra.redis import Lua, clock_ms, outages

_log = get_logger(__name__)

_HERE = Path(__file__).parent
_HIDE = Lua.of(_HERE, "hide_thread.lua")
_REMOVE_RUN = Lua.of(_HERE, "remove_run.lua")
_REMOVE_THREAD = Lua.of(_HERE, "remove_thread.lua")

_PAGE = 100
"""Runs removed at a time."""
_CUT_SHORT = timedelta(minutes=2)
"""A deletion that began so long ago is taken for one that was cut short. Two at work on one thread do no harm."""
_LOOK_SECONDS = 300.0
"""Pause between two looks for such deletions."""
_MOST_FINISHED = 100
_CANCEL_AGAIN_SECONDS = 0.1


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


def nobody(_: Removed) -> None:
    """Whom progress is told when nobody asks."""


class Removal:
    """Deletes threads of one prefix."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self._redis, self._keys = client, keys

    async def thread(self, thread_id: ThreadId, tenant: TenantId, *, told: Told = nobody) -> Removed:
        """Delete a thread with its runs, unfinished ones too, and its crons. Raises `ThreadNotFound`."""
        removed = Removed()
        if not await self.try_thread(thread_id, tenant, removed, told):
            raise ThreadNotFound(thread_id)
        return removed

    async def try_thread(self, thread_id: ThreadId, tenant: TenantId, removed: Removed, told: Told = nobody) -> bool:
        """Like `thread`, adding to `removed`; False when the tenant has no such thread."""
        # LangGraph's saver takes 40 MB that an api process may never need, and a while to load: hence the thread.
        await asyncio.to_thread(importlib.import_module, "app.memory.checkpoints")
        from app.memory.checkpoints import RedisSaver

        keys = self._keys
        if not await _HIDE(self._redis, keys=[keys.thread(thread_id), keys.removing], args=[tenant, thread_id]):
            return False
        crons = await self.crons(tenant, thread_id)
        removed.crons += crons
        saver = RedisSaver(self._redis, keys, fence=None, ttl_seconds=1)  # only deletes
        gone = False
        while not gone:
            while True:
                with outages():
                    page = await self._redis.zrange(keys.thread_runs(thread_id), 0, _PAGE - 1)
                if not page:
                    break
                runs = await self.runs([RunId(run.decode()) for run in page], tenant, thread_id)
                removed.runs += runs  # not in one line with the await: others add to it meanwhile
                told(removed)
            await saver.adelete_thread(thread_id)
            gone = await _REMOVE_THREAD(
                self._redis,
                keys=[
                    keys.thread(thread_id),
                    keys.thread_runs(thread_id),
                    keys.thread_waiting(thread_id),
                    keys.threads_of(tenant),
                    keys.removing,
                ],
                args=[thread_id],
            )
        removed.threads += 1
        told(removed)
        return True

    async def runs(self, runs: list[RunId], tenant: TenantId, thread_id: ThreadId | None = None) -> int:
        """Remove runs of one thread, or without a thread those of any that are still there; gives how many."""
        removed, left = 0, runs
        while left:
            with outages():
                async with self._redis.pipeline(transaction=False) as pipe:
                    for run_id in left:
                        pipe.hmget(self._keys.run(run_id), "thread_id", "release", "effects_root", "idem")
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
                        keys=self._keys_of(run_id, thread, release, root, idem, tenant),
                        args=[run_id, thread, release],
                    )
                    for run_id, thread, release, root, idem in found
                )
            )
            left = [run_id for (run_id, *_), reply in zip(found, replies, strict=True) if not reply]
            removed += len(found) - len(left)
        return removed

    async def crons(self, tenant: TenantId, thread_id: ThreadId | None = None) -> int:
        """Remove the tenant's crons; with `thread_id`, those that write to that thread. Gives how many."""
        keys = self._keys
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

    async def finish(self, *, begun_before: timedelta = _CUT_SHORT) -> int:
        """Go on with deletions that began so long ago: whoever began them has died. Gives how many were finished."""
        with outages():
            latest = clock_ms(await self._redis.time()) - int(begun_before.total_seconds() * 1000)
            members = await self._redis.zrange(
                self._keys.removing, "-inf", latest, byscore=True, offset=0, num=_MOST_FINISHED
            )
        finished = 0
        for thread_id in [ThreadId(member.decode()) for member in members]:
            with outages():
                owner = await self._redis.hget(self._keys.thread(thread_id), "removed_by")
            if owner is None:  # it has expired meanwhile
                with outages():
                    await self._redis.zrem(self._keys.removing, thread_id)
            elif await self.try_thread(thread_id, TenantId(owner.decode()), Removed()):
                finished += 1
                _log.info("deletion finished", thread_id=thread_id)
        return finished

    def _keys_of(
        self, run_id: RunId, thread_id: ThreadId, release: str, root: RunId, idem: str, tenant: TenantId
    ) -> list[str]:
        """The keys of `remove_run.lua`."""
        keys = self._keys
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


@contextlib.asynccontextmanager
async def finishing(client: Any, keys: Keys) -> AsyncIterator[None]:
    """Looks every few minutes for deletions that were cut short, and finishes them, for as long as it is open."""
    working = asyncio.create_task(_finish(Removal(client, keys)))
    try:
        yield
    finally:
        while not working.done():
            working.cancel()  # again and again: on Python 3.11 the Redis client may swallow one
            await asyncio.wait({working}, timeout=_CANCEL_AGAIN_SECONDS)


async def _finish(removal: Removal) -> None:
    while True:
        await asyncio.sleep(_LOOK_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - processes need not look together
        try:
            await removal.finish()
        except RedisUnavailable:
            continue
        except Exception as error:  # one that cannot be finished must not end the looks
            _log.error("a deletion that was cut short cannot be finished", exc_info=error)
