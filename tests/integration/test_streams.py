"""Streams over HTTP under bad clients and bad luck: slow and vanished ones, silence, attempts that are superseded."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest
import uvicorn

from app.api.main import create_app
from app.infra import settings
from app.infra.auth import record_of
from app.infra.ids import STABLE, RunId
from app.infra.keys import Keys
from app.infra.redis import connect
from app.infra.settings import RunSettings
from app.runs.events import EventWriter
from app.runs.ledger import RunLedger
from app.runs.model import Status
from tests.integration.conftest import new_run
from tests.integration.test_api import sse
from tests.support.service import KEY, Service
from tests.support.valkey import ValkeyServer, free_port
from tests.support.waiting import eventually

LEASE = RunSettings(lease_seconds=60.0)


@pytest.fixture(scope="module")
def silent() -> Iterator[Service]:
    """A service that nobody works for: what it accepts waits. A silent stream gets a comment each 0.2 s."""
    with Service(workers=0, env={"HEARTBEAT_SECONDS": "0.2"}) as running:
        yield running


@contextlib.asynccontextmanager
async def hands(service: Service) -> AsyncIterator[tuple[Any, RunLedger]]:
    """The test as the worker of `service`: a Redis client and the ledger."""
    client = connect(service.valkey.url)
    try:
        yield client, RunLedger(client, Keys(), LEASE, STABLE)
    finally:
        await client.aclose()


async def heard(service: Service) -> int:
    """How many runs' channels the api process is subscribed to."""
    return len(await asyncio.to_thread(service.redis.pubsub_channels, "*:grown:*"))


async def vanish(writer: asyncio.StreamWriter) -> None:
    """As a client whose machine loses its power does, seen from here."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def raw_stream(service: Service) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, RunId]:
    """A stream whose client reads only when it is told to, with small buffers; and the run's id."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port, limit=4_096)
    body = b'{"message": "x"}'
    head = [b"POST /api/stream HTTP/1.1", b"host: test", f"authorization: {service.headers['Authorization']}".encode()]
    head += [b"content-type: application/json", b"content-length: %d" % len(body), b"", b""]
    writer.write(b"\r\n".join(head) + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    run_id = next(line.split(": ")[1] for line in answer.splitlines() if line.lower().startswith("x-run-id"))
    return reader, writer, RunId(run_id)


async def test_a_silent_stream_is_kept_alive_by_comments(silent: Service) -> None:
    reader, writer, _ = await raw_stream(silent)
    async with asyncio.timeout(10):
        for _ in range(3):
            await reader.readuntil(b": still running\n\n")
    await vanish(writer)


async def test_a_client_that_vanishes_leaves_nothing_behind(silent: Service) -> None:
    """Thousands do in a day: neither the api nor Redis may remember one."""
    streams = [await raw_stream(silent) for _ in range(20)]
    await eventually(lambda: heard(silent), until=lambda channels: channels == 20)
    for _, writer, _ in streams:
        await vanish(writer)
    await eventually(lambda: heard(silent), until=lambda channels: channels == 0)


async def test_a_client_that_does_not_read_holds_up_nobody_and_misses_nothing(silent: Service) -> None:
    """Ten thousand events of a kilobyte for two clients of one run: one reads at once, the other much later."""
    async with silent.client() as http, hands(silent) as (client, ledger):
        reader, writer, run_id = await raw_stream(silent)
        claim = (await ledger.claim("w", 1)).runs[0]
        while claim.run_id != run_id:  # the other tests left some
            claim = (await ledger.claim("w", 1)).runs[0]
        out = EventWriter(client, Keys(), claim, most=20_000, failed=_fail)
        before = _memory(silent.api.pid)

        async def quick() -> list[int]:
            async with http.stream("GET", f"/runs/{run_id}/stream") as response:
                return [event["data"]["n"] async for event in sse(response) if event["event"] == "custom"]

        reading = asyncio.create_task(quick())
        for number in range(10_000):
            out.put("custom", orjson.dumps({"n": number, "text": "x" * 1_000}))
            if number % 500 == 499:
                await out.flush()
        await ledger.complete(claim, await ledger.get(run_id), Status.SUCCESS, {}, await out.finish())
        assert await reading == list(range(10_000))
        assert _memory(silent.api.pid) - before < 8 * 1_024, "ten megabytes wait in Redis, not in the api"
        seen = b""
        async with asyncio.timeout(20):
            while b"event: end" not in seen[-4_096:]:
                seen += await reader.read(65_536)
        numbers = [int(part.split(b",")[0]) for part in seen.split(b'data: {"n":')[1:]]
        assert numbers == list(range(10_000))
        await vanish(writer)


async def test_a_client_that_takes_nothing_for_too_long_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, valkey_server: ValkeyServer, client: Any
) -> None:
    """Its stream is there to be gone on with; until then it holds neither memory nor a place."""
    monkeypatch.setattr("app.api.sse._SEND_SECONDS", 0.3)
    monkeypatch.setenv("REDIS_URL", valkey_server.url)
    monkeypatch.setenv("DEFAULT_GRAPH", "instant")
    monkeypatch.setenv("LANGGRAPH_CONFIG", "tests/support/langgraph.json")
    app, port = create_app(settings.load(None)), free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: asyncio.sleep(0, server.started), until=bool)
    ledger, keys = RunLedger(client, Keys(), LEASE, STABLE), Keys()
    await client.hset(keys.api_key(KEY.split("_")[1]), mapping=record_of(KEY, tenant="acme"))
    await ledger.accept(new_run())
    claim = (await ledger.claim("w", 1)).runs[0]
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_024)
    writer.write(f"GET /runs/{claim.run_id}/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\r\n".encode())
    feeds = app.state.api.hub._feeds
    await eventually(lambda: asyncio.sleep(0, feeds), until=bool)
    out = EventWriter(client, keys, claim, most=20_000, failed=_fail)
    for number in range(10_000):
        out.put("custom", orjson.dumps({"n": number, "text": "x" * 1_000}))
        if number % 500 == 499:
            await out.flush()
    await eventually(lambda: asyncio.sleep(0, feeds), until=lambda held: not held, seconds=5)
    await vanish(writer)
    server.should_exit = True
    await serving


