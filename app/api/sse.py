"""A run's events as Server-Sent Events: every event with its id, the last one `end`, comments while it is silent."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent

from app.api.dependencies import Api
from app.infra.ids import RunId, ThreadId
from app.runs.events import Event
from app.runs.standing import Standing

_SEND_SECONDS = 30.0
"""A client that takes nothing for so long is cut off; it can come back with its Last-Event-ID."""
_LEAVING = b": this process is leaving, connect again with Last-Event-ID\nretry: 500\n\n"


def stream(api: Api, run_id: RunId, thread_id: ThreadId, standing: Standing) -> EventSourceResponse:
    """The response. It ends with the run; when the process leaves it ends early, between two events."""
    return EventSourceResponse(
        _frames(api, run_id, standing),
        ping=api.settings.service.heartbeat_seconds,
        ping_message_factory=_still_running,
        send_timeout=_SEND_SECONDS,
        # The library would cut streams at once; ours end by themselves within DRAIN_SECONDS (see app.api.server).
        shutdown_grace_period=api.settings.service.drain_seconds,
        headers={
            "X-Run-Id": run_id,
            "X-Thread-Id": thread_id,
            "Content-Location": f"/runs/{run_id}/stream",
        },
        sep="\n",
    )


async def _frames(api: Api, run_id: RunId, standing: Standing) -> AsyncIterator[bytes]:
    async for events in api.hub.follow(run_id, standing):
        yield b"".join([frame(event) for event in events])
        if events[-1].name in ("end", "lost"):
            return
    if api.hub.leaving and not standing.over:
        yield _LEAVING


def _still_running() -> ServerSentEvent:
    return ServerSentEvent(comment="still running", sep="\n")


def frame(event: Event) -> bytes:
    """One event on the wire. The data is JSON, so it holds no line break; attempts tell superseded tokens."""
    attempt = f": attempt {event.attempt}\n" if event.attempt and event.attempt != "1" else ""
    return f"{attempt}id: {event.id}\nevent: {event.name}\ndata: ".encode() + event.data + b"\n\n"
