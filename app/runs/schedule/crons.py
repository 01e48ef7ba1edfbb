"""Crons: a message that is sent to an agent again and again, at the times of a schedule.

| key                         | type | what                                                            |
|-----------------------------|------|-----------------------------------------------------------------|
| {agent-tasks}:crons         | zset | cron id by its next moment, ms; a paused or ended one is not there |
| {agent-tasks}:cron:<cron>   | hash | the cron: see `Cron`                                            |
| {agent-tasks}:crons:<tenant>| set  | ids of the tenant's crons                                       |

A moment starts one run, however many processes see it: the run's id follows from the cron and the moment, and
accepting a run is done once per id. Moments that went by while nothing ran start one run together, and the schedule
goes on with the first moment after that run was accepted, which every process reads from the run's record.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis.exceptions

from app.infra import telemetry
from app.infra.errors import (
    Conflict,
    IdempotencyMismatch,
    RedisUnavailable,
    RunNotFound,
    SlipwayError,
    ThreadNotFound,
)
from app.infra.ids import Release, RunId, TenantId, new_id
from app.infra.keys import Keys
from app.infra.logging import get_logger
from app.infra.redis import Lua, outages
from app.infra.settings import RunSettings
from app.runs.ledger import RunLedger, is_gone
from app.runs.model import NewRun
from app.runs.schedule.model import Cron, CronNotFound, NeverDue, NewCron, TooManyCrons

_log = get_logger(__name__)

_HERE = Path(__file__).parent
_CREATE = Lua.of(_HERE, "cron_create.lua")
_CHANGE = Lua.of(_HERE, "cron_change.lua")
_DELETE = Lua.of(_HERE, "cron_delete.lua")
_ADVANCE = Lua.of(_HERE, "cron_advance.lua")

MOST_PER_TENANT = 1_000
_CHANGES = 5
"""Times that a change is tried again because somebody else changed the same cron."""
_MADE = uuid.UUID("a3c2f9f4-6a55-5be0-8d57-5a1f0d8f5f0e")
"""Namespace of the ids of crons that were made under an Idempotency-Key."""


class Crons:
    """The crons of all tenants. `release` is the one that this process serves, `graphs` those that it knows."""

    def __init__(
        self, client: Any, keys: Keys, settings: RunSettings, release: Release, graphs: Collection[str]
    ) -> None:
        self._redis, self._keys, self._settings, self._release = client, keys, settings, release
        self._graphs = frozenset(graphs)

    async def create(self, new: NewCron) -> Cron:
        """Write a cron down. The same `idempotency_key` gives the cron that it made, while that is there.

        Raises `ValueError` for a schedule or time zone that is none, `NeverDue`, `ThreadNotFound` for a thread that is
        not the tenant's, `TooManyCrons`, `IdempotencyMismatch`, `RedisUnavailable`.
        """
        now = await self._now()
        made = uuid.uuid5(_MADE, f"{new.tenant}:{new.idempotency_key}") if new.idempotency_key else new_id()
        cron = Cron(
            cron_id=str(made),
            tenant=new.tenant,
            user=new.user,
            graph=new.graph,
            message=new.message,
            schedule=new.schedule,
            timezone=new.timezone,
            thread_id=new.thread_id,
            strategy=new.strategy,
            release=self._release,
            enabled=new.enabled,
            created_ms=now,
            end_ms=new.end_ms,
        )
        moment = cron.after(now)
        if moment is None:
            raise NeverDue
        digest = new.digest or "-"
        own = {
            "user": cron.user,
            "release": cron.release,
            "created_ms": str(now),
            "digest": digest,
            "revision": uuid.uuid4().hex,
        }
        keys = self._keys
        try:
            first: bytes = await _CREATE(
                self._redis,
                keys=[
                    keys.crons,
                    keys.cron(cron.cron_id),
                    keys.crons_of(cron.tenant),
                    keys.tenants,
                    *([keys.thread(cron.thread_id)] if cron.thread_id else []),
                ],
                args=[cron.cron_id, cron.tenant, MOST_PER_TENANT, moment, *_pairs(cron.fields() | own)],
            )
        except redis.exceptions.ResponseError as error:
            if str(error).startswith("LIMIT"):
                raise TooManyCrons(MOST_PER_TENANT) from error
            if cron.thread_id is not None and str(error).startswith("NOTHREAD"):
                raise ThreadNotFound(cron.thread_id) from error
            raise
        if first.decode() != digest:
            raise IdempotencyMismatch
        return await self.get(cron.cron_id, cron.tenant)

    async def get(self, cron_id: str, tenant: TenantId | None) -> Cron:
        """A cron of this tenant; None, for operators, stands for any. Raises `CronNotFound`."""
        for cron in await self._read([cron_id]):
            if tenant is None or cron.tenant == tenant:
                return cron
        raise CronNotFound(cron_id)

    async def of_tenant(self, tenant: TenantId, *, limit: int = 100, offset: int = 0) -> list[Cron]:
        """The tenant's crons, in the order of their ids, which begin with when they were made."""
        with outages():
            members = await self._redis.smembers(self._keys.crons_of(tenant))
        ids = sorted(member.decode() for member in members)
        return await self._read(ids[offset : offset + limit])

    async def of_everyone(self, *, limit: int) -> list[Cron]:
        """Up to `limit` crons of all tenants, tenant by tenant: for operators."""
        with outages():
            tenants = sorted(member.decode() for member in await self._redis.smembers(self._keys.tenants))
        found: list[Cron] = []
        for tenant in tenants:
            if len(found) >= limit:
                break
            found += await self.of_tenant(TenantId(tenant), limit=limit - len(found))
        return found

    async def change(self, cron_id: str, tenant: TenantId | None, **changes: Any) -> Cron:
        """Set fields of a cron (named as in `Cron`); its next moment follows from `schedule` and what else bears on it.

        Raises `CronNotFound`, `NeverDue`, ValueError for a schedule that is none, `RedisUnavailable`.
        """
        for _ in range(_CHANGES):
            cron = await self.get(cron_id, tenant)
            changed = replace(cron, **changes)
            revision = uuid.uuid4().hex
            try:
                reply = await _CHANGE(
                    self._redis,
                    keys=[self._keys.crons, self._keys.cron(cron_id)],
                    args=[
                        cron_id,
                        cron.tenant,
                        cron.revision,
                        revision,
                        await self._moment_after_change(cron, changed),
                        *_pairs(changed.fields()),
                    ],
                )
            except redis.exceptions.ResponseError as error:
                if str(error).startswith("NOCRON"):
                    raise CronNotFound(cron_id) from error
                raise
            if reply == b"OK":
                return await self.get(cron_id, tenant)
        raise Conflict(f"cron {cron_id} is being changed by others", fix="read it and change it again")

    async def _moment_after_change(self, cron: Cron, changed: Cron) -> str:
        """The next moment for `cron_change.lua`."""
        if not changed.enabled:
            return "none"
        timing = ("schedule", "timezone", "end_ms", "enabled")
        if all(getattr(cron, name) == getattr(changed, name) for name in timing):
            return "same"
        moment = changed.after(await self._now())
        if moment is None:
            raise NeverDue
        return str(moment)

    async def delete(self, cron_id: str, tenant: TenantId | None) -> None:
        """Forget a cron; runs that it has started go on. Raises `CronNotFound`."""
        keys, owner = self._keys, (await self.get(cron_id, tenant)).tenant
        # Nothing to forget: a first call whose reply was lost has done it, or somebody else just now.
        await _DELETE(self._redis, keys=[keys.crons, keys.cron(cron_id), keys.crons_of(owner)], args=[cron_id, owner])

    async def fire(self, cron_id: str, moment_ms: int) -> None:
        """Start the run of a moment that has come, unless it was started before, and set the cron's next moment.

        What stands against the run is recorded in the cron, which goes on with its next moment. Raises only
        `RedisUnavailable`: then the moment stays due.
        """
        found = await self._read([cron_id])
        if not found:
            await self._advance(cron_id, moment_ms, "", None)
            return
        cron, run_id, error = found[0], RunId(""), ""
        if cron.next_ms != moment_ms:
            return  # another process was quicker, or it was paused
        fired_ms = await self._now()
        try:
            run_id = await self._start(cron, moment_ms)
            with suppress(RunNotFound):  # it was deleted at once
                fired_ms = (await self._ledger(cron.release).get(run_id)).accepted_ms
        except RedisUnavailable:
            raise
        except SlipwayError as refused:
            error = str(refused)
        except Exception as unforeseen:  # whatever it is: this cron must not hold up others, nor be tried for ever
            error = f"internal error ({type(unforeseen).__name__}); the service's log says more"
            _log.error("cron could not start its run", cron_id=cron_id, exc_info=unforeseen)
        try:
            following = cron.after(max(fired_ms, moment_ms))
        except ValueError as invalid:  # a time zone can be taken out of the database
            following, error = None, f"its schedule cannot be read any more: {invalid}"
        if await self._advance(cron_id, moment_ms, cron.revision, following, run_id, error):
            if run_id:
                telemetry.runs_accepted.add(1, {"graph": cron.graph})
            late = (fired_ms - moment_ms) / 1000
            _log.info("cron came due", cron_id=cron_id, run_id=run_id, problem=error, late_seconds=late)

    async def _start(self, cron: Cron, moment_ms: int) -> RunId:
        release = await self._release_for(cron)
        if release == self._release and cron.graph not in self._graphs:
            raise SlipwayError(f"graph {cron.graph} is not registered", fix=f"use one of {', '.join(self._graphs)}")
        with telemetry.tracer.start_as_current_span("cron", attributes={"slipway.cron.id": cron.cron_id}):
            accepted = await self._ledger(release).accept(
                NewRun(
                    run_id=cron.run_id(moment_ms),
                    thread_id=cron.thread_id,
                    tenant=cron.tenant,
                    user=cron.user,
                    graph=cron.graph,
                    input={"messages": [{"role": "user", "content": cron.message}]},
                    strategy=cron.strategy,
                    request_id=f"cron-{cron.cron_id}",
                    traceparent=telemetry.carry(),
                )
            )
        return accepted.run_id

    async def _release_for(self, cron: Cron) -> Release:
        """The cron's own release while it has workers, else the one of this process."""
        if cron.release == self._release:
            return self._release
        with outages():
            seen = await self._redis.hget(self._keys.releases, cron.release)
        return self._release if is_gone(seen, await self._now()) else cron.release

    async def _advance(
        self,
        cron_id: str,
        moment_ms: int,
        revision: str,
        following: int | None,
        run_id: RunId = RunId(""),  # noqa: B008 - a str
        error: str = "",
    ) -> bool:
        """True in the one process that recorded the moment first."""
        reply = await _ADVANCE(
            self._redis,
            keys=[self._keys.crons, self._keys.cron(cron_id)],
            args=[cron_id, moment_ms, revision, "none" if following is None else following, run_id, error],
        )
        return bool(reply == b"first")

    def _ledger(self, release: Release) -> RunLedger:
        return RunLedger(self._redis, self._keys, self._settings, release)

    async def _read(self, cron_ids: list[str]) -> list[Cron]:
        """The crons of these ids that are there."""
        if not cron_ids:
            return []
        with outages():
            async with self._redis.pipeline(transaction=False) as pipe:
                for cron_id in cron_ids:
                    pipe.hgetall(self._keys.cron(cron_id))
                pipe.zmscore(self._keys.crons, cron_ids)
                *records, scores = await pipe.execute()
        return [Cron.of(record, score) for record, score in zip(records, scores, strict=True) if record]

    async def _now(self) -> int:
        """Redis's clock, ms."""
        with outages():
            seconds, micros = await self._redis.time()
        return int(seconds) * 1000 + int(micros) // 1000


def _pairs(fields: Mapping[str, str]) -> list[str]:
    return [part for pair in fields.items() for part in pair]
