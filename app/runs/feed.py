"""What one api process holds of one run's events, shared by all who follow the run there."""

from __future__ import annotations

import asyncio
import bisect

from app.runs.events import Event, position

_SHARED = 512
"""Entries per run that followers share; who is further behind reads for himself."""
AT_ONCE = 64
"""Events that a follower gets together: what one slow client may hold in memory."""


class Feed:
    """What the hub holds of one run: its newest entries, and everyone who waits for more."""

    __slots__ = ("entries", "floor", "followers", "head", "over", "places", "waiting")

    def __init__(self, head: str) -> None:
        self.floor = position(head)
        """All entries after this position, up to `head`, are in `entries`."""
        self.head = head
        self.entries: list[Event] = []
        self.places: list[tuple[int, int]] = []
        """Their positions, worked out once for all followers."""
        self.followers = 0
        self.over = False
        """Whether its followers must look again instead of waiting here."""
        self.waiting: set[asyncio.Future[None]] = set()

    def add(self, events: list[Event]) -> None:
        self.entries += events
        self.places += [event.position for event in events]
        self.head = events[-1].id
        if (surplus := len(self.entries) - _SHARED) > 0:
            self.floor = self.places[surplus - 1]
            del self.entries[:surplus], self.places[:surplus]
        self.wake()

    def after(self, at: tuple[int, int]) -> list[Event]:
        """The next events after the position `at`, which is not below the floor."""
        first = bisect.bisect_right(self.places, at)
        return self.entries[first : first + AT_ONCE]

    async def more(self) -> None:
        """Until something was added, or the feed is over."""
        waiting = asyncio.get_running_loop().create_future()
        self.waiting.add(waiting)
        try:
            await waiting
        finally:
            self.waiting.discard(waiting)

    def wake(self) -> None:
        for waiting in self.waiting:
            if not waiting.done():
                waiting.set_result(None)

    def end(self) -> None:
        """Send the followers away."""
        self.over = True
        self.wake()
