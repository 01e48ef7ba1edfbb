"""Runs that may begin only later: what is put off for more than a minute waits in `Keys.later`, not in the queue.

The queue's size is what a scaler sees: a run for tomorrow must not keep a worker today. When its moment has come, a run
is moved in one script, to the queue or behind the unfinished run of its thread; whoever moves it a second time finds
that it is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.infra.ids import Release, RunId, ThreadId
from app.infra.keys import Keys
from app.infra.redis import Lua, clock_ms, outages
from app.runs.ledger import is_gone

_HERE = Path(__file__).parent
_PROMOTE = Lua.of(_HERE, "../queue.lua", "promote.lua")
_LOOKS = 3
"""Times that a thread is read again because it changed between the look and the script; then the next round."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What the keys and the release of a move depend on; the script checks that it still holds."""

    run_id: RunId
    thread_id: ThreadId
    root: RunId
    run_release: str
    thread_release: str
    """'' when the thread has expired."""
    active: str


class Later:
    """Moves runs whose moment has come. `release` is the one that this process serves."""

    def __init__(self, client: Any, keys: Keys, release: Release) -> None:
        self._redis, self._keys, self._release = client, keys, release

    async def promote(self, run_ids: Sequence[RunId]) -> int:
        """Make these runs due, those of a busy thread behind it; gives how many this call moved.

        Safe to repeat, and to do in several processes at once. Raises `RedisUnavailable`.
        """
        moved, left = 0, list(run_ids)
        for _ in range(_LOOKS):
            looks, alive = await self._look(left)
            replies = await asyncio.gather(*[self._move(look, alive) for look in looks])
            moved += sum(reply in (b"queued", b"waiting") for reply in replies)
            left = [look.run_id for look, reply in zip(looks, replies, strict=True) if reply == b"changed"]
            if not left:
                break
        return moved

    async def _look(self, run_ids: Sequence[RunId]) -> tuple[list[_Look], frozenset[str]]:
        """The runs that still have a record, with their threads, and the releases that have live workers."""
        with outages():
            async with self._redis.pipeline(transaction=False) as pipe:
                for run_id in run_ids:
                    pipe.hmget(self._keys.run(run_id), "thread_id", "release", "effects_root")
                pipe.hgetall(self._keys.releases)
                pipe.time()
                *records, seen, clock = await pipe.execute()
            found, deleted = [], []
            for run_id, (thread, release, root) in zip(run_ids, records, strict=True):
                if thread is None or release is None:
                    deleted.append(run_id)  # with its thread or tenant: an unfinished run's record does not expire
                else:
                    found.append((run_id, (thread.decode(), release.decode(), root.decode() if root else run_id)))
            if deleted:
                await self._redis.zrem(self._keys.later, *deleted)
            async with self._redis.pipeline(transaction=False) as pipe:
                for _, (thread_id, _, _) in found:
                    pipe.hmget(self._keys.thread(ThreadId(thread_id)), "release", "active")
                threads = await pipe.execute()
        now = clock_ms(clock)
        alive = frozenset(name.decode() for name, heard in seen.items() if not is_gone(heard, now))
        return [
            _Look(run_id, ThreadId(thread), RunId(root), release, *[(part or b"").decode() for part in known])
            for (run_id, (thread, release, root)), known in zip(found, threads, strict=True)
        ], alive

    async def _move(self, look: _Look, alive: frozenset[str]) -> bytes:
        keys = self._keys
        release = Release(look.thread_release or look.run_release)
        if not look.active and release not in alive:
            release = self._release  # as for any message: a thread leaves a release that is gone
        reply: bytes = await _PROMOTE(
            self._redis,
            keys=[
                keys.later,
                keys.queue(release),
                keys.states,
                keys.wake(release),
                keys.run(look.run_id),
                keys.thread(look.thread_id),
                keys.thread_runs(look.thread_id),
                keys.thread_waiting(look.thread_id),
                keys.effects(look.root),
            ],
            args=[look.run_id, look.run_release, f"{look.thread_release} {look.active}", release],
        )
        return reply
