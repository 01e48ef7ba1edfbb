"""The checkpoint saver under LangGraph itself: what a graph stores, resumes and is refused."""

from __future__ import annotations

import asyncio
import functools
import operator
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypedDict

import pytest
import redis.asyncio as aioredis
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Send, StateSnapshot, interrupt
from pydantic import SecretStr

from app.infra.errors import StaleEpoch
from app.infra.fence import Fence
from app.infra.ids import RunId, ThreadId
from app.infra.keys import Keys
from app.infra.redis import connect
from app.infra.settings import RunSettings
from app.memory.checkpoints import CheckpointSealed, RedisSaver, RunNeeded, open_serializer
from tests.support.contents import contents
from tests.support.valkey import ValkeyServer

KEYS = Keys()
RUN = RunId("run-1")

Graph = CompiledStateGraph[Any, Any, Any, Any]
Saver = Callable[..., RedisSaver]


class Log(TypedDict):
    log: Annotated[list[Any], operator.add]


def _say(name: str, state: Any) -> dict[str, Any]:
    return {"log": [name]}


def extend(log: list[Any], added: Any) -> list[Any]:
    return [*(log or []), *(item for part in added for item in part)]


class OftenWhole(TypedDict):
    log: Annotated[list[Any], DeltaChannel(extend, list, snapshot_frequency=2)]


class SeldomWhole(TypedDict):
    log: Annotated[list[Any], DeltaChannel(extend, list, snapshot_frequency=1_000)]


@pytest.fixture
def saver(client: aioredis.Redis) -> Saver:
    """Makes a saver; unfenced unless said otherwise."""

    def make(**options: Any) -> RedisSaver:
        return RedisSaver(client, KEYS, **{"fence": None, "ttl_seconds": 3_600, **options})

    return make


def thread(thread_id: str = "t") -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}


def chain(*nodes: tuple[str, Any], state: Any = Log) -> Callable[[BaseCheckpointSaver[Any] | None], Graph]:
    """A graph that runs `nodes` one after the other; compiled with the saver that is given."""

    def compiled(saver: BaseCheckpointSaver[Any] | None) -> Graph:
        graph: Any = StateGraph(state)
        for before, (name, node) in zip([START, *(name for name, _ in nodes)], nodes, strict=False):
            graph.add_node(name, node)
            graph.add_edge(before, name)
        graph.add_edge(nodes[-1][0], END)
        compiled: Graph = graph.compile(checkpointer=saver)
        return compiled

    return compiled


async def test_an_interrupted_subgraph_goes_on_in_another_process(saver: Saver) -> None:
    """The answer of a person is a new run, on whichever worker is free; nothing that was done is done again."""
    ran: list[str] = []

    def ask(state: Log) -> dict[str, Any]:
        return {"log": [f"answer: {interrupt('go on?')}"]}

    def before(state: Log) -> dict[str, Any]:
        ran.append("before")
        return {"log": ["before"]}

    inner = chain(("first", before), ("ask", ask))(None)
    outer = chain(("outer", inner))
    asked = await outer(saver()).ainvoke({"log": []}, thread())
    assert [each.value for each in asked["__interrupt__"]] == ["go on?"]
    again = outer(saver())
    state = await again.aget_state(thread(), subgraphs=True)
    assert state.next == ("outer",)
    inside = state.tasks[0].state
    assert isinstance(inside, StateSnapshot)
    assert inside.values["log"] == ["before"]
    result = await again.ainvoke(Command(resume="yes"), thread())
    assert result["log"] == ["before", "answer: yes"]
    assert ran == ["before"]


async def test_history_and_a_fork_are_those_of_the_saver_in_memory(saver: Saver) -> None:
    """Time travel: go back to an earlier checkpoint, change the state there, go on from it."""
    graph = chain(("a", lambda state: {"log": ["a"]}), ("b", lambda state: {"log": ["b"]}))

    async def story(kept: BaseCheckpointSaver[Any]) -> list[Any]:
        compiled = graph(kept)
        await compiled.ainvoke({"log": ["in"]}, thread())
        history = [state async for state in compiled.aget_state_history(thread())]
        earlier = next(state for state in history if state.next == ("b",))
        fork = await compiled.aupdate_state(earlier.config, {"log": ["changed"]})
        await compiled.ainvoke(None, fork)
        return [
            (state.values, state.next, (state.metadata or {}).get("source"), (state.metadata or {}).get("step"))
            async for state in compiled.aget_state_history(thread())
        ]

    told = await story(saver())
    assert told[0][0] == {"log": ["in", "a", "changed", "b"]}
    assert told == await story(InMemorySaver())


