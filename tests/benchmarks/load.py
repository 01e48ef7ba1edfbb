"""A lean HTTP/1.1 client for load: keep-alive connections over asyncio streams, about 50 µs of CPU a request.

An ordinary client costs more than what is measured and would take half of a two-core machine.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Figures:
    """Latencies in milliseconds and the rate of a load run."""

    p50: float
    p95: float
    p99: float
    per_second: float
    count: int

    @classmethod
    def of(cls, seconds: list[float], took: float) -> Figures:
        ordered = sorted(seconds)
        cuts = statistics.quantiles(ordered, n=100, method="inclusive")
        return cls(cuts[49] * 1e3, cuts[94] * 1e3, cuts[98] * 1e3, len(ordered) / took, len(ordered))


class Connection:
    """One keep-alive connection to `url`, with a fixed JSON POST."""

    def __init__(self, url: str, path: str, body: dict[str, str], headers: dict[str, str]) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        lines = [f"POST {path} HTTP/1.1", f"host: {self._host}", "content-type: application/json"]
        self._head = [*lines, *(f"{name}: {value}" for name, value in headers.items())]
        self.say(body)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    def say(self, body: dict[str, str]) -> None:
        """Send this body from now on."""
        payload = json.dumps(body).encode()
        lines = [*self._head, f"content-length: {len(payload)}", "", ""]
        self._request = "\r\n".join(lines).encode() + payload

    async def post(self) -> bytes:
        """Send the request; the response's body. Raises RuntimeError for any status but 200."""
        reader, head = await self._send()
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        body = await reader.readexactly(int(length.split(b":")[1]))
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{head.splitlines()[0]!r}: {body[:300]!r}")
        return body

    async def stream(self) -> AsyncIterator[bytes]:
        """Send the request; the lines of a chunked response as they come, until its last chunk."""
        reader, head = await self._send()
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{head.splitlines()[0]!r}")
        rest = b""
        while size := int(await reader.readline(), 16):
            rest += await reader.readexactly(size)
            await reader.readexactly(2)
            *lines, rest = rest.split(b"\n")
            for line in lines:
                yield line
        await reader.readexactly(2)

    async def _send(self) -> tuple[asyncio.StreamReader, bytes]:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        self._writer.write(self._request)
        return self._reader, await self._reader.readuntil(b"\r\n\r\n")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


async def hammer(call: Callable[[], Awaitable[object]], seconds: float) -> list[float]:
    """Call one after the other for so long; how long each took, in seconds."""
    took, until = [], time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        await call()
        took.append(time.perf_counter() - started)
    return took


async def load(
    url: str, path: str, body: dict[str, str], headers: dict[str, str], *, clients: int, seconds: float
) -> Figures:
    """POST over and over from `clients` connections at once."""
    connections = [Connection(url, path, body, headers) for _ in range(clients)]
    await asyncio.gather(*[hammer(connection.post, 1.0) for connection in connections])  # warm up
    started = time.perf_counter()
    results = await asyncio.gather(*[hammer(connection.post, seconds) for connection in connections])
    took = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return Figures.of([one for result in results for one in result], took)
