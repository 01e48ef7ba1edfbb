"""The order of calls, and how many run at a time."""

from __future__ import annotations

import asyncio

import pytest

from app.agents.executor import execute
from app.agents.planner import Call
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
    assert [result.text for result in results.values()] == ["a", "b", "c"]


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
    assert [result.ok for result in results.values()] == [False, False, False, True]
    assert "Not called" in results["c"].text


async def test_what_a_call_raises_comes_out_as_itself() -> None:
    """LangGraph and the worker look at the type; in a group they would not see it. The others are ended."""
    ended = asyncio.Event()

    class Stopped(Exception):
        pass

    async def invoke(made: Call) -> ToolResult:
        if made.id == "bad":
            await asyncio.sleep(0)
            raise Stopped
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    with pytest.raises(Stopped):
        await execute([call("bad"), call("good")], invoke, concurrency=2)
    assert ended.is_set()
