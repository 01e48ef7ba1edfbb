"""The service as its real processes: an api and workers on loopback, started and ended by the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import redis

from app.infra.auth import record_of
from app.infra.keys import Keys
from tests.support.valkey import ValkeyServer, free_port
from tests.support.waiting import until_it_answers

ROOT = Path(__file__).resolve().parents[2]
KEY = "slw_testtesttest_" + "k" * 43
OTHER_KEY = "slw_othertenant0_" + "o" * 43
_START_SECONDS = 60.0


class Process:
    """`python -m app <command>` with its log in a file."""

    def __init__(self, command: str, env: dict[str, str], folder: Path, *, program: list[str] | None = None) -> None:
        """`program` runs something else than the service's own command, which then only names the process."""
        self.command = command
        handle, name = tempfile.mkstemp(prefix=f"{command}-", suffix=".log", dir=folder)
        self.log_path = Path(name)
        with os.fdopen(handle, "wb") as log:
            self._process = subprocess.Popen(
                program or [sys.executable, "-m", "app", command],
                cwd=ROOT,
                env={**_bare_environment(), **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """The log as JSON; a line that is none fails the test that asks."""
        return [json.loads(line) for line in self.log.splitlines()]

    def wait_for(self, text: str) -> None:
        """Until the log has `text`. Raises when the process ends before or takes too long."""
        deadline = time.monotonic() + _START_SECONDS
        while text not in self.log:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.command} did not say {text!r}; its log ends:\n{self.log[-3000:]}")
            time.sleep(0.02)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def send(self, sign: signal.Signals) -> None:
        self._process.send_signal(sign)

    def wait(self, seconds: float) -> int:
        """Its exit code. Raises `subprocess.TimeoutExpired`."""
        return self._process.wait(seconds)

    def end(self) -> None:
        """Make sure that it is gone."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)


class Service:
    """A Valkey, one api and `workers` workers. `url` is the api's; `headers` hold a good key."""

    def __init__(
        self, *, workers: int = 1, env: dict[str, str] | None = None, valkey: ValkeyServer | None = None
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="slipway-service-")
        self.folder = Path(self._folder.name)
        self._own_valkey = valkey is None
        self.valkey = valkey if valkey is not None else ValkeyServer(aof=True, password="s3cret").start()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.headers = {"Authorization": f"Bearer {KEY}"}
        self.env = {
            "REDIS_URL": self.valkey.url,
            "PORT": str(self.port),
            "LANGGRAPH_CONFIG": str(ROOT / "tests/support/langgraph.json"),
            "DEFAULT_GRAPH": "instant",
            "OPENAI_API_KEY": "sk-not-used",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}/v1",
            "TMPDIR": str(self.folder),
            **(env or {}),
        }
        self.redis = redis.Redis.from_url(self.valkey.url)
        for key, tenant in ((KEY, "acme"), (OTHER_KEY, "umbrella")):
            for field, value in record_of(key, tenant=tenant).items():
                self.redis.hset(Keys().api_key(key.split("_")[1]), field, value)
        self.workers: list[Process] = []
        self.api = Process("api", self.env, self.folder)
        try:
            for _ in range(workers):
                self.workers.append(self.start_worker())
            self.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def start_worker(self) -> Process:
        return Process("worker", self.env, self.folder)

    def start_api(self) -> None:
        """A new api process in the place of the one that has ended."""
        self.api.end()
        self.api = Process("api", self.env, self.folder)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        until_it_answers(
            f"{self.url}/healthz", self.api._process, self.api.log_path, name="the api", seconds=_START_SECONDS
        )
        for worker in self.workers:
            worker.wait_for("worker ready")

    def stored_keys(self) -> set[bytes]:
        """Every key in Redis."""
        return {key for key in self.redis.keys("*") if isinstance(key, bytes)}

    def client(self, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers=self.headers, timeout=60, **options)

    def close(self) -> None:
        for process in [self.api, *self.workers]:
            process.end()
        self.redis.close()
        if self._own_valkey:
            self.valkey.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _bare_environment() -> dict[str, str]:
    """What a process needs of the test's environment, without settings that a developer may have exported."""
    kept = ("PATH", "HOME", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    return {name: os.environ[name] for name in kept if name in os.environ}
