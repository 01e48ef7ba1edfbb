"""The local vector store for a test: its own process, free loopback port and folder, ended by its process id.

A test may hurt it: `kill`, `stop` and `start` again; port and folder stay the same.

    with VectorStore() as store:
        client = AsyncQdrantClient(url=store.url)
"""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.valkey import free_port

_REPOSITORY = Path(__file__).resolve().parents[2]
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_PROBE_SECONDS = 0.02


class VectorStore:
    """One `python -m components.local.vector_store`."""

    def __init__(self, *, api_key: str | None = None, folder: Path | None = None) -> None:
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="slipway-vectors-"))
        self.port = free_port()
        self._api_key = api_key
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the store is not running"
        return self._process.pid

    def command(self) -> list[str]:
        """How it is started."""
        module = "components.local.vector_store"
        return [sys.executable, "-m", module, "--path", str(self.folder), "--port", str(self.port)]

    def environment(self) -> dict[str, str]:
        key = {} if self._api_key is None else {"QDRANT__SERVICE__API_KEY": self._api_key}
        return {**os.environ, **key}

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(self.command(), cwd=_REPOSITORY, env=self.environment())
        end = time.monotonic() + _START_SECONDS
        while not self._ready():
            assert self._process.poll() is None, f"the store ended with {self._process.returncode}"
            assert time.monotonic() < end, f"the store was not ready within {_START_SECONDS:g} s"
            time.sleep(_PROBE_SECONDS)

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        """SIGKILL: it gets no chance to write anything more."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """SIGTERM, and wait; SIGKILL when it does not end."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
