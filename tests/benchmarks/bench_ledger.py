"""The ledger alone, on a real Valkey: accept and claim, with an empty queue and behind 10,000 queued runs.

One process calls it as an api and workers do, through the same client; Valkey has its append-only file, synced every
second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import uvloop

from app.infra.ids import STABLE, RunId, TenantId, UserId, new_id
from app.infra.keys import Keys
from app.infra.redis import connect
from app.infra.settings import RunSettings
from app.runs.ledger import RunLedger
from app.runs.model import NewRun
from tests.benchmarks.load import Figures
from tests.support.valkey import ValkeyServer

CALLS = 2_000
QUEUED = 10_000
AT_ONCE = 16
"""Calls under way at a time where a rate is measured: as many workers, or requests."""
_LEASE = RunSettings(lease_seconds=600.0)


@dataclass(frozen=True, slots=True)
class LedgerFigures:
    """One call after the other, and `AT_ONCE` at a time."""

    accept: Figures
    accept_at_once: Figures
    claim: Figures
    claim_at_once: Figures
    claim_queued: Figures
    """One after the other, from a queue of QUEUED runs."""
    in_order: bool
    """Whether those came out in the order in which they had been accepted."""


def measure() -> LedgerFigures:
    """About 20 seconds."""
    return uvloop.run(_measure())


async def _measure() -> LedgerFigures:
    with ValkeyServer(aof=True) as server:
        client = connect(server.url)
        ledger = RunLedger(client, Keys(), _LEASE, STABLE)

        async def accept() -> RunId:
            return (await ledger.accept(_new_run())).run_id

        async def claim() -> RunId:
            return (await ledger.claim(f"w{new_id()}", 1)).runs[0].run_id

        await _timed(accept, 200, 1)
        await _timed(claim, 200, 1)
        accepts, _ = await _timed(accept, CALLS, 1)
        claims, _ = await _timed(claim, CALLS, 1)
        accepts_at_once, _ = await _timed(accept, CALLS, AT_ONCE)
        claims_at_once, _ = await _timed(claim, CALLS, AT_ONCE)
        await client.flushall()
        _, accepted = await _timed(accept, QUEUED, AT_ONCE)
        # Runs accepted in the same millisecond are due at the same moment; their ids break the tie.
        queue: Any = await client.zrange(Keys().queue(STABLE), 0, -1, withscores=True)
        due = {member.decode(): score for member, score in queue}
        queued, claimed = await _timed(claim, CALLS, 1)
        expected = sorted(accepted, key=lambda run_id: (due[run_id], run_id))[:CALLS]
        await client.aclose()
    return LedgerFigures(accepts, accepts_at_once, claims, claims_at_once, queued, claimed == expected)


async def _timed(call: Callable[[], Awaitable[RunId]], count: int, at_once: int) -> tuple[Figures, list[RunId]]:
    took: list[float] = []
    given: list[RunId] = []

    async def one_after_the_other(calls: int) -> None:
        for _ in range(calls):
            started = time.perf_counter()
            given.append(await call())
            took.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*[one_after_the_other(count // at_once) for _ in range(at_once)])
    return Figures.of(took, time.perf_counter() - started), given


def _new_run() -> NewRun:
    question: dict[str, Any] = {"messages": [{"role": "user", "content": "What happens when a worker is killed?"}]}
    return NewRun(
        run_id=RunId(new_id()),
        thread_id=None,
        tenant=TenantId("acme"),
        user=UserId("ada"),
        graph="agent",
        input=question,
    )


if __name__ == "__main__":
    print(measure())
