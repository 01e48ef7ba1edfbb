"""Answers, strategies and put-off runs as HTTP has them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from tests.support.service import KEY, OTHER_KEY, Service
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service() as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with service.client() as client:
        yield client


async def asked(http: httpx.AsyncClient) -> dict[str, Any]:
    """What `/chat` answers when the graph asks a person."""
    answer: dict[str, Any] = (await http.post("/chat", json={"message": "do it", "graph": "asking"})).json()
    assert (answer["status"], answer["finish_reason"]) == ("interrupted", "interrupt")
    assert [question["value"] for question in answer["interrupts"]] == [{"question": "really?"}]
    return answer


async def ended(http: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    async def look() -> dict[str, Any]:
        found: dict[str, Any] = (await http.get(f"/runs/{run_id}")).json()
        return found

    return await eventually(look, until=lambda run: run["ended_at"] is not None)


async def test_the_answer_goes_to_the_graph_that_asked(http: httpx.AsyncClient) -> None:
    """The caller need not name it again; naming another is refused, for it could not take the answer."""
    question = await asked(http)
    body = {"resume": {"sure": True}, "thread_id": question["thread_id"]}
    wrong = await http.post("/chat", json={**body, "graph": "instant"})
    assert (wrong.status_code, wrong.json()["type"]) == (422, "urn:slipway:problem:wrong-graph")
    answer = (await http.post("/chat", json=body)).json()
    assert (answer["status"], answer["answer"]) == ("success", "you decided: {'sure': True}")
    again = await http.post("/chat", json=body)
    assert (again.status_code, again.json()["type"]) == (409, "urn:slipway:problem:nothing-asked")


async def test_the_same_answer_sent_again_under_its_key_is_the_same_run(http: httpx.AsyncClient) -> None:
    question = await asked(http)
    body, key = {"resume": "yes", "thread_id": question["thread_id"]}, {"Idempotency-Key": question["run_id"]}
    first = (await http.post("/chat", json=body, headers=key)).json()
    second = (await http.post("/chat", json=body, headers=key)).json()
    assert first["run_id"] == second["run_id"]
    other = await http.post("/chat", json={**body, "resume": "no"}, headers=key)
    assert (other.status_code, other.json()["type"]) == (409, "urn:slipway:problem:idempotency-mismatch")


async def test_an_answer_that_names_its_run_reaches_no_later_question(http: httpx.AsyncClient) -> None:
    """Somebody else may have answered, and the agent asked something else: a slow "yes" must not approve that."""
    first = await asked(http)
    thread = {"thread_id": first["thread_id"]}
    second = (await http.post("/chat", json={"message": "and this", "graph": "asking", **thread})).json()
    late = await http.post("/chat", json={"resume": "yes", "run_id": first["run_id"], **thread})
    assert (late.status_code, late.json()["type"]) == (409, "urn:slipway:problem:nothing-asked")
    answer = (await http.post("/chat", json={"resume": "yes", "run_id": second["run_id"], **thread})).json()
    assert answer["answer"] == "you decided: yes"


async def test_several_questions_are_answered_by_their_ids(http: httpx.AsyncClient) -> None:
    """One answer for all would be given to whichever is first; those that are left out stay asked."""
    question = (await http.post("/chat", json={"message": "do it", "graph": "asking_twice"})).json()
    ids = {one["value"]: one["id"] for one in question["interrupts"]}
    thread = {"thread_id": question["thread_id"]}
    refused = await http.post("/chat", json={"resume": "yes", **thread})
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:slipway:problem:several-questions")
    assert set(refused.json()["questions"]) == set(ids.values())
    left = (await http.post("/chat", json={"resume": {ids["one?"]: "yes"}, **thread})).json()
    assert [one["value"] for one in left["interrupts"]] == ["two?"]
    done = (await http.post("/chat", json={"resume": "no", **thread})).json()
    assert done["status"] == "success"
    history = (await http.get(f"/threads/{question['thread_id']}/history")).json()["messages"]
    assert sorted(message["content"] for message in history[1:]) == ["first: yes", "second: no"]


async def test_an_answer_streams_like_any_run(http: httpx.AsyncClient) -> None:
    question = await asked(http)
    body = {"resume": "yes", "thread_id": question["thread_id"]}
    async with http.stream("POST", "/api/stream", json=body) as response:
        lines = [line async for line in response.aiter_lines()]
    assert json.loads(lines[-2].removeprefix("data: "))["answer"] == "you decided: yes"


async def test_another_tenant_cannot_answer(http: httpx.AsyncClient) -> None:
    question = await asked(http)
    body = {"resume": "yes", "thread_id": question["thread_id"]}
    foreign = await http.post("/chat", json=body, headers={"Authorization": f"Bearer {OTHER_KEY}"})
    assert foreign.status_code == 404
    mine = await http.post("/chat", json=body, headers={"Authorization": f"Bearer {KEY}"})
    assert mine.json()["status"] == "success"


async def test_a_question_is_taken_back_by_cancelling_its_run(http: httpx.AsyncClient) -> None:
    question = await asked(http)
    cancelled = await http.post(f"/runs/{question['run_id']}/cancel")
    assert cancelled.json()["status"] == "cancelled"
    body = {"resume": "yes", "thread_id": question["thread_id"]}
    assert (await http.post("/chat", json=body)).status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"message": "x", "resume": "y", "thread_id": "t"},
        {"resume": "y"},
        {"message": "x", "thread_id": "t", "run_id": "r"},
        {"resume": None, "thread_id": "t"},
        {"message": None},
        {"message": "x", "multitask_strategy": "fight"},
        {"message": "x", "after_seconds": 5},
    ],
    ids=str,
)
async def test_what_is_neither_message_nor_answer_is_refused(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    response = await http.post("/chat", json=body)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "body",
    [
        b'{"resume": NaN, "thread_id": "t"}',
        b'{"resume": [1e400], "thread_id": "t"}',
        b'{"resume": 123456789012345678901234567890, "thread_id": "t"}',
        b'{"resume": {"a": "\\ud800"}, "thread_id": "t"}',
        b'{"resume": {"\\ud800": 1}, "thread_id": "t"}',
        b'{"resume": ' + b"[" * 300 + b"]" * 300 + b', "thread_id": "t"}',
        b'{"message": "x", "after_seconds": Infinity}',
        b'{"message": "x", "after_seconds": 1e308}',
        b'{"message": "x", "after_seconds": 5, "multitask_strategy": "rollback"}',
        b'{"message": "x", "after_seconds": 5, "multitask_strategy": "interrupt"}',
        b'{"resume": "x", "after_seconds": 5, "thread_id": "t"}',
    ],
    ids=lambda body: body[:60].decode(),
)
async def test_what_cannot_be_stored_or_put_off_is_refused(http: httpx.AsyncClient, body: bytes) -> None:
    """Python's JSON takes more than can be written down; that is the sender's mistake and not ours."""
    response = await http.post("/chat/async", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_busy_thread_refuses_interrupts_or_rolls_back_as_asked(http: httpx.AsyncClient) -> None:
    first = (await http.post("/chat/async", json={"message": "one", "graph": "slow"})).json()
    thread = {"thread_id": first["thread_id"]}
    refused = await http.post("/chat", json={"message": "two", **thread, "multitask_strategy": "reject"})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:slipway:problem:thread-busy")
    body = {"message": "two", **thread, "multitask_strategy": "interrupt"}
    second = (await http.post("/chat", json=body)).json()
    assert second["answer"].strip() == "you said: two"
    stopped = await ended(http, first["run_id"])
    assert (stopped["status"], stopped["result"]["error"]) == ("interrupted", {"kind": "superseded"})
    third = (await http.post("/chat/async", json={"message": "three", **thread, "graph": "slow"})).json()
    body = {"message": "four", **thread, "multitask_strategy": "rollback"}
    await http.post("/chat", json=body)
    assert (await ended(http, third["run_id"]))["result"]["error"] == {"kind": "rolled_back"}
    history = (await http.get(f"/threads/{first['thread_id']}/history")).json()["messages"]
    said = [message["content"].strip() for message in history if message["type"] == "human"]
    assert said == ["one", "two", "four"]


async def test_who_waits_for_a_run_that_is_superseded_is_told(http: httpx.AsyncClient) -> None:
    first = (await http.post("/chat/async", json={"message": "one", "graph": "slow"})).json()
    thread = {"thread_id": first["thread_id"]}
    key = {"Idempotency-Key": "waits-and-is-superseded"}
    waiting = (await http.post("/chat/async", json={"message": "two", **thread}, headers=key)).json()
    await http.post("/chat", json={"message": "three", **thread, "multitask_strategy": "interrupt"})
    assert (await ended(http, waiting["run_id"]))["status"] == "interrupted"


async def test_a_run_may_begin_later(http: httpx.AsyncClient) -> None:
    run = (await http.post("/chat/async", json={"message": "x", "after_seconds": 0.5})).json()
    assert run["status"] == "pending"
    done = await ended(http, run["run_id"])
    assert done["status"] == "success"
    began, finished = (done[name] for name in ("created_at", "ended_at"))
    assert finished > began
    tomorrow = (await http.post("/chat/async", json={"message": "x", "after_seconds": 86_400})).json()
    assert (await http.get(f"/runs/{tomorrow['run_id']}")).json()["status"] == "pending"
    assert (await http.post(f"/runs/{tomorrow['run_id']}/cancel")).json()["status"] == "cancelled"
    too_late = await http.post("/chat/async", json={"message": "x", "after_seconds": 1e9})
    assert (too_late.status_code, too_late.json()["type"]) == (422, "urn:slipway:problem:too-late")
