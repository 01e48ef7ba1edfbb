"""Streams and waiting requests whose data are gone: said at once and in so many words, never waited for."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.infra.ids import STABLE
from app.infra.keys import Keys
from app.infra.redis import connect
from app.infra.settings import RunSettings
from app.runs.hub import hub
from app.runs.ledger import RunLedger
from app.runs.model import Status
from app.runs.standing import Standing
from tests.integration.conftest import new_run
from tests.integration.test_events import claimed, collect, follow, writer
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually

LONG_LEASE = RunSettings(lease_seconds=30.0)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub checks every tenth of a second whether its runs exist."""
    monkeypatch.setattr("app.runs.hub._CHECK_SECONDS", 0.1)


async def test_a_follower_is_told_when_redis_comes_back_without_its_run(keys: Keys) -> None:
    with ValkeyServer() as server:
        client = connect(server.url, timeout_seconds=0.5)
        ledger = RunLedger(client, keys, LONG_LEASE, STABLE)
        async with hub(client, keys) as running:
            run, _ = await claimed(ledger)
            following = asyncio.create_task(collect(follow(running, run.run_id)))
            await eventually(client.pubsub_channels, until=lambda heard: keys.grown(run.run_id).encode() in heard)
            server.kill()
            server.start()
            metadata, lost = await following
            assert (metadata.name, lost.name, lost.id) == ("metadata", "lost", metadata.id)
            assert orjson.loads(lost.data) == {"run_id": run.run_id}
        await client.aclose()


async def test_a_follower_is_told_which_of_its_events_redis_has_forgotten(keys: Keys, tmp_path: Path) -> None:
    """`appendfsync everysec` may lose a second: the stream goes on from before what the client has seen."""
    with ValkeyServer(aof=True) as server:
        client = connect(server.url, timeout_seconds=0.5)
        ledger = RunLedger(client, keys, LONG_LEASE, STABLE)
        async with hub(client, keys) as running:
            run, claim = await claimed(ledger)
            out = writer(client, keys, claim)
            seen: list[Any] = []

            async def watch() -> None:
                async for events in running.follow(run.run_id, Standing()):
                    seen.extend(events)

            async def brings(data: bytes) -> None:
                out.put("custom", data)
                await out.flush()
                await eventually(lambda: asyncio.sleep(0, seen), until=lambda _: bool(seen) and seen[-1].data == data)

            watching = asyncio.create_task(watch())
            await brings(b'"kept"')
            server.stop()
            shutil.copytree(server.folder, tmp_path / "earlier")
            server.start()
            await brings(b'"forgotten"')
            server.kill()
            shutil.rmtree(server.folder)
            shutil.copytree(tmp_path / "earlier", server.folder)
            server.start()
            await eventually(lambda: asyncio.sleep(0, seen), until=lambda _: seen[-1].name == "gap")
            await brings(b'"in its place"')
            await ledger.complete(claim, run, Status.SUCCESS, {})
            async with asyncio.timeout(10):
                await watching
        names = [(event.name, event.data) for event in seen[1:-1]]
        kept = seen[1].id
        assert names == [
            ("custom", b'"kept"'),
            ("custom", b'"forgotten"'),
            ("gap", b'{"after":"%s"}' % kept.encode()),
            ("custom", b'"in its place"'),
        ]
        assert seen[3].id == kept, "who connects again goes on where the stream does"
        assert seen[-1].name == "end"
        await client.aclose()


async def test_an_id_whose_event_redis_has_forgotten_is_a_gap_although_the_stream_has_grown_since(
    ledger: RunLedger, client: Any, keys: Keys
) -> None:
    """A client comes back after the crash, with the id of an event that is no more and younger ones behind it."""
    run, claim = await claimed(ledger)
    out = writer(client, keys, claim)
    for number in (b"1", b"2", b"3"):
        out.put("custom", number)
        await out.flush()
    ids = [entry.decode() for entry, _ in await client.xrange(keys.events(run.run_id))]
    await client.xdel(keys.events(run.run_id), ids[2])
    await ledger.complete(claim, run, Status.SUCCESS, {})
    async with hub(client, keys) as running:
        gap, *rest = await collect(follow(running, run.run_id, ids[2]))
        assert (gap.name, gap.id) == ("gap", ids[1])
        assert [event.name for event in rest] == ["custom", "end"]


async def test_a_run_deleted_under_its_followers_is_lost_to_them(
    soon: None, ledger: RunLedger, client: Any, keys: Keys
) -> None:
    """FLUSHALL, or the deletion of a thread, breaks no connection and rings nowhere."""
    async with hub(client, keys) as running:
        run, _ = await claimed(ledger)
        kept = await ledger.accept(new_run())
        following = asyncio.create_task(collect(follow(running, run.run_id)))
        other = asyncio.create_task(collect(follow(running, kept.run_id)))
        await eventually(client.pubsub_channels, until=lambda heard: len(heard) == 3)
        await client.delete(keys.run(run.run_id), keys.events(run.run_id))
        assert [event.name for event in await following] == ["metadata", "lost"]
        await ledger.cancel(kept.run_id, new_run().tenant)
        assert [event.name for event in await other] == ["metadata", "end"], "looking again repeats nothing"


