"""The checkpoint saver against a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import redis.asyncio as aioredis
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointTuple
from langgraph.checkpoint.base.id import uuid6

from app.infra.errors import RedisUnavailable, StaleEpoch
from app.infra.fence import Fence
from app.infra.ids import RunId, ThreadId
from app.infra.keys import Keys
from app.infra.redis import connect
from app.memory.checkpoints import CheckpointDamaged, RedisSaver, ThreadTaken
from tests.support.contents import contents
from tests.support.proxy import Proxy
from tests.support.valkey import ValkeyServer

KEYS = Keys()
DAY = 86_400

Saver = Callable[..., RedisSaver]


@pytest.fixture
def saver(client: aioredis.Redis) -> Saver:
    """Makes a saver; unfenced and with a day to live unless said otherwise."""

    def make(**options: Any) -> RedisSaver:
        return RedisSaver(client, KEYS, **{"fence": None, "ttl_seconds": DAY, **options})

    return make


def at(thread_id: str, checkpoint_id: str | None = None, namespace: str = "") -> RunnableConfig:
    found: dict[str, Any] = {"thread_id": thread_id, "checkpoint_ns": namespace}
    if checkpoint_id:
        found["checkpoint_id"] = checkpoint_id
    return {"configurable": found}


def checkpoint(values: dict[str, Any], versions: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        v=2,
        id=str(uuid6()),
        ts="2026-01-01T00:00:00+00:00",
        channel_values=values,
        channel_versions=versions,
        versions_seen={},
        updated_channels=None,
    )


async def steps(
    saver: RedisSaver, thread_id: str, count: int, namespace: str = "", **facts: Any
) -> list[RunnableConfig]:
    """A thread of `count` checkpoints: `fixed` never changes, `step` changes in each."""
    config = at(thread_id, namespace=namespace)
    configs = []
    for step in range(count):
        made = checkpoint({"fixed": "as ever", "step": step}, {"fixed": 1, "step": step + 1})
        new: dict[str, Any] = {"step": step + 1} if step else {"fixed": 1, "step": 1}
        metadata: Any = {"source": "loop", "step": step, "parents": {}, **facts}
        config = await saver.aput(config, made, metadata, new)
        configs.append(config)
    return configs


async def listed(saver: RedisSaver, config: RunnableConfig | None, **options: Any) -> list[CheckpointTuple]:
    return [found async for found in saver.alist(config, **options)]


async def keys_of(client: aioredis.Redis, part: str = "") -> set[str]:
    return {key.decode() async for key in client.scan_iter(match=f"*{part}*", count=1000)}


async def test_an_untouched_channel_lives_as_long_as_its_thread(saver: Saver, client: aioredis.Redis) -> None:
    """A time to live per value would let a channel vanish from a thread that is in use."""
    short, long = saver(ttl_seconds=5), saver(ttl_seconds=500)
    await steps(short, "t", 1)
    newest = await short.aget_tuple(at("t"))
    assert newest is not None
    await short.aput_writes(newest.config, [("c", 1)], "task")
    keys = await keys_of(client, ":t:")
    assert len(keys) == 5
    assert {await client.ttl(key) for key in keys} <= {4, 5}
    await long.aput_writes(newest.config, [("c", 1)], "task")
    assert {await client.ttl(key) for key in keys} <= {499, 500}
    made = checkpoint({"fixed": "as ever", "step": 1}, {"fixed": 1, "step": 2})
    await short.aput(newest.config, made, {"source": "loop"}, {"step": 2})
    assert len({await client.pexpiretime(key) for key in keys}) == 1, "all keys of a thread end at the same moment"


async def test_a_run_that_outlives_its_thread_stores_all_of_its_state_again(
    saver: Saver, client: aioredis.Redis
) -> None:
    """The run still holds every value; referring to blobs that are gone would lose them."""
    one = saver()
    [config] = await steps(one, "t", 1)
    await client.flushall()
    made = checkpoint({"fixed": "as ever", "step": 9}, {"fixed": 1, "step": 10})
    await one.aput(config, made, {"source": "loop"}, {"step": 10})
    found = await one.aget_tuple(at("t"))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"fixed": "as ever", "step": 9}


async def test_a_channel_version_is_stored_once(saver: Saver, client: aioredis.Redis) -> None:
    """Storing all channels in each checkpoint grows with the square of the thread's length."""
    await steps(saver(), "t", 10)
    assert await client.hlen(f"{KEYS.checkpoints(ThreadId('t'))}:blobs") == 11


