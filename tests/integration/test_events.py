"""Event streams on a real Valkey: written under the fence, followed without gap or repeat."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from app.infra.errors import StaleEpoch
from app.infra.ids import STABLE, RunId
from app.infra.keys import Keys
from app.infra.redis import connect
from app.infra.settings import RunSettings
from app.runs.events import START, Event, EventWriter, is_event_id, position
from app.runs.hub import EventHub, hub
from app.runs.ledger import RunLedger
from app.runs.model import Claim, Run, Status
from tests.integration.conftest import new_run
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually


@pytest.fixture
async def events_hub(client: Any, keys: Keys) -> AsyncIterator[EventHub]:
    async with hub(client, keys) as running:
        yield running


async def claimed(ledger: RunLedger) -> tuple[Run, Claim]:
    await ledger.accept(new_run())
    claim = (await ledger.claim("w1", 1)).runs[0]
    return await ledger.get(claim.run_id), claim


def writer(client: Any, keys: Keys, claim: Claim, failures: list[Exception] | None = None) -> EventWriter:
    return EventWriter(client, keys, claim, most=20_000, failed=(failures if failures is not None else []).append)


async def follow(events_hub: EventHub, run_id: RunId, after: str = START) -> AsyncIterator[Event]:
    """As a client of the api follows: look, then tail."""
    async for events in events_hub.follow(run_id, await events_hub.look(run_id, after)):
        for event in events:
            yield event


async def collect(stream: AsyncIterator[Event]) -> list[Event]:
    async with asyncio.timeout(20):
        return [event async for event in stream]


async def test_a_follower_sees_every_event_once_and_in_order(
    ledger: RunLedger, client: Any, keys: Keys, events_hub: EventHub
) -> None:
    run, claim = await claimed(ledger)
    following = [asyncio.create_task(collect(follow(events_hub, run.run_id))) for _ in range(3)]
    out = writer(client, keys, claim)
    for number in range(2_000):
        out.put("custom", b"%d" % number)
        if number % 100 == 0:
            await out.flush()
    await out.flush()
    await ledger.complete(claim, run, Status.SUCCESS, {})
    for seen in await asyncio.gather(*following):
        assert [event.name for event in seen if event.name != "custom"] == ["metadata", "end"]
        assert [event.data for event in seen if event.name == "custom"] == [b"%d" % n for n in range(2_000)]
        ids = [position(event.id) for event in seen]
        assert ids == sorted(set(ids))


async def test_following_goes_on_right_after_any_event(
    ledger: RunLedger, client: Any, keys: Keys, events_hub: EventHub
) -> None:
    """A client that was cut off comes back with the last id it saw, while others are ahead of it."""
    run, claim = await claimed(ledger)
    out = writer(client, keys, claim)
    for number in range(1_500):  # more than the hub shares: the latecomer reads the stream itself
        out.put("custom", b"%d" % number)
    await out.flush()
    ahead = asyncio.create_task(collect(follow(events_hub, run.run_id)))
    everything = [entry.decode() for entry, _ in await client.xrange(keys.events(run.run_id))]
    resumed = {
        after: asyncio.create_task(collect(follow(events_hub, run.run_id, after)))
        for after in (everything[0], everything[1], everything[700], everything[-1])
    }
    await ledger.complete(claim, run, Status.SUCCESS, {})
    whole = [event.id for event in await ahead]
    for after, task in resumed.items():
        assert [event.id for event in await task] == whole[whole.index(after) + 1 :]


async def test_trimmed_history_is_said_and_not_hidden(
    ledger: RunLedger, client: Any, keys: Keys, events_hub: EventHub
) -> None:
    run, claim = await claimed(ledger)
    out = writer(client, keys, claim)
    for number in range(50):
        out.put("custom", b"%d" % number)
    await out.flush()
    early = (await client.xrange(keys.events(run.run_id)))[3][0].decode()
    await client.xtrim(keys.events(run.run_id), maxlen=10, approximate=False)
    await ledger.complete(claim, run, Status.SUCCESS, {})
    for after in (START, early):
        seen = await collect(follow(events_hub, run.run_id, after))
        assert seen[0].name == "gap"
        assert [event.name for event in seen[1:]].count("gap") == 0
        assert seen[-1].name == "end"


async def test_events_of_a_former_owner_are_refused_and_it_is_told(ledger: RunLedger, client: Any, keys: Keys) -> None:
    run, claim = await claimed(ledger)
    failures: list[Exception] = []
    out = writer(client, keys, claim, failures)
    await eventually(lambda: ledger.claim("w2", 1), until=lambda claims: bool(claims.runs), seconds=5)
    out.put("messages", b'"from the grave"')
    with pytest.raises(StaleEpoch):
        await out.flush()
    assert [type(error) for error in failures] == [StaleEpoch]
    assert b"messages" not in [fields[b"e"] for _, fields in await client.xrange(keys.events(run.run_id))]


async def test_a_batch_whose_reply_was_lost_is_not_written_again(ledger: RunLedger, client: Any, keys: Keys) -> None:
    run, claim = await claimed(ledger)
    out, again = writer(client, keys, claim), writer(client, keys, claim)
    for copy in (out, again):  # the second sends what the first has sent, as a repeated command does
        copy.put("custom", b"1")
        copy.put("custom", b"2")
        await copy.flush()
    entries = [fields for _, fields in await client.xrange(keys.events(run.run_id)) if fields[b"e"] == b"custom"]
    assert [fields[b"d"] for fields in entries] == [b"1", b"2"]


async def test_events_that_gathered_behind_a_lost_reply_are_written(ledger: RunLedger, client: Any, keys: Keys) -> None:
    """The run goes on while the writer waits to try again: the second try holds more than the first."""
    run, claim = await claimed(ledger)
    out, again = writer(client, keys, claim), writer(client, keys, claim)
    out.put("custom", b"1")
    await out.flush()
    for number in (b"1", b"2", b"3"):
        again.put("custom", number)
    await again.flush()
    entries = [fields for _, fields in await client.xrange(keys.events(run.run_id)) if fields[b"e"] == b"custom"]
    assert [(fields[b"d"], fields[b"s"]) for fields in entries] == [(b"1", b"1"), (b"2", b"2"), (b"3", b"3")]


async def test_followers_miss_nothing_over_an_outage_of_redis(keys: Keys, run_settings: RunSettings) -> None:
    """The subscription is lost with the connection; what was written meanwhile is read when it is back."""
    with ValkeyServer(aof=True, fsync="always") as server:
        client = connect(server.url, timeout_seconds=0.5)
        ledger = RunLedger(client, keys, run_settings.model_copy(update={"lease_seconds": 30.0}), STABLE)
        async with hub(client, keys) as running:
            run, claim = await claimed(ledger)
            following = asyncio.create_task(collect(follow(running, run.run_id)))
            out = writer(client, keys, claim)
            for number in range(30):
                out.put("custom", b"%d" % number)
                if number == 10:
                    await out.flush()
                    server.stop()
                if number == 20:
                    server.start()
            await out.flush()
            await ledger.complete(claim, run, Status.SUCCESS, {})
            seen = await following
        assert [event.data for event in seen if event.name == "custom"] == [b"%d" % n for n in range(30)]
        await client.aclose()


@pytest.mark.parametrize("ahead", ["99999999999999-0", f"{2**64 - 1}-{2**64 - 1}"])
async def test_an_id_from_the_future_hides_nothing_from_anybody(
    ledger: RunLedger, client: Any, keys: Keys, events_hub: EventHub, ahead: str
) -> None:
    """One client with a wrong Last-Event-ID must not hold up the others of its run, nor wait for ever itself."""
    run, claim = await claimed(ledger)
    wrong = asyncio.create_task(collect(follow(events_hub, run.run_id, ahead)))
    await eventually(lambda: asyncio.sleep(0, events_hub._feeds), until=bool)
    right = asyncio.create_task(collect(follow(events_hub, run.run_id)))
    out = writer(client, keys, claim)
    out.put("custom", b"1")
    await out.flush()
    await ledger.complete(claim, run, Status.SUCCESS, {})
    async with asyncio.timeout(5):
        assert [event.name for event in await right] == ["metadata", "custom", "end"]
        assert [event.name for event in await wrong] == ["gap", "custom", "end"]
        gap, end = await collect(follow(events_hub, run.run_id, ahead))
        assert (gap.name, end.name) == ("gap", "end"), "whoever has not seen this end is told it"
        assert await collect(follow(events_hub, run.run_id, end.id)) == []


async def test_after_the_end_nothing_is_waited_for(ledger: RunLedger, client: Any, keys: Keys) -> None:
    """A client that lost its connection right after `end` asks again."""
    run, claim = await claimed(ledger)
    await ledger.complete(claim, run, Status.SUCCESS, {})
    async with hub(client, keys) as running, asyncio.timeout(5):
        end = (await collect(follow(running, run.run_id)))[-1]
        assert await collect(follow(running, run.run_id, end.id)) == []


async def test_expired_events_are_a_gap_and_the_end_comes_from_the_record(
    ledger: RunLedger, client: Any, keys: Keys, events_hub: EventHub
) -> None:
    """A run's record outlives its events; whoever has seen that end is not told it for ever."""
    run, claim = await claimed(ledger)
    await ledger.complete(claim, run, Status.SUCCESS, {"answer": "42"})
    early = (await collect(follow(events_hub, run.run_id)))[0]
    await client.delete(keys.events(run.run_id))
    for after in (START, early.id):
        gap, end = await collect(follow(events_hub, run.run_id, after))
        assert (gap.name, gap.id, gap.data) == ("gap", after, b'{"after":"%s"}' % after.encode())
        assert (end.name, orjson.loads(end.data)["answer"]) == ("end", "42")
        assert await collect(follow(events_hub, run.run_id, end.id)) == []


