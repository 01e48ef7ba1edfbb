"""One chaos run from plan to verdict: start everything, let clients and faults loose, wait, collect, check."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import httpx

from tests.chaos import checker
from tests.chaos.clients import Clients
from tests.chaos.cluster import Cluster
from tests.chaos.collect import collect
from tests.chaos.expected import expect
from tests.chaos.faults import Injector
from tests.chaos.history import History, Look
from tests.chaos.plan import Plan

_SECOND_LOOK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Report:
    """What came out."""

    history: History
    verdict: checker.Verdict
    faults: int
    kinds: dict[str, int]
    seconds: float
    logs: dict[str, str]
    """Of every process, by file name."""


async def run(
    plan: Plan,
    *,
    fsync: Literal["always", "everysec"],
    restart: Literal["orderly", "kill"],
    workers: int = 4,
    fence: bool = True,
    say: Callable[[str], None] = print,
) -> Report:
    """Carry `plan` out. `fsync` is the AOF policy of the Valkey, `restart` how it is restarted.

    Raises RuntimeError when a process does not come back: then nothing can be said of the service.
    """
    async with Cluster(workers=workers, lease=plan.lease, fsync=fsync, fence=fence) as cluster:
        history = History(plan)
        injector = Injector(cluster, history.note)
        injector.restart = restart
        clients = Clients(history, cluster.urls, cluster.store, injector.calm)
        try:
            async with asyncio.TaskGroup() as group:
                faults = group.create_task(injector.run(plan.faults, history.started))
                asking = group.create_task(clients.run())
                telling = group.create_task(_tell(say, history, clients, injector))
                await asyncio.gather(faults, asking)
                telling.cancel()
            took = history.now()
            await _look_again(history, clients)
        finally:
            await clients.close()
        await collect(history, cluster.valkey.url, cluster.store)
        logs = await asyncio.to_thread(cluster.logs)
    for talk in plan.talks:
        history.expected[talk.name] = await expect(talk)
    return Report(history, checker.check(history), injector.applied, injector.kinds, took, logs)


async def _look_again(history: History, clients: Clients) -> None:
    """Every run once more, when all is quiet: what had ended must still be so."""
    for turn in history.turns.values():
        for run_id in turn.runs:
            look: Look | None = None
            with contextlib.suppress(httpx.HTTPError, TimeoutError):
                async with asyncio.timeout(_SECOND_LOOK_SECONDS):
                    while look is None:
                        look = await clients.look(turn, run_id)


async def _tell(say: Callable[[str], None], history: History, clients: Clients, injector: Injector) -> None:
    total = len(history.plan.turns)
    while True:
        await asyncio.sleep(15)
        say(
            f"  {history.now():6.0f} s  runs over {clients.done}/{total}, begun {len(history.turns)}, "
            f"faults {injector.applied}/{len(history.plan.faults)}"
        )
