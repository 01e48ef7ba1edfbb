"""What a run costs on its way through the platform: the ledger, the api with its workers, bursts, kills and idling.

The graph is one node whose in-process model answers at once (`tests/benchmarks/graphs.py`), so that all time is the
platform's. Beside it, in the same run: the bare graph in one loop, and the graph behind 30 lines of FastAPI that keep
nothing. The load generator has the same cores.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from langgraph.checkpoint.memory import InMemorySaver

from app.infra.ids import STABLE, RunId, TenantId, UserId, new_id
from app.infra.keys import Keys
from app.infra.redis import connect
from app.infra.settings import RunSettings
from app.runs.ledger import RunLedger
from app.runs.model import NewRun
from tests.benchmarks import bench_ledger, bench_recovery
from tests.benchmarks.bench_ledger import LedgerFigures
from tests.benchmarks.bench_recovery import RecoveryFigures
from tests.benchmarks.graphs import NAP_SECONDS, instant
from tests.benchmarks.load import Figures, load
from tests.benchmarks.page import machine, table, verdict
from tests.benchmarks.processes import cpu_seconds
from tests.support.service import ROOT, Service
from tests.support.valkey import free_port
from tests.support.waiting import eventually

CLIENTS = {1: 120, 16: 220, 64: 220}
"""Clients at once, and the runs per second that are aimed at."""
WORKERS = (1, 2, 4)
SLOTS = 50
BURST = 500
SECONDS = 8.0
LONG_SECONDS = 30.0
BODY = {"message": "hello there"}


@dataclass(frozen=True, slots=True)
class Through:
    """Runs through the api and one worker."""

    figures: Figures
    cpu_ms: dict[str, float]
    """CPU time per run of each process: what a run costs whatever else the machine does."""


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """By number of clients or workers."""

    through: dict[int, Through]
    long: list[float]
    """Runs per second in each third of a longer load of 16 clients."""
    by_workers: dict[int, float]
    """Runs per second at 64 clients."""
    burst_seconds: float


def _environment() -> dict[str, str]:
    return {"LANGGRAPH_CONFIG": str(ROOT / "tests/benchmarks/langgraph.json"), "WORKER_SLOTS": str(SLOTS)}


def measure_service() -> ServiceFigures:
    """About two minutes."""
    with Service(workers=1, env=_environment()) as service:
        through = {clients: _through(service, clients) for clients in CLIENTS}
        thirds = [_load(service, 16, LONG_SECONDS / 3).per_second for _ in range(3)]
        burst = asyncio.run(_burst(service))
        by_workers = {1: _load(service, 64, SECONDS).per_second}
        for workers in WORKERS[1:]:
            while len(service.workers) < workers:
                service.workers.append(service.start_worker())
            service.wait_until_ready()
            by_workers[workers] = _load(service, 64, SECONDS).per_second
    return ServiceFigures(through, thirds, by_workers, burst)


def _load(service: Service, clients: int, seconds: float) -> Figures:
    return asyncio.run(load(service.url, "/chat", BODY, service.headers, clients=clients, seconds=seconds))


def _through(service: Service, clients: int) -> Through:
    before = cpu_seconds(service)
    figures = _load(service, clients, SECONDS)
    runs = figures.count * (SECONDS + 1) / SECONDS  # the second of warming up counts in the CPU
    return Through(figures, {name: (used - before[name]) * 1e3 / runs for name, used in cpu_seconds(service).items()})


async def _burst(service: Service) -> float:
    """Seconds from the first of BURST acceptances to the end of the last run of 0.2 s."""
    client = connect(service.valkey.url)
    ledger = RunLedger(client, Keys(), RunSettings(), STABLE)

    def nap() -> NewRun:
        question = {"messages": [{"role": "user", "content": "rest"}]}
        return NewRun(RunId(new_id()), None, TenantId("acme"), UserId("ada"), "nap", question)

    await asyncio.gather(*[ledger.accept(nap()) for _ in range(SLOTS)])  # warm up
    await eventually(ledger.size, until=lambda size: size == 0, seconds=60)
    started = time.perf_counter()
    await asyncio.gather(*[ledger.accept(nap()) for _ in range(BURST)])
    await eventually(ledger.size, until=lambda size: size == 0, seconds=120, every=0.01)
    took = time.perf_counter() - started
    await client.aclose()
    return took


@contextmanager
def _bare_app() -> Iterator[str]:
    """The URL of the graph behind FastAPI with an InMemorySaver."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.bare_app", str(port)], cwd=ROOT)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while True:
            try:
                httpx.post(f"{url}/chat", json=BODY).raise_for_status()
                break
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _measure_bare() -> dict[int, Figures]:
    with _bare_app() as url:
        return {
            clients: asyncio.run(load(url, "/chat", BODY, {}, clients=clients, seconds=SECONDS)) for clients in CLIENTS
        }


