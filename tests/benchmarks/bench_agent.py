"""The built-in agent against a scripted model server that answers at once: one api, one worker, real vector store.

    python -m tests.benchmarks.bench_agent

What is left when the model costs nothing: two model calls, a search by word and meaning, a recall, and seven
checkpoints. Questions and searches differ, as people's do, so that no cache answers them. Where the worker's time goes
is looked at in the worker process itself while it is under load.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from tests.benchmarks.load import Connection, Figures, hammer
from tests.support.model_server import ModelServer
from tests.support.service import ROOT, Service
from tests.support.vector_store import VectorStore

SECONDS = 8.0
CLIENTS = (1, 8)
QUESTIONS = 300
"""Different ones; more than the embedding model keeps vectors."""
_QUESTION = "What happens to a run when a worker is killed?"
_ANSWER = "When a worker is killed, another worker takes its run over and continues it from the last checkpoint [1]."
_PAUSE_SECONDS = 0.001
_START_SECONDS = 120.0

_THREADS = {"embedding": "embeddings"}
"""First part of a thread's name → what it is counted as."""
_GROUPS = {
    "embeddings": ("/app/memory/embeddings", "/onnxruntime/", "/tokenizers/"),
    "vector store": ("/qdrant_client/", "/langgraph_store_qdrant/", "/app/memory/qdrant", "/app/memory/store"),
    "search and other tools": ("/app/memory/documents", "/app/memory/words", "/app/memory/passages", "/app/tools/"),
    "checkpoints": ("/app/memory/checkpoints/", "/langgraph/checkpoint/", "/ormsgpack/"),
    "events": ("/app/runs/events", "/app/runs/encoding"),
    "model client": ("/langchain_openai/", "/openai/", "/app/models/"),
    "agents and nodes": ("/app/agents/", "/app/workflows/", "/app/prompts/", "/jsonschema/"),
    "langgraph": ("/langgraph/",),
    "langchain-core": ("/langchain_core/",),
    "runs": ("/app/runs/", "/app/infra/"),
    "event loop": ("/asyncio/",),
}
"""Part of a path → what it is counted as, looked at from the innermost frame outwards. A transport (httpx, redis) is in
no group and so counts for whoever called it."""


@dataclass(frozen=True, slots=True)
class Agent:
    """`/chat` by number of clients; the worker's CPU time per run, in all and by what it was spent on."""

    service: dict[int, Figures]
    worker_cpu_ms: float
    worker_cpu_ms_by_part: dict[str, float]


def measure() -> Agent:
    """Run everything; about a minute."""
    with ModelServer() as models, VectorStore() as vectors:
        models.script(*_scripts())
        env = {
            **models.env(),
            "LANGGRAPH_CONFIG": str(ROOT / "langgraph.json"),
            "DEFAULT_GRAPH": "agent",
            "QDRANT_URL": vectors.url,
            "WORKER_SLOTS": str(max(CLIENTS)),
        }
        with Service(workers=0, env=env) as service, _ProfiledWorker(service) as worker:
            _warm_up(service, worker)
            before = worker.log.count('"run ended"')
            worker.begin()
            figures = {clients: asyncio.run(_load(service, clients)) for clients in CLIENTS}
            told = worker.end()
            runs = worker.log.count('"run ended"') - before
    per_run = 1e3 / runs
    parts = {part: round(seconds * per_run, 2) for part, seconds in told["parts"].items()}
    return Agent(service=figures, worker_cpu_ms=told["cpu_seconds"] * per_run, worker_cpu_ms_by_part=parts)


def _body(number: int) -> dict[str, str]:
    return {"message": f"{_QUESTION} (case {number % QUESTIONS})"}


def _scripts() -> list[dict[str, Any]]:
    """A plan for each question, with a search of its own, and one answer."""
    plans = []
    for number in range(QUESTIONS):
        call = {"id": "a", "tool": "search_documents", "args": {"query": f"killed worker, its run, case {number}"}}
        match = {"userMessage": _body(number)["message"], "responseFormat": "json_schema"}
        plans.append({"match": match, "response": {"content": {"calls": [call]}}})
    return [*plans, {"match": {"userMessage": _QUESTION}, "response": {"content": _ANSWER}}]


async def _load(service: Service, clients: int) -> Figures:
    """Ask one question after the other from so many clients at once."""
    numbers = itertools.count()
    connections = [Connection(service.url, "/chat", _body(0), service.headers) for _ in range(clients)]

    async def ask(connection: Connection) -> None:
        connection.say(_body(next(numbers)))
        await connection.post()

    async def all_for(seconds: float) -> list[float]:
        found = await asyncio.gather(*[hammer(partial(ask, c), seconds) for c in connections])
        return [one for part in found for one in part]

    await all_for(1.0)  # warm up
    started = time.perf_counter()
    took = await all_for(SECONDS)
    figures = Figures.of(took, time.perf_counter() - started)
    for connection in connections:
        connection.close()
    return figures


