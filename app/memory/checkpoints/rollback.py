"""Taking runs back: a thread becomes what it was before they had begun."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.infra.fence import FencedLua
from app.memory.checkpoints import layout
from app.memory.checkpoints.errors import CheckpointDamaged
from app.memory.checkpoints.layout import Record, ThreadKeys
from app.memory.checkpoints.retention import Retention

_UNDO = FencedLua(Path(__file__).parent, "frame.lua", "undo.lua")
_WRITES = 500
"""Writes that one script looks at, so that Redis serves others in between."""


class Rollback(Retention):
    """The part of `RedisSaver` that undoes."""

    async def arollback(self, thread_id: str, run_ids: Sequence[str]) -> None:
        """Bring a thread to what it was before these runs, which must be its newest, had begun.

        Their checkpoints go, with all that was built on them since, and so does what they wrote after checkpoints of
        earlier runs: an input, an answer to an interrupt, a task's result. Where such a write had taken the place of
        an earlier run's, that one stands again. Safe to repeat when it was cut short. Looks at the whole thread. Call
        it when none of these runs can write any more: their fences are closed.

        Raises `CheckpointDamaged`, before anything is removed, when the checkpoint that the runs began from is gone
        (the thread was pruned meanwhile), `StaleEpoch`, `RedisUnavailable`.
        """
        thread = layout.thread(thread_id)
        wanted = set(run_ids)
        records = await self._records(thread)
        built = _built_on(wanted, records)
        for name in built:
            parent = layout.parent_of(name, records[name])
            if parent and parent not in records:
                raise CheckpointDamaged(thread, layout.split(name)[1], "the checkpoint that its run began from")
        # Newest first: were it cut short in between, what is left of these runs would still hang together.
        await self._drop(thread, sorted(built, key=lambda name: layout.split(name)[1], reverse=True))
        keys = ThreadKeys.of(self._keys, thread)
        last = ""
        while True:
            last = (await self._write(_UNDO, [keys.writes, keys.written], [last, _WRITES, *sorted(wanted)])).decode()
            if not last:
                break
        await self._forget(thread, wanted)


def _built_on(runs: set[str], records: dict[str, Record]) -> set[str]:
    """Names of the checkpoints that `runs` have made, and of all descendants of these."""
    children: dict[str, list[str]] = {}
    for name, record in records.items():
        children.setdefault(layout.parent_of(name, record), []).append(name)
    found: set[str] = set()
    open_ = [name for name, record in records.items() if record.run_id in runs]
    while open_:
        name = open_.pop()
        if name not in found:
            found.add(name)
            open_ += children.get(name, [])
    return found
