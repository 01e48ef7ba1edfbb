"""Runs a plan: independent calls at the same time, dependent ones in order, never more than a few at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from app.agents.planner import Call
from app.tools.registry import ToolResult

Invoke = Callable[[Call], Awaitable[ToolResult]]


async def execute(calls: Sequence[Call], invoke: Invoke, *, concurrency: int) -> dict[str, ToolResult]:
    """The result of each call, by id, in the order of the plan.

    A call whose forerunner failed is not made: its result says so. `invoke` gives failed calls as results; what it
    raises (a stopped run, an interrupt) ends the others and comes out, as the first that was raised.
    """
    slots = asyncio.Semaphore(concurrency)
    tasks: dict[str, asyncio.Task[ToolResult]] = {}

    async def run(call: Call) -> ToolResult:
        for id_ in call.after:
            if not (await asyncio.shield(tasks[id_])).ok:
                return ToolResult.failed(f"Not called, because a call that it depends on ({id_}) failed.")
        async with slots:
            return await invoke(call)

    try:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                tasks[call.id] = group.create_task(run(call))
    except BaseExceptionGroup as errors:
        raise _first(errors) from errors
    return {call.id: tasks[call.id].result() for call in calls}


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first leaf: LangGraph and the worker look at the type of what a node raises, and a group hides it."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
