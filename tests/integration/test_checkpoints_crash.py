"""What a crash between any two checkpoint writes leaves, and that a successor goes on from exactly there.

The graph runs a, then b beside c, then d. In each test the process of the first attempt dies at one of its writes, one
after the other; a second attempt, under the next epoch, begins as a worker does.
"""

from __future__ import annotations

import asyncio
import operator
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict

import pytest
import redis.asyncio as aioredis
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from app.infra.fence import Fence
from app.infra.ids import RunId
from app.infra.keys import Keys
from app.infra.redis import connect
from app.memory.checkpoints import RedisSaver
from tests.support.crashing import Crash, CrashingSaver, until_crash
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually

KEYS = Keys()
RUN = RunId("run-1")
NODES = ["a", "b", "c", "d"]
STEPS = [{"a"}, {"b", "c"}, {"d"}]
WRITES = 10
"""Of one run: a checkpoint for the input, for its way into the state and for each step; what each task wrote."""

Arrives = Literal["nothing", "whole", "next"]


def extend(log: list[Any], added: Any) -> list[Any]:
    return [*(log or []), *(item for part in added for item in part)]


class Log(TypedDict):
    log: Annotated[list[Any], operator.add]


class DeltaLog(TypedDict):
    log: Annotated[list[Any], DeltaChannel(extend, list, snapshot_frequency=1_000)]


class Story:
    """One run of a thread and its attempts."""

    def __init__(self, client: aioredis.Redis, state: Any, durability: Literal["sync", "async"]) -> None:
        self._client, self._state, self._durability = client, state, durability
        self.ran: Counter[str] = Counter()
        self.config: RunnableConfig = {"configurable": {"thread_id": "t"}, "metadata": {"run_id": RUN}}
        self.reader = RedisSaver(client, KEYS, fence=None, ttl_seconds=60)

    async def attempt(self, epoch: int, crash: Crash) -> Any:
        """The graph's result; None when the crash came before its end."""
        await self._client.hset(KEYS.epochs, RUN, str(epoch))
        saver = CrashingSaver(self._client, KEYS, fence=Fence(RUN, epoch), ttl_seconds=60, crash=crash)
        saved = await saver.aget_tuple(self.config)
        begun = saved is not None and saved.metadata.get("run_id") == RUN
        given = None if begun else {"log": ["in"]}
        work = self.graph(saver).ainvoke(given, self.config, durability=self._durability)
        return await until_crash(crash, work)

    async def stored(self) -> set[str]:
        """Nodes whose results a successor finds: in the newest state, or written after it."""
        saved = await self.reader.aget_tuple(self.config)
        if saved is None:
            return set()
        state = await self.graph(self.reader).aget_state(self.config)
        log = [
            *state.values.get("log", ()),
            *(item for _, channel, part in saved.pending_writes or () if channel == "log" for item in part),
        ]
        return set(log) & set(NODES)

    def graph(self, saver: RedisSaver) -> Any:
        graph: Any = StateGraph(self._state)
        for name in NODES:
            graph.add_node(name, self._node(name))
        graph.add_edge(START, "a")
        graph.add_edge("a", "b")
        graph.add_edge("a", "c")
        graph.add_edge(["b", "c"], "d")
        return graph.compile(checkpointer=saver)

    def _node(self, name: str) -> Callable[[Any], Any]:
        async def node(state: Any) -> dict[str, Any]:
            self.ran[name] += 1
            return {"log": [name]}

        return node


@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("state", [Log, DeltaLog])
@pytest.mark.parametrize("arrives", ["nothing", "whole"])
async def test_after_a_crash_at_any_write_exactly_what_is_not_stored_is_done_again(
    client: aioredis.Redis, state: type, durability: Literal["sync", "async"], arrives: Arrives
) -> None:
    """`nothing`: before or inside the write. `whole`: after it, its reply unheard. The end is that of no crash."""
    for at in range(1, WRITES + 1):
        await client.flushall()
        story = Story(client, state, durability)
        crash = Crash(at, arrives)
        await story.attempt(1, crash)
        assert crash.happened.is_set(), f"a run makes fewer writes than {at}"
        ran, stored = set(story.ran), await story.stored()
        story.ran.clear()
        result = await story.attempt(2, Crash())
        where = f"crash at write {at} ({crash.writes[-1]})"
        assert result["log"] == ["in", *NODES], where
        assert set(story.ran) == set(NODES) - stored, where
        assert set(story.ran.values()) <= {1}, where
        if durability == "sync":
            assert any(ran - stored <= step for step in STEPS), f"{where}: more than the step under way is repeated"


@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_a_checkpoint_that_overtook_a_tasks_write_holds_its_result(
    client: aioredis.Redis, durability: Literal["sync", "async"]
) -> None:
    """LangGraph waits with the next step for the checkpoint, not for what the tasks of the last one wrote."""
    whole = Crash()
    await Story(client, Log, durability).attempt(1, whole)
    overtaken = [number for number, name in enumerate(whole.writes[:-1], 1) if name == "put_writes.lua"]
    assert len(overtaken) == 5
    for at in overtaken:
        await client.flushall()
        story = Story(client, Log, durability)
        await story.attempt(1, Crash(at, "next"))
        stored = await story.stored()
        story.ran.clear()
        result = await story.attempt(2, Crash())
        assert result["log"] == ["in", *NODES], f"write {at} was overtaken"
        assert set(story.ran) == set(NODES) - stored, f"write {at} was overtaken"


