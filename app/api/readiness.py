"""Checks of what the service depends on: bounded in time, cached for a second, silent about addresses and errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

_LONGEST_SECONDS = 1.0
"""Per check; they run side by side, so a report takes no longer."""
_CACHE_SECONDS = 1.0

Check = Callable[[], Awaitable[bool]]


class Readiness:
    """`required` checks decide between ready and unavailable, the others between ready and degraded."""

    def __init__(self, *, required: dict[str, Check], optional: dict[str, Check]) -> None:
        self._checks = {**required, **optional}
        self._required = frozenset(required)
        self._until = 0.0
        self._report: dict[str, Any] = {}
        self._lock = asyncio.Lock()

    async def report(self) -> dict[str, Any]:
        """{"status": ready | degraded | unavailable, "checks": {name: {"status": ok | failed, "ms": …}}}."""
        async with self._lock:  # many probes at once are one round of checks
            if time.monotonic() >= self._until:
                self._report = await self._check()
                self._until = time.monotonic() + _CACHE_SECONDS
            return self._report

    async def _check(self) -> dict[str, Any]:
        names = list(self._checks)
        results = dict(zip(names, await asyncio.gather(*[_timed(self._checks[name]) for name in names]), strict=True))
        failed = {name for name, result in results.items() if result["status"] != "ok"}
        status = "unavailable" if failed & self._required else "degraded" if failed else "ready"
        return {"status": status, "checks": results}


async def _timed(check: Check) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(_LONGEST_SECONDS):
            ok = await check()
    except Exception:  # whatever a client raises for "not there": its text may name hosts or keys
        ok = False
    return {"status": "ok" if ok else "failed", "ms": round((time.perf_counter() - started) * 1000, 1)}
