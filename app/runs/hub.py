"""Tails of event streams for one api process: one reader for all runs that somebody here follows.

Scripts that grow a stream publish on the run's channel, which the hub hears only while somebody follows the run, and
those that end a run on one channel for all. The hub reads all streams that grew with one XREAD and shares the entries
among the followers of each run; a follower that is behind what the hub holds reads the stream itself. So a slow
client holds neither a connection nor more memory than one page, and silent runs cost nothing.

Publishing promises no delivery, and a Redis that comes back may have forgotten its last second: after each
(re)connection every follower looks again at where it stands (see `app.runs.standing`), so nothing is missed and
nothing that is lost is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

import redis.exceptions

from app.infra.errors import RedisUnavailable
from app.infra.ids import RunId
from app.infra.keys import Keys
from app.infra.logging import get_logger
from app.infra.redis import outages
from app.runs.events import START, Event, events_of, position
from app.runs.feed import AT_ONCE, Feed
from app.runs.standing import Standing, look

_log = get_logger(__name__)

_PAGE = 500
"""Entries per stream and read; a stream that has more is read by its followers themselves."""
_CHECK_SECONDS = 10.0
"""How often the subscribed connection is tried with a PING, and Redis asked whether the runs followed still exist."""
_DEAD_SECONDS = 3 * _CHECK_SECONDS
"""Silence after which the subscribed connection counts as dead."""
_CHECKED = 500
"""Runs that one command asks for."""
_READERS = 16
"""Followers that read for themselves at a time: after an outage all of them want to, and requests need connections."""
_CANCEL_AGAIN_SECONDS = 0.1
_RECONNECT_SECONDS = (0.05, 1.0)
"""First and longest pause between attempts to subscribe or to look again."""


class EventHub:
    """Follows runs. `start` and `close` belong to the process's life."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self._redis, self._keys = client, keys
        self._feeds: dict[RunId, Feed] = {}
        self._ends: dict[RunId, set[asyncio.Event]] = {}
        self._bell: Any = None
        """The subscribed connection, while there is one."""
        self._heard: set[RunId] = set()
        """Runs whose channels it is subscribed to."""
        self._turned: set[RunId] = set()
        """Runs that somebody has begun or ceased to follow since `_tune` last looked."""
        self._turn = asyncio.Event()
        self._rang: set[RunId] = set()
        self._ring = asyncio.Event()
        self._places = asyncio.Semaphore(_READERS)
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving = False

    def start(self) -> None:
        self._tasks = [asyncio.create_task(task()) for task in (self._listen, self._tune, self._read, self._check)]
        for task in self._tasks:
            task.add_done_callback(_say_why_it_ended)

    def leave(self) -> None:
        """End every `follow` between two events: the process stops, its clients go on elsewhere."""
        self._leaving = True
        self._look_again(self._everything())

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

    async def look(self, run_id: RunId, after: str = START) -> Standing:
        """Where a client stands that has seen the run's events up to the id `after`. Raises `RedisUnavailable`."""
        return await look(self._redis, self._keys, run_id, after)

    async def follow(self, run_id: RunId, standing: Standing) -> AsyncIterator[Sequence[Event]]:
        """The run's events from `standing` on, as they come, up to and including `end`; those that came together.

        `gap` and `lost` stand among them where there is cause (see `app.runs.events`); nothing follows `lost`. Waits
        for as long as the run takes, over outages of Redis too; the caller bounds it, and `leave` ends it early.
        """
        while True:
            if standing.say:
                yield standing.say
            if standing.over:
                return
            at = position(standing.after)
            with self._joined(run_id, standing.head) as feed:
                while not feed.over and not self._leaving:
                    events = await self._page(run_id, at) if at < feed.floor else feed.after(at)
                    if events is None:
                        break  # what comes next is gone
                    if not events:
                        await feed.more()
                        continue
                    yield events
                    if events[-1].name == "end":
                        return
                    at = events[-1].position
            if self._leaving:
                return
            standing = await self._look_until_answered(run_id, f"{at[0]}-{at[1]}")

    @contextlib.contextmanager
    def _joined(self, run_id: RunId, head: str) -> Iterator[Feed]:
        feed = self._feeds.get(run_id)
        if feed is None:
            feed = self._feeds[run_id] = Feed(head)
            self._retune(run_id)
        feed.followers += 1
        self._wake(run_id)
        try:
            yield feed
        finally:
            feed.followers -= 1
            if feed.followers == 0 and self._feeds.get(run_id) is feed:
                del self._feeds[run_id]
                self._retune(run_id)  # by a task of ours: who is being cancelled can send no command

    async def _look_until_answered(self, run_id: RunId, after: str) -> Standing:
        pause = _RECONNECT_SECONDS[0]
        while not self._leaving:
            try:
                async with self._places:
                    return await self.look(run_id, after)
            except RedisUnavailable:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RECONNECT_SECONDS[1])
        return Standing(after=after, head=after, over=True)

    async def _page(self, run_id: RunId, at: tuple[int, int]) -> list[Event] | None:
        """The events right after `at`, for a follower that is behind; None when it must look again."""
        start = "-" if position(START) == at else f"{at[0]}-{at[1]}"
        try:
            async with self._places:
                with outages():
                    entries = await self._redis.xrange(self._keys.events(run_id), min=start, count=AT_ONCE + 1)
        except RedisUnavailable:
            return None
        events = events_of(entries)
        if start == "-":
            return events if events and events[0].name == "metadata" else None
        return events[1:] if events and events[0].position == at else None

    def _wake(self, run_id: RunId) -> None:
        self._rang.add(run_id)
        self._ring.set()

    def _retune(self, run_id: RunId) -> None:
        self._turned.add(run_id)
        self._turn.set()

    def _look_again(self, runs: Iterable[RunId]) -> None:
        """Send everyone who follows or awaits these runs to look where they stand."""
        for run_id in list(runs):
            feed = self._feeds.pop(run_id, None)
            if feed is not None:
                feed.end()
                self._retune(run_id)
            for end in self._ends.get(run_id, ()):
                end.set()

    def _everything(self) -> set[RunId]:
        return self._feeds.keys() | self._ends.keys()

    async def _listen(self) -> None:
        """Hold the subscribed connection, and hear what rings on it."""
        pause = _RECONNECT_SECONDS[0]
        while True:
            try:
                async with self._redis.pubsub() as bell:
                    heard = set(self._feeds)
                    await bell.subscribe(self._keys.ended, *[self._keys.grown(run_id) for run_id in heard])
                    self._bell, self._heard = bell, heard
                    for run_id in self._feeds.keys() - heard:  # they came meanwhile
                        self._retune(run_id)
                    pause = _RECONNECT_SECONDS[0]
                    await self._hear(bell)
            except (redis.exceptions.RedisError, OSError) as error:
                _log.warning("subscription lost", error=type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RECONNECT_SECONDS[1])
            finally:
                self._bell, self._heard = None, set()

    async def _hear(self, bell: Any) -> None:
        loop, ended = asyncio.get_running_loop(), self._keys.ended.encode()
        async with asyncio.timeout(_DEAD_SECONDS) as silence:
            while True:
                response = await bell.parse_response()
                silence.reschedule(loop.time() + _DEAD_SECONDS)
                if not isinstance(response, list) or len(response) != 3:
                    continue  # the answer to a PING
                kind, channel, told = response
                if kind != b"message":
                    await bell.handle_message(response)  # keeps account of what is subscribed to
                if channel != ended:
                    run_id = RunId(channel.decode().rpartition(":")[2])
                    if run_id in self._feeds:
                        self._wake(run_id)
                elif kind == b"message":
                    for end in self._ends.get(RunId(told.decode()), ()):
                        end.set()
                else:
                    # A new connection: what happened before it rang nowhere.
                    self._look_again(self._everything())

    async def _tune(self) -> None:
        """Subscribe to the runs that somebody follows, and to no others."""
        while True:
            await self._turn.wait()
            self._turn.clear()
            turned, self._turned = self._turned, set()
            bell, heard = self._bell, self._heard
            if bell is None:
                continue  # the next connection subscribes to everything that is followed
            begun = [run_id for run_id in turned if run_id in self._feeds and run_id not in heard]
            ceased = [run_id for run_id in turned if run_id not in self._feeds and run_id in heard]
            try:
                if begun:
                    await bell.subscribe(*[self._keys.grown(run_id) for run_id in begun])
                    heard.update(begun)
                if ceased:
                    await bell.unsubscribe(*[self._keys.grown(run_id) for run_id in ceased])
                    heard.difference_update(ceased)
            except (redis.exceptions.RedisError, OSError):
                await asyncio.sleep(_RECONNECT_SECONDS[0])
                for run_id in turned:
                    self._retune(run_id)

    async def _read(self) -> None:
        """Read the streams that grew, and share what they brought."""
        while True:
            await self._ring.wait()
            self._ring.clear()
            runs = [run_id for run_id in self._rang if run_id in self._feeds]
            self._rang.clear()
            if not runs:
                continue
            feeds = {self._keys.events(run_id).encode(): (run_id, self._feeds[run_id]) for run_id in runs}
            try:
                with outages():
                    reply = await self._redis.xread(
                        {stream: feed.head for stream, (_, feed) in feeds.items()}, count=_PAGE
                    )
            except RedisUnavailable:
                for run_id in runs:
                    self._wake(run_id)
                await asyncio.sleep(_RECONNECT_SECONDS[0])
                continue
            for stream, entries in reply.items() if isinstance(reply, dict) else reply:
                run_id, feed = feeds[stream]
                if len(entries) < _PAGE:
                    feed.add(events_of(entries))
                elif self._feeds.get(run_id) is feed:
                    self._look_again([run_id])  # too much to share: followers read it at their own pace

    async def _check(self) -> None:
        """Notice a connection that has died in silence, and runs that are gone."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            runs = list(self._everything())
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                if self._bell is not None:
                    await self._bell.ping()
                for first in range(0, len(runs), _CHECKED):
                    some = runs[first : first + _CHECKED]
                    if await self._redis.exists(*[self._keys.run(run_id) for run_id in some]) < len(some):
                        self._look_again(some)


def _say_why_it_ended(task: asyncio.Task[None]) -> None:
    """They end with the process only; one that fails holds up every stream, and nobody awaits it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("streams of this process stand still", fix="start it again, report the error", exc_info=error)


@contextlib.asynccontextmanager
async def hub(client: Any, keys: Keys) -> AsyncIterator[EventHub]:
    """A running hub."""
    made = EventHub(client, keys)
    made.start()
    try:
        yield made
    finally:
        await made.close()