async def test_three_hundred_followers_of_a_run_cost_one_reader(
    ledger: RunLedger, client: Any, keys: Keys, events_hub: EventHub
) -> None:
    """A run that many people watch must not be read once for each of them."""
    run, claim = await claimed(ledger)
    following = [asyncio.create_task(collect(follow(events_hub, run.run_id))) for _ in range(300)]
    await eventually(
        lambda: asyncio.sleep(0, list(events_hub._feeds.values())), until=lambda f: bool(f) and f[0].followers == 300
    )

    async def rest() -> bool:
        await client.config_resetstat()
        await asyncio.sleep(0.1)
        return not {"cmdstat_xrange", "cmdstat_xread"} & (await client.info("commandstats")).keys()

    await eventually(rest, until=bool)  # all have looked where they stand, and wait
    out = writer(client, keys, claim)
    for number in range(200):
        out.put("custom", b"%d" % number)
        await out.flush()
    await ledger.complete(claim, run, Status.SUCCESS, {})
    for seen in await asyncio.gather(*following):
        assert [event.data for event in seen if event.name == "custom"] == [b"%d" % n for n in range(200)]
    counted = await client.info("commandstats")
    assert counted["cmdstat_xread"]["calls"] <= 202, "one read for each time that the stream has grown, at most"
    assert "cmdstat_xrange" not in counted, "no follower that keeps up reads for itself"