async def test_a_fan_out_of_two_hundred_tasks_is_stored_whole(saver: Saver) -> None:
    """Each task writes by itself, all at the same time."""

    def spread(state: Log) -> list[Send]:
        return [Send("work", {"n": n}) for n in range(200)]

    async def work(task: dict[str, int]) -> dict[str, Any]:
        return {"log": [task["n"]]}

    graph: Any = StateGraph(Log)
    graph.add_node("work", work)
    graph.add_conditional_edges(START, spread, ["work"])
    one = saver()
    result = await graph.compile(checkpointer=one).ainvoke({"log": []}, thread())
    assert sorted(result["log"]) == list(range(200))
    tuples = [found async for found in one.alist(thread())]
    assert max(len({task for task, _, _ in found.pending_writes or ()}) for found in tuples) == 200


@pytest.mark.parametrize(("state", "left"), [(OftenWhole, range(1, 6)), (SeldomWhole, [7])])
async def test_a_delta_channel_is_rebuilt_also_after_a_prune(
    saver: Saver, client: aioredis.Redis, state: type, left: Sequence[int]
) -> None:
    """Such a channel stores only what was added; a prune that drops the steps between would empty it silently."""

    graph = chain(*((name, functools.partial(_say, name)) for name in "abcde"), state=state)
    memory = graph(InMemorySaver())
    await memory.ainvoke({"log": ["in"]}, thread())
    stored = graph(saver())
    await stored.ainvoke({"log": ["in"]}, thread())

    expected = ["in", *"abcde"]
    assert (await memory.aget_state(thread())).values["log"] == expected
    assert (await stored.aget_state(thread())).values["log"] == expected
    assert [state.values async for state in stored.aget_state_history(thread())] == [
        state.values async for state in memory.aget_state_history(thread())
    ]
    newest = await saver().aget_tuple(thread())
    assert newest is not None
    told = await saver().aget_delta_channel_history(config=newest.config, channels=["log", "none"])
    # The base class walks the ancestors one by one over `aget_tuple`: slow, and right.
    assert told == await BaseCheckpointSaver.aget_delta_channel_history(
        saver(), config=newest.config, channels=["log", "none"]
    )
    await saver().aprune(["t"])
    assert (await stored.aget_state(thread())).values["log"] == expected
    assert await client.zcard(f"{KEYS.checkpoints(ThreadId('t'))}:index") in left
    result = await stored.ainvoke({"log": ["more"]}, thread())
    assert result["log"] == [*expected, "more", *"abcde"]


async def test_a_run_that_a_delta_channel_is_computed_from_is_not_deleted(saver: Saver, client: aioredis.Redis) -> None:
    """The channel of the later run would silently lose what the earlier one had added."""
    graph = chain(("a", functools.partial(_say, "a")), state=OftenWhole)(saver())

    def made_by(run_id: str) -> RunnableConfig:
        return {**thread(), "metadata": {"run_id": run_id}}

    await graph.ainvoke({"log": ["one"]}, made_by("first"))
    await graph.ainvoke({"log": ["two"]}, made_by("second"))
    before = await contents(client)
    with pytest.raises(RunNeeded, match="later checkpoints of thread t are computed from those of run first"):
        await saver().adelete_for_runs(["first"])
    assert await contents(client) == before
    await saver().adelete_for_runs(["second"])
    assert (await graph.aget_state(thread())).values["log"] == ["one", "a"]
    await saver().adelete_for_runs(["first"])
    assert [key async for key in client.scan_iter()] == []