def _warm_up(service: Service, worker: _ProfiledWorker) -> None:
    """Until the documents are indexed. Raises when the answer is not what is to be measured."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        answer = httpx.post(
            f"{service.url}/chat", json=_body(0), headers=service.headers, timeout=60
        ).raise_for_status()
        if "documents.indexed" in worker.log:
            break
        if time.monotonic() > deadline:
            raise RuntimeError(f"the documents were not indexed within {_START_SECONDS:g} s")
    if answer.json()["sources"] == [] or "another worker" not in answer.json()["answer"]:
        raise RuntimeError(f"the documents no longer support the scripted answer: {answer.json()['answer']!r}")


class _ProfiledWorker:
    """`python -m tests.benchmarks.bench_agent worker`: a worker that looks at itself from `begin` to `end`."""

    def __init__(self, service: Service) -> None:
        self._report, self._log = service.folder / "profile.json", service.folder / "profiled-worker.log"
        command = [sys.executable, "-m", "tests.benchmarks.bench_agent", "worker", str(self._report)]
        with self._log.open("wb") as log:
            kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
            self._process = subprocess.Popen(
                command, cwd=ROOT, env={**kept, **service.env}, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + _START_SECONDS
        while "worker ready" not in self.log:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"the worker did not start; its log ends:\n{self.log[-3000:]}")
            time.sleep(0.05)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def begin(self) -> None:
        self._process.send_signal(signal.SIGUSR1)

    def end(self) -> dict[str, Any]:
        """What it found since `begin`."""
        self._process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + _START_SECONDS
        while not self._report.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the worker wrote no profile; its log ends:\n{self.log[-3000:]}")
            time.sleep(0.05)
        found: dict[str, Any] = json.loads(self._report.read_text())
        return found

    def __enter__(self) -> _ProfiledWorker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)


class _Sampler:
    """Puts the CPU time of the main thread down to what it is at, looked at again and again; other threads by name.

    By SIGPROF, which reaches Python between two bytecodes: a thread that looked from beside would mostly get the
    interpreter's lock when the main thread waits, and see it waiting.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._main = self._whole = 0.0
        self._threads: dict[str, float] = {}
        signal.signal(signal.SIGPROF, self._look)

    def begin(self) -> None:
        self._main, self._whole, self._threads = time.thread_time(), time.process_time(), _cpu_by_thread()
        signal.setitimer(signal.ITIMER_PROF, _PAUSE_SECONDS, _PAUSE_SECONDS)

    def _look(self, _number: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        self._seconds[_part(frame)] += now - self._main
        self._main = now

    def end(self) -> tuple[float, dict[str, float]]:
        """CPU seconds of the process since `begin`, and by part; what no Python thread used is the last part."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        whole = time.process_time() - self._whole
        for thread, seconds in _cpu_by_thread().items():
            self._seconds[_THREADS.get(thread, f"thread {thread}")] += seconds - self._threads.get(thread, 0.0)
        self._seconds["no thread of Python's"] = whole - sum(self._seconds.values())
        return whole, dict(sorted(self._seconds.items(), key=lambda part: -part[1]))


def _cpu_by_thread() -> dict[str, float]:
    """CPU seconds of every thread but the main one, by the first part of its name."""
    found: dict[str, float] = defaultdict(float)
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and thread.ident is not None:
            clock = time.pthread_getcpuclockid(thread.ident)
            found[re.split(r"[-_ ]", thread.name)[0]] += time.clock_gettime(clock)
    return dict(found)


def _part(frame: FrameType | None) -> str:
    """What a stack is counted as, from its innermost frame."""
    while frame is not None:
        file = frame.f_code.co_filename
        for part, paths in _GROUPS.items():
            if any(path in file for path in paths):
                return part
        frame = frame.f_back
    return "other"


def _worker(report: Path) -> None:
    """A worker as `python -m app worker` runs it, sampled; writes the report when it has stopped."""
    from app.infra import logging, settings
    from app.runs.process import work

    found = settings.settings()
    logging.configure(found.service)
    sampler = _Sampler()
    signal.signal(signal.SIGUSR1, lambda *_: sampler.begin())
    signal.signal(signal.SIGUSR2, lambda *_: _write(report, sampler))
    work(found)


def _write(report: Path, sampler: _Sampler) -> None:
    whole, parts = sampler.end()
    made = report.with_suffix(".new")
    made.write_text(json.dumps({"cpu_seconds": whole, "parts": parts}))
    made.rename(report)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        _worker(Path(sys.argv[2]))
    else:
        print(measure())
