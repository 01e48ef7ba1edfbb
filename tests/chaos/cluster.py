"""The service under test as real processes: workers, two apis, and a Valkey that each of them reaches by a proxy.

A `Member` is one process with its own way to Redis, so that a fault may cut off one of them and leave the others.
Whoever is killed is started again on the same port by `restart`.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx
import redis

from app.infra.auth import record_of
from app.infra.keys import Keys
from tests.chaos.outside import Store
from tests.support.proxy import Proxy
from tests.support.service import KEY, ROOT, Process
from tests.support.valkey import ValkeyServer, free_port

_START_SECONDS = 60.0


class Member:
    """One process of the service. `up` is False from the moment it is killed until it serves again."""

    def __init__(self, name: str, command: Literal["api", "worker"], env: dict[str, str], folder: Path) -> None:
        self.name, self.command, self._env, self._folder = name, command, env, folder
        self.proxy: Proxy | None = None
        self.process: Process | None = None
        self.up = False
        self.hurt = False
        """Frozen or isolated: it may still believe that it owns runs that others have taken over."""
        self.healed = 0.0
        """When it was last frozen or isolated no more (monotonic)."""
        self.clock = folder / f"{name}.clock"
        self.url = env["BASE_URL"]

    @property
    def pid(self) -> int:
        return 0 if self.process is None else self.process.pid

    def start(self) -> None:
        program = ["-m", "app", "api"] if self.command == "api" else ["-m", "tests.chaos.worker", "worker"]
        env = {**self._env, "CHAOS_CLOCK": str(self.clock)}
        self.process = Process(self.name, env, self._folder, program=[sys.executable, *program])

    async def wait(self) -> None:
        """Until it serves. Raises RuntimeError, with the end of its log, when it ends or takes too long."""
        async with asyncio.timeout(_START_SECONDS):
            while not await self._serves():
                process = self.process
                if process is not None and process.ended:
                    raise RuntimeError(f"{self.name} ended while starting; its log ends:\n{process.log[-3000:]}")
                await asyncio.sleep(0.05)
        self.up = True

    async def _serves(self) -> bool:
        if self.process is None:
            return False
        if self.command == "worker":
            return "worker ready" in self.process.log
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"{self.url}/healthz", timeout=2)).status_code == 200
        except httpx.HTTPError:
            return False

    def send(self, sign: signal.Signals) -> None:
        if self.process is not None:
            self.process.send(sign)

    async def gone(self, seconds: float) -> None:
        """Wait until the process has ended. Raises TimeoutError."""
        if self.process is not None:
            try:
                await asyncio.to_thread(self.process.wait, seconds)
            except subprocess.TimeoutExpired as error:
                raise TimeoutError from error

    def end(self) -> None:
        if self.process is not None:
            self.process.end()


class Cluster:
    """Everything that runs. `valkey` is hurt, `outside` is not."""

    def __init__(
        self,
        *,
        workers: int,
        lease: float,
        fsync: Literal["always", "everysec"] = "everysec",
        apis: int = 2,
        fence: bool = True,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="slipway-chaos-")
        self.folder = Path(self._folder.name)
        self.valkey = ValkeyServer(aof=True, fsync=fsync, password="s3cret")
        self._outside = ValkeyServer()
        self._env = {
            "LANGGRAPH_CONFIG": str(ROOT / "tests/chaos/langgraph.json"),
            "DEFAULT_GRAPH": "chaos",
            "OPENAI_API_KEY": "sk-not-used",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}/v1",
            "TMPDIR": str(self.folder),
            "LEASE_SECONDS": f"{lease:g}",
            "RUN_MAX_ATTEMPTS": "10000",
            "REDIS_TIMEOUT_SECONDS": "1",
            "DRAIN_SECONDS": "2",
            "CHAT_TIMEOUT_SECONDS": "30",
            "HEARTBEAT_SECONDS": "1",
            "WORKER_SLOTS": "8",
            "CHAOS_FENCE": "on" if fence else "off",
        }
        self._count: dict[Literal["api", "worker"], int] = {"api": apis, "worker": workers}
        self.members: list[Member] = []
        self.store: Store

    @property
    def workers(self) -> list[Member]:
        return [member for member in self.members if member.command == "worker"]

    @property
    def apis(self) -> list[Member]:
        return [member for member in self.members if member.command == "api"]

    @property
    def urls(self) -> list[str]:
        """Where the apis are, in the order of `apis`."""
        return [api.url for api in self.apis]

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _open(self) -> None:
        await asyncio.to_thread(self.valkey.start)
        await asyncio.to_thread(self._outside.start)
        self.store = Store(self._outside.url)
        with redis.Redis.from_url(self.valkey.url) as client:
            for field, value in record_of(KEY, tenant="acme").items():
                client.hset(Keys().api_key(KEY.split("_")[1]), field, value)
        for command, count in self._count.items():
            for number in range(count):
                await self._add(f"{command}{number}", command)
        await asyncio.gather(*(member.wait() for member in self.members))

    async def _add(self, name: str, command: Literal["api", "worker"]) -> None:
        proxy = await Proxy(self.valkey.port).__aenter__()
        port = free_port()
        env = {
            **self._env,
            "REDIS_URL": self.valkey.url.replace(f":{self.valkey.port}/", f":{proxy.port}/"),
            "CHAOS_STORE_URL": self._outside.url,
            "PORT": str(port),
            "BASE_URL": f"http://127.0.0.1:{port}",
        }
        member = Member(name, command, env, self.folder)
        member.proxy = proxy
        self.members.append(member)
        member.start()

    async def _close(self) -> None:
        for member in self.members:
            await asyncio.to_thread(member.end)
            if member.proxy is not None:
                await member.proxy.__aexit__(None, None, None)
        await asyncio.to_thread(self.valkey.close)
        await asyncio.to_thread(self._outside.close)
        self._folder.cleanup()

    def logs(self) -> dict[str, str]:
        """What every process has logged, those that were killed too, by the name of its file."""
        return {path.name: path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log"))}

    def redis(self) -> Any:
        """A client of the Valkey itself, past all proxies."""
        return redis.Redis.from_url(self.valkey.url)
