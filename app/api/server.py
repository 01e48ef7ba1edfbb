"""Serves the api until SIGTERM, then lets open requests end within DRAIN_SECONDS.

On the signal no new connection is taken. Streams and waiting `/chat`s go on until their run ends or the time is
up; then a stream ends between two events (its client comes back with Last-Event-ID) and `/chat` answers 202.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from collections.abc import Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from app.api.main import create_app
from app.infra import garbage
from app.infra.settings import Settings

_DESCRIPTORS = 65_536
"""Open files that the process asks for, where it may have them: a stream is one, and 1,024 is a common default."""
_LAST_SECONDS = 3
"""After the time to drain: what remains to write the last bytes before connections are cut."""


class _Server(uvicorn.Server):
    def __init__(self, app: FastAPI, settings: Settings) -> None:
        service = settings.service
        super().__init__(
            uvicorn.Config(
                app,
                host=service.host,
                port=service.port,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(service.drain_seconds) + _LAST_SECONDS,
                # Envoy keeps idle connections for a minute; closing first would cut a request that is on its way.
                timeout_keep_alive=75,
            )
        )
        self._app, self._drain_seconds = app, service.drain_seconds

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, which raises the signal again at the end: a clean stop would look like a kill."""
        previous = {sign: signal.signal(sign, self.handle_exit) for sign in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for sign, handler in previous.items():
                signal.signal(sign, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        asyncio.get_running_loop().call_soon_threadsafe(self._leave_in_time)

    def _leave_in_time(self) -> None:
        asyncio.get_running_loop().call_later(self._drain_seconds, self._app.state.api.hub.leave)


def allow_descriptors() -> None:
    """Raise the process's own limit of open files as far as the machine lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def serve(settings: Settings) -> None:
    """Run the api in this process; returns after a clean stop."""
    allow_descriptors()
    app = create_app(settings)
    garbage.settle()
    _Server(app, settings).run()
