"""Runs that were put off: they wait outside the queue, become due once, and stay in the order of their thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.infra.errors import RedisUnavailable
from app.infra.ids import STABLE, Release, RunId, TenantId
from app.infra.keys import Keys
from app.infra.redis import connect
from app.infra.settings import RunSettings
from app.runs.ledger import RELEASE_SEEN_MS, RunLedger
from app.runs.model import Run, Status
from app.runs.schedule.crons import Crons
from app.runs.schedule.later import Later
from app.runs.schedule.scheduler import Scheduler, scheduling
from tests.integration.conftest import TENANT, new_run
from tests.support.proxy import Proxy
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually

HOUR = timedelta(hours=1)


@pytest.fixture
def later(client: Any, keys: Keys) -> Later:
    return Later(client, keys, STABLE)


@pytest.fixture
async def other_client(valkey_server: ValkeyServer) -> AsyncIterator[Any]:
    """The connection of a second process."""
    connected = connect(valkey_server.url)
    yield connected
    await connected.aclose()


async def put_off(ledger: RunLedger, thread_id: str | None = None) -> RunId:
    """A run that may begin in an hour."""
    return (await ledger.accept(replace(new_run(thread_id), after=HOUR))).run_id


async def let_an_hour_pass(client: Any, keys: Keys, *run_ids: RunId) -> None:
    """Make runs that were put off due: the test's clock is Redis's own."""
    await client.zadd(keys.later, dict.fromkeys(run_ids, 1), xx=True)


async def test_a_run_for_later_is_not_in_the_queue_and_does_not_hold_up_its_thread(
    ledger: RunLedger, later: Later, client: Any, keys: Keys
) -> None:
    """The queue's size makes a scaler start workers, an hour before they have anything to do."""
    first = await ledger.accept(new_run())
    thread_id = (await ledger.get(first.run_id)).thread_id
    claim = (await ledger.claim("w1", 1)).runs[0]
    await ledger.complete(claim, await ledger.get(first.run_id), Status.SUCCESS, {})
    put = await put_off(ledger, thread_id)
    assert await ledger.size() == 0
    assert (await ledger.thread(thread_id, TENANT)).active is None
    assert (await ledger.get(put)).status is Status.PENDING
    assert await later.promote([put]) == 0, "it is not due"
    assert await client.zcard(keys.later) == 1


async def test_a_due_run_is_moved_to_the_queue_and_wakes_a_worker(
    ledger: RunLedger, later: Later, client: Any, keys: Keys
) -> None:
    run_id = await put_off(ledger)
    await let_an_hour_pass(client, keys, run_id)
    assert await later.promote([run_id]) == 1
    assert await client.llen(keys.wake(STABLE)) == 1
    assert await client.zcard(keys.later) == 0
    assert await ledger.size() == 1
    claim = (await ledger.claim("w1", 1)).runs[0]
    assert (claim.run_id, claim.attempt) == (run_id, 1)
    thread_id = (await ledger.get(run_id)).thread_id
    assert (await ledger.thread(thread_id, TENANT)).active == run_id
    await ledger.complete(claim, await ledger.get(run_id), Status.SUCCESS, {})
    assert (await ledger.thread(thread_id, TENANT)).active is None


async def test_a_due_run_of_a_busy_thread_waits_behind_it(
    ledger: RunLedger, later: Later, client: Any, keys: Keys
) -> None:
    """Two runs of a thread at once would write over each other's conversation."""
    run_id = await put_off(ledger)
    busy = (await ledger.accept(new_run((await ledger.get(run_id)).thread_id))).run_id
    await let_an_hour_pass(client, keys, run_id)
    assert await later.promote([run_id]) == 1
    claims = (await ledger.claim("w1", 10)).runs
    assert [claim.run_id for claim in claims] == [busy]
    assert await ledger.size() == 1, "what waits behind its thread needs no worker"
    await ledger.complete(claims[0], await ledger.get(busy), Status.SUCCESS, {})
    assert [claim.run_id for claim in (await ledger.claim("w1", 10)).runs] == [run_id]


async def test_a_run_cancelled_before_its_time_never_becomes_due(
    ledger: RunLedger, later: Later, client: Any, keys: Keys
) -> None:
    run_id = await put_off(ledger)
    assert (await ledger.cancel(run_id, TENANT)).status is Status.CANCELLED
    assert await client.zcard(keys.later) == 0
    # A scheduler may have read its id just before.
    await client.zadd(keys.later, {run_id: 1})
    assert await later.promote([run_id]) == 0
    assert await client.zcard(keys.later) == 0
    assert await ledger.size() == 0


