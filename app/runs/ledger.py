"""The ledger: which runs there are, which are due, and which worker owns each.

The queue of a release is one sorted set: member = run id, score = the moment (ms, Redis's clock) at which anyone
may claim it: now for a new run, soon for a retry, the end of the lease for a running one. A dead worker's runs
come due by themselves, and the size of the set is queued + running runs, which is what a scaler must see. So what is
put off for longer than a minute waits apart (`Keys.later`), and what is behind another run in its thread's own list.
Keys are named in `app.infra.keys`; each step is one Lua script, and each may be repeated when its reply was lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import redis.exceptions

from app.infra.errors import (
    IdempotencyMismatch,
    NothingAsked,
    RunNotFound,
    StaleEpoch,
    ThreadBusy,
    ThreadFull,
    ThreadNotFound,
)
from app.infra.fence import FencedLua, stale
from app.infra.ids import Release, RunId, TenantId, ThreadId, new_id
from app.infra.keys import Keys
from app.infra.redis import Lua, clock_ms, outages
from app.infra.settings import RunSettings
from app.runs.model import Accepted, Claim, Failure, NewRun, Run, Status, Stop, Strategy, Thread, run_ids

_HERE = Path(__file__).parent

_ACCEPT = Lua.of(_HERE, "queue.lua", "run_keys.lua", "accept.lua")
_CLAIM = Lua.of(_HERE, "queue.lua", "claim.lua")
_COMPLETE = Lua.of(_HERE, "queue.lua", "run_keys.lua", "finish.lua", "complete.lua")
_CANCEL = Lua.of(_HERE, "queue.lua", "run_keys.lua", "finish.lua", "cancel.lua")
_RELEASE = FencedLua(_HERE, "queue.lua", "release.lua")

LONGEST_PAUSE_IN_QUEUE = timedelta(minutes=1)
"""What may begin only after a longer pause waits in `Keys.later`, for the queue's size makes a scaler add workers."""
LONGEST_LINE = 1_000
"""Runs that may wait behind one thread's unfinished run."""
RELEASE_SEEN_MS = 120_000
"""A release whose workers have been silent for longer counts as gone; its threads move on with their next run."""


