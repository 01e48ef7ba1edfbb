"""The routes for administrators, and those by which a tenant reads and deletes its threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.api.main import create_app
from app.infra.auth import new_key
from app.infra.ids import TenantId
from app.infra.keys import Keys
from app.infra.settings import load
from app.runs.ledger import RunLedger
from app.runs.model import Failure, Run, Status
from tests.integration.conftest import TENANT, new_run
from tests.integration.test_api import sse
from tests.support.service import Service
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually

OTHER = TenantId("umbrella")


@pytest.fixture
async def application(
    client: Any, valkey_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FastAPI]:
    """The api on an empty Valkey, inside the test's process."""
    monkeypatch.setenv("REDIS_URL", valkey_server.url)
    app = create_app(load(None))
    async with app.router.lifespan_context(app):
        yield app


async def connect(application: FastAPI, client: Any, tenant: str, *scopes: str) -> httpx.AsyncClient:
    """A client that holds a new key of `tenant`."""
    key = new_key(tenant=tenant, scopes=scopes)
    await client.hset(Keys().api_key(key.key_id), mapping=key.record)
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(application),
        base_url="http://api",
        headers={"Authorization": f"Bearer {key.text}"},
    )


@pytest.fixture
async def admin(application: FastAPI, client: Any) -> AsyncIterator[httpx.AsyncClient]:
    """An administrator of the tenant `acme`."""
    async with await connect(application, client, TENANT, "admin") as http:
        yield http


async def failed_run(ledger: RunLedger, tenant: str = TENANT) -> Run:
    """A dead letter."""
    accepted = await ledger.accept(new_run(tenant=tenant))
    (claim,) = (await ledger.claim("w", 1)).runs
    run = await ledger.get(accepted.run_id)
    result = {**run.identity, "error": {"kind": "internal"}}
    await ledger.complete(claim, run, Status.ERROR, result, failure=Failure("ValueError", "c-7"))
    return await ledger.get(accepted.run_id)


def routes(application: FastAPI, before: str) -> list[tuple[str, str]]:
    """Method and path of each route whose path begins so."""
    paths: dict[str, dict[str, Any]] = application.openapi()["paths"]
    return [(method, path) for path, methods in paths.items() if path.startswith(before) for method in methods]


async def test_only_a_key_with_the_scope_administers(application: FastAPI, client: Any) -> None:
    """Each route: a new one must not be forgotten."""
    async with (
        await connect(application, client, TENANT, "chat") as user,
        await connect(application, client, TENANT, "*") as owner,
    ):
        found = routes(application, "/admin/")
        assert len(found) >= 14
        for method, path in found:
            address = path.format(run_id="r-1", thread_id="t-1")
            refused = await user.request(method, address)
            assert (refused.status_code, refused.json()["type"]) == (403, "urn:slipway:problem:admin-only"), path
            nobody = await user.request(method, address, headers={"Authorization": ""})
            assert nobody.status_code == 401, path
            assert (await owner.request(method, address)).status_code in (200, 204, 404), path


async def test_no_key_reaches_anything_of_another_tenant(
    application: FastAPI, admin: httpx.AsyncClient, ledger: RunLedger
) -> None:
    """Over each route with an id: it is not found, and nothing happens to it. Lists and counts do not show it."""
    theirs, mine = await failed_run(ledger, OTHER), await failed_run(ledger)
    waiting = await ledger.accept(new_run(theirs.thread_id, tenant=OTHER))
    for method, path in [*routes(application, "/admin/"), *routes(application, "/threads/")]:
        if "{" in path:
            for run_id in (theirs.run_id, waiting.run_id):
                answer = await admin.request(method, path.format(run_id=run_id, thread_id=theirs.thread_id))
                assert answer.status_code == 404, (method, path)
        elif method == "get":
            answer = await admin.request(method, path)
            assert answer.status_code == 200
            assert theirs.run_id not in answer.text
            assert theirs.thread_id not in answer.text
    queue = (await admin.get("/admin/queue")).json()
    assert (sum(release["due"] for release in queue["releases"]), queue["dead"]) == (0, 1)
    assert (await admin.delete("/admin/dead-letters")).json() == {"dropped": 1}
    assert (await admin.post("/admin/dead-letters/replay")).json() == []
    assert (await ledger.get(waiting.run_id)).status is Status.PENDING
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(application), base_url="http://api", headers=admin.headers
    ) as same:
        assert (await same.get(f"/admin/runs/{mine.run_id}")).json()["dead_letter"] is False
    left = await ledger._redis.zrange(Keys().dead(OTHER), 0, -1)
    assert left == [theirs.run_id.encode()]


