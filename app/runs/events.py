"""A run's events: one Redis Stream per run; the entry id is the SSE id, so replay and tail are the same read.

| event    | data                                                    | written by                |
|----------|---------------------------------------------------------|---------------------------|
| metadata | {run_id, thread_id, release, graph}                     | acceptance, first         |
| attempt  | {attempt}: tokens of earlier attempts are superseded    | a worker that takes it    |
| updates  | {ns, data: {node: its update}}                          | worker                    |
| messages | {ns, data: [chunk, {node, step, …}]}                    | worker                    |
| custom   | {ns, data}                                              | worker                    |
| end      | the run's result                                        | completion, last          |
| gap      | {after}: events after that id are gone, see below       | api, in the place of them |
| lost     | {run_id}: the run is gone and will not go on; last      | api                       |

`ns` is LangGraph's namespace of the subgraph, [] at the root. A gap says that events after `after` are no longer kept;
whoever has seen such events drops them: Redis has forgotten them too, and what comes next comes in their place.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.infra.errors import RedisUnavailable
from app.infra.fence import FencedLua
from app.infra.keys import Keys
from app.runs.model import Claim

_APPEND = FencedLua(Path(__file__).parent, "append.lua")
_BATCH = 256
"""Events per script call: a burst of tokens is one round trip, and the script stays below a millisecond."""
_GATHER_SECONDS = 0.005
"""How long events gather after a group: below what a reader notices, and ten tokens of a fast model."""
BACKLOG = 10_000
"""Events that may wait while Redis is away; a run that produces more fails its attempt."""


@dataclass(frozen=True, slots=True)
class Event:
    """One entry. `data` is JSON text, passed on as it is; `attempt` is "" for what no worker wrote."""

    id: str
    name: str
    data: bytes
    attempt: str = ""

    @property
    def position(self) -> tuple[int, int]:
        return position(self.id)


START = "0-0"
"""The id before the first event."""


def is_event_id(text: str) -> bool:
    """Whether `text` is a Redis Stream entry id: two whole numbers of 64 bits, joined by a hyphen."""
    milliseconds, hyphen, number = text.partition("-")
    return (
        hyphen == "-"
        and all(part.isascii() and part.isdigit() and len(part) <= 20 for part in (milliseconds, number))
        and all(int(part) < 2**64 for part in (milliseconds, number))
    )


def position(event_id: str) -> tuple[int, int]:
    """An id as numbers that can be compared."""
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number)


def events_of(entries: list[tuple[bytes, dict[bytes, bytes]]]) -> list[Event]:
    """A stream's entries as Redis gives them."""
    return [
        Event(entry_id.decode(), fields[b"e"].decode(), fields[b"d"], fields.get(b"a", b"").decode())
        for entry_id, fields in entries
    ]


class EventWriter:
    """Writes one attempt's events in order, in groups: whatever gathered while the last group was on its way.

    The first event of a quiet run goes out at once; those that follow gather for some milliseconds, so that a burst
    costs a round trip per group and not per token. While Redis is away it keeps trying; when the run has a newer
    owner, or the backlog is full, `failed` is called once with the error.
    """

    def __init__(
        self, client: Any, keys: Keys, claim: Claim, *, most: int, failed: Callable[[Exception], None]
    ) -> None:
        self._redis, self._keys, self._claim, self._most, self._failed = client, keys, claim, most, failed
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._written = 0
        self._task: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self._hurry = asyncio.Event()
        self._finishing = False

    def put(self, name: str, data: bytes, *, soon: bool = True) -> None:
        """Queue one event; returns at once. `soon` False lets it wait for the next one: nobody is waiting for it."""
        if self._error is not None:
            return
        self._waiting.append((name, data))
        if len(self._waiting) > BACKLOG:
            self._fail(RedisUnavailable("Redis has been away for too long to keep the run's events"))
        elif soon and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def flush(self) -> None:
        """Wait until all that was put is written. Raises what writing ended with."""
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._write())
        await self._settle()

    async def finish(self) -> list[tuple[str, bytes]]:
        """The events that are not yet on their way, for the script that ends the run. Raises as `flush`."""
        self._finishing = True
        if len(self._waiting) > _BATCH:
            await self.flush()
        await self._settle()
        rest = list(self._waiting)
        self._waiting.clear()
        return rest

    async def _settle(self) -> None:
        """Wait for what is on its way, without letting more gather. Raises what writing ended with."""
        self._hurry.set()
        while self._task is not None and not self._task.done():
            await asyncio.shield(self._task)
        self._hurry.clear()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Give up what is not yet written: the attempt is over."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _write(self) -> None:
        pause = 0.05
        while self._waiting:
            group = [self._waiting[i] for i in range(min(_BATCH, len(self._waiting)))]
            try:
                await _APPEND(
                    self._redis,
                    epochs=self._keys.epochs,
                    fence=self._claim.fence,
                    keys=[self._keys.events(self._claim.run_id), self._keys.grown(self._claim.run_id)],
                    args=[
                        self._most,
                        self._claim.attempt,
                        self._written + 1,
                        *[part for event in group for part in event],
                    ],
                )
            except RedisUnavailable:
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
                continue
            except Exception as error:  # whatever it was: an attempt whose events are lost must not go on
                self._fail(error)
                return
            pause = 0.05
            self._written += len(group)
            for _ in group:
                self._waiting.popleft()
            if self._finishing and len(self._waiting) <= _BATCH:
                return
            if not self._hurry.is_set():
                await self._gather()

    async def _gather(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GATHER_SECONDS):
                await self._hurry.wait()

    def _fail(self, error: Exception) -> None:
        self._waiting.clear()
        if self._error is None:
            self._error = error
            self._failed(error)