async def test_a_client_that_drops_what_a_new_attempt_supersedes_has_the_answer_once() -> None:
    """A worker is killed between two tokens; the next one says them again, from the first."""
    with Service(workers=1, env={"LEASE_SECONDS": "1"}) as service:
        async with (
            service.client() as http,
            http.stream("POST", "/api/stream", json={"message": "x", "graph": "slow"}) as response,
        ):
            naive, text, attempts, end = "", "", [], {}
            async for event in sse(response):
                data = event["data"]
                if event["event"] == "attempt":
                    attempts.append(data["attempt"])
                    text = ""
                elif event["event"] == "messages":
                    naive += data["data"][0]["content"]
                    text += data["data"][0]["content"]
                    if naive.count("w") == 10:
                        service.workers[0].send(signal.SIGKILL)
                        service.workers.append(await asyncio.to_thread(service.start_worker))
                elif event["event"] == "end":
                    end = data
        assert attempts == [1, 2]
        assert text == end["answer"] == "".join(f"w{number} " for number in range(100))
        assert naive != text, "the marker is what makes the difference"


async def test_who_waits_for_a_run_that_redis_has_lost_is_told_so() -> None:
    with ValkeyServer() as valkey, Service(workers=0, valkey=valkey) as service:
        async with service.client() as http:
            reader, writer, run_id = await raw_stream(service)
            waiting = asyncio.create_task(http.post("/chat", json={"message": "x"}))

            async def accepted() -> int:
                return int(await asyncio.to_thread(service.redis.zcard, "agent-tasks"))

            await eventually(accepted, until=lambda size: size == 2)
            away = time.monotonic()
            valkey.kill()
            valkey.start()
            response = await waiting
            assert response.status_code == 503
            assert response.json()["type"] == "urn:slipway:problem:run-lost"
            assert int(response.headers["retry-after"]) > 0
            async with asyncio.timeout(10):
                told = await reader.readuntil(b'event: lost\ndata: {"run_id":"%s"}\n\n' % run_id.encode())
            assert told.count(b"event: metadata") == 1
            assert time.monotonic() - away < 10
            await vanish(writer)


async def test_an_expired_stream_is_told_once_and_then_done(silent: Service) -> None:
    """A browser's EventSource comes back after each end, with the last id it saw, until it is told 204."""
    async with silent.client() as http:
        run = (await http.post("/chat/async", json={"message": "x"})).json()
        path = f"/runs/{run['run_id']}"
        await http.post(f"{path}/cancel")
        await asyncio.to_thread(silent.redis.delete, Keys().events(RunId(run["run_id"])))
        async with http.stream("GET", f"{path}/stream") as response:
            gap, end = [event async for event in sse(response)]
        assert (gap["event"], end["event"], end["data"]["status"]) == ("gap", "end", "cancelled")
        again = await http.get(f"{path}/stream", headers={"Last-Event-ID": end["id"]})
        assert again.status_code == 204


def _fail(error: Exception) -> None:
    raise AssertionError("events could not be written") from error


def _memory(pid: int) -> int:
    """Resident memory in KiB."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
