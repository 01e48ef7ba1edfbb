"""Waiting for a condition: polls it, and says what never came true."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


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