@pytest.mark.parametrize(("durability", "ahead"), [("sync", []), ("async", NODES)])
async def test_how_far_a_graph_runs_ahead_of_a_redis_that_does_not_answer(
    client: aioredis.Redis, durability: Literal["sync", "async"], ahead: list[str]
) -> None:
    """That much is lost with the process: under `async` every step that ends until a write fails, not just one."""
    story = Story(client, Log, durability)
    await client.hset(KEYS.epochs, RUN, "1")
    saver = CrashingSaver(client, KEYS, fence=Fence(RUN, 1), ttl_seconds=60, crash=Crash(1))
    work = asyncio.create_task(story.graph(saver).ainvoke({"log": ["in"]}, story.config, durability=durability))
    await saver.crash.happened.wait()
    for _ in range(100):  # turns of the event loop: time for a step that does not wait, and none for Redis
        await asyncio.sleep(0)
    await eventually(lambda: asyncio.sleep(0, sorted(story.ran)), until=lambda ran: ran == ahead)
    assert await story.stored() == set()
    assert not work.done(), "the run ends when its checkpoints are stored, not before"
    work.cancel()
    saver.crash.buried.set()
    await asyncio.gather(work, return_exceptions=True)


@pytest.mark.parametrize("arrives", ["nothing", "whole"])
async def test_an_answer_never_reaches_the_question_after_it(client: aioredis.Redis, arrives: Arrives) -> None:
    """The worker dies when the answer is used up and the next question stored: told the answer once more, LangGraph
    would give it to that one. An approval would approve what nobody has seen."""

    def ask(state: Log) -> dict[str, Any]:
        return {"log": [f"name {interrupt('name?')}", f"age {interrupt('age?')}"]}

    def graph(saver: RedisSaver) -> Any:
        built: Any = StateGraph(Log)
        built.add_node("ask", ask)
        built.add_edge(START, "ask")
        return built.compile(checkpointer=saver)

    async def attempt(run_id: str, epoch: int, given: Any, crash: Crash) -> bool:
        """Whether the run had asked again before this attempt, which then does nothing."""
        await client.hset(KEYS.epochs, run_id, str(epoch))
        saver = CrashingSaver(client, KEYS, fence=Fence(RunId(run_id), epoch), ttl_seconds=60, crash=crash)
        if await saver.ahas_asked("t", run_id):
            return True
        config: RunnableConfig = {"configurable": {"thread_id": "t"}, "metadata": {"run_id": run_id}}
        await until_crash(crash, graph(saver).ainvoke(given, config, durability="sync"))
        return False

    for at in (1, 2):
        await client.flushall()
        await attempt("asks", 1, {"log": []}, Crash())
        await attempt("answers", 1, Command(resume="Ada"), crash := Crash(at, arrives))
        assert crash.happened.is_set()
        asked = await attempt("answers", 2, Command(resume="Ada"), Crash())
        assert asked == (at == 2 and arrives == "whole")
        reader = RedisSaver(client, KEYS, fence=None, ttl_seconds=60)
        state = await graph(reader).aget_state({"configurable": {"thread_id": "t"}})
        assert [question.value for question in state.interrupts] == ["age?"]
        assert state.values["log"] == []
        assert not await attempt("answers again", 1, Command(resume="36"), Crash())
        state = await graph(reader).aget_state({"configurable": {"thread_id": "t"}})
        assert state.values["log"] == ["name Ada", "age 36"]


async def test_a_file_that_ends_inside_a_write_holds_that_write_whole_or_not_at_all() -> None:
    """A server that crashes while it appends leaves half a script's effects in the file: they are one transaction."""
    with ValkeyServer(aof=True, options=("--aof-use-rdb-preamble", "no")) as server:
        client = connect(server.url)
        saver = RedisSaver(client, KEYS, fence=None, ttl_seconds=3_600)
        thread: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        config = thread
        for step in range(3):
            made = empty_checkpoint()
            made |= {"id": str(uuid6()), "channel_values": {"step": step}, "channel_versions": {"step": step + 1}}
            config = await saver.aput(config, made, {"source": "loop", "step": step}, {"step": step + 1})
        await client.aclose()
        server.stop()
        [file] = server.folder.rglob("*.incr.aof")
        whole = file.read_bytes()
        last = whole.rindex(b"*1\r\n$5\r\nMULTI")  # where the third checkpoint begins
        newest = []
        for length in [*range(last, len(whole), (len(whole) - last) // 5), len(whole)]:
            file.write_bytes(whole[:length])
            server.start()
            client = connect(server.url)
            found = await RedisSaver(client, KEYS, fence=None, ttl_seconds=3_600).aget_tuple(thread)
            assert found is not None
            newest.append(found.checkpoint["channel_values"]["step"])
            await client.aclose()
            server.stop()
        assert newest == sorted(newest)
        assert (newest[0], newest[-2], newest[-1]) == (1, 1, 2)
