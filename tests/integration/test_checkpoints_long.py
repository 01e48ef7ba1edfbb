"""A thread of ten thousand checkpoints: what a run does costs what it costs in a short one, the rest is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import redis.asyncio as aioredis
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from app.infra.ids import ThreadId
from app.infra.keys import Keys
from app.memory.checkpoints import RedisSaver

KEYS = Keys()
LONG, SHORT = 10_000, 20
RUN_STEPS = 10
"""Checkpoints per run."""
TIMES = 15


def at(thread_id: str, checkpoint_id: str | None = None) -> RunnableConfig:
    found = {"thread_id": thread_id, "checkpoint_ns": ""}
    return {"configurable": found | ({"checkpoint_id": checkpoint_id} if checkpoint_id else {})}


async def build(saver: RedisSaver, thread_id: str, count: int) -> list[str]:
    """A thread of runs `run-0`, `run-1`…; the first of each run's checkpoints has a write. Its checkpoint ids."""
    made: list[Checkpoint] = []
    for step in range(count):
        each = empty_checkpoint()
        each |= {
            "id": str(uuid6()),
            "channel_values": {"fixed": "as ever", "step": step},
            "channel_versions": {"fixed": 1, "step": step + 1},
        }
        made.append(each)

    async def put(step: int) -> None:
        metadata: Any = {"source": "loop", "step": step, "run_id": f"run-{step // RUN_STEPS}"}
        new: dict[str, Any] = {"step": step + 1} if step else {"fixed": 1, "step": 1}
        parent = at(thread_id, made[step - 1]["id"] if step else None)
        stored = await saver.aput(parent, made[step], metadata, new)
        if step % RUN_STEPS == 0:
            await saver.aput_writes(stored, [("step", step)], f"task-{step}")

    await put(0)
    for start in range(1, count, 250):
        await asyncio.gather(*(put(step) for step in range(start, min(start + 250, count))))
    return [each["id"] for each in made]


async def best(call: Callable[[str], Awaitable[Any]], thread_id: str) -> float:
    """Milliseconds of the quickest of some calls: what the work costs, whatever else the machine does."""
    times = []
    for _ in range(TIMES):
        start = perf_counter()
        await call(thread_id)
        times.append((perf_counter() - start) * 1000)
    return min(times)


async def test_a_thread_of_ten_thousand_checkpoints_is_as_quick_as_a_short_one(client: aioredis.Redis) -> None:
    """Reading, listing a page and writing must not look at the whole thread; maintenance does, in bounded time."""
    saver = RedisSaver(client, KEYS, fence=None, ttl_seconds=3_600)
    ids = await build(saver, "long", LONG)
    await build(saver, "short", SHORT)

    async def page(thread_id: str) -> list[int]:
        return [found.metadata["step"] async for found in saver.alist(at(thread_id), limit=10)]

    async def write(thread_id: str) -> None:
        await saver.aput_writes(at(thread_id, ids[-1]), [("step", 0)], "task")

    assert await page("long") == list(range(LONG - 1, LONG - 11, -1))
    for work in (lambda thread_id: saver.aget_tuple(at(thread_id)), page, write):
        long, short = await best(work, "long"), await best(work, "short")
        assert long < 3 * short + 1, f"{long:.1f} ms in the long thread, {short:.1f} ms in the short one"

    async def bounded(seconds: float, work: Awaitable[None]) -> None:
        async with asyncio.timeout(seconds):
            await work

    async def count() -> int:
        return int(await client.zcard(f"{KEYS.checkpoints(ThreadId('long'))}:index"))

    await bounded(10, saver.arollback("long", ["run-998", "run-999"]))
    assert await count() == LONG - 2 * RUN_STEPS
    newest = await saver.aget_tuple(at("long"))
    assert newest is not None
    assert newest.checkpoint["id"] == ids[LONG - 2 * RUN_STEPS - 1]
    await bounded(10, saver.adelete_for_runs(["run-500"]))
    assert await count() == LONG - 3 * RUN_STEPS
    await bounded(10, saver.aprune(["long"]))
    assert await page("long") == [LONG - 2 * RUN_STEPS - 1]
    assert await client.hlen(f"{KEYS.checkpoints(ThreadId('long'))}:blobs") == 2
    await bounded(10, saver.adelete_thread("long"))
    assert [key async for key in client.scan_iter(match="*:cp:long:*")] == []
