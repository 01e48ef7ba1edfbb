"""Streams of an api process whose connections to Redis are cut again and again while clients come and go."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import redis.exceptions

from app.infra.errors import RedisUnavailable
from app.infra.ids import RunId
from app.infra.keys import Keys
from app.infra.redis import connect
from app.runs.hub import EventHub, hub
from app.runs.ledger import RunLedger
from app.runs.standing import Standing
from tests.integration.conftest import new_run
from tests.support.proxy import Proxy
from tests.support.valkey import ValkeyServer

_FOLLOWERS, _ROUNDS, _CUTS_PER_SECOND, _PATIENCE_SECONDS = 8, 15, 25.0, 10.0


async def standing(of: EventHub, run_id: RunId) -> Standing:
    """Where a new client stands, asked until Redis answers."""
    while True:
        try:
            return await of.look(run_id)
        except RedisUnavailable:
            await asyncio.sleep(0.02)


async def grow(client: Any, keys: Keys, run_id: RunId, dice: random.Random) -> None:
    """Some events and the end, as workers write them."""
    for name in (*["updates"] * 5, "end"):
        await asyncio.sleep(dice.random() * 0.05)
        await client.xadd(keys.events(run_id), {"e": name, "d": "{}"})
        await client.publish(keys.grown(run_id), run_id)


async def test_a_subscribed_connection_that_was_cut_is_not_made_again(valkey_server: ValkeyServer) -> None:
    """Two tasks use it: should each of them connect again, they would read each other's replies."""
    async with Proxy(valkey_server.port) as proxy:
        through = connect(valkey_server.url.replace(f":{valkey_server.port}/", f":{proxy.port}/"))
        async with through.pubsub() as bell:
            await bell.subscribe("one")
            assert (await bell.get_message(timeout=None))["type"] == "subscribe"
            listening = asyncio.create_task(bell.get_message(timeout=None))
            await asyncio.sleep(0)
            proxy.cut()
            with pytest.raises(redis.exceptions.ConnectionError):
                await listening
            for use in (bell.subscribe("two"), bell.ping(), bell.get_message(timeout=None)):
                with pytest.raises(redis.exceptions.ConnectionError, match="has ended"):
                    await use
        with pytest.raises(redis.exceptions.ConnectionError, match="has ended"):
            await bell.subscribe("three")
        await through.aclose()


async def test_every_follower_gets_the_end_however_often_connections_are_cut(
    valkey_server: ValkeyServer, client: Any, keys: Keys, ledger: RunLedger
) -> None:
    """Followers subscribe while the listener meets a cut: should that end the hub's listening, every stream of the
    process stands still until the process is started again."""
    dice = random.Random(7)
    async with Proxy(valkey_server.port) as proxy:
        through = connect(valkey_server.url.replace(f":{valkey_server.port}/", f":{proxy.port}/"), timeout_seconds=1)
        async with hub(through, keys) as following:

            async def follow() -> list[str]:
                run_id = (await ledger.accept(new_run())).run_id
                growing = asyncio.create_task(grow(client, keys, run_id, dice))
                names: list[str] = []
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    async for events in following.follow(run_id, await standing(following, run_id)):
                        names += [event.name for event in events]
                await growing
                return names

            async def cut() -> None:
                while True:
                    await asyncio.sleep(dice.expovariate(_CUTS_PER_SECOND))
                    proxy.cut()

            cutting = asyncio.create_task(cut())
            for _ in range(_ROUNDS):
                for names in await asyncio.gather(*(follow() for _ in range(_FOLLOWERS))):
                    assert names == ["metadata", *["updates"] * 5, "end"]
            cutting.cancel()
        await through.aclose()