async def test_a_run_before_a_delta_channels_whole_value_is_deleted_after_a_prune(saver: Saver) -> None:
    """What the refusal advises: of a pruned thread nothing is left that is computed from so far back."""

    class Whole(TypedDict):
        log: Annotated[list[Any], DeltaChannel(extend, list, snapshot_frequency=1)]

    graph = chain(("a", functools.partial(_say, "a")), state=Whole)(saver())
    for run_id in ("first", "second"):
        await graph.ainvoke({"log": [run_id]}, {**thread(), "metadata": {"run_id": run_id}})
    with pytest.raises(RunNeeded, match="prune the thread first"):
        await saver().adelete_for_runs(["first"])
    await saver().aprune(["t"])
    await saver().adelete_for_runs(["first"])
    states = [state async for state in graph.aget_state_history(thread())]
    assert states[0].values["log"] == ["first", "a", "second", "a"]
    assert {(state.metadata or {}).get("run_id") for state in states} == {"second"}


class Overtaken:
    """A graph of three nodes whose run is taken over by another worker while the first node runs."""

    def __init__(self, client: aioredis.Redis, last: Callable[[], Any]) -> None:
        self.ran: list[str] = []
        self.told: list[list[str]] = []
        self._client = client
        self._refused = asyncio.Event()

        async def first(state: Log) -> dict[str, Any]:
            self.ran.append("first")
            await client.hset(KEYS.epochs, RUN, "2")
            return {"log": ["first"]}

        async def second(state: Log) -> dict[str, Any]:
            self.ran.append("second")
            await self._refused.wait()  # the first step is saved in the background
            return {"log": ["second"]}

        async def third(state: Log) -> dict[str, Any]:
            self.ran.append("third")
            return {"log": [last()]}

        self._graph = chain(("first", first), ("second", second), ("third", third))

    async def run(self, durability: Literal["sync", "async", "exit"]) -> None:
        await self._client.hset(KEYS.epochs, RUN, "1")
        saver = RedisSaver(
            self._client,
            KEYS,
            fence=Fence(RUN, 1),
            ttl_seconds=3_600,
            on_stale=self._on_stale,
        )
        await self._graph(saver).ainvoke({"log": []}, thread(), durability=durability)

    def _on_stale(self, error: StaleEpoch) -> None:
        self.told.append(list(self.ran))
        self._refused.set()


async def test_with_sync_durability_a_refused_write_ends_the_graph_at_that_step(client: aioredis.Redis) -> None:
    overtaken = Overtaken(client, last=lambda: "third")
    with pytest.raises(StaleEpoch):
        await overtaken.run("sync")
    assert overtaken.ran == ["first"]


async def test_with_async_durability_the_saver_tells_at_once_and_langgraph_at_the_end(client: aioredis.Redis) -> None:
    """LangGraph looks at background writes when the graph is over: a worker must listen to `on_stale`."""
    overtaken = Overtaken(client, last=lambda: "third")
    with pytest.raises(StaleEpoch):
        await overtaken.run("async")
    assert overtaken.ran == ["first", "second", "third"]
    assert overtaken.told[0] == ["first", "second"]


async def test_the_error_of_a_node_hides_a_refused_write_from_all_but_the_saver(client: aioredis.Redis) -> None:
    """LangGraph raises the node's error and drops the refusal: only `on_stale` tells a worker not to retry."""
    overtaken = Overtaken(client, last=lambda: dict[str, str]()["missing"])
    with pytest.raises(KeyError, match="missing"):
        await overtaken.run("async")
    assert overtaken.told


async def test_an_overtaken_worker_leaves_the_finished_thread_as_it_is(client: aioredis.Redis) -> None:
    """The zombie: it was frozen, another worker took the run over and finished it, then it wakes up."""
    frozen, wake = asyncio.Event(), asyncio.Event()
    names: list[str] = []

    async def node(state: Log) -> dict[str, Any]:
        name = f"worker {len(names) + 1}"
        names.append(name)
        if name == "worker 1":
            frozen.set()
            await wake.wait()
        return {"log": [name]}

    graph = chain(("node", node))

    def worker(epoch: int) -> Graph:
        return graph(RedisSaver(client, KEYS, fence=Fence(RUN, epoch), ttl_seconds=3_600))

    await client.hset(KEYS.epochs, RUN, "1")
    zombie = asyncio.create_task(worker(1).ainvoke({"log": []}, thread()))
    await frozen.wait()
    await client.hset(KEYS.epochs, RUN, "2")
    await worker(2).ainvoke({"log": []}, thread())
    await client.hdel(KEYS.epochs, RUN)
    finished = await contents(client)
    wake.set()
    with pytest.raises(StaleEpoch):
        await zombie
    assert await contents(client) == finished
    state = await graph(RedisSaver(client, KEYS, fence=None, ttl_seconds=3_600)).aget_state(thread())
    assert state.values["log"] == ["worker 2"]


