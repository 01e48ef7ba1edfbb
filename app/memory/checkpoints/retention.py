"""What ends or doubles checkpoints: deleting, pruning and copying threads.

All of it is maintenance: it may run beside a run of the same thread, in steps that are each atomic, and is safe to
repeat when it was cut short.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from app.infra.fence import FencedLua
from app.infra.ids import ThreadId
from app.infra.redis import outages
from app.memory.checkpoints import layout
from app.memory.checkpoints.errors import RunNeeded, ThreadTaken
from app.memory.checkpoints.layout import Record, ThreadKeys
from app.memory.checkpoints.reading import Reading

_FOLDER = Path(__file__).parent
_DROP = FencedLua(_FOLDER, "drop.lua")
_SWEEP = FencedLua(_FOLDER, "frame.lua", "sweep.lua")
_FORGET = FencedLua(_FOLDER, "forget.lua")
_COPY = FencedLua(_FOLDER, "live.lua", "copy.lua")

_CHUNK = 200
"""Checkpoints that one script removes, so that Redis serves others in between."""


class Retention(Reading):
    """The part of `RedisSaver` that removes and copies."""

    _ttl: int

    async def adelete_thread(self, thread_id: str) -> None:
        """Remove every key of a thread. Nothing happens when there is none."""
        thread = layout.thread(thread_id)
        runs = {record.run_id for record in (await self._records(thread, skip_damaged=True)).values() if record.run_id}
        await self._forget(thread, runs, "all")

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints that these runs have made, in every thread, with what tasks wrote after them.

        State that later checkpoints refer to stays. Raises `RunNeeded`, before anything is removed, when a later
        checkpoint computes a `DeltaChannel` from what the run has added.
        """
        wanted = set(run_ids)
        threads: set[ThreadId] = set()
        for run_id in wanted:
            with outages():
                found = await self._redis.smembers(self._keys.checkpoint_run(run_id))
            threads |= {ThreadId(thread.decode()) for thread in found}
        dropped = {}
        for thread in threads:
            records = await self._records(thread)
            dropped[thread] = {name for name, record in records.items() if record.run_id in wanted}
            for name, record in records.items():
                parent = layout.parent_of(name, record)
                if name not in dropped[thread] and parent in dropped[thread] and self._open_channels(record):
                    raise RunNeeded(records[parent].run_id, thread)
        for thread, names in dropped.items():
            await self._drop(thread, sorted(names))
            await self._forget(thread, wanted)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`keep_latest` leaves the newest checkpoint of each namespace, `delete` none.

        Of a graph with a `DeltaChannel` it also leaves those older checkpoints that the newest one's value is
        computed from.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"strategy must be 'keep_latest' or 'delete', not {strategy!r}")
        for thread_id in thread_ids:
            if strategy == "delete":
                await self.adelete_thread(thread_id)
                continue
            thread = layout.thread(thread_id)
            records = await self._records(thread)
            kept: set[str] = set()
            for newest in _newest(records):
                kept |= self._needed(newest, records)
            await self._drop(thread, [name for name in records if name not in kept])
            gone = {record.run_id for record in records.values()} - {records[name].run_id for name in kept}
            await self._forget(thread, gone)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Make a thread's checkpoints, writes and values those of a new thread, at one moment. Safe to repeat.

        Raises `ThreadTaken` when the target has checkpoints that the source has not.
        """
        source, target = layout.thread(source_thread_id), layout.thread(target_thread_id)
        if source == target:
            return
        runs = {record.run_id for record in (await self._records(source)).values() if record.run_id}
        keys = [*ThreadKeys.of(self._keys, source).all, *ThreadKeys.of(self._keys, target).all]
        keys += [self._keys.checkpoint_threads, *(self._keys.checkpoint_run(run_id) for run_id in sorted(runs))]
        others = await self._write(_COPY, keys, [self._ttl, target])
        if others:
            raise ThreadTaken(target)

    async def _write(self, script: FencedLua, keys: list[str], args: list[Any]) -> Any:
        raise NotImplementedError

    async def _drop(self, thread: ThreadId, names: list[str]) -> None:
        keys = ThreadKeys.of(self._keys, thread)
        for start in range(0, len(names), _CHUNK):
            chunk = names[start : start + _CHUNK]
            await self._write(_DROP, [keys.index, keys.records, keys.writes, keys.written], chunk)
        # Also when there was nothing to drop: an earlier attempt may have been cut short here.
        await self._write(_SWEEP, [keys.records, keys.blobs], [])

    async def _forget(self, thread: ThreadId, runs: set[str], what: Literal["sets", "all"] = "sets") -> None:
        sets = [self._keys.checkpoint_run(run_id) for run_id in sorted(runs)]
        keys = [*ThreadKeys.of(self._keys, thread).all, self._keys.checkpoint_threads, *sets]
        await self._write(_FORGET, keys, [thread, what])

    def _open_channels(self, record: Record) -> set[str]:
        """Delta channels of a checkpoint whose whole value stands in an ancestor of it.

        LangGraph counts in the metadata the steps since each delta channel's snapshot; none are named there for a
        channel whose whole value stands in the checkpoint itself.
        """
        return set(self.serde.loads_typed(record.metadata).get("counters_since_delta_snapshot") or ())

    def _needed(self, name: str, records: dict[str, Record]) -> set[str]:
        """`name` and the ancestors from which its delta channels are computed: back to each one's last snapshot."""
        needed = {name}
        namespace = layout.split(name)[0]
        record = records[name]
        open_ = self._open_channels(record)
        while open_ and (name := layout.parent_of(name, record)) in records:
            needed.add(name)
            record = records[name]
            open_ -= {layout.channel_of(blob, namespace) for blob in record.blobs}
        return needed


def _newest(records: dict[str, Record]) -> list[str]:
    """The newest name of each namespace."""
    newest: dict[str, str] = {}
    for name in records:
        namespace = layout.split(name)[0]
        newest[namespace] = max(newest.get(namespace, ""), name)
    return list(newest.values())
