"""A checkpoint saver whose process dies at a chosen write: what a crash between any two writes leaves.

saver = CrashingSaver(client, keys, fence=fence, ttl_seconds=60, crash=Crash(at=3, arrives="whole"))
await until_crash(saver.crash, graph.ainvoke(...))
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

from app.infra.fence import FencedLua
from app.memory.checkpoints import RedisSaver


@dataclass
class Crash:
    """The process dies at its write number `at`, from 1 on; 0 for never.

    Of that write `arrives` says what Redis saw: nothing, the whole of it, or only the `next` one, which overtook it.
    """

    at: int = 0
    arrives: Literal["nothing", "whole", "next"] = "nothing"
    writes: list[str] = field(default_factory=list)
    """Names of the scripts that were called, the fatal one included."""
    dying: bool = False
    """Nothing more is sent."""
    happened: asyncio.Event = field(default_factory=asyncio.Event)
    buried: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when what ran in the process is cancelled: LangGraph waits for its writes even then."""


class ProcessGoneError(Exception):
    """No process is there any more that could see this."""


class CrashingSaver(RedisSaver):
    """From the crash on no write is sent and none returns, as in a process that is gone."""

    def __init__(self, *args: Any, crash: Crash, **options: Any) -> None:
        super().__init__(*args, **options)
        self.crash = crash

    async def _write(self, script: FencedLua, keys: list[str], args: list[Any]) -> Any:
        crash = self.crash
        if not crash.dying:
            crash.writes.append(script.name)
            number = len(crash.writes)
            crash.dying = number == crash.at + (crash.arrives == "next")
            if number != crash.at and not crash.dying:
                return await super()._write(script, keys, args)
            if crash.dying:
                if crash.arrives != "nothing":
                    await super()._write(script, keys, args)
                crash.happened.set()
        await crash.buried.wait()
        raise ProcessGoneError


async def until_crash(crash: Crash, work: Coroutine[Any, Any, Any]) -> Any:
    """What `work` returns or raises; None when the crash came first, and then nothing of `work` goes on."""
    task, crashed = asyncio.create_task(work), asyncio.create_task(crash.happened.wait())
    await asyncio.wait([task, crashed], return_when=asyncio.FIRST_COMPLETED)
    crashed.cancel()
    if not crash.happened.is_set():
        return await task
    task.cancel()
    crash.buried.set()
    await asyncio.gather(task, crashed, return_exceptions=True)
    return None
