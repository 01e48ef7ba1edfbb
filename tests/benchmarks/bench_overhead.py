"""Overhead of the platform on a one-node graph whose in-process model answers at once: one api, one worker.

Beside it, in the same run: the bare graph in one loop, and the graph behind 30 lines of FastAPI that keep nothing.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
from langgraph.checkpoint.memory import InMemorySaver

from tests.benchmarks.graphs import instant
from tests.benchmarks.load import Connection, Figures, load
from tests.support.service import ROOT, Service
from tests.support.valkey import free_port

SECONDS = 8.0
CLIENTS = (1, 16)
STREAMS = 50
BODY = {"message": "hello there"}


@dataclass(frozen=True, slots=True)
class Overhead:
    """Figures by number of clients, and the delay of first tokens in milliseconds."""

    service: dict[int, Figures]
    bare_app: dict[int, Figures]
    graph_ms: float
    first_token_p50_ms: float
    first_token_p95_ms: float
    cpu_ms: dict[str, float]
    """CPU time per run of each process, at 16 clients: what a run costs whatever else the machine does."""

    def cpu_line(self) -> str:
        return ", ".join(f"{name} {spent:.1f} ms" for name, spent in self.cpu_ms.items())


def measure() -> Overhead:
    """Run everything; about a minute."""
    env = {
        "LANGGRAPH_CONFIG": str(ROOT / "tests/benchmarks/langgraph.json"),
        "WORKER_SLOTS": str(STREAMS),
        "LOG_LEVEL": "INFO",
    }
    with Service(workers=1, env=env) as service:
        ours = {}
        for clients in CLIENTS:
            before = _cpu(service)
            ours[clients] = asyncio.run(
                load(service.url, "/chat", BODY, service.headers, clients=clients, seconds=SECONDS)
            )
            # The second of warming up counts in both.
            runs = ours[clients].count * (SECONDS + 1) / SECONDS
            cpu = {name: (spent - before[name]) * 1e3 / runs for name, spent in _cpu(service).items()}
        delays = asyncio.run(_first_tokens(service))
    return Overhead(
        service=ours,
        bare_app=_bare_app(),
        graph_ms=asyncio.run(_bare_graph()),
        cpu_ms=cpu,
        first_token_p50_ms=statistics.median(delays),
        first_token_p95_ms=statistics.quantiles(delays, n=20, method="inclusive")[18],
    )


def _cpu(service: Service) -> dict[str, float]:
    """Seconds of CPU that each process has used."""
    pids = {"api": service.api.pid, "worker": service.workers[0].pid, "Valkey": service.valkey.pid}
    fields = {name: Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for name, pid in pids.items()}
    return {name: (int(part[11]) + int(part[12])) / os.sysconf("SC_CLK_TCK") for name, part in fields.items()}


async def _first_tokens(service: Service) -> list[float]:
    """Milliseconds from the model's first token to its arrival, for streams that run at the same time."""

    async def one() -> float:
        connection = Connection(service.url, "/api/stream", {**BODY, "graph": "clock"}, service.headers)
        delay = None
        async for line in connection.stream():
            now = time.time_ns()
            if delay is None and b'"AIMessageChunk"' in line:
                told = line.split(b'"content":"')[1].split(b" ")[0]
                delay = (now - int(told)) / 1e6
        connection.close()
        assert delay is not None, "the stream brought no token"
        return delay

    await asyncio.gather(*[one() for _ in range(STREAMS)])  # warm up
    return list(await asyncio.gather(*[one() for _ in range(STREAMS)]))


async def _bare_graph() -> float:
    """Milliseconds per `ainvoke` of the graph with an InMemorySaver, one after the other."""
    graph = instant.copy({"checkpointer": InMemorySaver()})
    for warm in (True, False):
        started = time.perf_counter()
        for number in range(500):
            await graph.ainvoke(
                {"messages": [("user", BODY["message"])]}, {"configurable": {"thread_id": f"{warm}{number}"}}
            )
    return (time.perf_counter() - started) * 1e3 / 500


def _bare_app() -> dict[int, Figures]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.bare_app", str(port)], cwd=ROOT)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.post(f"{url}/chat", json=BODY).raise_for_status()
                break
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        return {
            clients: asyncio.run(load(url, "/chat", BODY, {}, clients=clients, seconds=SECONDS)) for clients in CLIENTS
        }
    finally:
        process.terminate()
        process.wait(10)


if __name__ == "__main__":
    print(measure())
