"""What happens without traffic, and after a kill: an idle worker's commands, and how soon a dead one's run goes on."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from dataclasses import dataclass

from tests.benchmarks.graphs import WALK_STEPS
from tests.benchmarks.load import Connection
from tests.support.service import ROOT, Service

LEASE_SECONDS = 5.0
"""The default."""
KILLS = 5
IDLE_SECONDS = 35.0
_SETTLE_SECONDS = 3.0
_OWN = ("info", "config|resetstat")
"""Commands of this measurement."""
_SENT = ("evalsha", "eval", "blpop", "ping", "hgetall", "auth", "hello", "client|setinfo", "select")
"""Commands that a worker sends; INFO counts those that its scripts call as well."""


@dataclass(frozen=True, slots=True)
class RecoveryFigures:
    """Seconds from SIGKILL to the first event of the next attempt at a client, and commands per second."""

    takeovers: list[float]
    idle_commands: float
    """That an idle worker sends."""
    idle_calls: float
    """With those that scripts call (INFO commandstats)."""


def measure() -> RecoveryFigures:
    """About two minutes."""
    env = {"LANGGRAPH_CONFIG": str(ROOT / "tests/benchmarks/langgraph.json"), "LEASE_SECONDS": str(LEASE_SECONDS)}
    env["MAX_ITERATIONS"] = str(WALK_STEPS + 1)
    with Service(workers=1, env=env) as service:
        takeovers = [asyncio.run(_takeover(service)) for _ in range(KILLS)]
        service.api.send(signal.SIGTERM)
        service.api.wait(30)
        time.sleep(_SETTLE_SECONDS)
        service.redis.config_resetstat()
        time.sleep(IDLE_SECONDS)
        stats = {name.removeprefix("cmdstat_"): stat for name, stat in service.redis.info("commandstats").items()}
    calls = {name: stat["calls"] for name, stat in stats.items() if name not in _OWN}
    sent = sum(count for name, count in calls.items() if name in _SENT)
    return RecoveryFigures(takeovers, sent / IDLE_SECONDS, sum(calls.values()) / IDLE_SECONDS)


async def _takeover(service: Service) -> float:
    """Kill the worker that has the run; another one, started since and ready, goes on with it and is the only one."""
    connection = Connection(service.url, "/api/stream", {"message": "go", "graph": "walk"}, service.headers)
    lines = connection.stream()
    run_id, killed = "", 0.0
    async for line in lines:
        if not run_id and line.startswith(b"data: "):
            run_id = json.loads(line[6:])["run_id"]
        elif line == b"event: custom" and not killed:
            dead, heir = service.workers.pop(), await asyncio.to_thread(service.start_worker)
            service.workers.append(heir)
            await asyncio.to_thread(heir.wait_for, "worker ready")
            dead.send(signal.SIGKILL)
            killed = time.perf_counter()
            dead.wait(5)
        elif killed and line == b'data: {"attempt":2}':
            break
    else:
        raise RuntimeError("the run ended without a second attempt")
    seconds = time.perf_counter() - killed
    connection.close()
    async with service.client() as http:
        (await http.post(f"/runs/{run_id}/cancel")).raise_for_status()
    return seconds


if __name__ == "__main__":
    print(measure())
