"""Access to Redis or Valkey: one pool per process, scripts by SHA, outages as `RedisUnavailable`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis.asyncio as aioredis
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.infra.errors import RedisUnavailable
from app.infra.settings import RedisSettings

_BATCH = 64
"""Scripts sent together at most, so that one caller's large reply holds up few others."""
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


class Client(aioredis.Redis):
    """A client whose scripts go out together when they are called in the same turn of the event loop.

    Known as autopipelining. Each caller awaits its own reply; a burst costs one connection and one round trip, which
    is where most of a script call's CPU goes. Scripts may run twice (see `connect`), so a batch may be repeated.
    """

    _gathered: list[tuple[tuple[Any, ...], asyncio.Future[Any]]]

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """The script's reply, as a future."""
        loop = asyncio.get_running_loop()
        reply = loop.create_future()
        gathered = self.__dict__.setdefault("_gathered", [])
        gathered.append((("EVALSHA", sha, numkeys, *keys_and_args), reply))
        if len(gathered) == 1:
            loop.call_soon(self._send_gathered)
        return reply

    def _send_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        for start in range(0, len(gathered), _BATCH):
            task = asyncio.get_running_loop().create_task(self._send_together(gathered[start : start + _BATCH]))
            _sending.add(task)
            task.add_done_callback(_sending.discard)

    async def _send_together(self, calls: list[tuple[tuple[Any, ...], asyncio.Future[Any]]]) -> None:
        try:
            if len(calls) == 1:
                replies = [await self.execute_command(*calls[0][0])]  # type: ignore[no-untyped-call]
            else:
                async with self.pipeline(transaction=False) as together:
                    for command, _ in calls:
                        together.execute_command(*command)
                    replies = await together.execute(raise_on_error=False)
        except Exception as error:  # handed to whoever called: it is theirs to understand
            replies = [error] * len(calls)
        for (_, reply), came in zip(calls, replies, strict=True):
            if reply.done():
                continue  # its caller has given up
            if isinstance(came, Exception):
                reply.set_exception(came)
            else:
                reply.set_result(came)


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


class Lua:
    """One script, sent by its SHA and loaded where the server does not know it (a restart forgets scripts)."""

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
