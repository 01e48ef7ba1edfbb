"""Scripts that go out together on connections of their own: whoever calls one gets its own reply, whatever happens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.exceptions

from app.infra.errors import RedisUnavailable
from app.infra.redis import Lua, connect
from tests.support.proxy import Proxy
from tests.support.valkey import ValkeyServer

ECHO = Lua("return ARGV[1]", name="echo")
COUNT = Lua("return redis.call('INCR', KEYS[1])", name="count")
FAIL = Lua("return redis.error_reply('NOTHREAD')", name="fail")


async def echo(client: Any, text: str) -> str:
    reply: bytes = await ECHO(client, keys=[], args=[text])
    return reply.decode()


async def test_a_burst_larger_than_the_pool_is_answered_and_leaves_room_for_others(valkey_server: ValkeyServer) -> None:
    client = connect(valkey_server.url, max_connections=4)
    await ECHO(client, keys=[], args=["warm"])
    burst = [asyncio.create_task(echo(client, str(number))) for number in range(2_000)]
    await asyncio.sleep(0)
    async with asyncio.timeout(2):
        assert await client.ping()
    assert await asyncio.gather(*burst) == [str(number) for number in range(2_000)]
    assert int((await client.info("clients"))["connected_clients"]) <= 4 + 1
    await client.aclose()


async def test_an_error_reply_reaches_only_its_caller(client: Any) -> None:
    replies = await asyncio.gather(
        echo(client, "a"), FAIL(client, keys=[], args=[]), echo(client, "b"), return_exceptions=True
    )
    assert (replies[0], replies[2]) == ("a", "b")
    assert isinstance(replies[1], redis.exceptions.ResponseError)


async def test_a_caller_that_gives_up_does_not_shift_the_replies_of_others(client: Any) -> None:
    calls = [asyncio.create_task(echo(client, str(number))) for number in range(100)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    kept = await asyncio.gather(*calls[1::2])
    assert kept == [str(number) for number in range(1, 100, 2)]
    assert await echo(client, "after") == "after"


async def test_after_a_restart_the_first_call_succeeds() -> None:
    """Every connection that rested is dead then, and one repetition is all that a call has."""
    with ValkeyServer() as server:
        client = connect(server.url, timeout_seconds=0.5)
        await asyncio.gather(*[echo(client, str(number)) for number in range(1_000)])
        server.kill()
        with pytest.raises(RedisUnavailable):
            await echo(client, "away")
        server.start()
        assert await echo(client, "back") == "back"
        await client.aclose()


async def test_a_server_that_does_not_answer_is_an_outage_in_time_and_its_late_replies_reach_nobody() -> None:
    with ValkeyServer() as server:
        client = connect(server.url, timeout_seconds=0.2)
        await echo(client, "warm")
        server.freeze()
        async with asyncio.timeout(2):
            with pytest.raises(RedisUnavailable):
                await echo(client, "late")
        server.thaw()
        assert await echo(client, "next") == "next"
        await client.aclose()


async def test_a_lost_reply_is_asked_for_again(valkey_server: ValkeyServer) -> None:
    async with Proxy(valkey_server.port) as proxy:
        client = connect(f"redis://:s3cret@127.0.0.1:{proxy.port}/0")
        await client.delete("counted")
        assert await COUNT(client, keys=["counted"], args=[]) == 1
        proxy.lose_next_reply()
        assert await COUNT(client, keys=["counted"], args=[]) == 3, "it ran twice, as every script of ours may"
        assert proxy.lost == 1
        await client.delete("counted")
        await client.aclose()
