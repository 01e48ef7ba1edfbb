"""Keeps a worker's leases, from a thread of its own: a graph that blocks the event loop does not lose its run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import redis

from app.infra.ids import Release, RunId
from app.infra.keys import Keys
from app.infra.logging import get_logger
from app.runs.model import Claim

_log = get_logger(__name__)
_HEARTBEAT = (Path(__file__).parent / "heartbeat.lua").read_text()
_PER_LEASE = 4
"""Beats in one lease: three may be lost before the run is taken over."""


class Heartbeat:
    """Extends the leases of all runs held; tells the event loop of those that are to be cancelled or are lost."""

    def __init__(
        self,
        url: str,
        keys: Keys,
        release: Release,
        *,
        lease_seconds: float,
        on_state: Callable[[RunId, int, str], None],
    ) -> None:
        """`on_state(run id, epoch, state)` is called in the event loop that made this; states: see `heartbeat.lua`."""
        self._pause = lease_seconds / _PER_LEASE
        self._client = redis.Redis.from_url(url, socket_timeout=self._pause, socket_connect_timeout=self._pause)
        self._script = self._client.register_script(_HEARTBEAT)
        self._keys, self._release, self._lease_ms = keys, release, int(lease_seconds * 1000)
        self._on_state = on_state
        self._loop = asyncio.get_running_loop()
        self._held: dict[RunId, int] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def hold(self, claim: Claim) -> None:
        with self._lock:
            self._held[claim.run_id] = claim.epoch

    def let_go(self, claim: Claim) -> None:
        with self._lock:
            if self._held.get(claim.run_id) == claim.epoch:
                del self._held[claim.run_id]

    def close(self) -> None:
        """End the thread; leases still held run out."""
        self._stop.set()
        self._thread.join(timeout=2 * self._pause)
        self._client.close()

    def _beat(self) -> None:
        while not self._stop.wait(self._pause):
            with self._lock:
                held = list(self._held.items())
            if not held:
                continue
            try:
                states = self._script(
                    keys=[
                        self._keys.queue(self._release),
                        self._keys.epochs,
                        self._keys.states,
                        self._keys.releases,
                    ],
                    args=[self._lease_ms, self._release, *[part for run, epoch in held for part in (run, str(epoch))]],
                )
            except (redis.RedisError, OSError) as error:
                _log.warning("heartbeat failed", error=type(error).__name__, runs=len(held))
                continue
            for (run_id, epoch), state in zip(held, states, strict=True):
                if state != b"running" and not self._loop.is_closed():
                    self._loop.call_soon_threadsafe(self._on_state, run_id, epoch, state.decode())
