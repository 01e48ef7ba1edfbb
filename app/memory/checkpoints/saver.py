"""`RedisSaver`: LangGraph's checkpoint saver over plain commands and Lua, fenced by the run's epoch.

What it promises beside the interface: one round trip per write, one per read; a write of a worker that has lost its
run raises `StaleEpoch` and changes nothing; Redis that does not answer raises `RedisUnavailable`, never "there is no
checkpoint"; a checkpoint that has lost a part raises `CheckpointDamaged`, never comes back smaller.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from app.infra.errors import StaleEpoch
from app.infra.fence import Fence, FencedLua
from app.infra.ids import ThreadId
from app.infra.keys import Keys
from app.memory.checkpoints import layout
from app.memory.checkpoints.delta import DeltaHistory
from app.memory.checkpoints.layout import NUL, Place, Record, ThreadKeys
from app.memory.checkpoints.rollback import Rollback
from app.memory.checkpoints.serializer import serializer
from app.memory.checkpoints.sync import SyncSaver

_FOLDER = Path(__file__).parent
_PUT = FencedLua(_FOLDER, "live.lua", "put.lua")
_PUT_WRITES = FencedLua(_FOLDER, "frame.lua", "live.lua", "put_writes.lua")
_SERIALIZER = serializer()


@lru_cache(maxsize=128)
def _with_types(serde: SerializerProtocol, types: frozenset[tuple[str, ...]]) -> SerializerProtocol:
    return BaseCheckpointSaver[str](serde=serde).with_allowlist(types).serde


class RedisSaver(DeltaHistory, Rollback, SyncSaver):
    """Checkpoints of all threads under one prefix. Cheap: a worker makes one per run, bound to the run's fence.

    `fence` None reads, and writes for maintenance outside any run. `ttl_seconds` is how long a thread lives after
    its last write. `on_stale` is told of each refused write at the moment it happens: LangGraph itself reports a
    failed background write only when the graph ends. `serde` is what `open_serializer` gives, which encrypts where a
    key is set; without one it is `serializer()`.
    """

    def __init__(
        self,
        redis: Any,
        keys: Keys,
        *,
        fence: Fence | None,
        ttl_seconds: int,
        on_stale: Callable[[StaleEpoch], None] | None = None,
        serde: SerializerProtocol | None = None,
    ) -> None:
        if ttl_seconds < 1:
            raise ValueError(f"ttl_seconds must be at least 1, not {ttl_seconds}")
        super().__init__(serde=serde or _SERIALIZER)
        self._redis, self._keys, self._fence, self._ttl, self._on_stale = redis, keys, fence, ttl_seconds, on_stale
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint; the same one again replaces it. Returns the config that names it.

        Values that an earlier checkpoint stored are referred to; should they be gone (the thread ran out or was
        pruned meanwhile), they are sent once more. Raises `StaleEpoch`, `RedisUnavailable`.
        """
        place = Place.of(config)
        namespace = place.namespace or ""
        values = checkpoint["channel_values"]
        blobs = {
            layout.blob_name(namespace, channel, version): channel
            for channel, version in checkpoint["channel_versions"].items()
            if channel in values
        }
        facts = cast(dict[str, Any], get_checkpoint_metadata(config, metadata))
        if self._fence is not None:
            facts.setdefault("run_id", self._fence.run_id)
        run_id = self._fence.run_id if self._fence is not None else str(facts.get("run_id") or "")
        bare = {part: value for part, value in checkpoint.items() if part != "channel_values"}
        record = Record(
            run_id, place.checkpoint_id, list(blobs), self.serde.dumps_typed(bare), self.serde.dumps_typed(facts)
        ).dump()
        name = f"{namespace}{NUL}{checkpoint['id']}"
        new = {blob for blob, channel in blobs.items() if channel in new_versions}
        while True:
            sent = [(blob, layout.write_value(self.serde, values[blobs[blob]])) for blob in new]
            missing = await self._write(
                _PUT,
                self._written(place.thread_id, run_id),
                [self._ttl, place.thread_id, name, record, len(sent)]
                + [part for pair in sent for part in pair]
                + [blob for blob in blobs if blob not in new],
            )
            if not missing:
                return place.config(checkpoint["id"])
            new |= {blob.decode() for blob in missing}

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task wrote after a checkpoint. Doing it again changes nothing, except that the newest error,
        interrupt or resume of a task counts. Raises `StaleEpoch`, `RedisUnavailable`."""
        place = Place.of(config)
        run_id = "" if self._fence is None else self._fence.run_id
        args: list[Any] = [self._ttl, place.thread_id]
        for position, (channel, value) in enumerate(writes):
            name = f"{place.name}{NUL}{task_id}{NUL}{layout.write_slot(channel, position)}"
            stays = "last" if channel in WRITES_IDX_MAP else "first"
            args += [name, layout.dump_write(self.serde, run_id, channel, task_path, value), stays]
        await self._write(_PUT_WRITES, self._written(place.thread_id), args)

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The version after `current`: it sorts after it, and differs from that of a rival attempt."""
        number = 0 if current is None else int(str(current).split(".", 1)[0])
        return f"{number + 1:032}.{random.random():016}"  # noqa: S311 - a mark, not a secret

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> RedisSaver:
        """This saver, with a serializer that builds the types of a graph's schemas too. LangGraph asks at each run."""
        clone = copy.copy(self)
        clone.serde = _with_types(cast(Any, self.serde), frozenset(extra_allowlist))
        return clone

    def _written(self, thread: ThreadId, run_id: str = "") -> list[str]:
        """The keys of a script that writes to a thread, and for a checkpoint to its run: see live.lua."""
        sets = [self._keys.checkpoint_run(run_id)] if run_id else []
        return [*ThreadKeys.of(self._keys, thread).all, self._keys.checkpoint_threads, *sets]

    async def _write(self, script: FencedLua, keys: list[str], args: list[Any]) -> Any:
        try:
            return await script(self._redis, epochs=self._keys.epochs, fence=self._fence, keys=keys, args=args)
        except StaleEpoch as error:
            if self._on_stale is not None:
                self._on_stale(error)
            raise
