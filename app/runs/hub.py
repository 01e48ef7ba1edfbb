"""Tails of event streams for one api process: one reader for all runs that somebody here follows.

Scripts that grow a stream publish on the run's channel, which the hub hears only while somebody follows the run, and
those that end a run on one channel for all. The hub reads all streams that grew with one XREAD and shares the entries
among the followers of each run; a follower that is behind what the hub holds reads the stream itself. So a slow
client holds neither a connection nor memory of its own, and silent runs cost nothing. Publishing promises no
delivery: after each (re)connection everything that is followed or awaited is read again, so nothing is missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

import redis.exceptions

from app.infra.errors import RedisUnavailable
from app.infra.ids import RunId
from app.infra.keys import Keys
from app.infra.logging import get_logger
from app.infra.redis import outages
from app.runs.events import START, Event, position

_log = get_logger(__name__)

_PAGE = 500
"""Entries per stream and read."""
_SHARED = 512
"""Entries per run that followers share; who is further behind reads for himself."""
_SILENCE_SECONDS = 10.0
"""Silence after which the subscribed connection is tried with a PING."""
_CANCEL_AGAIN_SECONDS = 0.1
_RECONNECT_SECONDS = (0.05, 1.0)
"""First and longest pause between attempts to subscribe again."""


class _Feed:
    """What the hub holds of one run: its newest entries, and everyone who waits for more."""

    def __init__(self, after: str) -> None:
        self.floor = position(after)
        """All entries after this position, up to `head`, are in `entries`."""
        self.head = after
        self.entries: deque[Event] = deque()
        self.followers = 0
        self.grown = asyncio.Event()

    def add(self, events: list[Event]) -> None:
        self.entries.extend(events)
        self.head = events[-1].id
        while len(self.entries) > _SHARED:
            self.floor = position(self.entries.popleft().id)
        self.grown.set()
        self.grown = asyncio.Event()


class EventHub:
    """Follows runs. `start` and `close` belong to the process's life."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self._redis, self._keys = client, keys
        self._feeds: dict[RunId, _Feed] = {}
        self._ends: dict[RunId, set[asyncio.Event]] = {}
        self._bell: Any = None
        """The subscribed connection, while there is one."""
        self._rang: set[RunId] = set()
        self._ring = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving = False

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._read())]

    def leave(self) -> None:
        """End every `follow` between two events: the process stops, its clients go on elsewhere."""
        self._leaving = True
        for feed in self._feeds.values():
            feed.grown.set()
        self._ring_ends()

    @property
    def leaving(self) -> bool:
        return self._leaving

    @contextlib.contextmanager
    def end_of(self, run_id: RunId) -> Iterator[asyncio.Event]:
        """An event that is set when the run may have ended: look, and clear it before looking again.

        It is set without cause after an outage, and when the process leaves. Opened before a run is accepted, it
        misses nothing; opened later, look first.
        """
        end = asyncio.Event()
        self._ends.setdefault(run_id, set()).add(end)
        try:
            yield end
        finally:
            waiting = self._ends[run_id]
            waiting.discard(end)
            if not waiting:
                del self._ends[run_id]

    async def close(self) -> None:
        while running := [task for task in self._tasks if not task.done()]:
            for task in running:
                task.cancel()  # again and again: on Python 3.11 the client may swallow one (see `Worker._sleep`)
            await asyncio.wait(running, timeout=_CANCEL_AGAIN_SECONDS)

    async def follow(self, run_id: RunId, after: str = START, *, fresh: bool = False) -> AsyncIterator[Event]:
        """The run's events after the id `after`, as they come, up to and including `end`.

        A `gap` comes first when events after `after` are no longer kept; `fresh` says that the run was accepted just
        now, so that none can be missing. Waits for as long as the run takes, over outages of Redis too; the caller
        bounds it, and `leave` ends it early. Nothing comes, and it does not wait, when nothing can come: `after` lies
        at the end or beyond, or there is no stream (see `_look`).
        """
        if fresh:
            after = START
        else:
            cut, last = await self._look(run_id, after)
            if cut:
                yield Event(after, "gap", b'{"after":"%s"}' % after.encode())
            if last is None:
                return
            if position(after) >= position(last.id):
                if last.name == "end":
                    return
                after = last.id  # an id that this stream has not given yet would hide from all what comes before it
        feed = self._feeds.get(run_id)
        if feed is None:
            feed = self._feeds[run_id] = _Feed(after)
        feed.followers += 1
        try:
            await self._hear(run_id)
            self._wake(run_id)
            at = position(after)
            while not self._leaving:
                if at < feed.floor:
                    events = await self._page(run_id, at)
                else:
                    events = [event for event in feed.entries if position(event.id) > at]
                if not events:
                    if at >= feed.floor:
                        await feed.grown.wait()
                    else:
                        at = feed.floor
                    continue
                for event in events:
                    yield event
                    if event.name == "end":
                        return
                at = position(events[-1].id)
        finally:
            feed.followers -= 1
            if feed.followers == 0 and self._feeds.get(run_id) is feed:
                del self._feeds[run_id]
                await self._hear_no_more(run_id)

    async def _look(self, run_id: RunId, after: str) -> tuple[bool, Event | None]:
        """Whether entries right after `after` may be gone (the stream begins later than it should), and its last entry.

        None for the entry: there is no stream, for its time is over or Redis has lost it.
        """
        stream = self._keys.events(run_id)
        with outages():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.xrange(stream, count=1)
                pipe.xrevrange(stream, count=1)
                pipe.xrange(stream, min=after, max=after)
                first, last, same = await pipe.execute()
        if not first:
            return after != START, None
        if after == START:
            return first[0][1].get(b"e") != b"metadata", _events(last)[0]
        return not same and position(first[0][0].decode()) > position(after), _events(last)[0]

    async def _page(self, run_id: RunId, at: tuple[int, int]) -> list[Event]:
        while True:
            try:
                with outages():
                    entries = await self._redis.xrange(self._keys.events(run_id), min=f"({at[0]}-{at[1]}", count=_PAGE)
                return _events(entries)
            except RedisUnavailable:
                await asyncio.sleep(_RECONNECT_SECONDS[1])

    def _wake(self, run_id: RunId) -> None:
        self._rang.add(run_id)
        self._ring.set()

    async def _hear(self, run_id: RunId) -> None:
        """Subscribe to a run. Without a connection now, the next one subscribes to everything that is followed."""
        if self._bell is not None:
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                await self._bell.subscribe(self._keys.grown(run_id))

    async def _hear_no_more(self, run_id: RunId) -> None:
        if self._bell is not None:
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                await self._bell.unsubscribe(self._keys.grown(run_id))
            if run_id in self._feeds:  # somebody came while we left
                await self._hear(run_id)

    def _ring_ends(self) -> None:
        for waiting in self._ends.values():
            for end in waiting:
                end.set()

    async def _listen(self) -> None:
        pause = _RECONNECT_SECONDS[0]
        while True:
            try:
                async with self._redis.pubsub() as bell:
                    heard = set(self._feeds)
                    await bell.subscribe(self._keys.ended, *[self._keys.grown(run_id) for run_id in heard])
                    self._bell = bell
                    for run_id in set(self._feeds) - heard:  # they came meanwhile and found no bell to subscribe on
                        await self._hear(run_id)
                    pause = _RECONNECT_SECONDS[0]
                    await self._hear_all(bell)
            except (redis.exceptions.RedisError, OSError) as error:
                _log.warning("subscription lost", error=type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RECONNECT_SECONDS[1])
            finally:
                self._bell = None

    async def _hear_all(self, bell: Any) -> None:
        ended, unanswered = self._keys.ended.encode(), 0
        while True:
            message = await bell.get_message(timeout=_SILENCE_SECONDS)
            if message is None:
                if unanswered == 2:
                    raise redis.exceptions.ConnectionError("the subscribed connection is dead")
                unanswered += 1
                await bell.ping()
                continue
            unanswered = 0
            if message["type"] == "message":
                run_id = RunId(message["data"].decode())
                if message["channel"] == ended:
                    for end in self._ends.get(run_id, ()):
                        end.set()
                elif run_id in self._feeds:
                    self._wake(run_id)
            elif message["type"] == "subscribe":
                # Also after a reconnection that the client made by itself: what happened meanwhile rang nowhere.
                if message["channel"] == ended:
                    self._ring_ends()
                    for run_id in self._feeds:
                        self._wake(run_id)
                else:
                    run_id = RunId(message["channel"].decode().rpartition(":")[2])
                    if run_id in self._feeds:
                        self._wake(run_id)

    async def _read(self) -> None:
        while True:
            await self._ring.wait()
            self._ring.clear()
            runs = [run_id for run_id in self._rang if run_id in self._feeds]
            self._rang.clear()
            if not runs:
                continue
            streams = {self._keys.events(run_id): self._feeds[run_id].head for run_id in runs}
            try:
                with outages():
                    reply = await self._redis.xread(streams, count=_PAGE)
            except RedisUnavailable:
                for run_id in runs:
                    self._wake(run_id)
                await asyncio.sleep(_RECONNECT_SECONDS[0])
                continue
            by_stream = {self._keys.events(run_id): run_id for run_id in runs}
            for stream, entries in reply.items() if isinstance(reply, dict) else reply:
                run_id = by_stream[stream.decode()]
                feed = self._feeds.get(run_id)
                if feed is None:
                    continue
                events = _events(entries)
                # A feed that was dropped and made anew while we waited may lie elsewhere: never add twice.
                fresh = [event for event in events if position(event.id) > position(feed.head)]
                if fresh and streams[stream.decode()] == feed.head:
                    feed.add(fresh)
                if len(events) >= _PAGE:
                    self._wake(run_id)


def _events(entries: list[tuple[bytes, dict[bytes, bytes]]]) -> list[Event]:
    return [
        Event(entry_id.decode(), fields[b"e"].decode(), fields[b"d"], fields.get(b"a", b"").decode())
        for entry_id, fields in entries
    ]


@contextlib.asynccontextmanager
async def hub(client: Any, keys: Keys) -> AsyncIterator[EventHub]:
    """A running hub."""
    made = EventHub(client, keys)
    made.start()
    try:
        yield made
    finally:
        await made.close()
