"""A checkpoint saver that can be asked whether what the current step rests on is stored.

LangGraph starts a step while the checkpoint before it is still being written (always with the first step of a run, and
with every step under DURABILITY=async). Should that checkpoint be lost, the step begins again under another task id,
and its tool calls are other calls. So the effect journal waits here before a call is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.config import get_config

from app.infra.errors import SlipwayError
from app.memory.checkpoints import RedisSaver

_LONGEST_SECONDS = 30.0
"""Wait for a checkpoint that nobody may ever write before this is said; a write itself fails much sooner."""


class _Kept:
    """What is known to be stored; one object for a saver and its copies, which LangGraph makes."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.writes: set[asyncio.Future[None]] = set()
        self.waiting: set[asyncio.Future[None]] = set()
        self.error: Exception | None = None
        self.empty = False
        """Nothing of the thread is stored, nor on its way."""

    def changed(self) -> None:
        for waiter in self.waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self.waiting.add(waiter)
        try:
            await waiter
        finally:
            self.waiting.discard(waiter)


class KeptSaver(RedisSaver):
    """The saver of one attempt. A step awaits `kept` before it does what must not be done again."""

    def __init__(self, *args: Any, empty: bool = False, **options: Any) -> None:
        """As `RedisSaver`; `empty` says that the thread is new, so that the look for its checkpoints can be spared."""
        super().__init__(*args, **options)
        self._kept = _Kept()
        self._kept.empty = empty

    async def kept(self) -> None:
        """Wait until the checkpoints are stored from which the current step and the graphs around it began, and what
        the run's input wrote to them (a person's answer). At once outside a graph.

        Raises what writing them raised.
        """
        try:
            began_from = get_config()["configurable"].get("checkpoint_map", {}).values()
        except RuntimeError:
            return
        kept, writes = self._kept, list(self._kept.writes)
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                while not kept.ids.issuperset(began_from) or any(not write.done() for write in writes):
                    if kept.error is not None:
                        raise kept.error
                    await kept.change()
        except TimeoutError as error:
            raise SlipwayError(
                "the checkpoint that this step began from is not stored, so a tool call of it could be repeated",
                fix="compile subgraphs that call tools without a checkpointer of their own, and not with False",
            ) from error

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        self._kept.empty = False
        try:
            put = await super().aput(config, checkpoint, metadata, new_versions)
        except Exception as error:
            self._fail(error)
            raise
        self._kept.ids.add(checkpoint["id"])
        self._kept.changed()
        return put

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._kept.empty = False
        under_way: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._kept.writes.add(under_way)
        try:
            await super().aput_writes(config, writes, task_id, task_path)
        except Exception as error:
            self._fail(error)
            raise
        finally:
            under_way.set_result(None)
            self._kept.writes.discard(under_way)
            self._kept.changed()

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        if self._kept.empty:
            return None
        found = await super().aget_tuple(config)
        if found is not None:
            self._kept.ids.add(found.checkpoint["id"])
        return found

    def _fail(self, error: Exception) -> None:
        self._kept.error = error
        self._kept.changed()
