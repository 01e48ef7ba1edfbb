"""A TCP proxy on loopback that loses replies, cuts connections or holds everything up, for tests of what happens then.

async with Proxy(server.port) as proxy:
    client = connect(f"redis://127.0.0.1:{proxy.port}/0")
    proxy.lose_next_reply()
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Proxy:
    """Passes bytes between clients and 127.0.0.1:`target` until it is told to hurt them."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._lose_next = False
        self._open = asyncio.Event()
        self._open.set()
        self.lost = 0
        """Replies that were lost so far."""

    @property
    def port(self) -> int:
        if self._server is None:
            raise RuntimeError("the proxy is not open; use it as `async with Proxy(port) as proxy`")
        return int(self._server.sockets[0].getsockname()[1])

    def lose_next_reply(self) -> None:
        """The target gets the next command and carries it out; the client's connection ends instead of its reply."""
        self._lose_next = True

    def cut(self) -> None:
        """End every open connection now."""
        for writer in self._writers:
            writer.transport.abort()

    def hold(self) -> None:
        """Pass nothing on, in either direction, while connections stay open: a network that has gone silent."""
        self._open.clear()

    def let_go(self) -> None:
        """Pass everything on that `hold` held up."""
        self._open.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.let_go()
        self.cut()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            from_target, to_target = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the target is down: the client sees its connection end at once
            writer.transport.abort()
            self._connections.discard(task)
            return
        self._writers |= {writer, to_target}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, to_target, replies=False))
                group.create_task(self._pass(from_target, writer, replies=True))
        except* (
            OSError,
            RuntimeError,
        ):  # an aborted connection: what the test asked for; uvloop says it the second way
            pass
        finally:
            for each in (writer, to_target):
                each.transport.abort()
                self._writers.discard(each)
            self._connections.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        while data := await reader.read(65_536):
            if replies and self._lose_next:
                self._lose_next = False
                self.lost += 1
                break
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("one side has ended; so must the other")
