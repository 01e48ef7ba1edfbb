"""The worker in this process, where a test can stop it at one exact moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.infra.errors import RedisUnavailable
from app.infra.ids import STABLE
from app.infra.keys import Keys
from app.infra.redis import connect
from app.infra.settings import Settings, load
from app.runs.execution import Services
from app.runs.ledger import Claims, RunLedger
from app.runs.model import Claim, Run, Status
from app.runs.worker import Worker
from tests.integration.conftest import TENANT, new_run
from tests.support import graphs
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually


class SlowLedger(RunLedger):
    """Says when a worker asks for the record of a run that it has claimed, and makes it wait."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def claimed(self, claim: Claim) -> Run:
        self.asked.set()
        await self.go_on.wait()
        return await super().claimed(claim)


class LosingLedger(RunLedger):
    """Loses the reply of the first claim that brings a run."""

    lost = False

    async def claim(self, *args: Any) -> Claims:
        claims = await super().claim(*args)
        if claims.runs and not self.lost:
            self.lost = True
            raise RedisUnavailable("the reply was lost")
        return claims


@pytest.fixture
def settings(valkey_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in {"REDIS_URL": valkey_server.url, "OPENAI_API_KEY": "sk-not-used", "DRAIN_SECONDS": "30"}.items():
        monkeypatch.setenv(name, value)
    return load(env_file=None)


def worker_of(ledger: RunLedger, client: Any, keys: Keys, settings: Settings) -> Worker:
    services = Services(redis=client, keys=keys, settings=settings, store=None)
    return Worker(ledger, services, {"steps": graphs.steps, "instant": graphs.instant}.__getitem__)


async def test_a_run_that_was_just_claimed_is_drained_too(settings: Settings, client: Any, keys: Keys) -> None:
    """The signal may come between the claim and the graph's first step: the run is handed over, not finished first."""
    ledger = SlowLedger(client, keys, settings.runs, STABLE)
    worker = worker_of(ledger, client, keys, settings)
    accepted = await ledger.accept(new_run(graph="steps"))
    working = asyncio.create_task(worker.run())
    async with asyncio.timeout(3):  # the graph's ten steps take as long
        await ledger.asked.wait()
        worker.stop()
        await asyncio.sleep(0.05)
        ledger.go_on.set()
        await working
    run = await ledger.get(accepted.run_id, TENANT)
    assert (run.status, run.attempt) == (Status.PENDING, 0)


async def test_a_claim_whose_reply_was_lost_is_asked_for_again(settings: Settings, client: Any, keys: Keys) -> None:
    """Else the run waits for the end of a lease that nobody uses, and has one attempt less."""
    ledger = LosingLedger(client, keys, settings.runs, STABLE)
    worker = worker_of(ledger, client, keys, settings)
    accepted = await ledger.accept(new_run(graph="instant"))
    working = asyncio.create_task(worker.run())
    run = await eventually(
        lambda: ledger.get(accepted.run_id, TENANT),
        until=lambda run: run.status.ended,
        seconds=min(5.0, settings.runs.lease_seconds / 2),
    )
    assert ledger.lost
    assert (run.status, run.attempt) == (Status.SUCCESS, 1)
    worker.stop()
    await working


async def test_an_idle_worker_takes_over_when_the_lease_ends(
    valkey_server: ValkeyServer, client: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fell asleep on an empty queue and is not told what others take; a killed worker's run must not wait for it."""
    monkeypatch.setenv("REDIS_URL", valkey_server.url)
    monkeypatch.setenv("LEASE_SECONDS", "1")
    settings = load(env_file=None)
    ledger = RunLedger(client, keys, settings.runs, STABLE)
    other = connect(valkey_server.url, timeout_seconds=20)
    wake = keys.wake(STABLE)
    woken = asyncio.ensure_future(other.blpop([wake], timeout=10))  # first in the line of those who sleep
    await eventually(other.client_list, until=lambda clients: any("blpop" in one["cmd"] for one in clients))
    worker = worker_of(ledger, client, keys, settings)
    working = asyncio.create_task(worker.run())
    await eventually(
        other.client_list, until=lambda clients: sum("blpop" in one["cmd"] for one in clients) == 2, seconds=5
    )
    accepted = await ledger.accept(new_run(graph="instant"))
    await woken
    [claim] = (await ledger.claim("dies", 1)).runs
    assert claim.run_id == accepted.run_id
    run = await eventually(
        lambda: ledger.get(accepted.run_id, TENANT), until=lambda run: run.status.ended, seconds=1 + 1
    )
    assert (run.status, run.attempt) == (Status.SUCCESS, 2)
    worker.stop()
    await working
    await other.aclose()
