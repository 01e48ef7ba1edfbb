"""Event streams of one api process: what an open one holds in memory, and how late the first token arrives.

Idle streams are real sockets to a real api process, each with a run of its own that nobody executes, as if it waited
in the queue. First tokens: a one-node graph whose in-process model tells the time with each of its 20 tokens, one each
0.05 s; all runs begin at once, so that the last first token has waited for everyone's start.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import time
from dataclasses import dataclass

from tests.benchmarks.idle import IdleStreams
from tests.benchmarks.load import Connection
from tests.benchmarks.page import machine, table, verdict
from tests.benchmarks.processes import cpu_seconds, resident_kib
from tests.support.service import ROOT, Service

IDLE = {1_000: None, 5_000: 60.0}
"""Idle streams, and what each may hold at most in KiB."""
STREAMS = {1: 8.0, 50: 15.0, 200: 150.0}
"""Streams at once, and the added time to the first token, p50, in ms."""
BODY = {"message": "hello there"}
_WARM = 50
_HEARTBEAT_SECONDS = 10.0
_DESCRIPTORS = 12_000
_REPEAT = {1: 20}
"""Rounds for few streams, whose median would else be one measurement."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Memory of open streams that wait."""

    base_mib: float
    """Of the process before, after fifty streams had come and gone."""
    kib: float
    """Per stream, after every stream has had a heartbeat."""
    open_ms: float
    """CPU of the api per stream opened."""
    heartbeat_share: float
    """Share of a core that keeps them alive."""


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Milliseconds from the model's first token to its arrival at the client."""

    p50: float
    p95: float
    cpu_ms: dict[str, float]
    """Per run of 20 tokens."""


def idle(count: int) -> Idle:
    """Open `count` streams at a fresh api process and let them wait."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, _DESCRIPTORS)), hard))
    with Service(workers=0, env={"HEARTBEAT_SECONDS": str(_HEARTBEAT_SECONDS)}) as service:
        return asyncio.run(_idle(service, count))


async def _idle(service: Service, count: int) -> Idle:
    async with IdleStreams(service.url, service.headers, _WARM):
        pass
    await asyncio.sleep(1)
    base, before = resident_kib(service.api.pid), cpu_seconds(service)["api"]
    async with IdleStreams(service.url, service.headers, count) as streams:
        opened = cpu_seconds(service)["api"]
        await asyncio.sleep(_HEARTBEAT_SECONDS)  # each has had its first comment by then
        began, quiet = cpu_seconds(service)["api"], time.monotonic()
        await asyncio.sleep(_HEARTBEAT_SECONDS)
        share = (cpu_seconds(service)["api"] - began) / (time.monotonic() - quiet)
        if streams.lost or streams.comments < count:
            raise RuntimeError(f"{streams.lost} of {count} streams ended, {streams.comments} comments came")
        held = resident_kib(service.api.pid)
    return Idle(base / 1024, (held - base) / count, (opened - before) * 1e3 / count, share)


def first_tokens() -> dict[int, FirstToken]:
    """By number of streams at once."""
    env = {"LANGGRAPH_CONFIG": str(ROOT / "tests/benchmarks/langgraph.json"), "WORKER_SLOTS": str(max(STREAMS))}
    found = {}
    with Service(workers=1, env=env) as service:
        for count in STREAMS:
            asyncio.run(_round(service, count))  # warm up
            rounds = _REPEAT.get(count, 3)
            before = cpu_seconds(service)
            delays = [delay for _ in range(rounds) for delay in asyncio.run(_round(service, count))]
            cpu = {name: (used - before[name]) * 1e3 / len(delays) for name, used in cpu_seconds(service).items()}
            found[count] = FirstToken(
                statistics.median(delays), statistics.quantiles(delays, n=20, method="inclusive")[18], cpu
            )
    return found


async def _round(service: Service, count: int) -> list[float]:
    return list(await asyncio.gather(*[_first_token(service) for _ in range(count)]))


async def _first_token(service: Service) -> float:
    connection = Connection(service.url, "/api/stream", {**BODY, "graph": "clock"}, service.headers)
    delay = None
    async for line in connection.stream():
        now = time.time_ns()
        if delay is None and b'"AIMessageChunk"' in line:
            told = line.split(b'"content":"')[1].split(b" ")[0]
            delay = (now - int(told)) / 1e6
    connection.close()
    if delay is None:
        raise RuntimeError("the stream brought no token")
    return delay


def section() -> str:
    """Measure and write down; about two minutes."""
    targets = []
    for count, aim in IDLE.items():
        figures = idle(count)
        targets.append(
            [
                f"memory of an idle stream, {count:,} open on one api process",
                "-" if aim is None else f"≤ {aim:g} KiB",
                f"{figures.kib:.1f} KiB (process before: {figures.base_mib:.0f} MiB; CPU to open one: "
                f"{figures.open_ms:.1f} ms; heartbeats: {figures.heartbeat_share:.1%} of a core)",
                "" if aim is None else verdict(figures.kib <= aim),
            ]
        )
    for count, found in first_tokens().items():
        cpu = ", ".join(f"{name} {spent:.1f} ms" for name, spent in found.cpu_ms.items())
        targets.append(
            [
                f"first token at the client after the model's, p50; streams at once: {count}",
                f"≤ {STREAMS[count]:g} ms",
                f"{found.p50:.1f} ms (p95 {found.p95:.1f}; CPU per run of 20 tokens: {cpu})",
                verdict(found.p50 <= STREAMS[count]),
            ]
        )
    return f"""## Event streams

One api process, Valkey with its append-only file, the clients on the same cores. Idle streams have a run of their own
each and a comment every {_HEARTBEAT_SECONDS:g} s; their memory is the growth of the process's resident set. First
tokens come from one worker, all runs started at the same moment. {machine()}

{table(["figure", "target", "measured", ""], targets)}
"""


if __name__ == "__main__":
    print(section())
