"""Deleting a thread or a tenant: nothing of it is left, and nobody can bring any of it back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from app.infra.auth import new_key
from app.infra.errors import RunNotFound, StaleEpoch, ThreadNotFound, Unavailable
from app.infra.ids import STABLE, RunId, TenantId, ThreadId, UserId, new_id
from app.infra.keys import Keys
from app.infra.settings import RunSettings
from app.memory.checkpoints import RedisSaver
from app.runs.administration.desk import Administration
from app.runs.administration.removal import Removal, Removed
from app.runs.administration.tenant_removal import TenantNotFound, TenantRemoval
from app.runs.events import EventWriter
from app.runs.ledger import RunLedger
from app.runs.model import Claim, Failure, NewRun, Run, Status
from app.runs.schedule.crons import Crons
from app.runs.schedule.model import NewCron
from tests.integration.conftest import TENANT, new_run
from tests.support.waiting import eventually

OTHER = TenantId("umbrella")


@pytest.fixture
def removal(client: Any, keys: Keys) -> Removal:
    return Removal(client, keys)


@pytest.fixture
def crons(client: Any, keys: Keys, run_settings: RunSettings) -> Crons:
    return Crons(client, keys, run_settings, STABLE, ["agent"])


async def everything(client: Any) -> AsyncIterator[tuple[str, Any]]:
    """Every key in Redis with all that it holds, as text."""
    readers = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
    }
    async for key in client.scan_iter("*"):
        yield key.decode(), await readers[await client.type(key)](key)


async def mentions(client: Any, *words: str) -> list[str]:
    """Keys whose name or content has one of `words` anywhere."""
    found = []
    async for key, content in everything(client):
        text = f"{key} {content!r}"
        found += [f"{word} in {key}" for word in words if word in text]
    return found


def saver(client: Any, keys: Keys, claim: Claim) -> RedisSaver:
    return RedisSaver(client, keys, fence=claim.fence, ttl_seconds=1000)


async def checkpoint(client: Any, keys: Keys, claim: Claim, thread_id: ThreadId) -> None:
    """One checkpoint of the claimed run, with a write after it."""
    from langgraph.checkpoint.base import empty_checkpoint

    state = empty_checkpoint()
    state["channel_values"], state["channel_versions"] = {"secret": f"said in {thread_id}"}, {"secret": "1"}
    config: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}, "metadata": {"run_id": claim.run_id}}
    writer = saver(client, keys, claim)
    at = await writer.aput(config, state, {"source": "loop", "step": 0}, {"secret": "1"})
    await writer.aput_writes(at, [("secret", "more")], "task-1")


async def a_full_thread(
    ledger: RunLedger, client: Any, keys: Keys, tenant: str = TENANT
) -> tuple[Run, Claim, list[RunId]]:
    """A thread with a dead letter, a running run, two that wait behind it and one for tomorrow: the running one's
    record and claim, and the ids of all."""
    first = await ledger.accept(new_run(tenant=tenant, idempotency_key=new_id(), digest="a" * 64))
    failed = await ledger.get(first.run_id)
    thread_id = failed.thread_id
    (claim,) = (await ledger.claim("w-first", 1)).runs
    await checkpoint(client, keys, claim, thread_id)
    await ledger.complete(claim, failed, Status.ERROR, failed.identity, failure=Failure("ValueError", "c1"))
    ids = [first.run_id, (await ledger.accept(new_run(thread_id, tenant=tenant))).run_id]
    (claim,) = (await ledger.claim("w-second", 1)).runs
    await checkpoint(client, keys, claim, thread_id)
    await client.hset(keys.effects(claim.run_id), "call", f"sent for {thread_id}")
    ids += [(await ledger.accept(new_run(thread_id, tenant=tenant))).run_id for _ in range(2)]
    tomorrow = NewRun(RunId(new_id()), thread_id, TenantId(tenant), UserId("ada"), "agent", {}, after=timedelta(days=1))
    ids.append((await ledger.accept(tomorrow)).run_id)
    return await ledger.get(claim.run_id), claim, ids


async def test_nothing_names_a_deleted_thread(
    ledger: RunLedger, removal: Removal, crons: Crons, client: Any, keys: Keys
) -> None:
    """Somebody asked to be forgotten: keys, members, fields and values are searched, whatever made them."""
    kept, _, kept_ids = await a_full_thread(ledger, client, keys)
    run, _, ids = await a_full_thread(ledger, client, keys, tenant=TENANT)
    thread_id = run.thread_id
    await crons.create(NewCron(TENANT, UserId("ada"), "agent", "hi", "0 9 * * *", thread_id=thread_id))
    kept_before = sorted(await mentions(client, kept.thread_id, *kept_ids))
    assert len(await mentions(client, thread_id)) > 10, "the search must be able to find something"

    removed = await removal.thread(thread_id, TENANT)
    assert (removed.threads, removed.runs, removed.crons) == (1, 5, 1)
    await client.delete(keys.claim("w-first"), keys.claim("w-second"))  # replies to claims: gone after a lease
    assert await mentions(client, thread_id, *ids) == []
    assert sorted(await mentions(client, kept.thread_id, *kept_ids)) == [
        line for line in kept_before if ":claim:" not in line
    ]
    with pytest.raises(ThreadNotFound):
        await removal.thread(thread_id, TENANT)


async def test_a_worker_of_a_deleted_thread_cannot_bring_it_back(
    ledger: RunLedger, removal: Removal, client: Any, keys: Keys
) -> None:
    """It was in the middle of a step, and each of its writes would make a key anew."""
    run, claim, _ = await a_full_thread(ledger, client, keys)
    await removal.thread(run.thread_id, TENANT)
    before = {key: content async for key, content in everything(client)}

    with pytest.raises(StaleEpoch) as raised:
        await checkpoint(client, keys, claim, run.thread_id)
    assert raised.value.current is None, "it is over, not taken over"
    with pytest.raises(StaleEpoch):
        await saver(client, keys, claim).aput_writes(
            {"configurable": {"thread_id": run.thread_id, "checkpoint_ns": "", "checkpoint_id": "c"}},
            [("secret", "late")],
            "task-2",
        )
    events = EventWriter(client, keys, claim, most=100, failed=lambda _: None)
    events.put("custom", b"{}")
    with pytest.raises(StaleEpoch):
        await events.finish()
    with pytest.raises(StaleEpoch):
        await ledger.complete(claim, run, Status.SUCCESS, run.identity)
    with pytest.raises(StaleEpoch):
        await ledger.give_back(claim, pause=timedelta(), used=1)
    with pytest.raises(ThreadNotFound):
        await ledger.accept(new_run(run.thread_id))
    assert (await ledger.claim("w-third", 10)).runs == []
    after = {key: content async for key, content in everything(client)}
    for changed in (before, after):
        changed.pop(keys.releases), changed.pop(keys.wake(STABLE), None)
    assert after == before


async def test_a_deletion_cut_short_hides_the_thread_and_goes_on_later(
    ledger: RunLedger, removal: Removal, client: Any, keys: Keys
) -> None:
    """Between two steps the process may die: nobody must find half a thread, and the rest must not stay for ever."""
    run, _, ids = await a_full_thread(ledger, client, keys)
    administration = Administration(client, keys, ledger)

    class CutError(Exception):
        pass

    def cut(_: Removed) -> None:
        raise CutError

    with pytest.raises(CutError):
        await removal.thread(run.thread_id, TENANT, told=cut)
    assert await mentions(client, run.thread_id), "something is left"
    with pytest.raises(ThreadNotFound):
        await ledger.accept(new_run(run.thread_id))
    with pytest.raises(ThreadNotFound):
        await administration.thread(run.thread_id, TENANT)
    with pytest.raises(ThreadNotFound):
        await removal.thread(run.thread_id, OTHER)
    await administration.delete_thread(run.thread_id, None)  # an operator, who names no tenant
    await client.delete(keys.claim("w-first"), keys.claim("w-second"))
    assert await mentions(client, run.thread_id, *ids) == []


async def test_a_deletion_cut_short_is_finished_by_another_process(
    ledger: RunLedger, removal: Removal, client: Any, keys: Keys
) -> None:
    """Whoever asked for it may never come back, and nobody else can see that something is left."""
    run, _, ids = await a_full_thread(ledger, client, keys)
    await a_full_thread(ledger, client, keys)

    class CutError(Exception):
        pass

    def cut(_: Removed) -> None:
        raise CutError

    with pytest.raises(CutError):
        await removal.thread(run.thread_id, TENANT, told=cut)
    another = Removal(client, keys)
    assert await another.finish() == 0, "it may be at work still"
    assert await mentions(client, run.thread_id)
    assert await another.finish(begun_before=timedelta()) == 1
    await client.delete(keys.claim("w-first"), keys.claim("w-second"))
    assert await mentions(client, run.thread_id, *ids) == []
    assert await another.finish(begun_before=timedelta()) == 0
    assert await client.zcard(keys.threads_of(TENANT)) == 1, "the other thread is nobody's to delete"


async def test_another_tenants_thread_is_not_deleted(ledger: RunLedger, removal: Removal) -> None:
    accepted = await ledger.accept(new_run())
    run = await ledger.get(accepted.run_id)
    with pytest.raises(ThreadNotFound):
        await removal.thread(run.thread_id, OTHER)
    assert (await ledger.get(run.run_id)).status is Status.PENDING


async def test_who_follows_a_deleted_run_is_told(ledger: RunLedger, removal: Removal, client: Any, keys: Keys) -> None:
    """A stream would else stay open until its client gives up."""
    run, _, _ = await a_full_thread(ledger, client, keys)
    ear = client.pubsub()
    await ear.subscribe(keys.ended, keys.grown(run.run_id))
    heard: set[tuple[bytes, bytes]] = set()
    await removal.thread(run.thread_id, TENANT)
    wanted = {(keys.ended.encode(), run.run_id.encode()), (keys.grown(run.run_id).encode(), run.run_id.encode())}
    async with asyncio.timeout(5):
        while not wanted <= heard:
            message = await ear.get_message(timeout=1)
            if message is not None and message["type"] == "message":
                heard.add((message["channel"], message["data"]))
    await ear.aclose()


async def test_an_idempotency_key_that_another_run_has_taken_stays(
    ledger: RunLedger, removal: Removal, client: Any, keys: Keys
) -> None:
    """The first use was forgotten after its window; the second is somebody else's promise."""
    first = await ledger.accept(new_run(idempotency_key="k", digest="a" * 64))
    (window,) = [key async for key in client.scan_iter(f"{keys.idempotency(TENANT, '')}*")]
    await client.delete(window)
    second = await ledger.accept(new_run(idempotency_key="k", digest="b" * 64))
    await removal.thread((await ledger.get(first.run_id)).thread_id, TENANT)
    again = await ledger.accept(new_run(idempotency_key="k", digest="b" * 64))
    assert (again.run_id, again.created) == (second.run_id, False)