async def _graph_ms() -> float:
    """Milliseconds per `ainvoke` of the graph with an InMemorySaver, one after the other."""
    graph = instant.copy({"checkpointer": InMemorySaver()})
    for warm in (True, False):
        started = time.perf_counter()
        for number in range(500):
            await graph.ainvoke(
                {"messages": [("user", BODY["message"])]}, {"configurable": {"thread_id": f"{warm}{number}"}}
            )
    return (time.perf_counter() - started) * 1e3 / 500


def section() -> str:
    """Measure and write down; about six minutes."""
    ours, bare, graph_ms = measure_service(), _measure_bare(), asyncio.run(_graph_ms())
    rows = []
    for clients, through in ours.through.items():
        one, other = through.figures, bare[clients]
        rows.append(
            [
                str(clients),
                f"{one.p50:.1f} / {one.p99:.1f}",
                f"{one.per_second:.0f}",
                f"≥ {CLIENTS[clients]}",
                verdict(one.per_second >= CLIENTS[clients]),
                f"{other.p50:.1f} / {other.p99:.1f}",
                f"{other.per_second:.0f}",
                ", ".join(f"{name} {spent:.1f}" for name, spent in through.cpu_ms.items()),
            ]
        )
    head = ["clients", "`/chat` p50 / p99 ms", "runs/s", "target", "", "bare app p50 / p99 ms", "runs/s"]
    targets = _service_rows(ours) + _ledger_rows(bench_ledger.measure()) + _recovery_rows(bench_recovery.measure())
    return f"""## Runs

A one-node graph whose in-process model answers at once, one api and one worker process of {SLOTS} slots, Valkey with
its append-only file (`appendfsync everysec`), the load generator on the same cores; every run accepted, claimed,
checkpointed under the fence, its events written and read. Beside it the same graph behind 30 lines of FastAPI with an
InMemorySaver, which keeps nothing (`tests/benchmarks/bare_app.py`), and the bare graph in a loop: {graph_ms:.2f} ms per
`ainvoke`. {machine()}

{table([*head, "CPU per run, ms"], rows)}

{table(["figure", "target", "measured", ""], targets)}
"""


def _service_rows(ours: ServiceFigures) -> list[list[str]]:
    first, _, last = ours.long
    return [
        [
            f"runs/s of 16 clients over {LONG_SECONDS:g} s: first and last third",
            "≥ 90 % of the first",
            f"{first:.0f} → {last:.0f}",
            verdict(last >= 0.9 * first),
        ],
        [
            "runs/s of 64 clients with 1, 2 and 4 workers",
            "-",
            ", ".join(f"{rate:.0f}" for rate in ours.by_workers.values()),
            "",
        ],
        [
            f"{BURST} runs of {NAP_SECONDS:g} s accepted at once, {SLOTS} slots: all done after",
            "≤ 3 s",
            f"{ours.burst_seconds:.2f} s (of which {BURST / SLOTS * NAP_SECONDS:g} s are the runs')",
            verdict(ours.burst_seconds <= 3),
        ],
    ]


def _ledger_rows(found: LedgerFigures) -> list[list[str]]:
    at_once, queued = bench_ledger.AT_ONCE, bench_ledger.QUEUED
    claims = found.claim_at_once
    return [
        ["accept, p50 / p99", "-", _latency(found.accept), ""],
        [f"accepts/s, {at_once} at a time", "-", f"{found.accept_at_once.per_second:.0f}", ""],
        ["claim of one run, p50 / p99", "-", _latency(found.claim), ""],
        [
            f"claims/s of one run each, {at_once} at a time",
            "≥ 2,000",
            f"{claims.per_second:.0f}",
            verdict(claims.per_second >= 2_000),
        ],
        [
            f"claim of one run from {queued:,} queued, p50 / p99",
            "≤ 2 × that of an empty queue",
            _latency(found.claim_queued),
            verdict(found.claim_queued.p50 <= 2 * found.claim.p50),
        ],
        [
            f"{queued:,} queued runs are claimed in the order of acceptance",
            "yes",
            "yes" if found.in_order else "no",
            verdict(found.in_order),
        ],
    ]


def _recovery_rows(found: RecoveryFigures) -> list[list[str]]:
    limit, longest = bench_recovery.LEASE_SECONDS + 1, max(found.takeovers)
    return [
        [
            f"from SIGKILL of a worker to its run's next event, longest of {len(found.takeovers)}, lease "
            f"{bench_recovery.LEASE_SECONDS:g} s",
            f"≤ {limit:g} s",
            f"{longest:.2f} s (all: {', '.join(f'{seconds:.2f}' for seconds in sorted(found.takeovers))})",
            verdict(longest <= limit),
        ],
        [
            f"Redis commands per second of an idle worker, over {bench_recovery.IDLE_SECONDS:g} s",
            "≤ 0.5",
            f"{found.idle_commands:.2f} ({found.idle_calls:.2f} with those that its scripts call)",
            verdict(found.idle_commands <= 0.5),
        ],
    ]


def _latency(figures: Figures) -> str:
    return f"{figures.p50:.2f} / {figures.p99:.2f} ms"


if __name__ == "__main__":
    print(section())
