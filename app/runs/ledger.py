"""The ledger: which runs there are, which are due, and which worker owns each.

The queue of a release is one sorted set: member = run id, score = the moment (ms, Redis's clock) at which anyone
may claim it: now for a new run, soon for a retry, the end of the lease for a running one. A dead worker's runs
come due by themselves, and the size of the set is queued + running runs, which is what a scaler must see.
Keys are named in `app.infra.keys`; each step is one Lua script, and each may be repeated when its reply was lost.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import redis.exceptions

from app.infra.errors import IdempotencyMismatch, RunNotFound, StaleEpoch, ThreadNotFound
from app.infra.fence import FencedLua, stale
from app.infra.ids import Release, RunId, TenantId, ThreadId, new_id
from app.infra.keys import Keys
from app.infra.redis import Lua, outages
from app.infra.settings import RunSettings
from app.runs.model import Accepted, Claim, NewRun, Run, Status, Thread

_HERE = Path(__file__).parent
_FINISH = (_HERE / "finish.lua").read_text()
_ACCEPT = Lua((_HERE / "accept.lua").read_text(), name="accept")
_CLAIM = Lua((_HERE / "claim.lua").read_text(), name="claim")
_COMPLETE = Lua(_FINISH + (_HERE / "complete.lua").read_text(), name="complete")
_CANCEL = Lua(_FINISH + (_HERE / "cancel.lua").read_text(), name="cancel")
_RELEASE = FencedLua(_HERE, "release.lua")

RELEASE_SEEN_MS = 120_000
"""A release whose workers have been silent for longer counts as gone; its threads move on with their next run."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a claim brought, and how long until the next run is due (None: nothing is waiting)."""

    runs: list[Claim]
    next_due: timedelta | None