async def test_followers_that_take_nothing_hold_up_nobody_and_no_connection(
    ledger: RunLedger, client: Any, keys: Keys, valkey_server: ValkeyServer
) -> None:
    """They stop between two events, as those whose clients do not read; ten thousand events later they go on."""
    run, claim = await claimed(ledger)
    few = connect(valkey_server.url, max_connections=3)  # one is subscribed, two are left for fifty followers
    async with hub(few, keys) as running:
        slow = [follow(running, run.run_id) for _ in range(50)]
        first = [[await anext(following)] for following in slow]
        quick = asyncio.create_task(collect(follow(running, run.run_id)))
        out = writer(client, keys, claim)
        for number in range(10_000):
            out.put("custom", b"%d" % number)
            if number % 1_000 == 999:
                await out.flush()
        await ledger.complete(claim, run, Status.SUCCESS, {})
        assert len(await quick) == 10_002
        seen = first[0] + [event async for event in slow[0]]
        assert [event.data for event in seen if event.name == "custom"] == [b"%d" % n for n in range(10_000)]
        for following in slow:
            await following.aclose()  # type: ignore[attr-defined]
    await few.aclose()


async def test_who_comes_while_the_hub_subscribes_is_heard_too(ledger: RunLedger, client: Any, keys: Keys) -> None:
    """After an outage clients come back at the very moment when the hub does."""
    run, claim = await claimed(ledger)
    asked, go_on = asyncio.Event(), asyncio.Event()
    make = client.pubsub

    def hesitant() -> Any:
        bell = make()
        subscribe = bell.subscribe

        async def hesitate(*channels: str) -> None:
            await subscribe(*channels)
            asked.set()
            await go_on.wait()

        bell.subscribe = hesitate
        return bell

    client.pubsub = hesitant
    async with hub(client, keys) as running, asyncio.timeout(5):
        await asked.wait()
        following = follow(running, run.run_id)
        assert (await anext(following)).name == "metadata"
        go_on.set()
        rest = asyncio.create_task(collect(following))
        await eventually(lambda: client.pubsub_channels("*grown*"), until=bool)
        await ledger.complete(claim, run, Status.SUCCESS, {})
        assert [event.name for event in await rest] == ["end"]


async def test_a_hub_forgets_a_run_when_its_last_follower_leaves(
    ledger: RunLedger, client: Any, keys: Keys, events_hub: EventHub
) -> None:
    """Clients come and go all day; what they leave behind would add up."""
    run, _ = await claimed(ledger)
    following = asyncio.create_task(collect(follow(events_hub, run.run_id)))
    await eventually(client.pubsub_channels, until=lambda heard: keys.grown(run.run_id).encode() in heard)
    following.cancel()  # as the server does with a client that has gone: no command can be sent on the way out
    await asyncio.wait({following})
    assert not events_hub._feeds
    await eventually(client.pubsub_channels, until=lambda heard: heard == [keys.ended.encode()])


async def test_a_hub_closes_although_the_client_swallows_a_cancellation(
    ledger: RunLedger, client: Any, keys: Keys
) -> None:
    """As `asyncio.wait_for` may on Python 3.11; an api that waits for its hub for ever is killed, not stopped."""
    run, _ = await claimed(ledger)
    reading = asyncio.Event()

    async def deaf(*_: Any, **__: Any) -> dict[bytes, Any]:
        reading.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return {}

    client.xread = deaf
    async with asyncio.timeout(5):
        async with hub(client, keys) as running:
            following = asyncio.create_task(collect(follow(running, run.run_id)))
            await reading.wait()
            while not following.done():
                following.cancel()  # again and again, as the server does; it may have been swallowed here too
                await asyncio.wait({following}, timeout=0.05)


@pytest.mark.parametrize(
    "text", ["", "x", "1", "1-", "-1", "1-x", "1-2-3", "１-2", "-5-0", f"{2**64}-0", "1" * 30 + "-0"]
)
def test_what_is_no_event_id_is_refused(text: str) -> None:
    assert not is_event_id(text)