def is_gone(heard_ms: int | bytes | None, now_ms: int) -> bool:
    """Whether a release is gone, by its entry in `Keys.releases`: when its workers were last heard."""
    return now_ms - int(heard_ms or 0) > RELEASE_SEEN_MS


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
        waits there for the thread's unfinished runs, or stops them, as its strategy says. Raises `ThreadNotFound` for
        a thread of nobody or of another tenant, `ThreadBusy` (strategy reject), `ThreadFull`, `NothingAsked` (an answer
        that the thread does not wait for, or to be given once more although the thread has moved on),
        `IdempotencyMismatch`, `RedisUnavailable` (the run may have been written: repeat with the same
        Idempotency-Key). Repeating it with the same `run_id` writes nothing twice.
        """
        thread_id = new.thread_id or ThreadId(new_id())
        if new.after >= timedelta(seconds=self._settings.thread_retention_seconds):
            raise ValueError("a run may be put off for less than THREAD_RETENTION_SECONDS, or its thread could expire")
        for _ in range(3):
            release, move, thread = self.release, False, None
            if new.thread_id is not None:
                thread, seen, now = await self._thread_and_releases(new.thread_id)
                if thread is None or thread.tenant != new.tenant:
                    raise ThreadNotFound(new.thread_id)
                if thread.active is not None or not is_gone(seen.get(thread.release), now):
                    release = thread.release
                else:
                    move = thread.release != release
            try:
                accepted = await self._accept(new, thread_id, thread, release, move=move)
            except redis.exceptions.ResponseError as error:
                text = str(error)
                if text.startswith("NOTHREAD"):
                    raise ThreadNotFound(thread_id) from error
                if text.startswith("MISMATCH"):
                    raise IdempotencyMismatch from error
                if text.startswith("OCCUPIED"):
                    raise ThreadBusy(thread_id) from error
                if text.startswith("NOTASKED"):
                    raise NothingAsked(thread_id) from error
                if text.startswith("FULL"):
                    raise ThreadFull(thread_id, LONGEST_LINE) from error
                if not text.startswith("MOVED "):
                    raise
                continue  # between our look and the script the thread has changed its release: look again
            await self._supersede(new, accepted)
            return accepted
        raise ThreadNotFound(thread_id)

    async def _accept(
        self, new: NewRun, thread_id: ThreadId, thread: Thread | None, release: Release, *, move: bool
    ) -> Accepted:
        key = new.idempotency_key and hashlib.sha256(new.idempotency_key.encode()).hexdigest()
        asked, root = "", new.run_id
        if new.command is not None and new.replays is None:
            # What nobody asked is refused by the script, unless this is a repetition.
            asked = new.answers or (thread and thread.asked) or "none"
            root = (thread and thread.asked_root) or new.run_id
        elif new.replays is not None:
            root = new.replays.effects_root
        fields = {
            "user": new.user,
            "graph": new.graph,
            "input": orjson.dumps(new.input),
            "command": "" if new.command is None else orjson.dumps(new.command),
            "continues": " ".join([*new.replays.continues, new.replays.run_id]) if new.replays else "",
            "idem": key,
            "request_id": new.request_id,
            "traceparent": new.traceparent,
        }
        first = {"run_id": new.run_id, "thread_id": thread_id, "release": release, "graph": new.graph}
        settings = self._settings
        run_id, its_thread, superseded = await _ACCEPT(
            self._redis,
            keys=[
                *self._run_keys(new.run_id, thread_id, new.tenant, release, root),
                self._keys.runs_of(new.tenant),
                self._keys.tenants,
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
                settings.idempotency_seconds,
                orjson.dumps(first),
                new.strategy,
                _milliseconds(new.after),
                _milliseconds(LONGEST_PAUSE_IN_QUEUE),
                asked,
                root,
                settings.run_retention_seconds,
                settings.thread_retention_seconds,
                new.replays.ended_ms if new.replays is not None and new.command is not None else "",
                LONGEST_LINE,
                *[part for pair in fields.items() for part in pair],
            ],
        )
        made_in = ThreadId(its_thread.decode()) if its_thread else None
        return Accepted(RunId(run_id.decode()), made_in, run_ids(superseded.decode()))

    async def _supersede(self, new: NewRun, accepted: Accepted) -> None:
        """Stop what the accepted run's strategy stops; also when an earlier request accepted it and died here."""
        if new.strategy not in (Strategy.INTERRUPT, Strategy.ROLLBACK):
            return
        superseded = accepted.superseded
        if not accepted.created:
            superseded = (await self.get(accepted.run_id)).supersedes
        stop = Stop.INTERRUPT if new.strategy is Strategy.INTERRUPT else Stop.ROLLBACK
        for run_id in superseded:  # the newest first: ending one of them makes no other of them due
            with contextlib.suppress(RunNotFound):
                await self.cancel(run_id, new.tenant, stop)

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
                Claim(
                    RunId(run.decode()),
                    int(epoch),
                    int(attempt),
                    None if state == b"running" else Stop(state.decode()),
                    int(waited) / 1000,
                    again == b"1",
                )
                for run, epoch, attempt, state, waited, again in runs
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
        failure: Failure | None = None,
    ) -> bool:
        """End a run, once, after its last `events` (name, JSON); `failure` says what a dead letter is to hold.

        False: it is to be rolled back and has not ended; give it back, whoever claims it next does that. Raises
        `StaleEpoch` when a newer worker owns it or it was ended by another.
        """
        try:
            reply = await _COMPLETE(
                self._redis,
                keys=self._keys_of(run),
                args=[
                    run.run_id,
                    run.thread_id,
                    str(claim.epoch),
                    status,
                    orjson.dumps({**result, "status": status, "attempt": claim.attempt}),
                    *self._times_to_live(),
                    "1" if result.get("interrupts") else "",
                    failure.error if failure else "",
                    failure.checkpoint_id if failure else "",
                    "1" if claim.stop else "",
                    claim.attempt,
                    *[part for event in events for part in event],
                ],
            )
        except redis.exceptions.ResponseError as error:
            raise stale(error, claim.fence) from error
        return bool(reply != b"rolling_back")

    async def give_back(self, claim: Claim, *, pause: timedelta, used: int, error: str = "") -> None:
        """Let anyone claim the run after `pause`; `used` is how many attempts count as used.

        A retry counts its attempt and names the class of its `error`; a stopping worker's hand-over does neither.
        Raises `StaleEpoch`.
        """
        keys = self._keys
        await _RELEASE(
            self._redis,
            epochs=keys.epochs,
            fence=claim.fence,
            keys=[
                keys.queue(self.release),
                keys.states,
                keys.attempts,
                keys.wake(self.release),
                keys.run(claim.run_id),
                keys.later,
            ],
            args=[_milliseconds(pause), used, _milliseconds(LONGEST_PAUSE_IN_QUEUE), error],
        )

    async def cancel(self, run_id: RunId, tenant: TenantId | None, stop: Stop = Stop.CANCEL) -> Run:
        """Ask a run to stop. One that nobody executes ends at once; a running one within a heartbeat.

        Cancelling one that waits for a person takes its question back. Doing it again changes nothing, nor does it
        on any other run that has ended. `tenant` as in `get`. Raises `RunNotFound`.
        """
        reply = b"changed"
        while reply == b"changed":
            run = await self.get(run_id, tenant)
            if run.status.ended and run.status is not Status.INTERRUPTED:
                return run
            reply = await _CANCEL(
                self._redis,
                keys=self._keys_of(run),
                args=[
                    run_id,
                    run.thread_id,
                    stop,
                    stop.status,
                    orjson.dumps({**stopped(run, stop), "status": stop.status, "attempt": run.attempt}),
                    *self._times_to_live(),
                    run.release,
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
                pipe.hmget(self._keys.thread(thread_id), "tenant", "release", "active", "asked", "asked_root")
                pipe.hgetall(self._keys.releases)
                pipe.time()
                (tenant, release, active, asked, root), seen, clock = await pipe.execute()
        thread = tenant and Thread(
            thread_id,
            TenantId(tenant.decode()),
            Release(release.decode()),
            RunId(active.decode()) if active else None,
            RunId(asked.decode()) if asked else None,
            RunId(root.decode()) if root else None,
        )
        return (
            thread or None,
            {name.decode(): int(at) for name, at in seen.items()},
            clock_ms(clock),
        )

    def _times_to_live(self) -> tuple[int, int, int]:
        """How long an ended run's record, its events and its thread are kept, in seconds: for `finish.lua`."""
        settings = self._settings
        return settings.run_retention_seconds, settings.event_retention_seconds, settings.thread_retention_seconds

    def _keys_of(self, run: Run) -> list[str]:
        return self._run_keys(run.run_id, run.thread_id, run.tenant, run.release, run.effects_root)

    def _run_keys(
        self, run_id: RunId, thread_id: ThreadId, tenant: TenantId, release: Release, root: RunId
    ) -> list[str]:
        """The keys of `run_keys.lua`, in its order."""
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
            keys.later,
            keys.effects(root),
            keys.dead(tenant),
            keys.threads_of(tenant),
        ]


def stopped(run: Run, stop: Stop) -> dict[str, Any]:
    """The result of a run that was stopped on request."""
    if stop is Stop.CANCEL:
        return run.identity
    return {**run.identity, "error": {"kind": "superseded" if stop is Stop.INTERRUPT else "rolled_back"}}


def _milliseconds(pause: timedelta) -> int:
    return max(0, int(pause.total_seconds() * 1000))