async def test_nothing_names_a_deleted_tenant(
    ledger: RunLedger, removal: Removal, crons: Crons, client: Any, run_settings: RunSettings, keys: Keys
) -> None:
    """Under every prefix: a shadow release has a part of the tenant's traffic, under keys of its own."""
    shadow_keys = Keys("shadow:next:")
    shadow = RunLedger(client, shadow_keys, run_settings, STABLE)
    await a_full_thread(ledger, client, keys, OTHER)
    await a_full_thread(ledger, client, keys, OTHER)
    await a_full_thread(shadow, client, shadow_keys, OTHER)
    await crons.create(NewCron(OTHER, UserId("ada"), "agent", "hi", "0 9 * * *"))
    orphan = await ledger.accept(new_run(tenant=OTHER))
    orphan_thread = (await ledger.get(orphan.run_id)).thread_id
    await client.delete(keys.thread(orphan_thread), keys.thread_runs(orphan_thread))  # expired before its run
    key = new_key(tenant=OTHER)
    await client.hset(keys.api_key(key.key_id), mapping=key.record)
    kept = await ledger.accept(new_run())
    kept_key = new_key(tenant=TENANT)
    await client.hset(keys.api_key(kept_key.key_id), mapping=kept_key.record)
    forgotten: list[TenantId] = []

    async def forget(tenant: TenantId) -> int:
        forgotten.append(tenant)
        return 3

    told: list[int] = []
    removed = await TenantRemoval(client).tenant(
        OTHER, forget=forget, told=lambda so_far: told.append(so_far.runs), settle_seconds=0
    )
    assert (removed.threads, removed.runs, removed.crons, removed.api_keys) == (3, 16, 1, 1)
    assert forgotten == [OTHER, OTHER], "at first, and once more when no run can remember anything"
    assert told == sorted(told)
    assert told[-1] == 16
    assert await mentions(client, OTHER) == []
    assert (await ledger.get(kept.run_id)).status is Status.PENDING
    assert await client.exists(keys.api_key(kept_key.key_id))
    with pytest.raises(TenantNotFound):
        await TenantRemoval(client).tenant(OTHER, forget=None, settle_seconds=0)


