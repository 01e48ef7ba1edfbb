"""Crons on a real Valkey: each moment starts one run, whatever dies; what goes wrong with one stays with that one."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import redis.exceptions

from app.infra.errors import IdempotencyMismatch, RedisUnavailable, ThreadNotFound
from app.infra.ids import STABLE, Release, TenantId, ThreadId, UserId
from app.infra.keys import Keys
from app.infra.redis import connect
from app.infra.settings import RunSettings
from app.runs.administration.removal import Removal
from app.runs.ledger import RELEASE_SEEN_MS, RunLedger
from app.runs.model import Run, Strategy
from app.runs.schedule import crons as crons_module
from app.runs.schedule.crons import Crons
from app.runs.schedule.later import Later
from app.runs.schedule.model import Cron, CronNotFound, NeverDue, NewCron, TooManyCrons
from app.runs.schedule.scheduler import Scheduler
from tests.integration.conftest import TENANT, new_run
from tests.support.proxy import Proxy
from tests.support.service import OTHER_KEY, ROOT, Service
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually

HOUR_MS = 3_600_000


def crons_of(client: Any, keys: Keys, release: str = STABLE, graphs: tuple[str, ...] = ("agent",)) -> Crons:
    """The crons as an api process of `release` sees them."""
    return Crons(client, keys, RunSettings(), Release(release), graphs)


@pytest.fixture
def crons(client: Any, keys: Keys) -> Crons:
    return crons_of(client, keys)


@pytest.fixture
async def other_client(valkey_server: ValkeyServer) -> AsyncIterator[Any]:
    """The connection of a second process."""
    connected = connect(valkey_server.url)
    yield connected
    await connected.aclose()


def hourly(**changes: Any) -> NewCron:
    """A cron for every hour, at a minute that is half an hour away: no moment comes by itself during a test."""
    schedule = f"{(datetime.now(UTC).minute + 30) % 60} * * * *"
    fields = {"tenant": TENANT, "user": UserId("ada"), "graph": "agent", "message": "report", "schedule": schedule}
    return NewCron(**{**fields, **changes})


async def now_ms(client: Any) -> int:
    seconds, micros = await client.time()
    return int(seconds) * 1000 + int(micros) // 1000


async def come_due(client: Any, keys: Keys, cron: Cron, *, hours_ago: int = 0) -> int:
    """Set the clock of a cron just made back: to its last moment before now, or `hours_ago` hours before that."""
    assert cron.next_ms is not None
    moment = cron.next_ms - (1 + hours_ago) * HOUR_MS
    await client.zadd(keys.crons, {cron.cron_id: moment}, xx=True)
    return moment


async def runs_of(client: Any, keys: Keys, ledger: RunLedger) -> list[Run]:
    """Every run of the tenant."""
    return [await ledger.get(run.decode()) for run in await client.zrange(keys.runs_of(TENANT), 0, -1)]


def scheduler_of(client: Any, keys: Keys, crons: Crons) -> Scheduler:
    return Scheduler(client, keys, Later(client, keys, STABLE), crons)


async def test_a_moment_starts_a_run_with_the_message_and_the_cron_goes_on(
    crons: Crons, ledger: RunLedger, client: Any, keys: Keys
) -> None:
    cron = await crons.create(hourly())
    assert cron.next_ms is not None
    assert cron.next_ms > await now_ms(client)
    moment = await come_due(client, keys, cron)
    await scheduler_of(client, keys, crons).round()
    (run,) = await runs_of(client, keys, ledger)
    assert run.input == {"messages": [{"role": "user", "content": "report"}]}
    assert (run.graph, run.user, run.tenant) == ("agent", "ada", TENANT)
    after = await crons.get(cron.cron_id, TENANT)
    assert (after.last_run_id, after.last_ms, after.last_error) == (run.run_id, moment, "")
    assert after.next_ms == moment + HOUR_MS
    assert await ledger.size() == 1


async def test_each_run_begins_a_thread_unless_the_cron_has_one(
    crons: Crons, ledger: RunLedger, client: Any, keys: Keys
) -> None:
    existing = (await ledger.get((await ledger.accept(new_run())).run_id)).thread_id
    fresh, continuing = await crons.create(hourly()), await crons.create(hourly(thread_id=existing))
    for hours in (5, 4):
        for cron in (fresh, continuing):
            await crons.fire(cron.cron_id, await come_due(client, keys, cron, hours_ago=hours))
    threads = [run.thread_id for run in await runs_of(client, keys, ledger)]
    assert threads.count(existing) == 3
    assert len(set(threads)) == 3


async def test_however_many_processes_schedule_a_moment_starts_one_run(
    crons: Crons, ledger: RunLedger, client: Any, other_client: Any, keys: Keys
) -> None:
    """Every api process has a scheduler; none of them leads."""
    made = [await crons.create(hourly()) for _ in range(5)]
    for cron in made:
        await come_due(client, keys, cron, hours_ago=3)
    processes = [scheduler_of(each, keys, crons_of(each, keys)) for each in (client, other_client) for _ in range(3)]
    await asyncio.gather(*[process.round() for process in processes])
    assert len(await runs_of(client, keys, ledger)) == 5
    now = await now_ms(client)
    moments = [cron.next_ms for cron in await crons.of_tenant(TENANT)]
    assert len(moments) == 5
    assert all(moment is not None and moment > now for moment in moments)


class Dies(BaseException):
    """The process ends here."""


class Dying(Crons):
    """A process that is killed after it has started the run, before it sets the next moment."""

    async def _advance(self, *args: Any, **kwargs: Any) -> bool:
        raise Dies


async def test_a_process_killed_between_run_and_next_moment_starts_nothing_twice(
    crons: Crons, ledger: RunLedger, client: Any, keys: Keys
) -> None:
    cron = await crons.create(hourly())
    moment = await come_due(client, keys, cron)
    with pytest.raises(Dies):
        await Dying(client, keys, RunSettings(), STABLE, ["agent"]).fire(cron.cron_id, moment)
    assert len(await runs_of(client, keys, ledger)) == 1
    assert (await crons.get(cron.cron_id, TENANT)).next_ms == moment, "nobody has set the next moment"
    await scheduler_of(client, keys, crons).round()
    (run,) = await runs_of(client, keys, ledger)
    after = await crons.get(cron.cron_id, TENANT)
    assert (after.last_run_id, after.next_ms) == (run.run_id, moment + HOUR_MS)


async def test_moments_missed_while_nothing_ran_start_one_run_at_once(
    crons: Crons, ledger: RunLedger, client: Any, keys: Keys
) -> None:
    """A night without power is one late report, not nine."""
    cron = await crons.create(hourly())
    moment = await come_due(client, keys, cron, hours_ago=9)
    scheduler = scheduler_of(client, keys, crons)
    for _ in range(3):
        await scheduler.round()
    assert len(await runs_of(client, keys, ledger)) == 1
    assert (await crons.get(cron.cron_id, TENANT)).next_ms == moment + 10 * HOUR_MS


async def test_what_was_missed_after_such_a_kill_is_made_up_for_too(
    crons: Crons, ledger: RunLedger, client: Any, keys: Keys
) -> None:
    """Killed at 1:00 with the run started, back at 4:00: 2:00 and 3:00 are one run, and 1:00 is none."""
    cron = await crons.create(hourly())
    moment = await come_due(client, keys, cron, hours_ago=9)
    with pytest.raises(Dies):
        await Dying(client, keys, RunSettings(), STABLE, ["agent"]).fire(cron.cron_id, moment)
    (first,) = await runs_of(client, keys, ledger)
    await client.hset(keys.run(first.run_id), "accepted_ms", moment + 1000)  # as if the kill had been nine hours ago
    scheduler = scheduler_of(client, keys, crons)
    for _ in range(4):
        await scheduler.round()
    assert len(await runs_of(client, keys, ledger)) == 2
    assert (await crons.get(cron.cron_id, TENANT)).next_ms == moment + 10 * HOUR_MS


async def test_what_stands_against_a_run_is_recorded_and_holds_up_nobody(
    crons: Crons, ledger: RunLedger, client: Any, keys: Keys
) -> None:
    thread = (await ledger.get((await ledger.accept(new_run())).run_id)).thread_id
    good = await crons.create(hourly())
    busy = await crons.create(hourly(thread_id=thread, strategy=Strategy.REJECT))
    unknown = await crons.create(hourly(graph="vanished"))
    orphan = await crons.create(hourly(thread_id=thread))
    await client.hset(keys.cron(orphan.cron_id), "thread_id", "t-expired")
    broken = await crons.create(hourly())
    await client.hset(keys.cron(broken.cron_id), "timezone", "Europe/Atlantis")
    moments = {cron.cron_id: await come_due(client, keys, cron) for cron in (broken, busy, unknown, orphan, good)}
    await scheduler_of(client, keys, crons).round()
    found = {cron.cron_id: cron for cron in await crons.of_tenant(TENANT)}
    assert found[good.cron_id].last_run_id is not None
    assert found[good.cron_id].last_error == ""
    for cron, problem in ((busy, "unfinished run"), (unknown, "use one of agent"), (orphan, "no thread t-expired")):
        assert problem in found[cron.cron_id].last_error
        assert found[cron.cron_id].last_run_id is None
        assert found[cron.cron_id].next_ms == moments[cron.cron_id] + HOUR_MS, "it goes on"
    assert "time zone" in found[broken.cron_id].last_error
    assert found[broken.cron_id].next_ms is None, "nothing can be said of when it comes next"


async def test_an_error_is_forgotten_once_a_run_starts_again(crons: Crons, client: Any, keys: Keys) -> None:
    cron = await crons.create(hourly(graph="other"))
    await crons.fire(cron.cron_id, await come_due(client, keys, cron, hours_ago=3))
    assert (await crons.get(cron.cron_id, TENANT)).last_error
    await crons_of(client, keys, graphs=("other",)).fire(cron.cron_id, await come_due(client, keys, cron, hours_ago=2))
    after = await crons.get(cron.cron_id, TENANT)
    assert after.last_error == ""
    assert after.last_run_id is not None


async def test_a_record_that_cannot_be_read_does_not_stop_the_others(
    crons: Crons, ledger: RunLedger, client: Any, keys: Keys
) -> None:
    good, bad = await crons.create(hourly()), await crons.create(hourly())
    await client.hdel(keys.cron(bad.cron_id), "strategy")
    for cron in (bad, good):
        await come_due(client, keys, cron)
    with pytest.raises(KeyError):
        await scheduler_of(client, keys, crons).round()
    assert len(await runs_of(client, keys, ledger)) == 1


async def test_a_paused_cron_starts_nothing_and_goes_on_with_a_moment_to_come(
    crons: Crons, client: Any, keys: Keys
) -> None:
    cron = await crons.create(hourly())
    paused = await crons.change(cron.cron_id, TENANT, enabled=False)
    assert (paused.enabled, paused.next_ms) == (False, None)
    assert await client.zcard(keys.crons) == 0
    renamed = await crons.change(cron.cron_id, TENANT, message="still paused")
    assert renamed.next_ms is None
    resumed = await crons.change(cron.cron_id, TENANT, enabled=True)
    assert resumed.next_ms is not None
    assert resumed.next_ms > await now_ms(client)


async def test_a_change_of_the_schedule_sets_the_next_moment_and_of_the_message_does_not(
    crons: Crons, client: Any, keys: Keys
) -> None:
    """A moment that is due at this very second must not be lost because somebody corrects a word."""
    cron = await crons.create(hourly())
    moment = await come_due(client, keys, cron)
    changed = await crons.change(cron.cron_id, TENANT, message="better report")
    assert (changed.message, changed.next_ms) == ("better report", moment)
    daily = await crons.change(cron.cron_id, TENANT, schedule="0 9 * * *", timezone="Europe/Berlin")
    assert daily.next_ms is not None
    assert datetime.fromtimestamp(daily.next_ms / 1000, UTC).hour in (7, 8)


async def test_changes_at_the_same_time_all_hold(crons: Crons, keys: Keys) -> None:
    """The next moment must be that of the schedule and time zone that remain, whoever set which."""
    cron = await crons.create(hourly())
    await asyncio.gather(
        crons.change(cron.cron_id, TENANT, schedule="30 9 * * *"),
        crons.change(cron.cron_id, TENANT, timezone="Asia/Kathmandu"),
        crons.change(cron.cron_id, TENANT, message="both"),
    )
    after = await crons.get(cron.cron_id, TENANT)
    assert (after.schedule, after.timezone, after.message) == ("30 9 * * *", "Asia/Kathmandu", "both")
    assert after.next_ms == after.after(after.created_ms)


@pytest.mark.parametrize("seed", range(3))
async def test_processes_that_fail_anywhere_start_each_run_once(
    ledger: RunLedger, crons: Crons, valkey_server: ValkeyServer, client: Any, keys: Keys, seed: int
) -> None:
    """Any script may fail before it ran or after it, in three processes at once; repeated, all comes out right."""
    chance = random.Random(seed)
    made = [await crons.create(hourly()) for _ in range(12)]
    put = [(await ledger.accept(replace(new_run(), after=timedelta(hours=1)))).run_id for _ in range(12)]
    for cron in made:
        await come_due(client, keys, cron, hours_ago=chance.randrange(5))
    await client.zadd(keys.later, dict.fromkeys(put, 1))
    connections = [connect(valkey_server.url) for _ in range(3)]
    for connection in connections:
        evalsha = connection.evalsha

        async def fails_at_times(*args: Any, evalsha: Any = evalsha) -> Any:
            if chance.random() < 0.2:
                raise redis.exceptions.ConnectionError
            reply = await evalsha(*args)
            if chance.random() < 0.2:
                raise redis.exceptions.ConnectionError
            return reply

        connection.evalsha = fails_at_times  # type: ignore[method-assign, assignment]

    async def work(connection: Any) -> None:
        scheduler = scheduler_of(connection, keys, crons_of(connection, keys))
        while True:
            try:
                if await scheduler.round() > 0:
                    return
            except RedisUnavailable:
                await asyncio.sleep(0)

    await asyncio.gather(*[work(connection) for connection in connections])
    assert len(await runs_of(client, keys, ledger)) == 24
    assert await ledger.size() == 24
    assert await client.zcard(keys.later) == 0
    moments = [cron.next_ms for cron in await crons.of_tenant(TENANT)]
    assert set(moments) == {cron.next_ms for cron in made}
    for connection in connections:
        await connection.aclose()


async def test_a_cron_paused_after_a_scheduler_saw_it_starts_nothing(crons: Crons, client: Any, keys: Keys) -> None:
    cron = await crons.create(hourly())
    moment = await come_due(client, keys, cron)
    await crons.change(cron.cron_id, TENANT, enabled=False)
    await crons.fire(cron.cron_id, moment)
    assert await client.zcard(keys.runs_of(TENANT)) == 0
    assert (await crons.get(cron.cron_id, TENANT)).next_ms is None


class Overtaken(Crons):
    """A process that is slow: somebody changes the cron between its run and the next moment."""

    async def _start(self, cron: Cron, moment_ms: int) -> Any:
        run_id = await super()._start(cron, moment_ms)
        await super().change(cron.cron_id, cron.tenant, message="changed meanwhile")
        await self._redis.zadd(self._keys.crons, {cron.cron_id: moment_ms})
        return run_id


async def test_a_change_made_while_a_moment_is_handled_wins(
    crons: Crons, ledger: RunLedger, client: Any, keys: Keys
) -> None:
    """The next moment would be that of the old schedule; instead the moment is handled again, without a second run."""
    cron = await crons.create(hourly())
    moment = await come_due(client, keys, cron)
    await Overtaken(client, keys, RunSettings(), STABLE, ["agent"]).fire(cron.cron_id, moment)
    assert (await crons.get(cron.cron_id, TENANT)).next_ms == moment
    await scheduler_of(client, keys, crons).round()
    assert len(await runs_of(client, keys, ledger)) == 1
    assert (await crons.get(cron.cron_id, TENANT)).next_ms == moment + HOUR_MS


class Frozen(Crons):
    """A process that stands still between its run and the next moment, while others go on."""

    async def _advance(self, cron_id: str, moment_ms: int, *args: Any, **kwargs: Any) -> bool:
        other = crons_of(self._redis, self._keys)
        for moment in (moment_ms, moment_ms + HOUR_MS):
            await other.fire(cron_id, moment)
        return await super()._advance(cron_id, moment_ms, *args, **kwargs)


async def test_a_frozen_process_does_not_set_the_clock_back(
    crons: Crons, ledger: RunLedger, client: Any, keys: Keys
) -> None:
    """It would hand out a moment again that the others have dealt with."""
    cron = await crons.create(hourly())
    moment = await come_due(client, keys, cron, hours_ago=1)
    with pytest.raises(Dies):
        await Dying(client, keys, RunSettings(), STABLE, ["agent"]).fire(cron.cron_id, moment)
    (first,) = await runs_of(client, keys, ledger)
    await client.hset(keys.run(first.run_id), "accepted_ms", moment + 1000)  # as if the kill had been an hour ago
    await Frozen(client, keys, RunSettings(), STABLE, ["agent"]).fire(cron.cron_id, moment)
    after = await crons.get(cron.cron_id, TENANT)
    assert (after.last_ms, after.next_ms) == (moment + HOUR_MS, moment + 2 * HOUR_MS)
    assert len(await runs_of(client, keys, ledger)) == 2


async def test_a_cron_ends_with_its_last_moment(crons: Crons, client: Any, keys: Keys) -> None:
    now = await now_ms(client)
    with pytest.raises(NeverDue):
        await crons.create(hourly(end_ms=now + 1))
    cron = await crons.create(hourly(end_ms=now + 2 * HOUR_MS))
    await crons.change(cron.cron_id, TENANT, end_ms=cron.next_ms)
    await client.hset(keys.cron(cron.cron_id), "end_ms", now)
    await crons.fire(cron.cron_id, await come_due(client, keys, cron))
    after = await crons.get(cron.cron_id, TENANT)
    assert after.last_run_id is not None
    assert after.next_ms is None
    assert await client.zcard(keys.crons) == 0


async def test_a_deleted_cron_leaves_nothing_and_a_late_scheduler_brings_nothing_back(
    crons: Crons, client: Any, keys: Keys
) -> None:
    cron = await crons.create(hourly())
    moment = await come_due(client, keys, cron)
    with pytest.raises(CronNotFound):
        await crons.delete(cron.cron_id, TenantId("umbrella"))
    await crons.delete(cron.cron_id, TENANT)
    with pytest.raises(CronNotFound):
        await crons.delete(cron.cron_id, TENANT)
    await client.zadd(keys.crons, {cron.cron_id: moment})
    await crons.fire(cron.cron_id, moment)
    assert {key.decode() for key in await client.keys("*")} <= {keys.tenants}


async def test_crons_are_the_tenants_own(crons: Crons, ledger: RunLedger) -> None:
    cron = await crons.create(hourly())
    other = TenantId("umbrella")
    assert await crons.of_tenant(other) == []
    with pytest.raises(CronNotFound):
        await crons.get(cron.cron_id, other)
    with pytest.raises(CronNotFound):
        await crons.change(cron.cron_id, other, enabled=False)
    thread = (await ledger.get((await ledger.accept(new_run())).run_id)).thread_id
    with pytest.raises(ThreadNotFound):
        await crons.create(hourly(tenant=other, thread_id=ThreadId(thread)))


async def test_no_cron_is_made_for_a_thread_that_is_deleted_at_that_moment(
    crons: Crons, ledger: RunLedger, client: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would go on naming a thread of which nothing is to be left."""
    accepted = await ledger.accept(new_run())
    thread_id = (await ledger.get(accepted.run_id)).thread_id

    async def now_after_the_deletion() -> int:
        await Removal(client, keys).thread(thread_id, TENANT)
        return await now_ms(client)

    monkeypatch.setattr(crons, "_now", now_after_the_deletion)
    with pytest.raises(ThreadNotFound):
        await crons.create(hourly(thread_id=thread_id))
    assert await client.keys("*cron*") == []