class RunLedger:
    """Every change of a run's ownership or state. `release` is the one that this process serves."""

    def __init__(self, client: Any, keys: Keys, settings: RunSettings, release: Release) -> None:
        self._redis, self._keys, self._settings, self.release = client, keys, settings, release

    async def accept(self, new: NewRun) -> Accepted:
        """Write a run down and make it due. When this returns, the run will be executed.

        A run of an existing thread goes to the release that the thread began on while that release exists, and
        waits there for the thread's unfinished run. Raises `ThreadNotFound` for a thread of nobody or of another
        tenant, `IdempotencyMismatch`, `RedisUnavailable` (the run may have been written: repeat with the same
        Idempotency-Key). Repeating it with the same `run_id` writes nothing twice.
        """
        thread_id = new.thread_id or ThreadId(new_id())
        release, move = self.release, False
        if new.thread_id is not None:
            thread, seen, now = await self._thread_and_releases(new.thread_id)
            if thread is None or thread.tenant != new.tenant:
                raise ThreadNotFound(new.thread_id)
            gone = now - seen.get(thread.release, 0) > RELEASE_SEEN_MS
            if thread.active is not None or not gone:
                release = thread.release
            else:
                move = thread.release != release
        for _ in range(3):
            try:
                return await self._accept(new, thread_id, release, move=move)
            except redis.exceptions.ResponseError as error:
                text = str(error)
                if text.startswith("NOTHREAD"):
                    raise ThreadNotFound(thread_id) from error
                if text.startswith("MISMATCH"):
                    raise IdempotencyMismatch from error
                if not text.startswith("MOVED "):
                    raise
                release, move = Release(text.removeprefix("MOVED ").split()[0]), False
        raise ThreadNotFound(thread_id)

    async def _accept(self, new: NewRun, thread_id: ThreadId, release: Release, *, move: bool) -> Accepted:
        key = new.idempotency_key and hashlib.sha256(new.idempotency_key.encode()).hexdigest()
        fields = {
            "user": new.user,
            "graph": new.graph,
            "input": orjson.dumps(new.input),
            "request_id": new.request_id,
            "traceparent": new.traceparent,
        }
        first = {"run_id": new.run_id, "thread_id": thread_id, "release": release, "graph": new.graph}
        run_id, created = await _ACCEPT(
            self._redis,
            keys=[
                *self._finish_keys(new.run_id, thread_id, release),
                self._keys.idempotency(new.tenant, key or "none"),
            ],
            args=[
                new.run_id,
                thread_id,
                new.tenant,
                release,
                "1" if new.thread_id else "0",
                "1" if move else "0",
                new.digest if key else "",
                self._settings.idempotency_seconds,
                orjson.dumps(first),
                *[part for pair in fields.items() for part in pair],
            ],
        )
        return Accepted(RunId(run_id.decode()), created == b"1")

    async def get(self, run_id: RunId, tenant: TenantId | None = None) -> Run:
        """A run's record; with `tenant`, only that tenant's. Raises `RunNotFound`, also when it has expired."""
        with outages():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hgetall(self._keys.run(run_id))
                pipe.hget(self._keys.states, run_id)
                pipe.hget(self._keys.attempts, run_id)
                record, state, attempt = await pipe.execute()
        if not record or (tenant is not None and record[b"tenant"].decode() != tenant):
            raise RunNotFound(run_id)
        return Run.of(record, state=state, attempt=attempt)

    async def claimed(self, claim: Claim) -> Run:
        """The record of a run just claimed. Raises `StaleEpoch` when it is not there: somebody has ended it."""
        with outages():
            record = await self._redis.hgetall(self._keys.run(claim.run_id))
        if not record:
            raise StaleEpoch(claim.run_id, claim.epoch, None)
        return Run.of(record, state=b"running", attempt=str(claim.attempt).encode())

    async def result(self, run_id: RunId) -> dict[str, Any] | None:
        """What an ended run came to; None while it has not ended."""
        with outages():
            found = await self._redis.hget(self._keys.run(run_id), "result")
        return None if found is None else dict(orjson.loads(found))

    async def thread(self, thread_id: ThreadId, tenant: TenantId) -> Thread:
        """What is known of a tenant's thread. Raises `ThreadNotFound`."""
        thread, _, _ = await self._thread_and_releases(thread_id)
        if thread is None or thread.tenant != tenant:
            raise ThreadNotFound(thread_id)
        return thread

    async def claim(self, worker: str, most: int, request: str = "") -> Claims:
        """Take up to `most` runs that have been due longest, each under a new epoch and for one lease.

        Asked again under the same `request`, it gives what it gave: after `RedisUnavailable`, which may have cost
        the reply only, the runs would else wait for the end of a lease that nobody uses.
        """
        keys = self._keys
        reply = await _CLAIM(
            self._redis,
            keys=[
                keys.queue(self.release),
                keys.epochs,
                keys.states,
                keys.attempts,
                keys.wake(self.release),
                keys.releases,
                keys.claim(worker),
            ],
            args=[most, int(self._settings.lease_seconds * 1000), request or uuid.uuid4().hex, self.release],
        )
        runs, pause = reply
        return Claims(
            [
                Claim(RunId(run.decode()), int(epoch), int(attempt), state == b"cancelling", int(waited) / 1000)
                for run, epoch, attempt, state, waited in runs
            ],
            None if pause == b"-1" else timedelta(milliseconds=int(pause)),
        )

    async def complete(
        self,
        claim: Claim,
        run: Run,
        status: Status,
        result: dict[str, Any],
        events: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """End a run, once, after its last `events` (name, JSON).

        Raises `StaleEpoch` when a newer worker owns it or it was ended by another.
        """
        try:
            await _COMPLETE(
                self._redis,
                keys=self._finish_keys(run.run_id, run.thread_id, run.release),
                args=[
                    run.run_id,
                    str(claim.epoch),
                    status,
                    orjson.dumps({**result, "status": status, "attempt": claim.attempt}),
                    *self._times_to_live(),
                    claim.attempt,
                    *[part for event in events for part in event],
                ],
            )
        except redis.exceptions.ResponseError as error:
            raise stale(error, claim.fence) from error

    async def give_back(self, claim: Claim, *, pause: timedelta, used: int) -> None:
        """Let anyone claim the run after `pause`; `used` is how many attempts count as used.

        A retry counts its attempt; a stopping worker's hand-over does not. Raises `StaleEpoch`.
        """
        keys = self._keys
        await _RELEASE(
            self._redis,
            epochs=keys.epochs,
            fence=claim.fence,
            keys=[keys.queue(self.release), keys.states, keys.attempts, keys.wake(self.release)],
            args=[int(pause.total_seconds() * 1000), used],
        )

    async def cancel(self, run_id: RunId, tenant: TenantId) -> Run:
        """Ask a run to stop. One that nobody executes ends at once; a running one within a heartbeat.

        Doing it again changes nothing, nor does it on a run that has ended. Raises `RunNotFound`.
        """
        run = await self.get(run_id, tenant)
        if run.status.ended:
            return run
        result = {**run.identity, "status": Status.CANCELLED, "attempt": run.attempt}
        await _CANCEL(
            self._redis,
            keys=self._finish_keys(run.run_id, run.thread_id, run.release),
            args=[
                run_id,
                orjson.dumps(result),
                *self._times_to_live(),
            ],
        )
        return await self.get(run_id, tenant)

    async def size(self) -> int:
        """Queued and running runs of this release."""
        with outages():
            return int(await self._redis.zcard(self._keys.queue(self.release)))

    async def _thread_and_releases(self, thread_id: ThreadId) -> tuple[Thread | None, dict[str, int], int]:
        with outages():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hmget(self._keys.thread(thread_id), "tenant", "release", "active")
                pipe.hgetall(self._keys.releases)
                pipe.time()
                (tenant, release, active), seen, (seconds, micros) = await pipe.execute()
        thread = tenant and Thread(
            thread_id,
            TenantId(tenant.decode()),
            Release(release.decode()),
            RunId(active.decode()) if active else None,
        )
        return (
            thread or None,
            {name.decode(): int(at) for name, at in seen.items()},
            seconds * 1000 + micros // 1000,
        )

    def _times_to_live(self) -> tuple[int, int, int]:
        """How long an ended run's record, its events and its thread are kept, in seconds: for `finish.lua`."""
        settings = self._settings
        return settings.run_retention_seconds, settings.event_retention_seconds, settings.thread_retention_seconds

    def _finish_keys(self, run_id: RunId, thread_id: ThreadId, release: Release) -> list[str]:
        """The twelve keys of `finish.lua`, which `accept.lua` takes too."""
        keys = self._keys
        return [
            keys.queue(release),
            keys.epochs,
            keys.states,
            keys.attempts,
            keys.wake(release),
            keys.run(run_id),
            keys.events(run_id),
            keys.thread(thread_id),
            keys.thread_runs(thread_id),
            keys.thread_waiting(thread_id),
            keys.ended,
            keys.grown(run_id),
        ]
