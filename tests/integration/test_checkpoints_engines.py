"""What depends most on the server, on Valkey and, where `redis-server` is installed, on Redis."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, TypedDict

import pytest
import redis.asyncio as aioredis
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from app.infra.fence import Fence
from app.infra.ids import RunId
from app.infra.keys import Keys
from app.infra.redis import connect
from app.memory.checkpoints import RedisSaver
from tests.support.valkey import ENGINES, ValkeyServer

KEYS = Keys()
THREAD: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


@pytest.fixture(scope="module", params=sorted(ENGINES))
def server(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    """One server of each kind."""
    binary = ENGINES[request.param]()
    if binary is None:
        pytest.skip(f"{request.param}: install redis-server, or name one in TEST_REDIS_SERVER")
    with ValkeyServer(binary=binary) as server:
        yield server


@pytest.fixture
async def engine(server: ValkeyServer) -> AsyncIterator[aioredis.Redis]:
    """A client of an empty server."""
    client = connect(server.url)
    await client.flushall()
    yield client
    await client.aclose()


async def test_it_conforms_to_the_whole_suite_extended_parts_included(engine: aioredis.Redis) -> None:
    """LangGraph's own suite for savers; a part that is not detected would be a part not implemented."""

    @checkpointer_test(name="RedisSaver")
    async def factory() -> AsyncIterator[RedisSaver]:
        yield RedisSaver(engine, KEYS, fence=None, ttl_seconds=3_600)

    report = await validate(factory)
    assert {name: result.failures for name, result in report.results.items() if not result.passed} == {}
    assert len(report.results) == 8
    assert all(result.detected for result in report.results.values())


async def test_two_hundred_parallel_writes_all_arrive(engine: aioredis.Redis) -> None:
    """A fan-out of 200 tasks writes at once; savers that rewrite one document lose some."""
    saver = RedisSaver(engine, KEYS, fence=None, ttl_seconds=3_600)
    config = await saver.aput(THREAD, empty_checkpoint(), {"source": "input", "step": -1}, {})
    await asyncio.gather(*(saver.aput_writes(config, [("c", n), ("d", n)], f"task-{n:03}") for n in range(200)))
    found = await saver.aget_tuple(THREAD)
    assert found is not None
    assert found.pending_writes is not None
    assert sorted(value for _, channel, value in found.pending_writes if channel == "c") == list(range(200))
    assert len(found.pending_writes) == 400


def extend(log: list[Any], added: Any) -> list[Any]:
    return [*(log or []), *(item for part in added for item in part)]


class Log(TypedDict):
    added: Annotated[list[Any], DeltaChannel(extend, list, snapshot_frequency=1_000)]
    whole: Annotated[list[Any], operator.add]


async def test_scripts_that_the_suite_does_not_reach_run_too(engine: aioredis.Redis) -> None:
    """The walk along a `DeltaChannel`, and taking a run back whose write took the place of an earlier one's."""

    def ask(state: Log) -> dict[str, Any]:
        answers = [interrupt("first?"), interrupt("second?")]
        return {"added": answers, "whole": answers}

    async def run(run_id: str, given: Any) -> Any:
        await engine.hset(KEYS.epochs, run_id, "1")
        saver = RedisSaver(engine, KEYS, fence=Fence(RunId(run_id), 1), ttl_seconds=3_600)
        built: Any = StateGraph(Log)
        built.add_node("ask", ask)
        built.add_edge(START, "ask")
        graph = built.compile(checkpointer=saver)
        await graph.ainvoke(given, {**THREAD, "metadata": {"run_id": run_id}})
        return await graph.aget_state(THREAD)

    await run("one", {"added": ["in"], "whole": ["in"]})
    asked = await run("two", Command(resume="a"))
    assert [question.value for question in asked.interrupts] == ["second?"]
    await RedisSaver(engine, KEYS, fence=None, ttl_seconds=3_600).arollback("t", ["two"])
    asked = await run("three", Command(resume="b"))
    assert [question.value for question in asked.interrupts] == ["second?"]
    finished = await run("four", Command(resume="c"))
    assert finished.values == {"added": ["in", "b", "c"], "whole": ["in", "b", "c"]}
