"""Runs a plan: independent calls at the same time, dependent ones in order, never more than a few at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from langgraph.errors import GraphInterrupt

from app.agents.planner import Call
from app.infra.errors import StaleEpoch
from app.tools.registry import ToolResult

Invoke = Callable[[Call], Awaitable[ToolResult | None]]


async def execute(calls: Sequence[Call], invoke: Invoke, *, concurrency: int) -> dict[str, ToolResult | None]:
    """The result of each call, by id, in the order of the plan; None where a person must decide first.

    A call whose forerunner failed is not made: its result says so. One whose forerunner has no result yet is not made
    either, and has none. `invoke` gives failed calls as results. What it raises comes out once the calls under way have
    ended, because to cut one off leaves its outcome unknown; no other is begun then, except after a tool's own
    interrupt. Only `StaleEpoch` ends all calls at once: the run has another owner.
    """
    slots = asyncio.Semaphore(concurrency)
    tasks: dict[str, asyncio.Task[ToolResult | None]] = {}
    errors: list[Exception] = []

    async def run(call: Call) -> ToolResult | None:
        for id_ in call.after:
            before = await asyncio.shield(tasks[id_])
            if before is None:
                return None
            if not before.ok:
                return ToolResult.failed(f"Not called, because a call that it depends on ({id_}) failed.")
        async with slots:
            if any(not isinstance(error, GraphInterrupt) for error in errors):
                return None
            try:
                return await invoke(call)
            except StaleEpoch:
                raise
            except Exception as error:
                errors.append(error)
                return None

    try:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                tasks[call.id] = group.create_task(run(call))
    except BaseExceptionGroup as group_of:
        raise _first(group_of) from group_of
    if errors:  # an interrupt is repeated when the step is run again; another error is not
        raise next((error for error in errors if not isinstance(error, GraphInterrupt)), errors[0])
    return {call.id: tasks[call.id].result() for call in calls}


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first leaf: LangGraph and the worker look at the type of what a node raises, and a group hides it."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