async def test_runs_are_listed_shown_cancelled_and_replayed(admin: httpx.AsyncClient, ledger: RunLedger) -> None:
    failed = await failed_run(ledger)
    pending = await ledger.accept(new_run(failed.thread_id))
    listed = (await admin.get("/admin/runs")).json()
    assert [run["run_id"] for run in listed["runs"]] == [pending.run_id, failed.run_id]
    assert listed["complete"] is True
    only = (await admin.get("/admin/runs", params={"status": "error"})).json()["runs"]
    assert [(run["run_id"], run["error"], run["last_error"]) for run in only] == [
        (failed.run_id, "internal", "ValueError")
    ]
    shown = (await admin.get(f"/admin/runs/{pending.run_id}")).json()
    assert (shown["place"]["state"], shown["place"]["position"]) == ("pending", 1)
    assert (shown["effects"], shown["events"][0]["event"]) == ([], "metadata")
    assert (await admin.post(f"/admin/runs/{pending.run_id}/cancel")).json()["status"] == "cancelled"
    refused = await admin.post(f"/admin/runs/{pending.run_id}/replay")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:slipway:problem:not-failed")
    anew = await admin.post(f"/admin/runs/{pending.run_id}/replay", params={"again": True})
    assert (anew.status_code, anew.json()["status"]) == (202, "pending")
    for wrong in ("status=lost", "limit=0", "limit=1001", "release=a%20b"):
        assert (await admin.get(f"/admin/runs?{wrong}")).status_code == 422


async def test_dead_letters_are_replayed_and_dropped(admin: httpx.AsyncClient, ledger: RunLedger) -> None:
    first, second, third = [await failed_run(ledger) for _ in range(3)]
    listed = (await admin.get("/admin/dead-letters")).json()["runs"]
    assert [run["run_id"] for run in listed] == [third.run_id, second.run_id, first.run_id]
    assert (await admin.get(f"/admin/dead-letters/{first.run_id}")).json()["checkpoint_id"] == "c-7"
    replay = await admin.post(f"/admin/dead-letters/{first.run_id}/replay")
    assert (replay.status_code, replay.json()["thread_id"]) == (202, first.thread_id)
    again = await admin.post(f"/admin/dead-letters/{first.run_id}/replay")
    assert again.status_code == 404, "it is none any more"
    twice = await admin.post(f"/admin/runs/{first.run_id}/replay")
    assert (twice.status_code, twice.json()["type"]) == (409, "urn:slipway:problem:replayed-before")
    assert replay.json()["run_id"] in twice.json()["detail"]
    assert (await admin.delete(f"/admin/dead-letters/{second.run_id}")).status_code == 204
    (outcome,) = (await admin.post("/admin/dead-letters/replay")).json()
    assert (outcome["replayed"], outcome["error"]) == (third.run_id, "")
    assert (await admin.get("/admin/dead-letters")).json()["runs"] == []


