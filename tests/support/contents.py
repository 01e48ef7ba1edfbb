"""What lies in a Redis, as Python values, to compare it before and after."""

from __future__ import annotations

from typing import Any


async def contents(client: Any) -> dict[str, Any]:
    """Hashes, sets and sorted sets by key, without scores and times to live: these move with the clock.

    Not by DUMP: a hash that is growing lists its fields in another order from one call to the next.
    """
    found: dict[str, Any] = {}
    async for key in client.scan_iter(count=1000):
        kind = (await client.type(key)).decode()
        if kind == "hash":
            found[key.decode()] = await client.hgetall(key)
        elif kind == "zset":
            found[key.decode()] = await client.zrange(key, 0, -1)
        else:
            found[key.decode()] = await client.smembers(key)
    return found
