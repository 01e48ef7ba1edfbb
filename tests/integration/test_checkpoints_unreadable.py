"""A run whose thread cannot be read ends, with the reason: it must not be tried for ever, nor begin the thread anew."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from pydantic import SecretStr

from app.infra.ids import STABLE
from app.infra.keys import Keys
from app.infra.settings import Settings, load
from app.memory.checkpoints import CheckpointSealed, RedisSaver, open_serializer
from app.runs.execution import Services
from app.runs.ledger import RunLedger
from app.runs.model import NewRun, Run, Status
from app.runs.worker import Worker
from tests.integration.conftest import TENANT, new_run
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def _graph(name: str) -> Any:
    graph = StateGraph(State)
    graph.add_node("answer", lambda state: {"messages": [AIMessage(f"answer {len(state['messages'])}")]})
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile()


@pytest.fixture
def settings(valkey_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("REDIS_URL", valkey_server.url)  # the heartbeat has a connection of its own
    return load(env_file=None)


def under(settings: Settings, key: bytes | None) -> Settings:
    secret = None if key is None else SecretStr(key.hex())
    return settings.model_copy(
        update={"runs": settings.runs.model_copy(update={"checkpoint_encryption_key": secret, "lease_seconds": 2.0})}
    )


async def executed(settings: Settings, client: Any, keys: Keys, new: NewRun) -> Run:
    """The run's end, under a worker with these settings."""
    ledger = RunLedger(client, keys, settings.runs, STABLE)
    worker = Worker(ledger, Services(redis=client, keys=keys, settings=settings, store=None), _graph)
    task = asyncio.create_task(worker.run())
    try:
        accepted = await ledger.accept(new)
        return await eventually(lambda: ledger.get(accepted.run_id, TENANT), until=lambda run: run.status.ended)
    finally:
        worker.stop()
        await task


async def test_a_run_on_a_thread_whose_key_is_gone_fails_and_leaves_the_thread_as_it_was(
    settings: Settings, client: Any, keys: Keys
) -> None:
    key = os.urandom(32)
    first = await executed(under(settings, key), client, keys, new_run())
    assert first.status is Status.SUCCESS
    root = keys.checkpoints(first.thread_id)
    before = await client.hgetall(f"{root}:records")
    for other in (None, os.urandom(32)):
        failed = await executed(under(settings, other), client, keys, new_run(first.thread_id))
        assert failed.status is Status.ERROR
        assert await client.hgetall(f"{root}:records") == before
        runs = under(settings, other).runs
        reader = RedisSaver(client, keys, fence=None, ttl_seconds=60, serde=open_serializer(runs))
        with pytest.raises(CheckpointSealed):
            await reader.aget_tuple({"configurable": {"thread_id": first.thread_id}})
        assert await reader.anewest_id(first.thread_id) in {name.decode().strip("\0") for name in before}
    again = await executed(under(settings, key), client, keys, new_run(first.thread_id))
    assert again.status is Status.SUCCESS


async def test_a_run_on_a_damaged_thread_fails(settings: Settings, client: Any, keys: Keys) -> None:
    """Values were evicted, or removed by hand."""
    first = await executed(under(settings, None), client, keys, new_run())
    await client.delete(f"{keys.checkpoints(first.thread_id)}:blobs")
    failed = await executed(under(settings, None), client, keys, new_run(first.thread_id))
    assert failed.status is Status.ERROR