async def test_a_tenant_has_a_limited_number_of_crons(crons: Crons, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crons_module, "MOST_PER_TENANT", 2)
    made = [await crons.create(hourly()) for _ in range(2)]
    with pytest.raises(TooManyCrons):
        await crons.create(hourly())
    await crons.create(hourly(tenant=TenantId("umbrella")))
    await crons.delete(made[0].cron_id, TENANT)
    await crons.create(hourly())


async def test_an_idempotency_key_gives_the_cron_that_it_made(crons: Crons) -> None:
    first = await crons.create(hourly(idempotency_key="k", digest="a" * 64))
    again = await crons.create(hourly(idempotency_key="k", digest="a" * 64))
    assert again == first
    with pytest.raises(IdempotencyMismatch):
        await crons.create(hourly(idempotency_key="k", digest="b" * 64))
    other = await crons.create(hourly(tenant=TenantId("umbrella"), idempotency_key="k", digest="b" * 64))
    assert other.cron_id != first.cron_id


async def test_lost_replies_change_nothing(client: Any, keys: Keys, valkey_server: ValkeyServer) -> None:
    """Each script may run twice: the client sends it again when the connection broke before the reply."""
    async with Proxy(valkey_server.port) as proxy:
        through = connect(valkey_server.url.replace(str(valkey_server.port), str(proxy.port)))
        evalsha = through.evalsha

        async def lost(*args: Any) -> Any:
            proxy.lose_next_reply()
            return await evalsha(*args)

        through.evalsha = lost  # type: ignore[method-assign, assignment]
        crons = crons_of(through, keys)
        cron = await crons.create(hourly())
        assert (await crons.change(cron.cron_id, TENANT, message="x")).message == "x"
        moment = await come_due(client, keys, cron)
        await crons.fire(cron.cron_id, moment)
        assert (await crons.get(cron.cron_id, TENANT)).next_ms == moment + HOUR_MS
        assert await client.zcard(keys.runs_of(TENANT)) == 1
        assert proxy.lost >= 4
        await through.aclose()