async def test_a_replay_asked_for_at_the_same_moment_makes_one_run(admin: httpx.AsyncClient, ledger: RunLedger) -> None:
    """Two people, one dead letter: its work must not be done twice."""
    failed = await failed_run(ledger)
    answers = await asyncio.gather(*[admin.post(f"/admin/runs/{failed.run_id}/replay") for _ in range(10)])
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 9
    assert len((await admin.get("/admin/runs")).json()["runs"]) == 2


async def test_no_request_can_take_the_place_of_a_replay(admin: httpx.AsyncClient, ledger: RunLedger) -> None:
    """Any user of the tenant chooses Idempotency-Keys, and may know the id of a run."""
    failed = await failed_run(ledger)
    await ledger.accept(new_run(idempotency_key=f"replay:{failed.run_id}"))
    assert (await admin.post(f"/admin/runs/{failed.run_id}/replay")).status_code == 202


async def test_a_thread_is_read_exported_and_deleted(
    application: FastAPI, admin: httpx.AsyncClient, ledger: RunLedger, client: Any
) -> None:
    """Reading and deleting need no administrator: it is the tenant's conversation."""
    failed = await failed_run(ledger)
    thread = f"/threads/{failed.thread_id}"
    async with await connect(application, client, TENANT, "chat") as user:
        assert (await user.get(thread)).json()["status"] == "idle"
        active = await ledger.accept(new_run(failed.thread_id))
        await ledger.accept(new_run(failed.thread_id))
        state = (await user.get(thread)).json()
        assert (state["status"], state["active_run_id"], state["waiting"]) == ("busy", active.run_id, 1)
        export = (await admin.get(f"/admin{thread}/export")).json()
        assert [run["status"] for run in export["runs"]] == ["error", "pending", "pending"]
        assert (await user.delete(thread)).status_code == 204
        assert (await user.delete(thread)).status_code == 404
        assert (await user.get(thread)).status_code == 404
        assert (await user.get(f"{thread}/history")).status_code == 404
        assert (await user.get(f"/runs/{active.run_id}")).status_code == 404


async def test_a_thread_that_waits_for_a_person_says_what_it_asks(admin: httpx.AsyncClient, ledger: RunLedger) -> None:
    """A user interface shows the question when it is opened again."""
    accepted = await ledger.accept(new_run())
    (claim,) = (await ledger.claim("w", 1)).runs
    run = await ledger.get(accepted.run_id)
    question = {"id": "i-1", "value": {"question": "really?"}}
    await ledger.complete(claim, run, Status.INTERRUPTED, {**run.identity, "interrupts": [question]})
    state = (await admin.get(f"/threads/{run.thread_id}")).json()
    assert state["status"] == "interrupted"
    assert state["asked"] == {"run_id": run.run_id, "interrupts": [question]}


async def test_deleting_a_thread_stops_its_run_and_ends_its_streams() -> None:
    """With real processes: the worker is in the middle of a step, a client follows, and nothing comes back."""
    with Service(workers=1, env={"LEASE_SECONDS": "1"}) as service:
        async with service.client() as http:
            async with http.stream("POST", "/api/stream", json={"message": "x", "graph": "slow"}) as response:
                run_id, thread_id = response.headers["x-run-id"], ""
                last = ""
                async for event in sse(response):
                    last = event["event"]
                    if event["event"] == "metadata":
                        thread_id = event["data"]["thread_id"]
                    if event["event"] == "messages" and thread_id:
                        assert (await http.delete(f"/threads/{thread_id}")).status_code == 204
                        thread_id, deleted = "", thread_id
            assert last == "lost", "the stream says that there is nothing more to come"
            assert (await http.get(f"/runs/{run_id}")).status_code == 404
            answer = await http.post("/chat", json={"message": "next"})
            assert answer.status_code == 200, "the worker has gone on to other work"

            async def left() -> list[bytes]:
                return [key for key in service.stored_keys() if deleted.encode() in key or run_id.encode() in key]

            await eventually(left, until=lambda keys: not keys)
            assert "Traceback" not in service.workers[0].log
            assert "Traceback" not in service.api.log