async def test_with_a_key_no_text_of_a_thread_is_readable_in_redis() -> None:
    """Values, metadata, pending writes, questions to a person and errors alike, in memory and in the file."""
    key = SecretStr("0123456789abcdef" * 4)

    def fail(state: Log) -> dict[str, Any]:
        raise ValueError(f"the secret failed after {interrupt('secret question?')}")

    with ValkeyServer(aof=True) as server:
        client = connect(server.url)
        serde = open_serializer(RunSettings(checkpoint_encryption_key=key))
        saver = RedisSaver(client, KEYS, fence=None, ttl_seconds=3_600, serde=serde)
        graph = chain(("a", lambda state: {"log": [AIMessage("the secret answer")]}), ("b", fail))(saver)
        config: RunnableConfig = {**thread(), "metadata": {"topic": "secret"}}
        await graph.ainvoke({"log": [HumanMessage("the secret question")]}, config, durability="sync")
        with pytest.raises(ValueError, match="the secret failed"):
            await graph.ainvoke(Command(resume="secret reply"), config, durability="sync")
        state = await graph.aget_state(thread())
        assert [message.text for message in state.values["log"]] == ["the secret question", "the secret answer"]
        assert state.metadata is not None
        assert state.metadata["topic"] == "secret"  # type: ignore[typeddict-item]

        stored = [name async for name in client.scan_iter(match="*cp:*")]
        assert len(stored) == 5
        for name in stored:
            whole = await (client.hgetall if await client.type(name) == b"hash" else client.zscan)(name)
            assert b"secret" not in repr(whole).encode()
        with pytest.raises(CheckpointSealed, match="CHECKPOINT_ENCRYPTION_KEY"):
            await RedisSaver(client, KEYS, fence=None, ttl_seconds=60).aget_tuple(thread())
        await RedisSaver(client, KEYS, fence=None, ttl_seconds=60).acopy_thread("t", "copy")
        await client.aclose()
        server.stop()
        files = [path.read_bytes() for path in server.folder.rglob("*.aof")]
        assert any(b"cp:t:records" in content for content in files)
        assert not any(b"secret" in content for content in files)


def test_types_of_the_graphs_schema_come_back_as_themselves_and_others_do_not() -> None:
    """In a process of its own: LangGraph decides at its import whether stored bytes may name any class."""
    script = """
        import asyncio
        import logging
        import sys
        from dataclasses import dataclass
        from typing import Any, TypedDict

        from app.infra.keys import Keys
        from app.infra.redis import connect
        from app.memory.checkpoints import RedisSaver
        from langgraph.graph import START, StateGraph

        @dataclass
        class Declared:
            text: str

        @dataclass
        class Smuggled:
            text: str

        class State(TypedDict):
            declared: Declared
            anything: Any

        async def main(url):
            client = connect(url)
            graph = StateGraph(State)
            graph.add_node("node", lambda state: {"declared": Declared("a"), "anything": Smuggled("b")})
            graph.add_edge(START, "node")
            compiled = graph.compile(checkpointer=RedisSaver(client, Keys(), fence=None, ttl_seconds=60))
            config = {"configurable": {"thread_id": "t"}}
            await compiled.ainvoke({"declared": Declared(""), "anything": None}, config)
            print((await compiled.aget_state(config)).values)
            await client.aclose()

        logging.disable(logging.WARNING)
        asyncio.run(main(sys.argv[1]))
    """
    with ValkeyServer() as server:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), server.url], capture_output=True, text=True, timeout=60
        )
    assert done.stdout.strip() == "{'declared': Declared(text='a'), 'anything': {'text': 'b'}}", done.stderr
