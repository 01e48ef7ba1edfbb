"""What reads checkpoints: one, a page of them, the heads of all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointTuple, get_checkpoint_id
from langgraph.checkpoint.serde.types import INTERRUPT

from app.infra.ids import ThreadId
from app.infra.keys import Keys
from app.infra.redis import Lua, outages
from app.memory.checkpoints import layout
from app.memory.checkpoints.errors import CheckpointDamaged
from app.memory.checkpoints.ids import stay_above
from app.memory.checkpoints.layout import NUL, Place, Record, ThreadKeys

_FOLDER = Path(__file__).parent
_READ = Lua.of(_FOLDER, "frame.lua", "read.lua")

_PAGE = 20
"""Checkpoints that a listing reads at a time, with their values."""
_FILTER_PAGE = 200
"""Checkpoints that a filtered listing looks at at a time, without values."""
_CHUNK = 200
"""Checkpoints whose records, or threads whose names, are read at a time."""


class Reading(BaseCheckpointSaver[str]):
    """The part of `RedisSaver` that reads."""

    _redis: Any
    _keys: Keys

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that `config` names, or the newest of its namespace; None when there is none.

        Raises `RedisUnavailable`, `CheckpointDamaged`.
        """
        place = Place.of(config)
        [found] = await self._read(place.thread_id, [place.name])
        if found is None:
            return None
        saved = self._tuple(place.thread_id, found)
        stay_above(saved.checkpoint["id"])
        return saved

    async def anewest_id(self, thread_id: str) -> str:
        """Id of a thread's newest checkpoint, also of one that cannot be opened; empty when there is none.

        Raises `RedisUnavailable`.
        """
        [found] = await self._read(layout.thread(thread_id), [NUL], values=False)
        return "" if found is None else layout.split(found[0].decode())[1]

    async def ahas_asked(self, thread_id: str, run_id: str) -> bool:
        """Whether this run has put a question to a person after the thread's newest checkpoint.

        Then the answer that it was started with is used up: a further attempt that gave it again would answer the new
        question with it. Raises `RedisUnavailable`.
        """
        [found] = await self._read(layout.thread(thread_id), [NUL])
        return found is not None and any(
            layout.writer_of(stored) == (run_id, INTERRUPT) for stored in found[4] if stored is not None
        )

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, newest first, read a page at a time.

        Of one thread; of one namespace when `config` names it, else of all. Without `config` of every thread, one
        thread after the other, in no order among them. `filter` compares metadata for equality.
        """
        if limit is not None and limit <= 0:
            return
        if config is None:
            threads = [(thread, Place(thread, None, "")) async for thread in self._threads()]
        else:
            place = Place.of(config)
            threads = [(place.thread_id, place)]
        older_than = (get_checkpoint_id(before) if before else None) or ""
        left = limit
        for thread_id, place in threads:
            async for names in self._pages(place, older_than, _FILTER_PAGE if filter else _PAGE):
                page = await self._matching(thread_id, names, filter) if filter else names
                for start in range(0, len(page), _PAGE):
                    part = page[start : start + _PAGE][:left]
                    for found in await self._read(thread_id, part):
                        if found is None:  # removed since the names were read
                            continue
                        yield self._tuple(thread_id, found)
                        left = None if left is None else left - 1
                    if left is not None and left <= 0:
                        return

    async def _read(self, thread_id: ThreadId, names: list[str], *, values: bool = True) -> list[list[Any] | None]:
        """What `read.lua` says of `names`, in their order."""
        keys = ThreadKeys.of(self._keys, thread_id).all
        found: list[list[Any] | None] = await _READ(
            self._redis, keys=keys, args=["full" if values else "records", *names]
        )
        return found

    def _record(self, thread_id: ThreadId, found: list[Any]) -> tuple[str, Record]:
        name = found[0].decode()
        if found[1] is None:
            raise CheckpointDamaged(thread_id, layout.split(name)[1], "its record")
        return name, Record.load(found[1])

    async def _records(self, thread: ThreadId, *, skip_damaged: bool = False) -> dict[str, Record]:
        """Every checkpoint of a thread by name, without values. Raises `CheckpointDamaged` unless it may skip those."""
        with outages():
            names = [name.decode() for name in await self._redis.zrange(ThreadKeys.of(self._keys, thread).index, 0, -1)]
        records = {}
        for start in range(0, len(names), _CHUNK):
            for found in await self._read(thread, names[start : start + _CHUNK], values=False):
                if found is not None and not (skip_damaged and found[1] is None):
                    name, record = self._record(thread, found)
                    records[name] = record
        return records

    async def _threads(self) -> AsyncIterator[ThreadId]:
        """Every thread that has checkpoints, once."""
        seen = set()
        with outages():
            async for thread, _ in self._redis.zscan_iter(self._keys.checkpoint_threads, count=_CHUNK):
                if thread not in seen:
                    seen.add(thread)
                    yield ThreadId(thread.decode())

    async def _pages(self, place: Place, older_than: str, size: int) -> AsyncIterator[list[str]]:
        """Names of the checkpoints that a listing covers, newest first, at most `size` at a time."""
        index = ThreadKeys.of(self._keys, place.thread_id).index
        if place.namespace is None:
            with outages():
                found = await self._redis.zrange(index, 0, -1)
            names = sorted((name.decode() for name in found), key=lambda name: layout.split(name)[1], reverse=True)
            names = [name for name in names if not older_than or layout.split(name)[1] < older_than]
            if place.checkpoint_id:
                names = [name for name in names if layout.split(name)[1] == place.checkpoint_id]
            for start in range(0, len(names), size):
                yield names[start : start + size]
            return
        if place.checkpoint_id:
            if not older_than or place.checkpoint_id < older_than:
                yield [place.name]
            return
        least = f"[{place.namespace}{NUL}"
        most = f"({place.namespace}{NUL}{older_than}" if older_than else f"({place.namespace}\1"
        while True:
            with outages():
                found = await self._redis.zrevrangebylex(index, most, least, start=0, num=size)
            if not found:
                return
            yield [name.decode() for name in found]
            most = f"({found[-1].decode()}"

    async def _matching(self, thread_id: ThreadId, names: list[str], filter: Mapping[str, Any]) -> list[str]:
        kept = []
        for found in await self._read(thread_id, names, values=False):
            if found is None:
                continue
            name, record = self._record(thread_id, found)
            metadata = self.serde.loads_typed(record.metadata)
            if all(metadata.get(key) == value for key, value in filter.items()):
                kept.append(name)
        return kept

    def _tuple(self, thread_id: ThreadId, found: list[Any]) -> CheckpointTuple:
        name, record = self._record(thread_id, found)
        namespace, checkpoint_id = layout.split(name)
        values = {}
        for blob, stored in zip(record.blobs, found[2], strict=True):
            channel = layout.channel_of(blob, namespace)
            if stored is None:
                raise CheckpointDamaged(thread_id, checkpoint_id, f"the value of channel {channel!r}")
            values[channel] = layout.read_value(self.serde, stored)
        if None in found[4]:
            raise CheckpointDamaged(thread_id, checkpoint_id, "what a task wrote after it")
        return CheckpointTuple(
            config=layout.config_of(thread_id, namespace, checkpoint_id),
            checkpoint=cast(Checkpoint, self.serde.loads_typed(record.checkpoint) | {"channel_values": values}),
            metadata=self.serde.loads_typed(record.metadata),
            parent_config=layout.config_of(thread_id, namespace, record.parent) if record.parent else None,
            pending_writes=layout.load_writes(self.serde, found[3], found[4]),
        )
