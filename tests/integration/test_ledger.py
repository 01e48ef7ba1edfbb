"""The ledger on a real Valkey: who owns a run, and what survives which race."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from app.infra.errors import IdempotencyMismatch, RunNotFound, StaleEpoch, ThreadNotFound
from app.infra.ids import STABLE, RunId, TenantId, ThreadId
from app.infra.keys import Keys
from app.runs.ledger import RELEASE_SEEN_MS, RunLedger
from app.runs.model import Claim, Status, Stop
from tests.integration.conftest import TENANT, new_run
from tests.support.waiting import eventually


async def only(ledger: RunLedger, worker: str = "w1") -> Claim:
    """The one run that is due."""
    claims = (await ledger.claim(worker, 10)).runs
    assert len(claims) == 1, claims
    return claims[0]


async def test_an_accepted_run_is_pending_with_its_thread_and_first_event(
    ledger: RunLedger, client: Any, keys: Keys
) -> None:
    """2xx is answered after this: everything that a reader or worker needs must be there by then."""
    accepted = await ledger.accept(new_run())
    run = await ledger.get(accepted.run_id, TENANT)
    assert (run.status, run.attempt, run.release, run.user) == (Status.PENDING, 0, STABLE, "ada")
    assert (await ledger.thread(run.thread_id, TENANT)).active == run.run_id
    events = await client.xrange(keys.events(run.run_id))
    assert [fields[b"e"] for _, fields in events] == [b"metadata"]
    assert await ledger.size() == 1


async def test_accepting_the_same_run_twice_writes_it_once(ledger: RunLedger) -> None:
    """A reply can be lost after the script ran; the client then sends it again."""
    run = new_run("t-1")
    with pytest.raises(ThreadNotFound):
        await ledger.accept(run)
    first = new_run()
    assert await ledger.accept(first) == await ledger.accept(first)
    assert await ledger.size() == 1


async def test_an_idempotency_key_gives_the_first_run_and_refuses_another_request(ledger: RunLedger) -> None:
    first = await ledger.accept(new_run(idempotency_key="k", digest="a" * 64))
    again = await ledger.accept(new_run(idempotency_key="k", digest="a" * 64))
    assert (again.run_id, again.created) == (first.run_id, False)
    with pytest.raises(IdempotencyMismatch):
        await ledger.accept(new_run(idempotency_key="k", digest="b" * 64))
    other_tenant = await ledger.accept(new_run(tenant="umbrella", idempotency_key="k", digest="b" * 64))
    assert other_tenant.created, "keys of two tenants must not meet"
    assert await ledger.size() == 2


async def test_fifty_at_once_with_one_idempotency_key_make_one_run(ledger: RunLedger) -> None:
    made = await asyncio.gather(*[ledger.accept(new_run(idempotency_key="k", digest="a" * 64)) for _ in range(50)])
    assert len({accepted.run_id for accepted in made}) == 1
    assert sum(accepted.created for accepted in made) == 1


async def test_a_run_is_claimed_by_one_of_many_workers(ledger: RunLedger) -> None:
    for _ in range(20):
        await ledger.accept(new_run())
    claims = await asyncio.gather(*[ledger.claim(f"w{i}", 3) for i in range(12)])
    taken = [claim.run_id for claim_of_worker in claims for claim in claim_of_worker.runs]
    assert len(taken) == len(set(taken)) == 20
    assert await ledger.size() == 20, "running runs stay in the queue: a scaler must see them"


async def test_a_lost_claim_reply_brings_the_same_runs_again(ledger: RunLedger, client: Any) -> None:
    """The client repeats a command whose connection broke; it must not consume a second attempt."""
    await ledger.accept(new_run())
    sent: list[tuple[Any, ...]] = []
    evalsha = client.evalsha

    async def remember(*args: Any) -> Any:
        sent.append(args)
        return await evalsha(*args)

    client.evalsha = remember
    first = await only(ledger)
    runs, _ = await evalsha(*sent[-1])
    assert [(RunId(run[0].decode()), int(run[1]), int(run[2])) for run in runs] == [
        (first.run_id, first.epoch, first.attempt)
    ]
    assert (await ledger.get(first.run_id)).attempt == 1


async def test_a_silent_workers_run_comes_due_by_itself_under_a_higher_epoch(ledger: RunLedger) -> None:
    """A killed worker says nothing; its lease ends."""
    await ledger.accept(new_run())
    first = await only(ledger)
    assert not (await ledger.claim("w2", 1)).runs, "the lease has not ended yet"
    second = await eventually(lambda: ledger.claim("w2", 1), until=lambda claims: bool(claims.runs), seconds=5)
    assert second.runs[0].run_id == first.run_id
    assert second.runs[0].epoch > first.epoch
    assert second.runs[0].attempt == 2


async def test_the_former_owner_can_neither_end_nor_give_back_the_run(ledger: RunLedger) -> None:
    """A frozen worker that wakes up must not overwrite what its successor does."""
    await ledger.accept(new_run())
    first = await only(ledger)
    run = await ledger.get(first.run_id)
    second = await eventually(lambda: ledger.claim("w2", 1), until=lambda claims: bool(claims.runs), seconds=5)
    with pytest.raises(StaleEpoch):
        await ledger.complete(first, run, Status.SUCCESS, {"answer": "old"})
    with pytest.raises(StaleEpoch):
        await ledger.give_back(first, pause=timedelta(), used=0)
    await ledger.complete(second.runs[0], run, Status.SUCCESS, {"answer": "new"})
    assert (await ledger.get(run.run_id)).result["answer"] == "new"  # type: ignore[index]
    with pytest.raises(StaleEpoch):
        await ledger.complete(first, run, Status.ERROR, {})
    assert (await ledger.get(run.run_id)).status is Status.SUCCESS, "a run ends once"


async def test_completing_twice_is_completing_once(ledger: RunLedger, client: Any, keys: Keys) -> None:
    """The same owner may repeat it when the reply was lost: one end event, no error."""
    await ledger.accept(new_run())
    claim = await only(ledger)
    run = await ledger.get(claim.run_id)
    for _ in range(2):
        await ledger.complete(claim, run, Status.SUCCESS, {"answer": "x"})
    names = [fields[b"e"] for _, fields in await client.xrange(keys.events(run.run_id))]
    assert names == [b"metadata", b"end"]
    assert await ledger.size() == 0


async def test_runs_of_one_thread_go_one_after_the_other(ledger: RunLedger) -> None:
    """Two at once would write over each other's conversation."""
    accepted = await ledger.accept(new_run())
    thread_id = (await ledger.get(accepted.run_id)).thread_id
    second, third = await ledger.accept(new_run(thread_id)), await ledger.accept(new_run(thread_id))
    order = []
    for _ in range(3):
        claim = await only(ledger)
        order.append(claim.run_id)
        await ledger.complete(claim, await ledger.get(claim.run_id), Status.SUCCESS, {})
    assert order == [accepted.run_id, second.run_id, third.run_id]
    assert (await ledger.thread(thread_id, TENANT)).active is None


