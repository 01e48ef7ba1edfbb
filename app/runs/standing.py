"""Where a client stands in a run's stream: what comes next, and what must be said first because it is gone.

One look, from what Redis holds now: the stream's first and last entries, the newest one that the client may have
seen, and whether the run is still known. Histories are trimmed and expire; a Redis that comes back after a crash may
have forgotten the end of a stream (`appendfsync everysec`), or all of the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from app.infra.ids import RunId
from app.infra.keys import Keys
from app.infra.redis import outages
from app.runs.events import START, Event, events_of, position


@dataclass(frozen=True, slots=True)
class Standing:
    """What to tell a client. The one of a run accepted just now is `Standing()`."""

    after: str = START
    """The events right after this id come next."""
    head: str = START
    """The stream's last id when this was seen; START when there is no stream."""
    say: tuple[Event, ...] = ()
    """What stands in the place of events that are gone: a gap, a lost run, the end of a run whose events expired."""
    over: bool = False
    """Whether nothing comes after `say`."""


async def look(client: Any, keys: Keys, run_id: RunId, after: str) -> Standing:
    """For a client that has seen the events up to the id `after`. Raises `RedisUnavailable`."""
    stream = keys.events(run_id)
    with outages():
        async with client.pipeline(transaction=False) as pipe:
            pipe.xrange(stream, count=1)
            pipe.xrevrange(stream, count=1)
            pipe.xrevrange(stream, max=after, count=1)
            pipe.hmget(keys.run(run_id), "run_id", "result", "ended_ms")
            first, last, prior, (known, result, ended_ms) = await pipe.execute()
    if not first:
        return _without_events(run_id, after, known=bool(known), result=result, ended_ms=ended_ms)
    begin, head = events_of(first)[0], events_of(last)[0]
    seen = events_of(prior)[0] if prior else None
    if seen is not None and seen.position > head.position:
        head = seen  # it came between two of the commands
    if not known and head.name != "end":
        return _lost(run_id, after)
    say: tuple[Event, ...] = ()
    if seen is None and (after != START or begin.name != "metadata"):  # trimmed
        say, after = (_gap(after), begin), begin.id
    elif seen is not None and seen.position != position(after):
        # The stream has forgotten that event, or never gave it. What it holds next is news to the client.
        say, after = (_gap(seen.id),), seen.id
        if head.name == "end" and seen.id == head.id:
            say = (*say, head)
    return Standing(after, head.id, say, over=head.name == "end" and after == head.id)


def _without_events(
    run_id: RunId, after: str, *, known: bool, result: bytes | None, ended_ms: bytes | None
) -> Standing:
    if not known:
        return _lost(run_id, after)
    if result is None or ended_ms is None:
        return Standing(say=(_gap(after),))
    # They have expired, the record has not. The id of the end is made up, so that it is known when it comes back.
    end = f"{int(ended_ms) + 1}-0"
    if position(after) >= position(end):
        return Standing(after, over=True)
    return Standing(after, say=(_gap(after), Event(end, "end", result)), over=True)


def _gap(after: str) -> Event:
    return Event(after, "gap", orjson.dumps({"after": after}))


def _lost(run_id: RunId, after: str) -> Standing:
    return Standing(after, say=(Event(after, "lost", orjson.dumps({"run_id": run_id})),), over=True)
