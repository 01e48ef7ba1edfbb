"""A real PostgreSQL for a test: its own process, free loopback port and folder, ended by its process id.

It runs where the server's programs are installed (Debian: `apt-get install postgresql`); see `found`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.valkey import free_port

_START_SECONDS = 60


def found() -> Path | None:
    """The folder of `initdb`, or None: then skip, and say so."""
    on_path = shutil.which("initdb")
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    if on_path is not None:
        folders.append(Path(on_path).resolve().parent)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def _unprivileged() -> tuple[int, int]:
    """User and group to run as instead of root, which the server refuses."""
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


class Postgres:
    """One server. `url(role)` names its database `shop`; `postgres` is its superuser, other roles are a test's."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="slipway-postgres-"))
        self._uid: int | None = None
        self._gid: int | None = None
        if os.geteuid() == 0:
            self._uid, self._gid = _unprivileged()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, role: str = "postgres", password: str = "") -> str:
        return f"postgresql://{role}:{password}@127.0.0.1:{self.port}/shop"

    def start(self) -> None:
        """Make the cluster and the database `shop`, and start the server."""
        data = self.folder / "data"
        if self._uid is not None and self._gid is not None:
            os.chown(self.folder, self._uid, self._gid)
        self._run("initdb", "-D", str(data), "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8")
        self._process = subprocess.Popen(
            [
                str(self._binaries / "postgres"), "-D", str(data), "-p", str(self.port), "-h", "127.0.0.1",
                "-k", str(self.folder), "-c", "fsync=off", "-c", "log_min_messages=panic",
            ],
            user=self._uid,
            group=self._gid,
        )  # fmt: skip
        self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-t", str(_START_SECONDS), attempts=100)
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "shop")

    def _run(self, program: str, *arguments: str, attempts: int = 1) -> None:
        for attempt in range(attempts):
            done = subprocess.run(
                [str(self._binaries / program), *arguments],
                capture_output=True,
                text=True,
                timeout=_START_SECONDS,
                cwd=self.folder,
                check=False,
                user=self._uid,
                group=self._gid,
            )
            if done.returncode == 0:
                return
            assert attempt + 1 < attempts, f"{program}: {done.stderr}"
            assert self._process is None or self._process.poll() is None, "the server ended"
            if self._process is not None:
                try:
                    self._process.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue

    def stop(self) -> None:
        """Fast shutdown, and wait."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_START_SECONDS)
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
