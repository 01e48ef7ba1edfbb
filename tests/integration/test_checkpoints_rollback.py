"""A thread after `arollback` is, key for key, what it was before the runs had begun."""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypedDict, cast

import pytest
import redis.asyncio as aioredis
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from app.infra.errors import StaleEpoch
from app.infra.fence import Fence
from app.infra.ids import RunId
from app.infra.keys import Keys
from app.memory.checkpoints import CheckpointDamaged, RedisSaver
from tests.support.contents import contents
from tests.support.crashing import Crash, CrashingSaver, until_crash

KEYS = Keys()
THREAD: RunnableConfig = {"configurable": {"thread_id": "t"}}
HOUR = 3_600


def extend(log: list[Any], added: Any) -> list[Any]:
    return [*(log or []), *(item for part in added for item in part)]


class Log(TypedDict):
    log: Annotated[list[Any], operator.add]


class DeltaLog(TypedDict):
    log: Annotated[list[Any], DeltaChannel(extend, list, snapshot_frequency=1_000)]


def dialogue(saver: RedisSaver, state: Any = Log, *, inside: bool = False) -> Any:
    """A step `note` beside a step `ask`, which puts two questions to a person; inside a subgraph if so wished."""

    def ask(state: Any) -> dict[str, Any]:
        return {"log": [f"name {interrupt('name?')}", f"age {interrupt('age?')}"]}

    graph: Any = StateGraph(state)
    graph.add_node("ask", ask)
    graph.add_node("note", lambda state: {"log": ["noted"]})
    for node in ("ask", "note"):
        graph.add_edge(START, node)
        graph.add_edge(node, END)
    if not inside:
        return graph.compile(checkpointer=saver)
    outer: Any = StateGraph(state)
    outer.add_node("inner", graph.compile())
    outer.add_edge(START, "inner")
    return outer.compile(checkpointer=saver)


Runs = Callable[..., Awaitable[Any]]


@pytest.fixture
def run(client: aioredis.Redis) -> Runs:
    """Makes one run of a graph under its own fence, as a worker would; the fence is closed at the end."""

    async def run(run_id: str, given: Any, make: Callable[[RedisSaver], Any] = dialogue, **options: Any) -> Any:
        await client.hset(KEYS.epochs, run_id, "1")
        saver = RedisSaver(client, KEYS, fence=Fence(RunId(run_id), 1), ttl_seconds=HOUR)
        config = {**THREAD, "metadata": {"run_id": run_id}}
        try:
            return await make(saver).ainvoke(given, config, **options)
        finally:
            await client.hdel(KEYS.epochs, run_id)

    return run


@pytest.fixture
def maintenance(client: aioredis.Redis) -> RedisSaver:
    """A saver outside any run."""
    return RedisSaver(client, KEYS, fence=None, ttl_seconds=HOUR)


@pytest.mark.parametrize("inside", [False, True])
async def test_an_answer_is_taken_back_and_the_question_stands_again(
    client: aioredis.Redis, run: Runs, maintenance: RedisSaver, inside: bool
) -> None:
    """The answer lies on a checkpoint of the run that asked, and the next question in the place of the first."""

    def make(saver: RedisSaver) -> Any:
        return dialogue(saver, inside=inside)

    asked = await run("first", {"log": ["hello"]}, make)
    assert [each.value for each in asked["__interrupt__"]] == ["name?"]
    before = await contents(client)
    asked = await run("second", Command(resume="Ada"), make)
    assert [each.value for each in asked["__interrupt__"]] == ["age?"]
    between = await contents(client)
    finished = await run("third", Command(resume="36"), make)
    assert set(finished["log"]) == {"age 36", "hello", "name Ada", "noted"}

    await maintenance.arollback("t", ["third"])
    assert await contents(client) == between
    await maintenance.arollback("t", ["second"])
    assert await contents(client) == before
    await run("fourth", Command(resume="Grace"), make)
    await run("fifth", Command(resume="85"), make)
    await maintenance.arollback("t", ["fourth", "fifth", "never began"])
    assert await contents(client) == before
    await run("sixth", Command(resume="Emmy"), make)
    finished = await run("seventh", Command(resume="53"), make)
    assert set(finished["log"]) == {"age 53", "hello", "name Emmy", "noted"}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("state", [Log, DeltaLog])
async def test_a_further_input_is_taken_back(
    client: aioredis.Redis, run: Runs, maintenance: RedisSaver, state: type, durability: str
) -> None:
    """A `DeltaChannel` keeps the input among the writes of the checkpoint before, where a new one would not fit."""

    def make(saver: RedisSaver) -> Any:
        graph: Any = StateGraph(state)
        graph.add_node("echo", lambda state: {"log": [f"echo {state['log'][-1]}"]})
        graph.add_edge(START, "echo")
        return graph.compile(checkpointer=saver)

    await run("first", {"log": ["one"]}, make, durability=durability)
    before = await contents(client)
    await run("second", {"log": ["two", "three"]}, make, durability=durability)
    await maintenance.arollback("t", ["second"])
    assert await contents(client) == before
    await run("third", {"log": ["four"]}, make, durability=durability)
    state_now = await make(maintenance).aget_state(THREAD)
    assert state_now.values["log"] == ["one", "echo one", "four", "echo four"]


