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

    from app.infra.redis import Lua
    from app.runs import heartbeat, ledger, process

    def owned(text: str, check: str) -> str:
        if check not in text:
            raise RuntimeError(f"the script has no {check!r}: what takes the fence away is out of date")
        return text.replace(check, "if false then", 1)

    complete = ledger._COMPLETE
    ledger._COMPLETE = Lua(owned(complete.text, "if current ~= ARGV[2] then"), name=complete.name)

    def deaf(self: heartbeat.Heartbeat, run_id: Any, epoch: int, state: str) -> None:
        """A worker that does not hear that it lost a run."""

    heartbeat.Heartbeat._tell = deaf  # type: ignore[attr-defined]
    del process


def main() -> int:
    _install_clock()
    if os.environ.get("CHAOS_FENCE") == "off":
        _take_the_fence_away()
    from app.__main__ import main as service

    return service(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
