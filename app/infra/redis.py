"""Access to Redis or Valkey: one pool per process, scripts by SHA, outages as `RedisUnavailable`."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import hiredis
import redis.asyncio as aioredis
import redis.exceptions
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.infra.bell import Bell
from app.infra.errors import RedisUnavailable
from app.infra.settings import RedisSettings

_BATCH = 64
"""Scripts sent together at most, so that one caller's large reply holds up few others."""
_BATCHES = 8
"""Batches under way at most, on at most half of the pool's connections; what is called meanwhile goes with the next."""
_POOL_WAIT_SECONDS = 5.0
"""Longest wait for a free connection; more callers than connections queue instead of failing."""


_NOT_NOW = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)
_NOT_NOW_CODES = ("MISCONF ", "NOREPLICAS ", "MASTERDOWN ", "BUSY ")
"""Replies that tell of Redis's own state: memory or disk full, no replica or master, a script that takes too long.

The client has a class for some of them only.
"""

_Call = tuple[tuple[Any, ...], asyncio.Future[Any]]


class Client(aioredis.Redis):
    """A client whose scripts go out together when they are called in the same turn of the event loop.

    Known as autopipelining. Each caller awaits its own reply; a burst costs one connection and one round trip, which
    is where most of a script call's CPU goes. Scripts have connections of their own, taken from the pool once: taking
    one and giving it back costs more than the call. Scripts may run twice (see `connect`), so a batch may be repeated.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waiting: deque[_Call] = deque()
        self._resting: list[AbstractConnection] = []
        """Connections that no batch uses now; the newest is the last."""
        self._most = max(1, min(_BATCHES, self.connection_pool.max_connections // 2))
        self._under_way = 0
        self._awake = False

    def pubsub(self, **options: Any) -> Bell:
        """A subscribed connection, which ends with its first error."""
        return Bell(self.connection_pool, **options)

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """The script's reply, as a future."""
        loop = asyncio.get_running_loop()
        reply = loop.create_future()
        self._waiting.append((("EVALSHA", sha, numkeys, *keys_and_args), reply))
        if not self._awake:
            self._awake = True
            loop.call_soon(self._send_waiting)
        return reply

    def _send_waiting(self) -> None:
        self._awake = False
        while self._waiting and self._under_way < self._most:
            calls = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            self._under_way += 1
            task = asyncio.get_running_loop().create_task(self._send_together(calls))
            _sending.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        _sending.discard(task)
        self._under_way -= 1
        self._send_waiting()

    async def _send_together(self, calls: list[_Call]) -> None:
        replies: list[Any]
        try:
            packed = b"".join([hiredis.pack_command(command) for command, _ in calls])
            try:
                replies = await self._exchange(packed, len(calls))
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError):
                while self._resting:  # they have rested since before, and are as dead
                    await self._give_up(self._resting.pop())
                replies = await self._exchange(packed, len(calls))
        except Exception as error:  # handed to whoever called: it is theirs to understand
            replies = [error] * len(calls)
        for (_, reply), came in zip(calls, replies, strict=True):
            if reply.done():
                continue  # its caller has given up
            if isinstance(came, Exception):
                reply.set_exception(came)
            else:
                reply.set_result(came)

    async def _exchange(self, packed: bytes, count: int) -> list[Any]:
        if self._resting:
            connection = self._resting.pop()
        else:
            connection = await self.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        replies: list[Any] = []
        try:
            await connection.send_packed_command(packed, check_health=False)
            while len(replies) < count:
                try:
                    replies.append(await connection.read_response())
                except redis.exceptions.ResponseError as error:
                    replies.append(error)
        except BaseException:  # the next one to use it would read what is left of our replies
            await self._give_up(connection)
            raise
        self._resting.append(connection)
        return replies

    async def _give_up(self, connection: AbstractConnection) -> None:
        await connection.disconnect(nowait=True)
        await self.connection_pool.release(connection)


_sending: set[asyncio.Task[None]] = set()
"""Batches on their way: the event loop itself holds tasks only weakly."""


def open_redis(chosen: RedisSettings) -> Client:
    """The process's client, see `connect`."""
    return connect(
        chosen.url.get_secret_value(),
        max_connections=chosen.max_connections,
        timeout_seconds=chosen.timeout_seconds,
    )


def connect(url: str, *, max_connections: int = 64, timeout_seconds: float = 2.0) -> Client:
    """A client over a bounded pool; opens nothing yet.

    `timeout_seconds` bounds each answer and each connect. A command cut off by a broken connection is retried
    once on a new one: each of our scripts may be run twice, and every plain command we send is a read or sets
    a value outright. Blocking commands need a client of their own with a longer timeout.
    """
    pool = aioredis.BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=_POOL_WAIT_SECONDS,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 1),
        decode_responses=False,
    )
    return Client.from_pool(pool)  # type: ignore[return-value]  # its type forgets the class


@contextmanager
def outages() -> Iterator[None]:
    """Turns the client's connection errors and time-outs into `RedisUnavailable`, and so what Redis says of itself.

    What it refuses because of the command is left alone.
    """
    try:
        yield
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise RedisUnavailable("Redis does not answer") from error
    except redis.exceptions.ResponseError as error:
        if isinstance(error, _NOT_NOW) or str(error).startswith(_NOT_NOW_CODES):
            raise RedisUnavailable("Redis does not take writes") from error
        raise


def script_text(folder: Path, *names: str) -> str:
    """The files of `folder` as one script."""
    return "".join((folder / name).read_text() for name in names)


def clock_ms(reply: tuple[int, int]) -> int:
    """Redis's clock in ms, of its reply to TIME."""
    seconds, micros = reply
    return seconds * 1000 + micros // 1000


class Lua:
    """One script, sent by its SHA and loaded where the server does not know it (a restart forgets scripts)."""

    @classmethod
    def of(cls, folder: Path, *names: str) -> Self:
        """The script in the last file of `folder`, after those with functions that it shares with others."""
        return cls(script_text(folder, *names), name=names[-1])

    def __init__(self, text: str, *, name: str) -> None:
        self.name, self.text = name, text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, client: Any, *, keys: list[str], args: list[Any]) -> Any:
        """The script's reply, bytes undecoded. Raises `RedisUnavailable` when no answer came."""
        with outages():
            try:
                return await client.evalsha(self.sha, len(keys), *keys, *args)
            except redis.exceptions.NoScriptError:
                return await client.eval(self.text, len(keys), *keys, *args)
