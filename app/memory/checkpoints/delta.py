"""What LangGraph needs to rebuild a `DeltaChannel`: such a channel stores what each step added, and its whole value
only now and then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import DeltaChannelHistory

from app.infra.redis import Lua
from app.memory.checkpoints import layout
from app.memory.checkpoints.errors import CheckpointDamaged
from app.memory.checkpoints.layout import NUL, Place, ThreadKeys
from app.memory.checkpoints.reading import Reading

_FOLDER = Path(__file__).parent
_CHAIN = Lua.of(_FOLDER, "frame.lua", "chain.lua")
_ANCESTORS = 200
"""Ancestors that one script walks over. LangGraph stores a whole value every 100 updates, unless told otherwise."""


class DeltaHistory(Reading):
    """The part of `RedisSaver` that walks from a checkpoint to its ancestors."""

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Per channel its writes since the ancestor that stores its value, oldest first, and that value as `seed`.

        Two round trips for up to 200 ancestors. Raises `RedisUnavailable`, `CheckpointDamaged`.
        """
        place = Place.of(config)
        namespace = place.namespace or ""
        history: dict[str, DeltaChannelHistory] = {channel: {"writes": []} for channel in channels}
        [target] = await self._read(place.thread_id, [place.name], values=False)
        if target is None or not channels:
            return history
        parent = self._record(place.thread_id, target)[1].parent
        open_ = list(history)
        keys = ThreadKeys.of(self._keys, place.thread_id)
        while parent and open_:
            reply = await _CHAIN(
                self._redis,
                keys=[keys.records, keys.blobs, keys.writes, keys.written],
                args=[f"{namespace}{NUL}", parent, _ANCESTORS, *open_],
            )
            parent, open_ = reply[0].decode(), [channel.decode() for channel in reply[1]]
            for ended, names, values in reply[2]:
                self._gather(place, history, ended, names, values)
        return history

    def _gather(
        self,
        place: Place,
        history: dict[str, DeltaChannelHistory],
        ended: list[Any],
        names: list[bytes],
        values: list[bytes | None],
    ) -> None:
        """Add one ancestor, which is older than all that are there."""
        whole = [value for value in values if value is not None]
        if len(whole) < len(values) or None in ended:
            raise CheckpointDamaged(
                place.thread_id, place.checkpoint_id or "newest", "what its ancestors hold of a channel"
            )
        older: dict[str, list[tuple[str, str, Any]]] = {}
        for write in layout.load_writes(self.serde, names, whole):
            older.setdefault(write[1], []).append(write)
        for channel, writes in older.items():
            history[channel]["writes"] = writes + history[channel]["writes"]
        for blob, value in zip(ended[::2], ended[1::2], strict=True):
            channel = layout.channel_of(blob.decode(), place.namespace or "")
            history[channel]["seed"] = layout.read_value(self.serde, value)
