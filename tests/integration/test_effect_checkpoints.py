"""Effects and checkpoints together: a call's key is the same after a crash between any two writes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from pydantic import BaseModel

from app.infra.context import RunContext
from app.infra.errors import SlipwayError, StaleEpoch
from app.infra.fence import Fence, FencedLua
from app.infra.ids import STABLE, RunId, TenantId, ThreadId, UserId
from app.infra.keys import Keys
from app.runs import kept
from app.runs.effects import RedisEffects
from app.runs.kept import KeptSaver
from app.tools.registry import ToolRegistry
from app.tools.tool import Risk, Tool, ToolCall, ToolResult
from tests.support.crashing import Crash, CrashingSaver, until_crash

RUN = RunId("run")
CONFIG: Any = {"configurable": {"thread_id": "th"}, "metadata": {"run_id": RUN}}


class State(TypedDict, total=False):
    steps: int


class Nothing(BaseModel):
    pass


class Saver(KeptSaver, CrashingSaver):
    """The worker's saver, in a process that dies at a chosen write."""


class HeldUp(KeptSaver):
    """Its writes of checkpoints arrive when the test lets them."""

    go_on: asyncio.Event
    lost: bool = False

    async def _write(self, script: FencedLua, keys: list[str], args: list[Any]) -> Any:
        if script.name == "put.lua":
            await self.go_on.wait()
        return await super()._write(script, keys, args)


def graph_of(called: list[str], *, subgraph: Literal["none", "inherits", "apart"] = "none") -> Any:
    """first -> pay -> last, where `pay` calls a tool that may be repeated; it may do so in a graph of its own."""

    async def pay(_arguments: Nothing, call: ToolCall) -> ToolResult:
        called.append(call.key)
        return ToolResult(ok=True, text="paid")

    tools = ToolRegistry([Tool("pay", "Pays.", Nothing, pay, Risk.HIGH, idempotent=True)])

    async def step(state: State) -> State:
        return {"steps": state.get("steps", 0) + 1}

    async def paying(state: State, runtime: Runtime[RunContext]) -> State:
        assert runtime.execution_info is not None
        await tools.invoke("pay", {}, call_id="c1", task_id=runtime.execution_info.task_id, context=runtime.context)
        return {"steps": state.get("steps", 0) + 1}

    node: Any = paying
    if subgraph != "none":
        inner = StateGraph(State, context_schema=RunContext)
        inner.add_node("paying", paying)
        inner.add_edge(START, "paying")
        node = inner.compile(checkpointer=False if subgraph == "apart" else None)
    graph = StateGraph(State, context_schema=RunContext)
    nodes: Sequence[tuple[str, Any]] = [("first", step), ("pay", node), ("last", step)]
    for name, act in nodes:
        graph.add_node(name, act)
    graph.add_edge(START, "first")
    graph.add_edge("first", "pay")
    graph.add_edge("pay", "last")
    graph.add_edge("last", END)
    return graph.compile()


async def context(client: Any, keys: Keys, saver: KeptSaver, epoch: int) -> RunContext:
    """A worker's context of the run, which it has just taken under `epoch`."""
    await client.hset(keys.epochs, RUN, epoch)
    fence = Fence(RUN, epoch)
    journal = RedisEffects(
        client,
        keys,
        fence,
        RUN,
        attempt=epoch,
        lease_seconds=5,
        ttl_seconds=60,
        kept=saver.kept,
        on_stale=lambda _: None,
    )
    return RunContext(RUN, ThreadId("th"), TenantId("acme"), UserId("ann"), STABLE, epoch, fence, journal)


@pytest.mark.parametrize("subgraph", ["none", "inherits"])
@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_a_call_has_one_key_whichever_checkpoint_write_was_the_last(
    client: Any, keys: Keys, durability: Any, subgraph: Any
) -> None:
    """LangGraph begins a step while the checkpoint before it is on its way: were the call made then, the next attempt
    would begin the step anew, under another id, and make the call as if for the first time."""
    calls_before_the_crash = 0
    arrives: Literal["nothing", "whole"]
    for at in range(1, 14):
        for arrives in ("nothing", "whole"):
            await client.flushall()
            called: list[str] = []
            graph = graph_of(called, subgraph=subgraph)
            crash = Crash(at=at, arrives=arrives)
            for epoch, dies in ((1, crash), (2, Crash())):
                saver = Saver(client, keys, fence=Fence(RUN, epoch), ttl_seconds=60, crash=dies)
                graph.checkpointer = saver
                running = await context(client, keys, saver, epoch)
                saved = await saver.aget_tuple(CONFIG)
                await until_crash(
                    dies,
                    graph.ainvoke({} if saved is None else None, CONFIG, context=running, durability=durability),
                )
                if epoch == 1:
                    calls_before_the_crash += len(called)
            state = await graph.aget_state(CONFIG)
            assert state.values == {"steps": 3}
            assert len(set(called)) == 1, f"died at write {at} ({arrives=}): {called}"
    assert calls_before_the_crash > 3, "some crashes come after the call"


async def test_a_call_waits_for_the_checkpoint_that_its_step_began_from(client: Any, keys: Keys) -> None:
    """Under DURABILITY=async no step waits by itself."""
    called: list[str] = []
    graph = graph_of(called)
    saver = HeldUp(client, keys, fence=Fence(RUN, 1), ttl_seconds=60)
    saver.go_on = asyncio.Event()
    graph.checkpointer = saver
    running = asyncio.create_task(
        graph.ainvoke({}, CONFIG, context=await context(client, keys, saver, 1), durability="async")
    )
    await asyncio.sleep(0.1)
    assert called == []
    saver.go_on.set()
    await running
    assert len(called) == 1


async def test_a_call_is_not_made_when_its_checkpoint_was_refused(client: Any, keys: Keys) -> None:
    """Another worker owns the run: LangGraph would say so only after the step."""
    called: list[str] = []
    graph = graph_of(called)
    saver = KeptSaver(client, keys, fence=Fence(RUN, 1), ttl_seconds=60)
    graph.checkpointer = saver
    running = await context(client, keys, saver, 1)
    await client.hset(keys.epochs, RUN, 2)
    with pytest.raises(StaleEpoch):
        await graph.ainvoke({}, CONFIG, context=running, durability="async")
    assert called == []


async def test_a_subgraph_without_checkpoints_is_told_that_its_calls_could_be_repeated(
    client: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task ids are others in each attempt."""
    monkeypatch.setattr(kept, "_LONGEST_SECONDS", 0.2)
    called: list[str] = []
    graph = graph_of(called, subgraph="apart")
    saver = KeptSaver(client, keys, fence=Fence(RUN, 1), ttl_seconds=60)
    graph.checkpointer = saver
    with pytest.raises(SlipwayError, match="without a checkpointer of their own"):
        await graph.ainvoke({}, CONFIG, context=await context(client, keys, saver, 1))
    assert called == []