async def test_a_repeated_put_and_repeated_writes_change_nothing(saver: Saver, client: aioredis.Redis) -> None:
    """A lost reply is answered by sending the command again."""
    one = saver()
    made = checkpoint({"a": 1}, {"a": 1})
    config = await one.aput(at("t"), made, {"source": "loop", "step": 0}, {"a": 1})
    await one.aput_writes(config, [("a", "first"), ("b", 2)], "task")
    before = await contents(client)
    await one.aput(at("t"), made, {"source": "loop", "step": 0}, {"a": 1})
    await one.aput_writes(config, [("a", "first"), ("b", 2)], "task")
    assert await contents(client) == before
    await one.aput_writes(config, [("a", "second")], "task")
    found = await one.aget_tuple(config)
    assert found is not None
    assert found.pending_writes == [("task", "a", "first"), ("task", "b", 2)]


async def test_a_lost_reply_is_answered_by_the_same_write_again() -> None:
    """The write was done, the client never heard: it asks once more on a new connection, and the state is the same."""
    with ValkeyServer() as server:
        async with Proxy(server.port) as proxy:
            through, direct = connect(f"redis://127.0.0.1:{proxy.port}/0"), connect(server.url)
            one = RedisSaver(through, KEYS, fence=Fence(RunId("run-1"), 1), ttl_seconds=DAY)
            await direct.hset(KEYS.epochs, "run-1", "1")
            await steps(one, "other", 1)  # the server knows the script now, so the next call is one command
            proxy.lose_next_reply()
            [config] = await steps(one, "t", 1)
            await one.aput_writes(config, [("warm", 0)], "warm-up")
            proxy.lose_next_reply()
            await one.aput_writes(config, [("c", 1), ("c", 2)], "task")
            assert proxy.lost == 2
            [found] = await listed(RedisSaver(direct, KEYS, fence=None, ttl_seconds=DAY), at("t"))
            assert found.checkpoint["channel_values"] == {"fixed": "as ever", "step": 0}
            assert found.pending_writes == [("task", "c", 1), ("task", "c", 2), ("warm-up", "warm", 0)]
            await through.aclose()
            await direct.aclose()


async def test_a_prune_beside_a_run_takes_nothing_from_it(saver: Saver) -> None:
    """Retention runs whenever it runs: a thread may be in the middle of a step."""
    one = saver()
    pruned = asyncio.Event()

    async def prune() -> None:
        while not pruned.is_set():
            await saver().aprune(["t"])

    pruning = asyncio.create_task(prune())
    await steps(one, "t", 200)
    pruned.set()
    await pruning
    found = await listed(one, at("t"))
    assert found[0].checkpoint["channel_values"] == {"fixed": "as ever", "step": 199}


async def test_an_older_epoch_is_refused_and_nothing_changes(saver: Saver, client: aioredis.Redis) -> None:
    """A frozen worker that wakes up after a take-over must not overwrite the thread."""
    refused: list[StaleEpoch] = []
    run = RunId("run-1")
    old = saver(fence=Fence(run, 1), on_stale=refused.append)
    new = saver(fence=Fence(run, 2))
    await client.hset(KEYS.epochs, run, "1")
    config = (await steps(old, "t", 2))[-1]
    await client.hset(KEYS.epochs, run, "2")
    await new.aput_writes(config, [("step", "new")], "task")
    before = await contents(client)

    made = checkpoint({"step": "old"}, {"step": 7})
    with pytest.raises(StaleEpoch, match="at epoch 2, this worker holds 1"):
        await old.aput(config, made, {"source": "loop"}, {"step": 7})
    with pytest.raises(StaleEpoch):
        await old.aput_writes(config, [("step", "old"), ("__error__", "old")], "task")
    with pytest.raises(StaleEpoch):
        await old.adelete_thread("t")
    with pytest.raises(StaleEpoch):
        await old.aprune(["t"])
    await client.hdel(KEYS.epochs, run)
    with pytest.raises(StaleEpoch, match="is over"):
        await new.aput(config, made, {"source": "loop"}, {"step": 7})

    await client.hset(KEYS.epochs, run, "2")
    assert await contents(client) == before
    assert [error.held for error in refused] == [1, 1, 1, 1]


async def test_a_fenced_saver_writes_the_run_into_the_metadata(saver: Saver, client: aioredis.Redis) -> None:
    """`adelete_for_runs` finds a run's checkpoints by it."""
    await client.hset(KEYS.epochs, "run-1", "1")
    one = saver(fence=Fence(RunId("run-1"), 1))
    [config] = await steps(one, "t", 1)
    found = await one.aget_tuple(config)
    assert found is not None
    assert found.metadata["run_id"] == "run-1"