async def test_a_thread_of_another_tenant_is_not_found(ledger: RunLedger) -> None:
    accepted = await ledger.accept(new_run())
    run = await ledger.get(accepted.run_id)
    with pytest.raises(ThreadNotFound):
        await ledger.accept(new_run(run.thread_id, tenant="umbrella"))
    with pytest.raises(ThreadNotFound):
        await ledger.thread(run.thread_id, TenantId("umbrella"))
    with pytest.raises(RunNotFound):
        await ledger.get(run.run_id, TenantId("umbrella"))
    with pytest.raises(RunNotFound):
        await ledger.cancel(run.run_id, TenantId("umbrella"))


async def test_a_thread_stays_on_the_release_that_it_began_on(ledger: RunLedger, canary: RunLedger) -> None:
    """Whatever api took the request: a canary's thread has the canary's prompts and state."""
    first = await canary.accept(new_run())
    claim = await only(canary)
    run = await canary.get(first.run_id)
    await canary.complete(claim, run, Status.SUCCESS, {})
    following = await ledger.accept(new_run(run.thread_id))
    assert (await ledger.get(following.run_id)).release == "canary"
    assert not (await ledger.claim("w1", 1)).runs
    assert (await only(canary)).run_id == following.run_id


async def test_a_thread_moves_on_when_its_release_is_gone(
    ledger: RunLedger, canary: RunLedger, client: Any, keys: Keys
) -> None:
    """After a canary is removed, its conversations go on with the stable release."""
    first = await canary.accept(new_run())
    claim = await only(canary)
    run = await canary.get(first.run_id)
    await canary.complete(claim, run, Status.SUCCESS, {})
    seconds, _ = await client.time()
    await client.hset(keys.releases, "canary", seconds * 1000 - RELEASE_SEEN_MS - 1000)
    following = await ledger.accept(new_run(run.thread_id))
    assert (await ledger.get(following.run_id)).release == STABLE
    assert (await ledger.thread(run.thread_id, TENANT)).release == STABLE


