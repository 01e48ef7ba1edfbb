"""The worker in this process, where a test can stop it at one exact moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.infra.ids import STABLE
from app.infra.keys import Keys
from app.infra.settings import load
from app.runs.effects import DirectEffects
from app.runs.execution import Services
from app.runs.ledger import RunLedger
from app.runs.model import Claim, Run, Status
from app.runs.worker import Worker
from tests.integration.conftest import TENANT, new_run
from tests.support import graphs
from tests.support.valkey import ValkeyServer


class SlowLedger(RunLedger):
    """Says when a worker asks for the record of a run that it has claimed, and makes it wait."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def claimed(self, claim: Claim) -> Run:
        self.asked.set()
        await self.go_on.wait()
        return await super().claimed(claim)


async def test_a_run_that_was_just_claimed_is_drained_too(
    valkey_server: ValkeyServer, client: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal may come between the claim and the graph's first step: the run is handed over, not finished first."""
    for name, value in {"REDIS_URL": valkey_server.url, "OPENAI_API_KEY": "sk-not-used", "DRAIN_SECONDS": "30"}.items():
        monkeypatch.setenv(name, value)
    settings = load(env_file=None)
    ledger = SlowLedger(client, keys, settings.runs, STABLE)
    services = Services(redis=client, keys=keys, settings=settings, store=None, effects=DirectEffects())
    worker = Worker(ledger, services, {"steps": graphs.steps}.__getitem__)
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
