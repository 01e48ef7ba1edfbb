"""Secrets for a deployment that has nobody to make them (Compose): made once, in a folder that processes share.

    python -m app bootstrap secrets --redis redis:6379      before Redis starts
    python -m app bootstrap key                             once Redis answers

| file             | who reads it            | what it is                                             |
|------------------|-------------------------|--------------------------------------------------------|
| `redis_password` | nobody but `secrets`    | 256 random bits; the next two are written from it      |
| `redis.conf`     | Redis (by group)        | `requirepass …`, so that it stands in no argument list |
| `redis_url`      | api, worker (SECRETS_PATH) | the setting REDIS_URL                               |
| `api_key`        | whoever runs the place  | the first API key; Redis knows only its hash           |

Both commands may run at every start: what is there stays. The folder is SECRETS_PATH.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import secrets
import tempfile
from pathlib import Path

from app.infra.auth import key_id_of, new_key, record_of
from app.infra.errors import ConfigurationError
from app.infra.keys import Keys
from app.infra.redis import open_redis, outages
from app.infra.settings import Settings, settings

_OWNER, _GROUP = 0o400, 0o440
_PASSWORD = re.compile(r"^[A-Za-z0-9_-]{43}$")
_ADDRESS = re.compile(r"^[A-Za-z0-9.-]+:\d+$")


def main(arguments: list[str]) -> None:
    """Run one of the two commands. Raises `ConfigurationError`; prints no secret."""
    parser = argparse.ArgumentParser(prog="python -m app bootstrap", description="Make the secrets of a deployment.")
    commands = parser.add_subparsers(dest="command", required=True)
    files = commands.add_parser("secrets", help="write the files that are missing")
    files.add_argument("--redis", required=True, metavar="HOST:PORT", help="where Redis will be")
    commands.add_parser("key", help="register the API key in Redis")
    asked = parser.parse_args(arguments)
    named = os.environ.get("SECRETS_PATH")
    if not named:
        raise ConfigurationError("SECRETS_PATH is not set", fix="name the folder that the processes share")
    folder = Path(named)
    if asked.command == "secrets":
        write_secrets(folder, redis=asked.redis)
    else:
        asyncio.run(register_first_key(folder, settings()))


def write_secrets(folder: Path, *, redis: str) -> None:
    """Write what is missing in `folder`; `redis` is host:port. A password or key that is there stays."""
    if not _ADDRESS.match(redis):
        raise ConfigurationError("--redis is not of the form host:port", fix="for example --redis redis:6379")
    password = _kept(folder / "redis_password", secrets.token_urlsafe(32))
    if not _PASSWORD.match(password):
        raise ConfigurationError(f"{folder}/redis_password is not one of ours", fix="remove the file and start again")
    _write(folder / "redis.conf", f"requirepass {password}\n", _GROUP)
    _write(folder / "redis_url", f"redis://:{password}@{redis}/0\n", _OWNER)
    _first_key(folder, _kept(folder / "api_key", new_key().text))


async def register_first_key(folder: Path, known: Settings) -> bool:
    """Store the record of the key in `folder`, once; False when it was stored before. Raises `RedisUnavailable`.

    A key that has been revoked since is not brought back: Redis remembers which one was the first.
    """
    try:
        text = (folder / "api_key").read_text().strip()
    except FileNotFoundError as error:
        raise ConfigurationError(f"there is no {folder}/api_key", fix="run `bootstrap secrets` first") from error
    key_id, keys = _first_key(folder, text), Keys(known.redis.key_prefix)
    redis = open_redis(known.redis)
    try:
        with outages():
            if await redis.get(keys.first_key) == key_id.encode():
                return False
            async with redis.pipeline(transaction=True) as both:
                both.hset(keys.api_key(key_id), items=[part for pair in record_of(text).items() for part in pair])
                both.set(keys.first_key, key_id)
                await both.execute()
    finally:
        await redis.aclose()
    return True


def _first_key(folder: Path, text: str) -> str:
    try:
        return key_id_of(text)
    except ValueError as error:
        raise ConfigurationError(f"{folder}/api_key: {error}", fix="remove the file and start again") from error


def _kept(path: Path, otherwise: str) -> str:
    """What the file says; `otherwise`, written to it, when there is none."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        _write(path, otherwise + "\n", _OWNER)
        return otherwise


def _write(path: Path, text: str, mode: int) -> None:
    """Whole or not at all; never readable by more than `mode` allows."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    except OSError as error:
        fix = "mount a folder there that the user of this process may write"
        raise ConfigurationError(f"{path.parent}: {error.strerror}", fix=fix) from error
    with open(handle, "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    os.replace(temporary, path)
