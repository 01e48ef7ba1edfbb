"""The worker as a process: opens what runs need, works until SIGTERM or SIGINT, closes it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import uvloop

from app.infra import garbage
from app.infra.health import TOUCH_SECONDS, worker_file
from app.infra.keys import Keys
from app.infra.logging import lifecycle
from app.infra.redis import open_redis
from app.infra.settings import Settings
from app.memory.embeddings import open_embeddings
from app.memory.store import open_store
from app.models.prices import cost
from app.runs.execution import Services
from app.runs.ledger import RunLedger
from app.runs.worker import Worker
from app.workflows.registry import GraphRegistry

_log = lifecycle()


def work(settings: Settings) -> None:
    """Execute runs of this process's release; returns after a clean stop. Raises `ConfigurationError` at start."""
    graphs = GraphRegistry.load(settings.service.langgraph_config)
    cost({"any": {}})  # loads the table of prices, a quarter of a second that the first run need not wait for
    garbage.settle()
    uvloop.run(_work(settings, graphs))


async def _work(settings: Settings, graphs: GraphRegistry) -> None:
    redis = open_redis(settings.redis)
    keys = Keys(settings.redis.key_prefix)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(redis.aclose)
        embeddings = open_embeddings(settings)
        stack.push_async_callback(embeddings.close)
        store = open_store(settings, embeddings)
        if store is not None:
            stack.push_async_callback(store.close)
        worker = Worker(
            RunLedger(redis, keys, settings.runs, settings.release),
            Services(redis=redis, keys=keys, settings=settings, store=store),
            graphs.get,
        )
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, worker.stop)
        alive = asyncio.create_task(_stay_visibly_alive(worker_file(settings.service)))
        await stack.enter_async_context(graphs.opened())
        _log.info("worker ready", extra={"slots": settings.runs.worker_slots, "graphs": graphs.names})
        await worker.run()
        alive.cancel()
        _log.info("worker stopped")


async def _stay_visibly_alive(file: Path) -> None:
    while True:
        file.touch()  # noqa: ASYNC240 - a temporary folder: microseconds, and what it shows is that the loop turns
        await asyncio.sleep(TOUCH_SECONDS)