async def test_the_error_of_an_earlier_run_stands_again(
    client: aioredis.Redis, run: Runs, maintenance: RedisSaver
) -> None:
    """A replay of a failed run writes its own error into the place of that one's."""
    broken = True

    def fail(state: Log) -> dict[str, Any]:
        if broken:
            raise ValueError("broken")
        return {"log": ["mended"]}

    def make(saver: RedisSaver) -> Any:
        graph: Any = StateGraph(Log)
        graph.add_node("fail", fail)
        graph.add_edge(START, "fail")
        return graph.compile(checkpointer=saver)

    with pytest.raises(ValueError, match="broken"):
        await run("first", {"log": []}, make)
    before = await contents(client)
    with pytest.raises(ValueError, match="broken"):
        await run("second", None, make)
    broken = False
    assert (await run("third", None, make))["log"] == ["mended"]
    await maintenance.arollback("t", ["second", "third"])
    assert await contents(client) == before


async def test_the_first_run_leaves_nothing(client: aioredis.Redis, run: Runs, maintenance: RedisSaver) -> None:
    await run("first", {"log": ["hello"]})
    await run("second", Command(resume="Ada"))
    await maintenance.arollback("t", ["first", "second"])
    assert await contents(client) == {}


async def test_what_a_person_has_built_on_the_run_goes_with_it(
    client: aioredis.Redis, run: Runs, maintenance: RedisSaver
) -> None:
    """Its checkpoint would have no parent, and its state would still be that of the run."""
    await run("first", {"log": ["hello"]})
    before = await contents(client)
    await run("second", {"log": ["again"]})
    await dialogue(maintenance).aupdate_state(THREAD, {"log": ["edited"]}, as_node="note")
    await maintenance.arollback("t", ["second"])
    assert await contents(client) == before


async def test_cut_short_anywhere_and_repeated_it_does_the_same(
    client: aioredis.Redis, run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that rolls back may die too; its successor does it again."""
    monkeypatch.setattr("app.memory.checkpoints.retention._CHUNK", 1)
    monkeypatch.setattr("app.memory.checkpoints.rollback._WRITES", 1)
    await run("first", {"log": ["hello"]})
    before = await contents(client)

    async def roll_back(crash: Crash) -> None:
        saver = CrashingSaver(client, KEYS, fence=None, ttl_seconds=HOUR, crash=crash)
        await until_crash(crash, saver.arollback("t", ["second", "third"]))

    async def two_runs() -> None:
        await run("second", Command(resume="Ada"))
        await run("third", Command(resume="36"))

    await two_runs()
    await roll_back(whole := Crash())
    assert len(whole.writes) > 5
    for arrives in ("nothing", "whole"):
        for at in range(1, len(whole.writes) + 1):
            await two_runs()
            await roll_back(Crash(at, cast(Any, arrives)))
            await roll_back(Crash())
            assert await contents(client) == before, f"cut short at write {at}, arrives={arrives}"


async def test_a_worker_that_has_lost_its_run_takes_nothing_back(client: aioredis.Redis, run: Runs) -> None:
    """Else it would take back what its successor has done after its own rollback."""
    await run("first", {"log": ["hello"]})
    await client.hset(KEYS.epochs, "second", "2")
    before = await contents(client)
    zombie = RedisSaver(client, KEYS, fence=Fence(RunId("second"), 1), ttl_seconds=HOUR)
    with pytest.raises(StaleEpoch):
        await zombie.arollback("t", ["first"])
    assert await contents(client) == before


async def test_where_the_state_before_is_gone_it_says_so_and_removes_nothing(
    client: aioredis.Redis, run: Runs, maintenance: RedisSaver
) -> None:
    """A pruned thread has only its newest state; without that it would be an empty one."""
    await run("first", {"log": ["hello"]})
    await run("second", {"log": ["again"]})
    await maintenance.aprune(["t"])
    before = await contents(client)
    with pytest.raises(CheckpointDamaged, match="has lost the checkpoint that its run began from"):
        await maintenance.arollback("t", ["second"])
    assert await contents(client) == before


async def test_threads_beside_it_keep_what_the_run_did_there(
    client: aioredis.Redis, run: Runs, maintenance: RedisSaver
) -> None:
    await run("first", {"log": ["hello"]})
    await maintenance.acopy_thread("t", "copy")
    copied = {key: value for key, value in (await contents(client)).items() if ":copy:" in key}
    await maintenance.arollback("t", ["first"])
    assert {key: value for key, value in (await contents(client)).items() if "cp:" in key} == copied
    assert await client.smembers(KEYS.checkpoint_run("first")) == {b"copy"}
