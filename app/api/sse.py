"""A run's events as Server-Sent Events: every event with its id, the last one `end`, comments while it is silent."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import orjson
from sse_starlette import EventSourceResponse, ServerSentEvent

from app.api.dependencies import Api
from app.infra.ids import RunId
from app.infra.redis import outages
from app.runs.events import Event, position
from app.runs.model import Run

_SEND_SECONDS = 30.0
"""A client that takes nothing for so long is cut off; it can come back with its Last-Event-ID."""
_LEAVING = b": this process is leaving, connect again with Last-Event-ID\nretry: 500\n\n"


def stream(api: Api, run: Run, after: str, *, fresh: bool = False) -> EventSourceResponse:
    """The response. It ends with the run; when the process leaves it ends early, between two events."""
    return EventSourceResponse(
        _frames(api, run, after, fresh=fresh),
        ping=api.settings.service.heartbeat_seconds,
        ping_message_factory=lambda: ServerSentEvent(comment="still running", sep="\n"),
        send_timeout=_SEND_SECONDS,
        # The library would cut streams at once; ours end by themselves within DRAIN_SECONDS (see app.api.server).
        shutdown_event=anyio.Event(),
        shutdown_grace_period=api.settings.service.drain_seconds,
        headers={
            "X-Run-Id": run.run_id,
            "X-Thread-Id": run.thread_id,
            "Content-Location": f"/runs/{run.run_id}/stream",
        },
        sep="\n",
    )


async def _frames(api: Api, run: Run, after: str, *, fresh: bool) -> AsyncIterator[bytes]:
    if run.result is not None and not await _has_events(api, run.run_id):
        # The events have expired, the record has not: say so, and give the end.
        yield frame(Event(after, "gap", orjson.dumps({"after": after})))
        yield frame(Event(after, "end", orjson.dumps(run.result)))
        return
    async for event in api.hub.follow(run.run_id, after, fresh=fresh):
        yield frame(event)
        if event.name == "end":
            return
    if api.hub.leaving:
        yield _LEAVING


async def is_over(api: Api, run: Run, after: str) -> bool:
    """Whether the run has ended and `after` is its last event: there is nothing left to send."""
    if run.result is None:
        return False
    with outages():
        last = await api.redis.xrevrange(api.keys.events(run.run_id), count=1)
    return bool(last) and position(after) >= position(last[0][0].decode())


async def _has_events(api: Api, run_id: RunId) -> bool:
    with outages():
        return bool(await api.redis.exists(api.keys.events(run_id)))


def frame(event: Event) -> bytes:
    """One event on the wire. The data is JSON, so it holds no line break; attempts tell superseded tokens."""
    attempt = f": attempt {event.attempt}\n" if event.attempt and event.attempt != "1" else ""
    return f"{attempt}id: {event.id}\nevent: {event.name}\ndata: ".encode() + event.data + b"\n\n"
