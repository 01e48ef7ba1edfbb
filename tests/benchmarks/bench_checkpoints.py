"""How long the checkpoint saver takes beside LangGraph's InMemorySaver, in the same run on the same state.

    python -m tests.benchmarks.bench_checkpoints [--steps 300] [--aof everysec]

Starts its own Valkey on loopback and prints one JSON line per saver and operation: milliseconds, p50 and p99. The
state is 50 messages of 300 characters, all rewritten in each step, with one pending write per step: every value is
stored anew, the worst case. The saver writes under a fence, as in a worker.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Awaitable
from time import perf_counter
from typing import Any, Literal, TypeVar

import redis.asyncio as aioredis
import uvloop
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver

from app.infra.fence import Fence
from app.infra.ids import RunId
from app.infra.keys import Keys
from app.infra.redis import connect
from app.memory.checkpoints import RedisSaver
from tests.support.valkey import ValkeyServer

MESSAGES = 50
CHARACTERS = 300
WARM_UP = 20
DAY = 86_400

T = TypeVar("T")


def messages(step: int) -> list[AnyMessage]:
    text = f"{step:06} " + "x" * (CHARACTERS - 7)
    kinds = (HumanMessage, AIMessage)
    return [kinds[place % 2](content=text, id=f"message-{place}") for place in range(MESSAGES)]


async def measure(saver: BaseCheckpointSaver[str], steps: int) -> dict[str, list[float]]:
    """Milliseconds of each call."""
    times: dict[str, list[float]] = {"put": [], "put_writes": [], "get": []}

    async def timed(operation: str, call: Awaitable[T]) -> T:
        start = perf_counter()
        result = await call
        times[operation].append((perf_counter() - start) * 1000)
        return result

    config: RunnableConfig = {"configurable": {"thread_id": "bench", "checkpoint_ns": ""}}
    latest = config
    version: str | None = None
    for step in range(steps + WARM_UP):
        version = saver.get_next_version(version, None)
        versions: dict[str, str | int | float] = {"messages": version, "branch:to:agent": version}
        made = Checkpoint(
            v=2,
            id=str(uuid6(clock_seq=step)),
            ts="2026-01-01T00:00:00+00:00",
            channel_values={"messages": messages(step)},
            channel_versions=versions,
            versions_seen={"agent": {"branch:to:agent": version}, "__input__": {}},
            updated_channels=["messages"],
        )
        latest = await timed("put", saver.aput(latest, made, {"source": "loop", "step": step}, versions))
        answer = [("messages", AIMessage(content="y" * CHARACTERS))]
        await timed("put_writes", saver.aput_writes(latest, answer, f"task-{step}"))
        found = await timed("get", saver.aget_tuple(config))
        if found is None or found.checkpoint["id"] != made["id"] or len(found.pending_writes or ()) != 1:
            raise SystemExit(f"step {step} was not read back as it was written")
    return {operation: values[WARM_UP:] for operation, values in times.items()}


def report(saver: str, times: dict[str, list[float]], **facts: Any) -> None:
    for operation, values in times.items():
        cuts = statistics.quantiles(values, n=100)
        line = {"benchmark": "checkpoints", "saver": saver, "operation": operation, "count": len(values)}
        line |= {"p50_ms": round(cuts[49], 3), "p99_ms": round(cuts[98], 3), **facts}
        sys.stdout.write(json.dumps(line) + "\n")


async def main(steps: int, aof: Literal["off", "everysec", "always"]) -> None:
    report("InMemorySaver", await measure(InMemorySaver(), steps))
    with ValkeyServer(aof=aof != "off", fsync="everysec" if aof == "off" else aof) as server:
        client: aioredis.Redis = connect(server.url)
        keys = Keys()
        await client.hset(keys.epochs, "bench", "1")
        saver = RedisSaver(client, keys, fence=Fence(RunId("bench"), 1), ttl_seconds=DAY)
        times = await measure(saver, steps)
        memory = sum([int(await client.memory_usage(key, samples=0) or 0) async for key in client.scan_iter()])
        report("RedisSaver", times, aof=aof, bytes_per_checkpoint=memory // (steps + WARM_UP))
        await client.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time checkpoint put, put_writes and get.")
    parser.add_argument("--steps", type=int, default=300, help="checkpoints that are measured, after 20 to warm up")
    parser.add_argument("--aof", choices=["off", "everysec", "always"], default="everysec")
    arguments = parser.parse_args()
    uvloop.run(main(arguments.steps, arguments.aof))