async def test_cancelling_a_run_while_it_moves_to_another_release_takes_it_from_its_new_queue(
    ledger: RunLedger, canary: RunLedger, later: Later, client: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stays in a queue is claimed and executed, although its run has ended."""
    run_id = await put_off(canary)
    await let_an_hour_pass(client, keys, run_id)
    read = ledger.get

    async def read_before_it_moves(run_id: RunId, tenant: TenantId | None = None) -> Run:
        run = await read(run_id, tenant)
        await later.promote([run_id])
        return run

    monkeypatch.setattr(ledger, "get", read_before_it_moves)
    assert (await ledger.cancel(run_id, TENANT)).status is Status.CANCELLED
    assert (await read(run_id)).release == STABLE
    assert await ledger.size() == 0


async def test_a_run_without_a_record_is_dropped(later: Later, client: Any, keys: Keys) -> None:
    """Its tenant was deleted; it must not come due for ever."""
    await client.zadd(keys.later, {"gone": 1})
    assert await later.promote([RunId("gone")]) == 0
    assert await client.zcard(keys.later) == 0


async def test_many_processes_move_each_run_once(ledger: RunLedger, client: Any, other_client: Any, keys: Keys) -> None:
    """Every api process tries."""
    runs = await asyncio.gather(*[put_off(ledger) for _ in range(20)])
    await let_an_hour_pass(client, keys, *runs)
    processes = [Later(connection, keys, STABLE) for connection in (client, other_client) for _ in range(2)]
    assert sum(await asyncio.gather(*[process.promote(runs) for process in processes])) == 20
    assert await ledger.size() == 20
    assert len((await ledger.claim("w1", 50)).runs) == 20


async def test_a_lost_reply_moves_the_run_once(
    ledger: RunLedger, client: Any, keys: Keys, valkey_server: ValkeyServer
) -> None:
    """The client then sends the script again: a second entry behind the thread would run it twice."""
    free, behind = await put_off(ledger), await put_off(ledger)
    thread_id = (await ledger.get(behind)).thread_id
    busy = (await ledger.accept(new_run(thread_id))).run_id
    await let_an_hour_pass(client, keys, free, behind)
    async with Proxy(valkey_server.port) as proxy:
        through = connect(valkey_server.url.replace(str(valkey_server.port), str(proxy.port)))
        evalsha = through.evalsha

        async def lost(*args: Any) -> Any:
            proxy.lose_next_reply()
            return await evalsha(*args)

        through.evalsha = lost  # type: ignore[method-assign, assignment]
        await Later(through, keys, STABLE).promote([free])
        await Later(through, keys, STABLE).promote([behind])
        assert proxy.lost == 2
        await through.aclose()
    assert await client.lrange(keys.thread_waiting(thread_id), 0, -1) == [behind.encode()]
    assert {member.decode() for member in await client.zrange(keys.queue(STABLE), 0, -1)} == {free, busy}


async def test_a_long_pause_before_a_retry_waits_outside_the_queue_and_keeps_the_thread(
    ledger: RunLedger, later: Later, client: Any, keys: Keys
) -> None:
    """A provider may ask for ten minutes; meanwhile the thread stays its own, and no worker is kept for it."""
    run_id = (await ledger.accept(new_run())).run_id
    thread_id = (await ledger.get(run_id)).thread_id
    claim = (await ledger.claim("w1", 1)).runs[0]
    await ledger.give_back(claim, pause=timedelta(minutes=10), used=1)
    next_message = (await ledger.accept(new_run(thread_id))).run_id
    assert await ledger.size() == 0
    await let_an_hour_pass(client, keys, run_id)
    assert await later.promote([run_id]) == 1
    again = (await ledger.claim("w1", 10)).runs
    assert [(claim.run_id, claim.attempt) for claim in again] == [(run_id, 2)]
    await ledger.complete(again[0], await ledger.get(run_id), Status.SUCCESS, {})
    assert [claim.run_id for claim in (await ledger.claim("w1", 10)).runs] == [next_message]


async def test_a_run_for_later_leaves_a_release_that_is_gone_and_stays_on_one_that_is_there(
    ledger: RunLedger, canary: RunLedger, later: Later, client: Any, keys: Keys
) -> None:
    """A canary that was removed in between must not take the run with it."""
    stays, moves = await put_off(canary), await put_off(canary)
    await canary.claim("c1", 1)  # a live worker of the canary
    await let_an_hour_pass(client, keys, stays, moves)
    assert await later.promote([stays]) == 1
    assert [claim.run_id for claim in (await canary.claim("c1", 10)).runs] == [stays]
    seconds, _ = await client.time()
    await client.hset(keys.releases, "canary", seconds * 1000 - RELEASE_SEEN_MS - 1000)
    assert await later.promote([moves]) == 1
    claims = (await ledger.claim("w1", 10)).runs
    assert [claim.run_id for claim in claims] == [moves]
    run = await ledger.get(moves)
    assert (run.release, (await ledger.thread(run.thread_id, TENANT)).release) == (STABLE, STABLE)
    await ledger.complete(claims[0], run, Status.SUCCESS, {})
    assert await ledger.size() == 0, "it is taken from the queue that it is in"


async def test_a_run_for_later_follows_its_thread_to_another_release(
    ledger: RunLedger, canary: RunLedger, client: Any, keys: Keys
) -> None:
    """The thread moved on with another message; the run must not wait in a queue that nobody serves."""
    run_id = await put_off(canary)
    thread_id = (await ledger.get(run_id)).thread_id
    following = (await ledger.accept(new_run(thread_id))).run_id  # the canary has no worker: the thread moves
    assert (await ledger.get(following)).release == STABLE
    await let_an_hour_pass(client, keys, run_id)
    assert await Later(client, keys, Release("canary")).promote([run_id]) == 1
    first = (await ledger.claim("w1", 10)).runs[0]
    await ledger.complete(first, await ledger.get(following), Status.SUCCESS, {})
    assert [claim.run_id for claim in (await ledger.claim("w1", 10)).runs] == [run_id]
    assert (await ledger.get(run_id)).release == STABLE


async def test_an_idle_scheduler_sends_one_command_in_five_seconds(client: Any, keys: Keys, later: Later) -> None:
    """What every api process costs when nothing is planned."""
    scheduler = Scheduler(client, keys, later, Crons(client, keys, RunSettings(), STABLE, ["agent"]))
    await scheduler.round()  # loads the script
    await client.config_resetstat()
    assert await scheduler.round() == pytest.approx(5.0, abs=0.1)
    sent = await client.info("commandstats")
    assert sent["cmdstat_evalsha"]["calls"] == 1
    assert not {"cmdstat_hgetall", "cmdstat_hmget", "cmdstat_zadd", "cmdstat_eval"} & sent.keys()


async def test_the_scheduler_wakes_for_what_comes_next(
    ledger: RunLedger, client: Any, keys: Keys, later: Later
) -> None:
    run_id = await put_off(ledger)
    seconds, micros = await client.time()
    await client.zadd(keys.later, {run_id: seconds * 1000 + micros // 1000 + 300})
    scheduler = Scheduler(client, keys, later, Crons(client, keys, RunSettings(), STABLE, ["agent"]))
    assert await scheduler.round() <= 0.4
    async with scheduling(client, keys, later, Crons(client, keys, RunSettings(), STABLE, ["agent"])):
        await eventually(ledger.size, until=lambda size: size == 1, seconds=3)


async def test_the_scheduler_outlives_an_outage(keys: Keys, run_settings: RunSettings) -> None:
    """Redis restarts while a run becomes due; nobody starts the scheduler again."""
    with ValkeyServer(aof=True, fsync="always") as server:
        client = connect(server.url, timeout_seconds=0.5)
        ledger, later = RunLedger(client, keys, run_settings, STABLE), Later(client, keys, STABLE)
        run_id = await put_off(ledger)
        async with scheduling(client, keys, later, Crons(client, keys, run_settings, STABLE, ["agent"])) as scheduler:
            server.stop()
            with pytest.raises(RedisUnavailable):
                await scheduler.round()
            scheduler.wake()
            server.start()
            await let_an_hour_pass(client, keys, run_id)
            await eventually(ledger.size, until=lambda size: size == 1, seconds=8)
        await client.aclose()


async def test_a_short_pause_is_kept_behind_an_unfinished_run(
    ledger: RunLedger, later: Later, client: Any, keys: Keys
) -> None:
    """The end of the run before it must not make it begin too early."""
    first = await ledger.accept(new_run())
    thread_id = (await ledger.get(first.run_id)).thread_id
    put = (await ledger.accept(replace(new_run(thread_id), after=timedelta(seconds=30)))).run_id
    claim = (await ledger.claim("w1", 1)).runs[0]
    await ledger.complete(claim, await ledger.get(first.run_id), Status.SUCCESS, {})
    assert (await ledger.claim("w1", 1)).runs == []
    await let_an_hour_pass(client, keys, put)
    assert await later.promote([put]) == 1
    assert [claim.run_id for claim in (await ledger.claim("w1", 1)).runs] == [put]
