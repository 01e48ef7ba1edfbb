"""A subscribed connection that ends with its first error, for one task that listens and others that (un)subscribe.

The client's own `PubSub` connects again by itself, whichever command or read meets the error. With two tasks on it each
does so while the other still uses the connection: what one reads is the other's reply, or both end with errors that are
none of the client's (`RuntimeError`, `AttributeError`). Here nobody connects again: who listens makes a new one.
"""

from __future__ import annotations

from typing import Any, NoReturn

import redis.exceptions
from redis.asyncio.client import PubSub


class Bell(PubSub):
    """A `PubSub` that is connected once. After an error, or `aclose`, every use raises redis's `ConnectionError`."""

    _begun = False

    async def execute_command(self, *args: Any) -> None:
        if self._begun and not self._connected:
            raise _gone()
        self._begun = True
        try:
            await super().execute_command(*args)
        except AttributeError as error:
            if self._connected:
                raise
            raise _gone() from error  # the listener met the end of the connection while this was about to be sent

    async def parse_response(self, *args: Any, **options: Any) -> Any:
        if not self._connected:
            raise _gone()
        return await super().parse_response(*args, **options)

    async def _reconnect(self, conn: Any, error: BaseException | None = None, *_: Any) -> NoReturn:
        """What the client does after an error; we tell whoever met it."""
        await conn.disconnect(nowait=True)
        raise error or _gone()

    @property
    def _connected(self) -> bool:
        return self.connection is not None and bool(self.connection.is_connected)


def _gone() -> redis.exceptions.ConnectionError:
    return redis.exceptions.ConnectionError("the subscribed connection has ended")
