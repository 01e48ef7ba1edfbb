"""The platform's first API key: its record in Redis, under each prefix that a release reads.

The key itself lives in Pulumi's state, encrypted; Redis knows its SHA-256. Data lost in Redis takes the record
away but not the key, so the record can be written again and callers notice nothing.
"""

from __future__ import annotations

from app.infra.auth import key_id_of, record_of
from app.infra.keys import Keys
from components.local.errors import LocalError
from components.local.health import redis_client

_SECONDS = 5.0


def register(redis_url: str, text: str, prefixes: list[str]) -> None:
    """Write the key's record where it is missing or another; doing it twice changes nothing."""
    import redis

    client = redis_client(redis_url, seconds=_SECONDS)
    try:
        for key in _keys(text, prefixes):
            record = record_of(text)
            if client.hget(key, "sha256") != record["sha256"]:
                client.hset(key, mapping=record)
    except redis.RedisError as error:
        raise LocalError(
            f"the API key could not be registered: Redis does not take it ({type(error).__name__}); see its log"
        ) from error
    finally:
        client.close()


def registered(redis_url: str, text: str, prefixes: list[str]) -> bool:
    """Whether the service would recognise the key now; False also when Redis does not answer."""
    import redis

    client = redis_client(redis_url, seconds=_SECONDS)
    try:
        expected = record_of(text)["sha256"]
        return all(client.hget(key, "sha256") == expected for key in _keys(text, prefixes))
    except redis.RedisError:
        return False
    finally:
        client.close()


def revoke(redis_url: str, text: str, prefixes: list[str]) -> None:
    """Remove the record. Nothing when Redis is gone: so is then what the key opened."""
    import redis

    client = redis_client(redis_url, seconds=_SECONDS)
    try:
        client.delete(*_keys(text, prefixes))
    except (redis.ConnectionError, redis.TimeoutError):
        return
    finally:
        client.close()


def _keys(text: str, prefixes: list[str]) -> list[str]:
    return [Keys(prefix).api_key(key_id_of(text)) for prefix in prefixes]
