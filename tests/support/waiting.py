"""Waiting for a condition: polls it, and says what never came true."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import httpx

T = TypeVar("T")


def until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path, *, name: str, seconds: float) -> None:
    """Until `url` answers 200. Raises RuntimeError, with the end of its log, when `process` ends before or is late."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{name} did not start; its log ends:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.02)


async def eventually(
    look: Callable[[], Awaitable[T]], *, until: Callable[[T], bool], seconds: float = 10.0, every: float = 0.02
) -> T:
    """The first value of `look` that `until` accepts. Raises AssertionError with the last one after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = await look()
        if until(value):
            return value
        assert time.monotonic() < deadline, f"after {seconds:g} s still {value!r}"
        await asyncio.sleep(every)
