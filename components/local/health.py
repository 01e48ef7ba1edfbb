"""When a program counts as up. One probe asks once and says what is missing; `process` asks again until it is."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Any, Literal, TypedDict
from urllib.parse import urlsplit

_PROBE_SECONDS = 2.0


class Health(TypedDict):
    """How to tell that a program is up."""

    kind: Literal["http", "tcp", "redis", "log"]
    """`http`: `target` answers 200. `tcp`: it accepts. `redis`: it answers PING. `log`: its log has said `target`."""
    target: str
    """URL, host:port, Redis URL, or text; for `http` also `unix:<socket>:<path>`. `{port}` is the program's port."""


def probe(health: Health, *, port: int, log: Path, written: int) -> str:
    """Empty when it is up, else what is missing, in a few words. Never raises for a program that is not there.

    `port` is the program's; its output of this start begins at byte `written` of `log`.
    """
    target = health["target"].replace("{port}", str(port))
    try:
        match health["kind"]:
            case "http":
                return _http(target)
            case "tcp":
                host, _, number = target.rpartition(":")
                socket.create_connection((host, int(number)), timeout=_PROBE_SECONDS).close()
                return ""
            case "redis":
                return _redis(target)
            case "log":
                with log.open("rb") as file:
                    file.seek(written)
                    return "" if target.encode() in file.read() else f"has not said {target!r}"
    except (OSError, http.client.HTTPException) as error:
        return f"does not answer ({type(error).__name__})"


class UnixHTTPConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connecting.settimeout(self.timeout)
            connecting.connect(str(self._path))
        except OSError:
            connecting.close()
            raise
        self.sock = connecting


def _http(target: str) -> str:
    connection: http.client.HTTPConnection
    if target.startswith("unix:"):
        _, socket_path, path = target.split(":", 2)
        connection = UnixHTTPConnection(Path(socket_path), _PROBE_SECONDS)
    else:
        parts = urlsplit(target)
        connection, path = http.client.HTTPConnection(parts.netloc, timeout=_PROBE_SECONDS), parts.path or "/"
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    finally:
        connection.close()
    return "" if status == 200 else f"answers {path} with {status}"


def _redis(url: str) -> str:
    client = redis_client(url, seconds=_PROBE_SECONDS)
    import redis

    try:
        client.ping()
    except redis.AuthenticationError:
        return "refuses its password"
    except redis.RedisError as error:
        return f"does not answer PING ({type(error).__name__})"
    finally:
        client.close()
    return ""


def redis_client(url: str, *, seconds: float) -> Any:
    """A plain client that gives up after `seconds`; the caller closes it."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return redis.Redis.from_url(
        url, socket_timeout=seconds, socket_connect_timeout=seconds, retry=Retry(NoBackoff(), 0), decode_responses=True
    )
