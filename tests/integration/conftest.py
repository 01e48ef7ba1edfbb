"""Real servers for the integration tests: one Valkey for all of them, emptied before each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog

from app.infra.ids import STABLE, Release, RunId, TenantId, ThreadId, UserId, new_id
from app.infra.keys import Keys
from app.infra.redis import connect
from app.infra.settings import RunSettings
from app.runs.ledger import RunLedger
from app.runs.model import NewRun
from tests.support.valkey import ValkeyServer

TENANT = TenantId("acme")


@pytest.fixture(scope="session", autouse=True)
def plain_tracebacks() -> None:
    """Where the `rich` package is installed, structlog's default draws a traceback for more than a second, in which a
    worker of a test keeps no lease. The service configures its logs itself and never comes there."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    """One Valkey for tests that leave it as they found it. Who stops or freezes one starts one of his own."""
    with ValkeyServer(password="s3cret") as server:
        yield server


@pytest.fixture
async def client(valkey_server: ValkeyServer) -> AsyncIterator[Any]:
    """A client of an empty Valkey."""
    connected = connect(valkey_server.url)
    await connected.flushall()
    yield connected
    await connected.aclose()


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def run_settings() -> RunSettings:
    """Short leases, so that a take-over takes a second and not five."""
    return RunSettings(lease_seconds=1.0)


@pytest.fixture
def ledger(client: Any, keys: Keys, run_settings: RunSettings) -> RunLedger:
    return RunLedger(client, keys, run_settings, STABLE)


@pytest.fixture
def canary(client: Any, keys: Keys, run_settings: RunSettings) -> RunLedger:
    """The same Redis, as the processes of another release see it."""
    return RunLedger(client, keys, run_settings, Release("canary"))


def new_run(
    thread_id: str | None = None,
    *,
    tenant: str = TENANT,
    idempotency_key: str = "",
    digest: str = "",
    graph: str = "agent",
) -> NewRun:
    """A run to accept; each call gives one with an id of its own."""
    return NewRun(
        run_id=RunId(new_id()),
        thread_id=ThreadId(thread_id) if thread_id else None,
        tenant=TenantId(tenant),
        user=UserId("ada"),
        graph=graph,
        input={"messages": [{"role": "user", "content": "hello"}]},
        idempotency_key=idempotency_key,
        digest=digest or "0" * 64,
    )