async def test_a_retry_waits_for_its_pause_and_counts_its_attempt(ledger: RunLedger) -> None:
    await ledger.accept(new_run())
    claim = await only(ledger)
    await ledger.give_back(claim, pause=timedelta(milliseconds=300), used=claim.attempt)
    waiting = await ledger.claim("w1", 1)
    assert not waiting.runs
    assert waiting.next_due is not None
    assert timedelta() < waiting.next_due <= timedelta(milliseconds=300)
    again = await eventually(lambda: ledger.claim("w1", 1), until=lambda claims: bool(claims.runs), seconds=5)
    assert again.runs[0].attempt == 2


async def test_a_hand_over_is_no_attempt(ledger: RunLedger) -> None:
    """A worker that is told to stop has not failed."""
    await ledger.accept(new_run())
    claim = await only(ledger)
    await ledger.give_back(claim, pause=timedelta(), used=claim.attempt - 1)
    assert (await only(ledger, "w2")).attempt == 1


async def test_cancelling_what_nobody_executes_ends_it_and_frees_its_thread(ledger: RunLedger) -> None:
    accepted = await ledger.accept(new_run())
    run = await ledger.get(accepted.run_id)
    behind = await ledger.accept(new_run(run.thread_id))
    waiting = await ledger.accept(new_run(run.thread_id))
    assert (await ledger.cancel(waiting.run_id, TENANT)).status is Status.CANCELLED
    assert (await ledger.cancel(run.run_id, TENANT)).status is Status.CANCELLED
    assert (await only(ledger)).run_id == behind.run_id
    assert (await ledger.cancel(run.run_id, TENANT)).status is Status.CANCELLED, "again changes nothing"


async def test_cancelling_a_running_run_reaches_whoever_claims_it_next(ledger: RunLedger) -> None:
    """Its worker may die before it hears of it."""
    await ledger.accept(new_run())
    claim = await only(ledger)
    assert (await ledger.cancel(claim.run_id, TENANT)).status is Status.RUNNING
    second = await eventually(lambda: ledger.claim("w2", 1), until=lambda claims: bool(claims.runs), seconds=5)
    assert second.runs[0].stop is Stop.CANCEL


async def test_ended_runs_leave_nothing_that_lives_forever(ledger: RunLedger, client: Any, keys: Keys) -> None:
    """Whatever a run leaves has a time to live, but for the lists of releases and tenants and wake-up tokens."""
    accepted = await ledger.accept(new_run(idempotency_key="k"))
    thread_id = ThreadId((await ledger.get(accepted.run_id)).thread_id)
    behind = await ledger.accept(new_run(thread_id))
    claim = await only(ledger)
    await ledger.complete(claim, await ledger.get(claim.run_id), Status.SUCCESS, {})
    await ledger.cancel(behind.run_id, TENANT)
    permanent = {keys.releases, keys.wake(STABLE), keys.tenants}
    left = {key.decode() async for key in client.scan_iter("*")}
    endless = {key for key in left if await client.ttl(key) == -1}
    assert endless <= permanent, f"no time to live: {endless - permanent}"


async def test_epochs_rise_even_when_redis_lost_the_last_one(ledger: RunLedger, client: Any, keys: Keys) -> None:
    """A crash of Redis under `everysec` may forget a claim; the epoch handed out next must still be higher."""
    await ledger.accept(new_run())
    first = await only(ledger)
    await client.hset(keys.epochs, first.run_id, "0")
    await client.zadd(keys.queue(STABLE), {first.run_id: 0})
    assert (await only(ledger, "w2")).epoch > first.epoch
