"""`python -m tests.chaos.worker worker`: the service's own worker, whose clock can be made to jump.

SIGUSR1 adds the seconds that the file CHAOS_CLOCK names to what `time.time` and `time.time_ns` say from then on.

CHAOS_FENCE=off breaks the worker on purpose: it writes whoever owns the run, never hears that it lost one, and keeps
no journal of effects. With it the checker proves that it would see a service without fences.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

_offset_ns = 0
_true_time, _true_time_ns = time.time, time.time_ns


def _jump(_sign: int, _frame: Any) -> None:
    global _offset_ns
    _offset_ns += int(float(Path(os.environ["CHAOS_CLOCK"]).read_text()) * 1e9)


def _install_clock() -> None:
    """Before anything of the service is imported, so that nobody holds the true functions."""
    time.time = lambda: _true_time() + _offset_ns / 1e9
    time.time_ns = lambda: _true_time_ns() + _offset_ns
    signal.signal(signal.SIGUSR1, _jump)


def _take_the_fence_away() -> None:
    """Must come before the modules that put the fence into their scripts are imported."""
    from app.infra import fence

    fence._FENCE = ""

    from app.infra.effects import Effect, EffectCall
    from app.infra.redis import Lua
    from app.runs import ledger
    from app.runs.effects import RedisEffects
    from app.runs.worker import Worker

    complete, check = ledger._COMPLETE, "if current ~= epoch then"
    if check not in complete.text:
        raise RuntimeError(f"complete.lua has no {check!r}: what takes the fence away is out of date")
    ledger._COMPLETE = Lua(complete.text.replace(check, "if false then"), name=complete.name)

    on_state = Worker._on_state

    def deaf(self: Worker, run_id: Any, epoch: int, state: str) -> None:
        """Hears that a run is to be stopped, not that it was lost."""
        if state != "stale":
            on_state(self, run_id, epoch, state)

    async def perform(self: RedisEffects, call: EffectCall) -> Effect:
        """Makes the call, whoever made it before."""
        outcome = await call.perform()
        return Effect(
            id="",
            state=outcome.state,
            tool=call.tool,
            call_id=call.call_id,
            task_id=call.task_id,
            run_id=self._fence.run_id,
            attempt=0,
            epoch=self._fence.epoch,
            nonce="",
            at_ms=0,
            result=outcome.result,
        )

    Worker._on_state = deaf  # type: ignore[method-assign]
    RedisEffects.perform = perform  # type: ignore[method-assign]


def main() -> int:
    _install_clock()
    if os.environ.get("CHAOS_FENCE") == "off":
        _take_the_fence_away()
    from app.__main__ import main as service

    return service(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
