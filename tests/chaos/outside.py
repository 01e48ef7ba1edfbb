"""The world outside: a store that no fault reaches, where tools leave their effects and attempts their epochs.

A Valkey of its own, in memory. A call is one atomic command, so a worker that is killed or frozen leaves either the
whole effect or none, and holds up nobody else.

| key      | type   | what                                                                             |
|----------|--------|----------------------------------------------------------------------------------|
| effects  | stream | every call that reached the store: key, tag, call, tool, pid, epoch              |
| applied  | hash   | key -> result: what idempotent tools and `lookup` go by                          |
| claims   | stream | every (run, epoch) under which some process executed a step: run, epoch, pid     |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import redis


@dataclass(frozen=True, slots=True)
class Effect:
    """One call that reached the store. `key` is the effect's idempotency key, `at` the store's clock in seconds."""

    key: str
    tag: str
    call: str
    tool: str
    pid: int = 0
    epoch: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Held:
    """One process executed a step of a run under this epoch."""

    run_id: str
    epoch: int
    pid: int
    at: float = 0.0


class Outside(Protocol):
    """What the graph's tools need of the world."""

    def apply(self, effect: Effect, result: str) -> None:
        """Do it: each call is recorded, whatever came before under its key."""
        ...

    def find(self, key: str) -> str | None:
        """The result that was applied under `key`, if any."""
        ...

    def held(self, held: Held) -> None:
        """Note that this process executes a step."""
        ...


class Memory:
    """The world of an execution without faults: remembers what was done."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self._applied: dict[str, str] = {}

    def apply(self, effect: Effect, result: str) -> None:
        self.effects.append(effect)
        self._applied[effect.key] = result

    def find(self, key: str) -> str | None:
        return self._applied.get(key)

    def held(self, held: Held) -> None:
        return None


class Store:
    """The world of a chaos run, over its own Valkey at `url`."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url, decode_responses=True)

    def apply(self, effect: Effect, result: str) -> None:
        with self._redis.pipeline(transaction=True) as both:
            both.xadd("effects", _fields(effect, "key", "tag", "call", "tool", "pid", "epoch"))
            both.hset("applied", effect.key, result)
            both.execute()

    def find(self, key: str) -> str | None:
        found: Any = self._redis.hget("applied", key)
        return None if found is None else str(found)

    def held(self, held: Held) -> None:
        self._redis.xadd("claims", _fields(held, "run_id", "epoch", "pid"))

    def effects(self) -> list[Effect]:
        """All of them, in the order in which they took effect."""
        entries: Any = self._redis.xrange("effects")
        return [Effect(**{**entry, "pid": int(entry["pid"])}, at=_seconds(id_)) for id_, entry in entries]

    def newest(self) -> tuple[str, int]:
        """Where the effects end, and the process of the last one; "" and 0 when there is none."""
        entries: Any = self._redis.xrevrange("effects", count=1)
        return (entries[0][0], int(entries[0][1]["pid"])) if entries else ("", 0)

    def claims(self) -> list[Held]:
        entries: Any = self._redis.xrange("claims")
        return [
            Held(entry["run_id"], int(entry["epoch"]), int(entry["pid"]), at=_seconds(id_)) for id_, entry in entries
        ]

    def close(self) -> None:
        self._redis.close()


def _fields(of: Any, *names: str) -> dict[Any, Any]:
    return {name: getattr(of, name) for name in names}


def _seconds(entry_id: str) -> float:
    return int(entry_id.split("-")[0]) / 1000
