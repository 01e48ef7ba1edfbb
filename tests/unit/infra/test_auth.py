"""API keys against their records."""

from __future__ import annotations

from typing import Any

import pytest

from app.infra.auth import Authenticator, new_key
from app.infra.keys import Keys


class Records:
    """What the authenticator asks of Redis."""

    def __init__(self, record: dict[bytes, bytes]) -> None:
        self.record = record

    async def hgetall(self, _key: str) -> dict[bytes, bytes]:
        return self.record


def stored(key: Any, **changes: bytes | None) -> Records:
    record: dict[bytes, bytes | None] = {name.encode(): value.encode() for name, value in key.record.items()}
    record |= {name.encode(): value for name, value in changes.items()}
    return Records({name: value for name, value in record.items() if value is not None})


async def test_a_key_acts_for_the_tenant_and_user_of_its_record() -> None:
    key = new_key(tenant="acme", user="ada")
    caller = await Authenticator(stored(key), Keys()).caller(key.text)
    assert caller is not None
    assert (caller.key_id, str(caller.tenant), str(caller.user)) == (key.key_id, "acme", "ada")
    assert caller.scopes == frozenset({"*"})


@pytest.mark.parametrize(
    "change", [{"tenant": None}, {"user": None}, {"user": b"\xff"}, {"scopes": None}, {"scopes": b"all"}]
)
async def test_a_record_that_is_not_whole_opens_nothing(change: dict[str, bytes | None]) -> None:
    """Somebody wrote it by hand: the caller is told that the key is not good, not that the service failed."""
    key = new_key()
    assert await Authenticator(stored(key, **change), Keys()).caller(key.text) is None
