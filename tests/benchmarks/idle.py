"""Many open event streams at next to no cost for who holds them: one asyncio protocol per connection, nothing kept."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_AT_ONCE = 64
"""Connections that are opened at the same time: below the server's backlog of connections to accept."""


class _Stream(asyncio.Protocol):
    """Sends one request and counts what comes; `begun` is set with the first event."""

    def __init__(self, request: bytes, opened: IdleStreams) -> None:
        self._request, self._opened = request, opened
        self.begun = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._opened.bytes += len(data)
        self._opened.comments += data.count(b"\n: ")
        if not self.begun.done() and b"event: " in data:
            self.begun.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._opened.lost += 1
        if not self.begun.done():
            self.begun.set_exception(error or ConnectionError("the server closed the connection"))


class IdleStreams:
    """`count` streams of a run each, open while the context lasts. Needs a service without workers."""

    def __init__(self, url: str, headers: dict[str, str], count: int, *, path: str = "/api/stream") -> None:
        parts = urlsplit(url)
        self._host, self._port, self._count = parts.hostname or "127.0.0.1", parts.port or 80, count
        body = json.dumps({"message": "hello there"}).encode() if path == "/api/stream" else b""
        lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", f"host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += ["content-type: application/json", f"content-length: {len(body)}", "", ""]
        self._request = "\r\n".join(lines).encode() + body
        self._streams: list[_Stream] = []
        self.bytes = self.comments = self.lost = 0

    async def __aenter__(self) -> Self:
        places = asyncio.Semaphore(_AT_ONCE)

        async def open_one() -> None:
            async with places:
                _, stream = await asyncio.get_running_loop().create_connection(
                    lambda: _Stream(self._request, self), self._host, self._port
                )
                self._streams.append(stream)
                await stream.begun

        await asyncio.gather(*[open_one() for _ in range(self._count)])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self._streams:
            if stream.transport is not None:
                stream.transport.abort()
