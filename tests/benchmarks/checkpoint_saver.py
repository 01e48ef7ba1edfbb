"""One checkpoint saver under load, in a process of its own: `bench_checkpoints` starts one for each.

    python -m tests.benchmarks.checkpoint_saver RedisSaver redis://127.0.0.1:6379/0

Says `ready`, then reads lines from standard input: for each number of steps it makes so many in one thread and answers
with a JSON object, operation -> milliseconds of each call. It imports nothing of the service, unless it measures its
saver: the published ones run in environments of their own.

The state is 50 messages of 300 characters, all rewritten in each step, with one pending write per step: every value is
stored anew, the worst case.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import perf_counter
from typing import Any, TypeVar

import uvloop
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver

MESSAGES = 50
CHARACTERS = 300
WARM_UP = 3
"""Steps that are made first, each time, and not measured: the other savers had the processor meanwhile."""
DAY = 86_400

T = TypeVar("T")
Saver = BaseCheckpointSaver[Any]


@asynccontextmanager
async def in_memory(url: str) -> AsyncIterator[Saver]:
    yield InMemorySaver()


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Saver]:
    """Under a fence, as in a worker."""
    from app.infra.fence import Fence
    from app.infra.ids import RunId
    from app.infra.keys import Keys
    from app.infra.redis import connect
    from app.memory.checkpoints import RedisSaver

    client, keys = connect(url), Keys()
    await client.hset(keys.epochs, "bench", "1")
    yield RedisSaver(client, keys, fence=Fence(RunId("bench"), 1), ttl_seconds=DAY)
    await client.aclose()


@asynccontextmanager
async def ours_encrypted(url: str) -> AsyncIterator[Saver]:
    import os

    from pydantic import SecretStr

    from app.infra.settings import RunSettings
    from app.memory.checkpoints import open_serializer

    async with ours(url) as saver:
        key = SecretStr(os.urandom(32).hex())
        saver.serde = open_serializer(RunSettings(checkpoint_encryption_key=key))
        yield saver


@asynccontextmanager
async def aws_valkey(url: str) -> AsyncIterator[Saver]:
    from langgraph_checkpoint_aws import AsyncValkeySaver  # type: ignore[import-not-found]  # not of our environment

    async with AsyncValkeySaver.from_conn_string(url, ttl_seconds=DAY) as saver:
        yield saver


@asynccontextmanager
async def plainredis(url: str) -> AsyncIterator[Saver]:
    from langgraph_checkpoint_plainredis import AsyncRedisSaver  # type: ignore[import-not-found]  # nor is this

    saver = AsyncRedisSaver(url=url, ttl=DAY)
    yield saver
    await saver.client.aclose()


SAVERS: dict[str, Callable[[str], AbstractAsyncContextManager[Saver]]] = {
    "InMemorySaver": in_memory,
    "RedisSaver": ours,
    "RedisSaver, encrypted": ours_encrypted,
    "langgraph-checkpoint-aws": aws_valkey,
    "langgraph-checkpoint-plainredis": plainredis,
}


def messages(step: int) -> list[AnyMessage]:
    text = f"{step:06} " + "x" * (CHARACTERS - 7)
    kinds = (HumanMessage, AIMessage)
    return [kinds[place % 2](content=text, id=f"message-{place}") for place in range(MESSAGES)]


class Load:
    """One thread that grows by a step at a time."""

    def __init__(self, saver: Saver) -> None:
        self._saver = saver
        self._thread: RunnableConfig = {"configurable": {"thread_id": "bench", "checkpoint_ns": ""}}
        self._latest, self._step, self._version = self._thread, 0, None

    async def steps(self, count: int) -> dict[str, list[float]]:
        """Milliseconds of each call of `count` steps."""
        for _ in range(WARM_UP):
            await self._one({"put": [], "put_writes": [], "get": []})
        times: dict[str, list[float]] = {"put": [], "put_writes": [], "get": []}
        for _ in range(count):
            await self._one(times)
        return times

    async def _one(self, times: dict[str, list[float]]) -> None:
        async def timed(operation: str, call: Awaitable[T]) -> T:
            start = perf_counter()
            result = await call
            times[operation].append((perf_counter() - start) * 1000)
            return result

        saver, step = self._saver, self._step
        self._step += 1
        self._version = version = saver.get_next_version(self._version, None)
        versions = {"messages": version, "branch:to:agent": version}
        made = Checkpoint(
            v=2,
            id=str(uuid6(clock_seq=step)),
            ts="2026-01-01T00:00:00+00:00",
            channel_values={"messages": messages(step)},
            channel_versions=versions,
            versions_seen={"agent": {"branch:to:agent": version}, "__input__": {}},
            updated_channels=["messages"],
        )
        self._latest = await timed("put", saver.aput(self._latest, made, {"source": "loop", "step": step}, versions))
        answer = [("messages", AIMessage(content="y" * CHARACTERS))]
        await timed("put_writes", saver.aput_writes(self._latest, answer, f"task-{step}"))
        found = await timed("get", saver.aget_tuple(self._thread))
        if found is None or found.checkpoint["id"] != made["id"] or len(found.pending_writes or ()) != 1:
            raise SystemExit(f"step {step} was not read back as it was written")


async def main(name: str, url: str) -> None:
    async with SAVERS[name](url) as saver:
        load = Load(saver)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while line := await asyncio.to_thread(sys.stdin.readline):
            sys.stdout.write(json.dumps(await load.steps(int(line))) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
