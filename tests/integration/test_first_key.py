"""The first key of a deployment without Pulumi, registered in a real Valkey."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis.asyncio as aioredis

from app.infra import bootstrap, settings
from app.infra.auth import Authenticator, key_id_of
from app.infra.keys import Keys
from app.infra.settings import Settings
from tests.support.valkey import ValkeyServer


@pytest.fixture
def known(valkey_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("REDIS_URL", valkey_server.url)
    return settings.load(None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bootstrap.write_secrets(tmp_path, redis="redis:6379")
    return tmp_path


async def test_the_first_key_opens_the_service(
    client: aioredis.Redis, keys: Keys, known: Settings, folder: Path
) -> None:
    """Its record is there once, and only as a hash; the second start finds it."""
    text = (folder / "api_key").read_text().strip()
    assert await bootstrap.register_first_key(folder, known)
    caller = await Authenticator(client, keys).caller(text)
    assert caller is not None
    assert caller.key_id == key_id_of(text)
    assert not await bootstrap.register_first_key(folder, known)
    record = await client.hgetall(keys.api_key(caller.key_id))
    assert text not in str(record)


async def test_a_revoked_first_key_stays_revoked(
    client: aioredis.Redis, keys: Keys, known: Settings, folder: Path
) -> None:
    """The command runs at every start of the deployment: it must not bring back what somebody took away."""
    text = (folder / "api_key").read_text().strip()
    await bootstrap.register_first_key(folder, known)
    await client.delete(keys.api_key(key_id_of(text)))
    assert not await bootstrap.register_first_key(folder, known)
    assert await Authenticator(client, keys).caller(text) is None


async def test_an_emptied_redis_learns_the_key_again(
    client: aioredis.Redis, keys: Keys, known: Settings, folder: Path
) -> None:
    """Lost data are not a revocation: with them went the note that the key had been registered."""
    await bootstrap.register_first_key(folder, known)
    await client.flushall()
    assert await bootstrap.register_first_key(folder, known)
