"""API keys: `slw_<id>_<secret>`, stored only as a SHA-256 of the whole text.

The secret has 256 random bits, so a plain hash is enough: there is nothing to guess that a slow hash would slow
down. `pulumi up` makes the first key; whoever holds a key acts for its tenant.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from app.infra.ids import TenantId, UserId
from app.infra.keys import Keys
from app.infra.logging import get_logger
from app.infra.redis import outages

_log = get_logger(__name__)

_KEY = re.compile(r"^slw_([a-z0-9]{12})_([A-Za-z0-9_-]{43})$")
CACHE_SECONDS = 5.0
"""How long a verified key is believed without asking Redis: a revoked key works at most that much longer."""
_CACHE_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request acts for."""

    key_id: str
    tenant: TenantId
    user: UserId
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. `text` is shown once; `record` is what is stored under `Keys.api_key(key_id)`."""

    key_id: str
    text: str
    record: dict[str, str]

    def __repr__(self) -> str:
        return f"NewKey({self.key_id!r})"


def new_key(*, tenant: str = "default", user: str = "", scopes: tuple[str, ...] = ("*",)) -> NewKey:
    """Make a key for `tenant`. `user` is who its requests act for when they name nobody; default: the key's id."""
    key_id = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(12))
    text = f"slw_{key_id}_{secrets.token_urlsafe(32)}"
    return NewKey(key_id, text, record_of(text, tenant=tenant, user=user, scopes=scopes))


def record_of(
    text: str, *, tenant: str = "default", user: str = "", scopes: tuple[str, ...] = ("*",)
) -> dict[str, str]:
    """The stored record of an existing key: enough to recognise it, nothing to recover it from."""
    return {
        "sha256": digest(text),
        "tenant": tenant,
        "user": user or key_id_of(text),
        "scopes": json.dumps(list(scopes)),
        "created_at": str(int(time.time())),
    }


def digest(text: str) -> str:
    """What is stored of a key, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def key_id_of(text: str) -> str:
    """The public part of a key. Raises ValueError when `text` has not the form of a key."""
    match = _KEY.match(text)
    if match is None:
        raise ValueError("not a key of the form slw_<id>_<secret>")
    return match[1]


class Authenticator:
    """Recognises keys against their records in Redis; believes a good one for a few seconds."""

    def __init__(self, redis: Any, keys: Keys) -> None:
        self._redis, self._keys = redis, keys
        self._known: OrderedDict[str, tuple[float, Caller]] = OrderedDict()

    async def caller(self, text: str) -> Caller | None:
        """Who presents `text`; None for a wrong, unknown or revoked key. Raises `RedisUnavailable`."""
        try:
            key_id = key_id_of(text)
        except ValueError:
            return None
        presented = digest(text)
        known = self._known.get(presented)
        now = time.monotonic()
        if known is not None and known[0] > now:
            return known[1]
        self._known.pop(presented, None)
        with outages():
            fields = await self._redis.hgetall(self._keys.api_key(key_id))
        if not hmac.compare_digest(fields.get(b"sha256", b""), presented.encode()):
            return None
        try:
            caller = Caller(
                key_id,
                TenantId(fields[b"tenant"].decode()),
                UserId(fields[b"user"].decode()),
                frozenset(json.loads(fields[b"scopes"])),
            )
        except (KeyError, ValueError):
            _log.error("API key record is not whole", key_id=key_id, fix="make a new key and remove this one")
            return None
        self._known[presented] = (now + CACHE_SECONDS, caller)
        while len(self._known) > _CACHE_ENTRIES:
            self._known.popitem(last=False)
        return caller