async def test_nothing_is_touched_while_memories_cannot_be_deleted(
    ledger: RunLedger, removal: Removal, client: Any, keys: Keys
) -> None:
    """Half a deletion that calls itself done is worse than none."""
    await a_full_thread(ledger, client, keys)
    before = {key: content async for key, content in everything(client)}

    async def forget(_: TenantId) -> int:
        raise Unavailable("Qdrant does not answer")

    with pytest.raises(Unavailable):
        await TenantRemoval(client).tenant(TENANT, forget=forget, settle_seconds=0)
    assert {key: content async for key, content in everything(client)} == before


async def test_a_thread_deleted_in_the_midst_of_traffic_leaves_nothing(
    ledger: RunLedger, removal: Removal, client: Any, keys: Keys
) -> None:
    """Messages arrive, workers claim, end and hand back runs, users cancel: whatever the order, nothing comes after."""
    first = await ledger.accept(new_run())
    thread_id = (await ledger.get(first.run_id)).thread_id
    ids = [first.run_id]
    over = asyncio.Event()

    async def talk() -> None:
        while not over.is_set():
            with contextlib.suppress(ThreadNotFound):
                ids.append((await ledger.accept(new_run(thread_id))).run_id)

    async def work(worker: str) -> None:
        while not over.is_set():
            for claim in (await ledger.claim(worker, 2)).runs:
                with contextlib.suppress(StaleEpoch):
                    run = await ledger.claimed(claim)
                    await checkpoint(client, keys, claim, run.thread_id)
                    if len(ids) % 3:
                        await ledger.complete(claim, run, Status.SUCCESS, run.identity)
                    else:
                        await ledger.give_back(claim, pause=timedelta(), used=0)

    async def cancel() -> None:
        while not over.is_set():
            with contextlib.suppress(RunNotFound):
                await ledger.cancel(ids[-1], TENANT)

    busy = [asyncio.create_task(part) for part in (talk(), talk(), work("w1"), work("w2"), cancel())]
    await eventually(lambda: client.zcard(keys.thread_runs(thread_id)), until=lambda count: count >= 20)
    await removal.thread(thread_id, TENANT)
    seen = len(ids)
    for _ in range(50):  # the others go on against what is gone
        await client.ping()
    over.set()
    await asyncio.gather(*busy)
    assert len(ids) <= seen + 2, "no message is accepted afterwards"
    await client.delete(keys.claim("w1"), keys.claim("w2"))
    assert await mentions(client, thread_id, *ids) == []


async def test_a_long_thread_is_deleted_in_pages(ledger: RunLedger, removal: Removal, client: Any) -> None:
    """Redis serves others meanwhile, and progress can be told."""
    first = await ledger.accept(new_run())
    thread_id = (await ledger.get(first.run_id)).thread_id
    await asyncio.gather(*[ledger.accept(new_run(thread_id)) for _ in range(249)])
    told: list[int] = []
    removed = await removal.thread(thread_id, TENANT, told=lambda so_far: told.append(so_far.runs))
    assert removed.runs == 250
    assert told == [100, 200, 250, 250]
    assert await mentions(client, thread_id) == []