async def test_an_outage_is_an_error_and_not_an_empty_thread() -> None:
    """A saver that answers "no checkpoint" makes a resumed run begin anew."""
    with ValkeyServer(aof=True) as server:
        client = connect(server.url, timeout_seconds=0.2)
        saver = RedisSaver(client, KEYS, fence=None, ttl_seconds=DAY)
        [config] = await steps(saver, "t", 1)
        server.freeze()
        with pytest.raises(RedisUnavailable):
            await saver.aget_tuple(at("t"))
        server.thaw()
        server.stop()
        made = checkpoint({}, {})
        calls: list[Callable[[], Any]] = [
            lambda: saver.aget_tuple(at("t")),
            lambda: saver.aput(config, made, {"source": "loop"}, {}),
            lambda: saver.aput_writes(config, [("c", 1)], "task"),
            lambda: listed(saver, at("t")),
            lambda: listed(saver, None),
            lambda: saver.adelete_thread("t"),
            lambda: saver.adelete_for_runs(["r"]),
            lambda: saver.acopy_thread("t", "u"),
            lambda: saver.aprune(["t"]),
        ]
        for call in calls:
            with pytest.raises(RedisUnavailable):
                await call()
        server.start()
        found = await saver.aget_tuple(at("t"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"fixed": "as ever", "step": 0}
        await client.aclose()


async def test_a_lost_value_is_an_error_and_not_a_smaller_state(saver: Saver, client: aioredis.Redis) -> None:
    """Eviction or a hand at the keys must not look like a channel that was never written."""
    one = saver()
    await steps(one, "t", 1)
    await client.delete(f"{KEYS.checkpoints(ThreadId('t'))}:blobs")
    with pytest.raises(CheckpointDamaged, match="the value of channel 'fixed'"):
        await one.aget_tuple(at("t"))
    await client.delete(f"{KEYS.checkpoints(ThreadId('t'))}:records")
    with pytest.raises(CheckpointDamaged, match="its record"):
        await one.aget_tuple(at("t"))


async def test_namespaces_may_hold_separators_and_do_not_mix(saver: Saver) -> None:
    """Subgraphs are named `outer:<task>|inner:<task>`; one namespace may begin with another."""
    one = saver()
    namespaces = ["", "a", "a|b", "a:1|b:2", "a\1", "*"]
    for place, namespace in enumerate(namespaces):
        await steps(one, "t", place + 1, namespace)
    for place, namespace in enumerate(namespaces):
        assert len(await listed(one, at("t", namespace=namespace))) == place + 1
        newest = await one.aget_tuple(at("t", namespace=namespace))
        assert newest is not None
        assert newest.checkpoint["channel_values"]["step"] == place
    everything = await listed(one, {"configurable": {"thread_id": "t"}})
    ids = [found.checkpoint["id"] for found in everything]
    assert len(ids) == 21
    assert ids == sorted(ids, reverse=True)


async def test_a_thousand_checkpoints_are_listed_pruned_and_deleted(saver: Saver, client: aioredis.Redis) -> None:
    """Long threads are read a page at a time, and a prune leaves nothing of what it drops."""
    one = saver()
    configs = await steps(one, "long", 1000, run_id="r")
    for config in configs[::10]:
        await one.aput_writes(config, [("c", "x")], "task")
    found = await listed(one, at("long"))
    assert [each.metadata["step"] for each in found] == list(reversed(range(1000)))
    assert all(
        each.checkpoint["channel_values"] == {"fixed": "as ever", "step": each.metadata["step"]} for each in found
    )
    third = await listed(one, at("long"), filter={"step": 3})
    assert [each.config for each in third] == [configs[3]]
    page = await listed(one, at("long"), before=configs[500], limit=45)
    assert [each.metadata["step"] for each in page] == list(reversed(range(455, 500)))

    await one.acopy_thread("long", "copy")
    await one.aprune(["long"])
    assert [each.config for each in await listed(one, at("long"))] == configs[-1:]
    root = KEYS.checkpoints(ThreadId("long"))
    assert await client.hlen(f"{root}:blobs") == 2
    assert await client.exists(f"{root}:writes", f"{root}:written") == 0
    assert len(await listed(one, at("copy"))) == 1000

    await one.adelete_for_runs(["r"])
    assert await keys_of(client) == set()


async def test_a_deleted_thread_is_named_nowhere_whatever_was_done_to_it_before(
    saver: Saver, client: aioredis.Redis
) -> None:
    """Who asks for deletion asks for all of it: also what lists name it under runs whose checkpoints are gone."""
    one = saver()
    for run in ("pruned", "kept"):
        await steps(one, "t", 3, run_id=run)
    await client.hset(KEYS.epochs, "wrote", "1")
    newest = await one.aget_tuple(at("t"))
    assert newest is not None
    await saver(fence=Fence(RunId("wrote"), 1)).aput_writes(newest.config, [("c", 1)], "task")
    await one.aprune(["t"])
    await one.adelete_thread("t")
    assert await keys_of(client) == {KEYS.epochs}


async def test_deleting_a_thread_leaves_no_key_of_it(saver: Saver, client: aioredis.Redis) -> None:
    one = saver()
    [config] = await steps(one, "t", 1, run_id="r")
    await steps(one, "t", 2, namespace="sub:1", run_id="a run/with: {odd} id")
    await one.aput_writes(config, [("c", 1)], "task")
    await steps(one, "other", 1, run_id="r")
    await one.adelete_thread("t")
    assert await keys_of(client, ":t:") == set()
    assert await keys_of(client, "cp-run") == {"{agent-tasks}:cp-run:r"}
    assert await client.smembers("{agent-tasks}:cp-run:r") == {b"other"}
    await one.adelete_thread("t")


async def test_deleting_a_run_leaves_the_values_that_later_checkpoints_use(saver: Saver) -> None:
    one = saver()
    [first] = await steps(one, "t", 1, run_id="first")
    made = checkpoint({"fixed": "as ever", "step": 1}, {"fixed": 1, "step": 2})
    await one.aput(first, made, {"source": "loop", "run_id": "second"}, {"step": 2})
    await one.adelete_for_runs(["first"])
    [found] = await listed(one, at("t"))
    assert found.checkpoint["channel_values"] == {"fixed": "as ever", "step": 1}
    assert await one.aget_tuple(first) is None


async def test_a_thread_with_checkpoints_of_its_own_is_no_target_of_a_copy(saver: Saver) -> None:
    """Two histories in one thread would make its newest checkpoint a matter of chance; a repeated copy is fine."""
    one = saver()
    await steps(one, "t", 2)
    await one.acopy_thread("t", "u")
    await one.acopy_thread("t", "u")
    await steps(one, "u", 1)
    with pytest.raises(ThreadTaken):
        await one.acopy_thread("t", "u")
    assert len(await listed(one, at("u"))) == 3


async def test_without_a_config_every_thread_is_listed(saver: Saver, client: aioredis.Redis) -> None:
    """By a list of threads: a walk over the key space would look at every run, event and tenant of the service."""
    one = saver()
    for thread in ("a", "b", "c"):
        await steps(one, thread, 2)
    await one.adelete_thread("c")
    await client.config_resetstat()
    assert len(await listed(one, None)) == 4
    assert len(await listed(one, None, filter={"step": 1})) == 2
    assert len(await listed(one, None, limit=3)) == 3
    assert not {"cmdstat_scan", "cmdstat_keys"} & set(await client.info("commandstats"))


async def test_the_list_of_threads_forgets_those_that_have_run_out(saver: Saver, client: aioredis.Redis) -> None:
    """Else it would grow for as long as the service lives."""
    await steps(saver(ttl_seconds=1), "short", 1)
    await steps(saver(ttl_seconds=600), "long", 1)
    await client.zadd(KEYS.checkpoint_threads, {"long ago": 1})
    assert await client.zrange(KEYS.checkpoint_threads, 0, -1) == [b"long ago", b"short", b"long"]
    [config] = await steps(saver(), "new", 1)
    assert await client.zrange(KEYS.checkpoint_threads, 0, -1) == [b"short", b"long", b"new"]
    await saver(ttl_seconds=DAY * 2).aput_writes(config, [("c", 1)], "task")
    ends = await client.zscore(KEYS.checkpoint_threads, "new")
    assert ends is not None
    expires = await client.expiretime(f"{KEYS.checkpoints(ThreadId('new'))}:index")
    assert expires - 1 <= ends <= expires


async def test_a_shadow_release_has_checkpoints_of_its_own(client: aioredis.Redis, saver: Saver) -> None:
    """A copy of the traffic must not write into real threads."""
    shadow = RedisSaver(client, Keys("shadow:next:"), fence=None, ttl_seconds=DAY)
    await steps(shadow, "t", 1)
    assert await saver().aget_tuple(at("t")) is None
    assert all(key.startswith("shadow:next:{agent-tasks}:cp") for key in await keys_of(client))


async def test_the_synchronous_methods_serve_other_threads_and_refuse_the_loop(saver: Saver) -> None:
    """A node may be a plain function: LangGraph runs it in a thread, where it may ask for its state."""
    one = saver()
    thread = str(uuid4())

    def work() -> None:
        made = checkpoint({"a": 1}, {"a": 1})
        config = one.put(at(thread), made, {"source": "loop"}, {"a": 1})
        one.put_writes(config, [("a", 2)], "task")
        assert one.get_tuple(config) == next(iter(one.list(at(thread))))
        one.copy_thread(thread, "copy")
        one.prune([thread])
        one.delete_for_runs(["none"])
        one.delete_thread(thread)
        assert list(one.list(at(thread))) == []

    await asyncio.to_thread(work)
    with pytest.raises(RuntimeError, match="would block the event loop"):
        one.get_tuple(at(thread))