async def test_a_cron_runs_on_its_own_release_while_that_is_there(
    ledger: RunLedger, canary: RunLedger, client: Any, keys: Keys
) -> None:
    """Whichever api process sees the moment; and a canary that was removed takes no cron with it."""
    cron = await crons_of(client, keys, "canary").create(hourly())
    await canary.claim("c1", 1)  # a live worker of the canary
    stable = crons_of(client, keys)
    await stable.fire(cron.cron_id, await come_due(client, keys, cron, hours_ago=2))
    assert (await canary.size(), await ledger.size()) == (1, 0)
    await client.hset(keys.releases, "canary", await now_ms(client) - RELEASE_SEEN_MS - 1000)
    await stable.fire(cron.cron_id, await come_due(client, keys, cron, hours_ago=1))
    assert (await canary.size(), await ledger.size()) == (1, 1)


async def slipway(server: ValkeyServer, *arguments: str) -> tuple[int, str, str]:
    """What `slipway crons …` ends with and prints on stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.cli", "crons", *arguments),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "REDIS_URL": server.url, "ENVIRONMENT": "production"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, problem = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), problem.decode()


async def test_an_operator_sees_pauses_and_deletes_crons_of_any_tenant(
    crons: Crons, client: Any, keys: Keys, valkey_server: ValkeyServer
) -> None:
    """The command line has no tenant: it is for who runs the service."""
    cron = await crons.create(hourly())
    other = await crons.create(hourly(tenant=TenantId("umbrella"), message="a\x1b[2Jb"))
    code, out, _ = await slipway(valkey_server, "list", "--json")
    assert code == 0
    assert [(found["cron_id"], found["tenant"]) for found in json.loads(out)] == [
        (cron.cron_id, "acme"),
        (other.cron_id, "umbrella"),
    ]
    code, out, _ = await slipway(valkey_server, "pause", other.cron_id)
    assert code == 0
    assert "paused" in out
    assert "\x1b" not in out, "what users wrote must not steer a terminal"
    assert await client.zrange(keys.crons, 0, -1) == [cron.cron_id.encode()]
    assert (await slipway(valkey_server, "delete", cron.cron_id, "--yes"))[0] == 0
    code, _, problem = await slipway(valkey_server, "resume", cron.cron_id)
    assert code == 1
    assert problem.startswith(f"error: there is no cron {cron.cron_id}")


@pytest.fixture(scope="module")
def service() -> Any:
    """One api and one worker, as their own processes."""
    with Service() as running:
        yield running


async def test_a_cron_is_made_read_changed_and_deleted_over_http(service: Service) -> None:
    async with service.client() as http:
        made = await http.post(
            "/crons", json={"message": "hello", "schedule": "30 8  * * MON-FRI", "timezone": "Asia/Tokyo"}
        )
        assert made.status_code == 201, made.text
        cron = made.json()
        assert made.headers["location"] == f"/crons/{cron['cron_id']}"
        assert cron["schedule"] == "30 8 * * MON-FRI"
        assert cron["next_run_at"].endswith("23:30:00Z")
        assert (cron["graph"], cron["multitask_strategy"], cron["enabled"]) == ("instant", "enqueue", True)
        assert cron in (await http.get("/crons")).json()
        address = f"/crons/{cron['cron_id']}"
        assert (await http.get(address)).json() == cron
        paused = (await http.patch(address, json={"enabled": False})).json()
        assert (paused["enabled"], paused["next_run_at"]) == (False, None)
        others = {"Authorization": f"Bearer {OTHER_KEY}"}
        for refused in (
            await http.get(address, headers=others),
            await http.patch(address, headers=others, json={"enabled": True}),
            await http.delete(address, headers=others),
        ):
            assert refused.status_code == 404
            assert refused.json()["type"] == "urn:slipway:problem:cron-not-found"
        assert (await http.get("/crons", headers=others)).json() == []
        assert (await http.delete(address)).status_code == 204
        assert (await http.get(address)).status_code == 404


async def test_a_cron_that_comes_due_is_answered_by_a_worker(service: Service) -> None:
    """The api process schedules by itself: nothing else has to run."""
    async with service.client() as http:
        made = (await http.post("/crons", json={"message": "tick", "schedule": "0 0 1 1 *"})).json()
        address = f"/crons/{made['cron_id']}"
        moment = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
        service.redis.zadd(Keys().crons, {made["cron_id"]: moment})

        async def look() -> Any:
            return (await http.get(address)).json()

        cron = await eventually(look, until=lambda found: found["last_run_id"] is not None, seconds=10)
        assert cron["last_error"] is None
        assert cron["last_run_at"] == "2026-01-01T00:00:00Z"

        async def answer() -> Any:
            return (await http.get(f"/runs/{cron['last_run_id']}")).json()

        run = await eventually(answer, until=lambda found: found["status"] == "success")
        assert run["result"]["answer"].strip() == "you said: tick"
        await http.delete(address)


async def test_a_message_for_later_waits_outside_the_queue_and_can_be_cancelled(service: Service) -> None:
    async with service.client() as http:
        put = await http.post("/chat/async", json={"message": "later", "after_seconds": 3600})
        assert put.status_code == 202, put.text
        run = put.json()
        assert run["status"] == "pending"
        assert service.redis.zcard("agent-tasks") == 0, "it would make a scaler start a worker now"
        due = service.redis.zscore(Keys().later, run["run_id"])
        assert due == pytest.approx(datetime.now(UTC).timestamp() * 1000 + HOUR_MS, abs=60_000)
        soon = (await http.post("/chat/async", json={"message": "soon", "thread_id": run["thread_id"]})).json()

        async def look() -> Any:
            return (await http.get(f"/runs/{soon['run_id']}")).json()

        await eventually(look, until=lambda found: found["status"] == "success")
        cancelled = (await http.post(f"/runs/{run['run_id']}/cancel")).json()
        assert cancelled["status"] == "cancelled"
        assert service.redis.zcard(Keys().later) == 0


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"schedule": "0 25 * * *"}, "bad hour; example: `30 8 * * MON-FRI`"),
        ({"schedule": "@daily"}, "instead of five; example"),
        ({"schedule": "0 0 31 2 *"}, "bad day-of-month"),
        ({"timezone": "Berlin"}, "such as Europe/Berlin"),
        ({"message": " "}, "must say something"),
        ({"message": "x" * 20_001}, "at most 20000"),
        ({"graph": "nothing"}, "use one of"),
        ({"multitask_strategy": "hurry"}, "reject"),
        ({"end_at": "2020-01-01T00:00:00Z"}, "never comes due"),
        ({"end_at": "2030-01-01T00:00:00"}, "timezone"),
        ({"end_at": "9999-12-31T23:59:59-14:00"}, "before the year 9999"),
        ({"end_at": "9999-12-31T23:59:59.999999Z"}, "before the year 9999"),
        ({"end_at": "0001-01-01T00:00:00+14:00"}, "before the year 9999"),
        ({"every": 5}, "every"),
    ],
)
async def test_a_wrong_cron_is_refused_with_what_is_wrong(service: Service, body: dict[str, Any], problem: str) -> None:
    async with service.client() as http:
        refused = await http.post("/crons", json={"message": "x", "schedule": "0 * * * *", **body})
        assert refused.status_code == 422
        assert problem in refused.json()["detail"]
        assert (await http.get("/crons")).json() == []


async def test_a_change_names_what_it_changes(service: Service) -> None:
    async with service.client() as http:
        made = (await http.post("/crons", json={"message": "x", "schedule": "0 * * * *"})).json()
        address = f"/crons/{made['cron_id']}"
        ending = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        assert (await http.patch(address, json={"end_at": ending})).json()["end_at"] is not None
        assert (await http.patch(address, json={"end_at": None})).json()["end_at"] is None
        for body, problem in (
            ({}, '{"enabled": false}'),
            ({"schedule": None}, "null"),
            ({"schedule": "* *"}, "instead of five"),
            ({"graph": "nothing"}, "use one of"),
            ({"end_at": "2020-01-01T00:00:00Z"}, "never comes due"),
            ({"end_at": "9999-12-31T23:59:59-14:00"}, "before the year 9999"),
        ):
            refused = await http.patch(address, json=body)
            assert refused.status_code == 422, body
            assert problem in refused.json()["detail"]
        missing: httpx.Response = await http.patch("/crons/none", json={"enabled": False})
        assert missing.status_code == 404
        await http.delete(address)
