"""The clock of a chaos worker jumps: a fault that did nothing would prove nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import worker


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that says by how many seconds the clock jumps; the true clock is put back afterwards."""
    file = tmp_path / "clock"
    monkeypatch.setenv("CHAOS_CLOCK", str(file))
    kept = time.time, time.time_ns, signal.getsignal(signal.SIGUSR1)
    worker._install_clock()
    yield file
    time.time, time.time_ns = kept[:2]
    signal.signal(signal.SIGUSR1, kept[2])
    worker._offset_ns = 0


def test_a_signal_moves_the_clock_by_what_the_file_says(clock: Path) -> None:
    """Both functions that tell the time, forth and back; the clock that measures durations stays."""
    true, steady = time.time(), time.monotonic()
    for jump, since in ((3600.0, 3600.0), (-5400.5, -1800.5)):
        clock.write_text(str(jump))
        os.kill(os.getpid(), signal.SIGUSR1)
        assert time.time() - true == pytest.approx(since, abs=5)
        assert time.time_ns() / 1e9 - true == pytest.approx(since, abs=5)
    assert time.monotonic() - steady < 5