async def test_what_is_trimmed_while_a_slow_follower_sleeps_is_a_gap(
    ledger: RunLedger, client: Any, keys: Keys
) -> None:
    run, claim = await claimed(ledger)
    async with hub(client, keys) as running:
        slow = follow(running, run.run_id)
        first = await anext(slow)
        out = writer(client, keys, claim)
        for number in range(2_000):
            out.put("custom", b"%d" % number)
        await out.flush()
        await client.xtrim(keys.events(run.run_id), maxlen=1_000, approximate=False)
        await ledger.complete(claim, run, Status.SUCCESS, {})
        gap, *rest = [event async for event in slow]
        assert (gap.name, gap.id) == ("gap", first.id)
        assert [event.data for event in rest[:-1]] == [b"%d" % n for n in range(1_000, 2_000)]
        assert rest[-1].name == "end"


async def test_a_stream_that_outgrows_the_hub_loses_nothing(ledger: RunLedger, client: Any, keys: Keys) -> None:
    """The api was frozen, or Redis slow to answer: more came than one read brings."""
    run, claim = await claimed(ledger)
    read, go_on = client.xread, asyncio.Event()

    async def late(*arguments: Any, **options: Any) -> Any:
        await go_on.wait()
        return await read(*arguments, **options)

    client.xread = late
    async with hub(client, keys) as running:
        following = asyncio.create_task(collect(follow(running, run.run_id)))
        out = writer(client, keys, claim)
        await eventually(lambda: asyncio.sleep(0, running._feeds), until=bool)
        for number in range(1_200):
            out.put("custom", b"%d" % number)
        await out.flush()
        await ledger.complete(claim, run, Status.SUCCESS, {})
        go_on.set()
        seen = await following
        assert [event.name for event in seen if event.name != "custom"] == ["metadata", "end"]
        assert [event.data for event in seen if event.name == "custom"] == [b"%d" % n for n in range(1_200)]


async def test_a_dead_subscribed_connection_is_noticed_and_everything_looked_at_again(
    monkeypatch: pytest.MonkeyPatch, ledger: RunLedger, client: Any, keys: Keys
) -> None:
    """A firewall forgets a connection without a word: neither messages nor answers come."""
    monkeypatch.setattr("app.runs.hub._DEAD_SECONDS", 0.2)
    run, claim = await claimed(ledger)
    made: list[Any] = []
    make = client.pubsub

    def deaf_at_first() -> Any:
        bell = make()
        made.append(bell)
        if len(made) == 1:
            hear = bell.parse_response

            async def deaf(*_: Any, **__: Any) -> Any:
                await hear()
                await asyncio.Event().wait()

            bell.parse_response = deaf
        return bell

    client.pubsub = deaf_at_first
    async with hub(client, keys) as running:
        following = asyncio.create_task(collect(follow(running, run.run_id)))
        await ledger.complete(claim, run, Status.SUCCESS, {})
        assert [event.name for event in await following][-1] == "end"
        with running.end_of(run.run_id) as end:
            await eventually(lambda: asyncio.sleep(0, made), until=lambda bells: len(bells) >= 2)
            await asyncio.wait_for(end.wait(), 5)


async def test_a_thousand_followers_that_look_again_leave_connections_for_requests(
    monkeypatch: pytest.MonkeyPatch, client: Any, keys: Keys, valkey_server: ValkeyServer
) -> None:
    """After an outage every open stream asks Redis where it stands, in the very moment when everybody else is back."""
    few = connect(valkey_server.url, max_connections=32)
    ledger = RunLedger(few, keys, LONG_LEASE, STABLE)
    async with hub(few, keys) as running:
        runs = [(await ledger.accept(new_run())).run_id for _ in range(20)]
        following = [asyncio.create_task(collect(follow(running, runs[number % 20]))) for number in range(1_000)]
        await eventually(
            lambda: asyncio.sleep(0, [feed.followers for feed in running._feeds.values()]),
            until=lambda followers: sum(followers) == 1_000,
        )
        look: Any = running.look
        looked = 0

        async def counted(*which: Any) -> Any:
            nonlocal looked
            standing = await look(*which)
            looked += 1
            return standing

        monkeypatch.setattr(running, "look", counted)
        await client.client_kill_filter(_type="pubsub")
        await eventually(lambda: asyncio.sleep(0, looked), until=bool, every=0.001)
        answered = 0
        while looked < 1_000:
            await ledger.get(runs[0])
            answered += 1
        assert answered >= 15, f"{answered} requests had their turn while a thousand followers looked"
        for run_id in runs:
            await ledger.cancel(run_id, new_run().tenant)
        for seen in await asyncio.gather(*following):
            assert [event.name for event in seen] == ["metadata", "end"]
    await few.aclose()
