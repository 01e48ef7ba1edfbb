"""Moves on what has come due: runs that were put off (`app.runs.schedule.later`) and crons (`app.runs.schedule.crons`).

Every api process has one. They need not agree on anything: whatever they move is moved once. An idle one sends one
command in five seconds; a worker sends none.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from app.infra.errors import RedisUnavailable
from app.infra.ids import RunId
from app.infra.keys import Keys
from app.infra.logging import get_logger
from app.infra.redis import Lua
from app.runs.schedule.crons import Crons
from app.runs.schedule.later import Later

_log = get_logger(__name__)

_DUE = Lua.of(Path(__file__).parent, "due.lua")

_LONGEST_SLEEP_SECONDS = 5.0
"""How late something may be that another process added after this one looked."""
_SPREAD_SECONDS = 0.05
"""Processes wake a little apart: the first one does the work, the others find it done."""
_PAUSE_SECONDS = 1.0
"""After an outage or an error."""
_MOST = 100
"""Runs, and crons, that one round moves."""
_SIDE_BY_SIDE = 8
"""Crons that start their runs at a time: each holds a connection of the process's pool for a moment."""
_STOP_SECONDS = 5.0


class Scheduler:
    """Moves on what is due until it is stopped."""

    def __init__(self, client: Any, keys: Keys, later: Later, crons: Crons) -> None:
        self._redis, self._keys, self._later, self._crons = client, keys, later, crons
        self._woken = asyncio.Event()
        self._stopping = False
        self._answers = True

    def wake(self) -> None:
        """Look again at once: something was added that may come sooner than what was known."""
        self._woken.set()

    def stop(self) -> None:
        """End `run` after the round under way."""
        self._stopping = True
        self._woken.set()

    async def run(self) -> None:
        """Work until `stop`. An outage of Redis, or an error, only makes it pause."""
        while not self._stopping:
            self._woken.clear()
            try:
                pause = await self.round()
                if not self._answers:
                    self._answers = True
                    _log.info("scheduler goes on")
            except RedisUnavailable:
                if self._answers:
                    self._answers = False
                    _log.warning("scheduler waits for Redis", fix="it tries again by itself")
                pause = _PAUSE_SECONDS
            except Exception as error:  # it serves all tenants: one thing that cannot be moved must not end it
                _log.error("scheduler could not move something on", exc_info=error)
                pause = _PAUSE_SECONDS
            if pause > 0 and not self._stopping:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._woken.wait()

    async def round(self) -> float:
        """Move on what is due now; gives how many seconds to wait for more. Raises `RedisUnavailable`."""
        runs, crons, pause = await _DUE(self._redis, keys=[self._keys.later, self._keys.crons], args=[_MOST])
        if not runs and not crons:
            left = _LONGEST_SLEEP_SECONDS if pause == b"-1" else int(pause) / 1000
            return min(_LONGEST_SLEEP_SECONDS, left + random.uniform(0, _SPREAD_SECONDS))  # noqa: S311
        side_by_side = asyncio.Semaphore(_SIDE_BY_SIDE)
        moments = list(zip(crons[::2], crons[1::2], strict=True))
        random.shuffle(moments)  # many come due at midnight: processes that begin together do not go on in step

        async def fire(cron_id: bytes, moment: bytes) -> None:
            async with side_by_side:
                await self._crons.fire(cron_id.decode(), int(moment))

        moved: list[BaseException | int | None] = await asyncio.gather(
            self._later.promote([RunId(run.decode()) for run in runs]),
            *[fire(cron_id, moment) for cron_id, moment in moments],
            return_exceptions=True,  # each for itself: what failed stays due
        )
        for result in moved:
            if isinstance(result, BaseException):
                raise result
        return 0.0


@contextlib.asynccontextmanager
async def scheduling(client: Any, keys: Keys, later: Later, crons: Crons) -> AsyncIterator[Scheduler]:
    """A scheduler at work in this event loop."""
    scheduler = Scheduler(client, keys, later, crons)
    working = asyncio.create_task(scheduler.run())
    try:
        yield scheduler
    finally:
        scheduler.stop()
        _, late = await asyncio.wait({working}, timeout=_STOP_SECONDS)
        for task in late:  # Redis hangs: what it was moving stays due, or has been moved
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
