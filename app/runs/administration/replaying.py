"""Going on with the work of a run that failed: a new run on the same thread, from the old one's last checkpoint."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from app.infra import telemetry
from app.infra.errors import Conflict, NothingAsked
from app.infra.ids import RunId, new_id
from app.infra.keys import Keys
from app.infra.logging import get_logger
from app.infra.redis import Lua, outages
from app.runs.ledger import RunLedger
from app.runs.model import NewRun, Run

_log = get_logger(__name__)

_REPLAYED = Lua.of(Path(__file__).parent, "replayed.lua")


class NotFailed(Conflict):
    def __init__(self, run: Run) -> None:
        super().__init__(
            f"run {run.run_id} has not failed: its status is {run.status}",
            fix="start it anew from its input with `again` (on the command line --again)",
        )


class Unfinished(Conflict):
    def __init__(self, run: Run) -> None:
        super().__init__(f"run {run.run_id} is {run.status}: it has not ended", fix="wait for its end, or cancel it")


class ReplayedBefore(Conflict):
    def __init__(self, run_id: RunId, by: RunId) -> None:
        super().__init__(
            f"run {run_id} was replayed before, by run {by}",
            fix=f"look at {by}, and replay that one if it failed; `again` (--again) starts {run_id} anew all the same",
        )
        self.by = by


class Replaying:
    """Replays runs of one prefix."""

    def __init__(self, client: Any, keys: Keys, ledger: RunLedger) -> None:
        self._redis, self._keys, self._ledger = client, keys, ledger

    async def replay(self, run: Run, *, again: bool = False, request_id: str = "") -> Run:
        """Start the run that goes on with the work of a failed one; it is a dead letter no more.

        With `again` any ended run is started anew from its input. A failed run is replayed once: asked a second time,
        `ReplayedBefore` names the run that goes on with it. Raises `Unfinished`, `NotFailed`, `ThreadNotFound` when
        its thread has expired, `NothingAsked` for an answer that is to be given again, when the thread has moved on or
        does not wait for it any more: what was said to one question must not answer another.
        """
        if not run.status.ended:
            raise Unfinished(run)
        if not again and not run.status.failed:
            raise NotFailed(run)
        with outages():
            by = await self._redis.hget(self._keys.run(run.run_id), "replayed_by")
        if by and not again:
            raise ReplayedBefore(run.run_id, RunId(by.decode()))
        if again and run.command is not None and run.answers is None:
            raise NothingAsked(run.thread_id)
        accepted = await self._ledger.accept(
            NewRun(
                run_id=RunId(new_id()),
                thread_id=run.thread_id,
                tenant=run.tenant,
                user=run.user,
                graph=run.graph,
                # Also for a replay: it begins with it where the old run has left no checkpoint.
                input=run.input,
                command=run.command,
                answers=run.answers if again else None,
                replays=None if again else run,
                request_id=request_id,
                traceparent=telemetry.carry(),
                # Two who replay the same run at the same moment get one new run. No request can have such a key.
                idempotency_key="" if again else f"replay\n{run.run_id}",
                digest=hashlib.sha256(f"replay:{run.run_id}".encode()).hexdigest(),
            )
        )
        await _REPLAYED(
            self._redis,
            keys=[self._keys.run(run.run_id), self._keys.dead(run.tenant)],
            args=[run.run_id, accepted.run_id],
        )
        if not accepted.created:
            raise ReplayedBefore(run.run_id, accepted.run_id)
        telemetry.runs_accepted.add(1, {"graph": run.graph})
        _log.info("run replayed", replayed=run.run_id, run_id=accepted.run_id, anew=again)
        return await self._ledger.get(accepted.run_id)
