"""How long the checkpoint saver takes beside LangGraph's InMemorySaver and the published savers for plain Redis.

    python -m tests.benchmarks.bench_checkpoints [--steps 300] [--aof everysec]

Starts its own Valkey on loopback and each saver in a process of its own (`checkpoint_saver`). They take turns of a few
steps, so that whatever else the machine does meets all of them. The published ones are no dependencies: uv puts each
into an environment that is gone afterwards; one that cannot be installed is reported as missing.

Prints one JSON line per saver and operation: milliseconds, p50 and p99.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

import redis

from tests.benchmarks.checkpoint_saver import SAVERS, WARM_UP
from tests.support.service import ROOT
from tests.support.valkey import ValkeyServer

TURN = 20
"""Steps that a saver makes before it is the next one's turn."""
PEERS = {
    "langgraph-checkpoint-aws": ["langgraph-checkpoint-aws[valkey]==1.2.6", "valkey[libvalkey]"],
    "langgraph-checkpoint-plainredis": ["langgraph-checkpoint-plainredis==0.1.0", "redis[hiredis]"],
}
"""What is installed for a published saver, with the quickest parser of its client; `langgraph-checkpoint-redis` is not
among them, because it does not start on a server without modules."""
SAME = ("langchain-core", "langgraph", "langgraph-checkpoint", "uvloop")
"""Packages that the published savers get in our versions."""


@dataclass
class Measured:
    """One saver: its times in ms, or why there are none."""

    name: str
    process: subprocess.Popen[str] | None = None
    missing: str = ""
    times: dict[str, list[float]] = field(default_factory=dict)

    def start(self, url: str) -> None:
        command, environment = [sys.executable], dict(os.environ)
        if self.name in PEERS:
            environment.pop("VIRTUAL_ENV", None)
            uv = shutil.which("uv")
            if uv is None:
                self.missing = "uv is not installed"
                return
            wanted = [*PEERS[self.name], *(f"{package}=={version(package)}" for package in SAME)]
            command = [uv, "run", "--quiet", "--isolated", "--no-project", "--python", sys.executable]
            command += [part for package in wanted for part in ("--with", package)] + ["python"]
        self.process = subprocess.Popen(
            [*command, "-m", "tests.benchmarks.checkpoint_saver", self.name, url],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if self.name in PEERS else None,
            text=True,
        )
        if self._line() != "ready\n":
            _, errors = self.process.communicate()
            if self.name not in PEERS:
                raise SystemExit(f"{self.name} did not start")
            self.missing = (errors.strip().splitlines() or ["it said nothing"])[-1]
            self.process = None

    def turn(self, steps: int) -> None:
        """Let it make some steps, and keep their times."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        line = self._line()
        if not line:
            raise SystemExit(f"{self.name} ended in the middle")
        for operation, values in json.loads(line).items():
            self.times.setdefault(operation, []).extend(values)

    def end(self) -> None:
        """At the end of its input the process leaves by itself. Safe to call twice."""
        process, self.process = self.process, None
        if process is not None:
            process.communicate(timeout=30)

    def _line(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def report(saver: Measured, **facts: Any) -> None:
    if saver.missing:
        sys.stdout.write(json.dumps({"benchmark": "checkpoints", "saver": saver.name, "missing": saver.missing}) + "\n")
    for operation, values in saver.times.items():
        cuts = statistics.quantiles(values, n=100)
        line = {"benchmark": "checkpoints", "saver": saver.name, "operation": operation, "count": len(values)}
        line |= {"p50_ms": round(cuts[49], 3), "p99_ms": round(cuts[98], 3), **facts}
        sys.stdout.write(json.dumps(line) + "\n")


def bytes_stored(url: str) -> int:
    """Memory of all keys of a database."""
    with redis.Redis.from_url(url) as client:
        return sum(int(client.memory_usage(key, samples=0) or 0) for key in client.scan_iter(count=1000))


def main(steps: int, aof: Literal["off", "everysec", "always"]) -> None:
    savers = [Measured(name) for name in SAVERS]
    with ValkeyServer(aof=aof != "off", fsync="everysec" if aof == "off" else aof) as server:
        urls = {saver.name: f"redis://127.0.0.1:{server.port}/{place}" for place, saver in enumerate(savers)}
        turns = -(-steps // TURN)
        try:
            for saver in savers:
                saver.start(urls[saver.name])
            for _ in range(turns):
                for saver in savers:
                    if not saver.missing:
                        saver.turn(TURN)
        finally:
            for saver in savers:
                saver.end()
        for saver in savers:
            stored = bytes_stored(urls[saver.name]) // (turns * (TURN + WARM_UP))
            report(saver, aof=aof, bytes_per_checkpoint=stored)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time checkpoint put, put_writes and get.")
    parser.add_argument("--steps", type=int, default=300, help="checkpoints that are measured per saver")
    parser.add_argument("--aof", choices=["off", "everysec", "always"], default="everysec")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.aof)
