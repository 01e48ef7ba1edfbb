"""Access to Redis or Valkey: one pool per process, scripts by SHA, outages as `RedisUnavailable`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis.asyncio as aioredis
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.infra.errors import RedisUnavailable

_POOL_WAIT_SECONDS = 5.0
"""Longest wait for a free connection; more callers than connections queue instead of failing."""


def connect(url: str, *, max_connections: int = 64, timeout_seconds: float = 2.0) -> aioredis.Redis:
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
    return aioredis.Redis.from_pool(pool)


@contextmanager
def outages() -> Iterator[None]:
    """Turns the client's connection errors and time-outs into `RedisUnavailable`; leaves refused commands alone."""
    try:
        yield
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise RedisUnavailable("Redis does not answer") from error
    except (redis.exceptions.BusyLoadingError, redis.exceptions.ReadOnlyError) as error:
        raise RedisUnavailable("Redis is not ready for writes") from error


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
