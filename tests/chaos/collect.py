"""What is left in the end: the ledger, the runs' streams and the threads' states, read past all proxies and apis."""

from __future__ import annotations

from typing import Any

import orjson
import redis
from langchain_core.runnables import RunnableConfig

from app.infra.ids import STABLE, RunId, ThreadId
from app.infra.keys import Keys
from app.infra.redis import connect
from app.memory.checkpoints import RedisSaver
from tests.chaos.expected import comparable
from tests.chaos.graphs import build
from tests.chaos.history import History, StoredEvent, StoredRun, StoredThread
from tests.chaos.outside import Memory, Store


async def collect(history: History, url: str, store: Store) -> None:
    """Fill in what Redis at `url` and the outside store hold."""
    keys = Keys()
    with redis.Redis.from_url(url) as client:
        names: Any = client.scan_iter(match=keys.run(RunId("*")), count=1000)
        for name in names:
            run = _run(client, keys, RunId(name.decode().rsplit(":", 1)[1]))
            history.runs[run.run_id] = run
        sizes: dict[str, Any] = {
            "queue": client.zcard(keys.queue(STABLE)),
            "epochs": client.hlen(keys.epochs),
            "states": client.hlen(keys.states),
            "attempts": client.hlen(keys.attempts),
        }
        history.leftovers = {name: int(size) for name, size in sizes.items()}
        active: dict[str, str | None] = {}
        for thread_id in {turn.thread_id for turn in history.turns.values() if turn.thread_id}:
            found: Any = client.hget(keys.thread(ThreadId(thread_id)), "active")
            active[thread_id] = None if found is None else found.decode()
    history.effects, history.claims = store.effects(), store.claims()
    await _threads(history, url, active)


def _run(client: redis.Redis, keys: Keys, run_id: RunId) -> StoredRun:
    record: Any = client.hgetall(keys.run(run_id))
    entries: Any = client.xrange(keys.events(run_id))
    return StoredRun(
        run_id,
        record[b"thread_id"].decode(),
        record[b"status"].decode() if b"status" in record else None,
        orjson.loads(record[b"result"]) if b"result" in record else None,
        tuple(StoredEvent(id_.decode(), entry[b"e"].decode(), int(entry.get(b"p", 0))) for id_, entry in entries),
    )


async def _threads(history: History, url: str, active: dict[str, str | None]) -> None:
    client = connect(url)
    graph = build(Memory(), hurry=True)
    graph.checkpointer = RedisSaver(client, Keys(), fence=None, ttl_seconds=3600)  # writes nothing
    try:
        for thread_id, run_id in active.items():
            config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
            saved = await graph.aget_state(config)
            history.threads[thread_id] = StoredThread(thread_id, comparable(saved.values), saved.next, run_id)
    finally:
        await client.aclose()
