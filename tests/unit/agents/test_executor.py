"""The order of calls, and how many run at a time."""

from __future__ import annotations

import asyncio

import pytest

from app.agents.executor import execute
from app.agents.planner import Call
from app.infra.errors import RedisUnavailable, StaleEpoch
from app.tools.registry import ToolResult


def call(id_: str, *after: str) -> Call:
    return Call(id_, "t", {}, after)


class Stage:
    """Invokes calls that wait for each other where a test wants it; keeps what happened."""

    def __init__(self, *failing: str, together: int = 0) -> None:
        self.log: list[str] = []
        self.running = self.most = 0
        self._failing, self._gate = failing, asyncio.Barrier(together) if together else None

    async def invoke(self, made: Call) -> ToolResult:
        self.running += 1
        self.most = max(self.most, self.running)
        self.log.append(f"+{made.id}")
        await (self._gate.wait() if self._gate else asyncio.sleep(0))
        self.log.append(f"-{made.id}")
        self.running -= 1
        return ToolResult(ok=made.id not in self._failing, text=made.id)


async def test_independent_calls_run_at_the_same_time() -> None:
    """Each waits at a barrier for the others: one after the other they would never get past it."""
    stage = Stage(together=3)
    async with asyncio.timeout(2):
        results = await execute([call("a"), call("b"), call("c")], stage.invoke, concurrency=3)
    assert [result and result.text for result in results.values()] == ["a", "b", "c"]


async def test_never_more_than_the_bound_run_at_a_time() -> None:
    """TOOL_CONCURRENCY protects what the tools call."""
    stage = Stage()
    await execute([call(str(number)) for number in range(9)], stage.invoke, concurrency=2)
    assert stage.most == 2


async def test_a_dependent_call_waits_for_its_forerunners() -> None:
    """Also when it stands before them in the plan."""
    stage = Stage()
    results = await execute([call("c", "a", "b"), call("b", "a"), call("a")], stage.invoke, concurrency=4)
    assert stage.log == ["+a", "-a", "+b", "-b", "+c", "-c"]
    assert list(results) == ["c", "b", "a"]


async def test_waiting_takes_no_place() -> None:
    """With one place, a call that waited in it for another would wait for ever."""
    async with asyncio.timeout(2):
        await execute([call("b", "a"), call("a")], Stage().invoke, concurrency=1)


async def test_a_call_whose_forerunner_failed_is_not_made() -> None:
    """And neither is the one after it; the model is told why."""
    stage = Stage("a")
    results = await execute([call("a"), call("b", "a"), call("c", "b"), call("d")], stage.invoke, concurrency=4)
    assert [entry for entry in stage.log if entry.startswith("+")] == ["+a", "+d"]
    assert [result and result.ok for result in results.values()] == [False, False, False, True]
    assert results["c"] is not None
    assert "Not called" in results["c"].text


async def test_a_lost_run_ends_all_calls_at_once() -> None:
    """It has another owner: whatever is not yet on its way must not go out."""
    ended = asyncio.Event()

    async def invoke(made: Call) -> ToolResult:
        if made.id == "bad":
            await asyncio.sleep(0)
            raise StaleEpoch("r", 1, 2)
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    with pytest.raises(StaleEpoch):
        await execute([call("bad"), call("good")], invoke, concurrency=2)
    assert ended.is_set()


async def test_another_error_comes_out_after_the_calls_under_way_and_begins_no_other() -> None:
    """To cut a call off leaves its outcome unknown. LangGraph and the worker look at the type, not at a group."""
    log = []

    async def invoke(made: Call) -> ToolResult:
        log.append(f"+{made.id}")
        if made.id == "bad":
            await asyncio.sleep(0)
            raise RedisUnavailable("gone")
        await asyncio.sleep(0.01)
        log.append(f"-{made.id}")
        return ToolResult(ok=True, text="")

    with pytest.raises(RedisUnavailable):
        await execute([call("bad"), call("good"), call("late")], invoke, concurrency=2)
    assert log == ["+bad", "+good", "-good"]


async def test_a_call_behind_one_without_a_result_is_not_made() -> None:
    """A person decides on `a` first; the others go on meanwhile, so that one question is about all that need one."""
    log = []

    async def invoke(made: Call) -> ToolResult | None:
        log.append(made.id)
        return None if made.id == "a" else ToolResult(ok=True, text=made.id)

    results = await execute([call("a"), call("b", "a"), call("c", "b"), call("d")], invoke, concurrency=1)
    assert log == ["a", "d"]
    assert [id_ for id_, result in results.items() if result is None] == ["a", "b", "c"]
