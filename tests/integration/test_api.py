"""The HTTP face on real processes: one way to run an agent, three ways to ask for it."""

from __future__ import annotations

import asyncio
import json
import re
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


async def sse(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Events of a stream as {id, event, data}."""
    event: dict[str, Any] = {}
    async for line in response.aiter_lines():
        if not line:
            if "event" in event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = json.loads(value) if name == "data" else value


async def stream_of(http: httpx.AsyncClient, body: dict[str, Any], **headers: str) -> list[dict[str, Any]]:
    async with http.stream("POST", "/api/stream", json=body, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        return [event async for event in sse(response)]


async def test_chat_answers_with_everything_that_a_client_needs(http: httpx.AsyncClient) -> None:
    response = await http.post("/chat", json={"message": "hello there"})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["answer"].strip() == "you said: hello there"
    assert answer["status"] == "success"
    assert answer["model"] == "words"
    assert answer["usage"] == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    assert answer["release"] == "stable"
    assert answer["finish_reason"] == "stop"
    assert answer["sources"] == []
    assert {"run_id", "thread_id", "cost_usd", "graph", "attempt"} <= answer.keys()


async def test_a_thread_goes_on_where_it_was(http: httpx.AsyncClient) -> None:
    first = (await http.post("/chat", json={"message": "one"})).json()
    second = (await http.post("/chat", json={"message": "two", "thread_id": first["thread_id"]})).json()
    assert second["thread_id"] == first["thread_id"]
    history = (await http.get(f"/threads/{first['thread_id']}/history")).json()
    assert [message["content"].strip() for message in history["messages"]] == [
        "one",
        "you said: one",
        "two",
        "you said: two",
    ]
    assert history["active_run_id"] is None
    last = (await http.get(f"/threads/{first['thread_id']}/history", params={"limit": 1})).json()
    assert [message["content"].strip() for message in last["messages"]] == ["you said: two"]


async def test_an_async_run_is_read_until_it_ends(http: httpx.AsyncClient) -> None:
    accepted = await http.post("/chat/async", json={"message": "later"})
    assert accepted.status_code == 202
    run = accepted.json()
    assert accepted.headers["location"] == f"/runs/{run['run_id']}"

    async def look() -> dict[str, Any]:
        found: dict[str, Any] = (await http.get(f"/runs/{run['run_id']}")).json()
        return found

    ended = await eventually(look, until=lambda found: found["status"] == "success")
    assert ended["result"]["answer"].strip() == "you said: later"
    assert ended["ended_at"] is not None


async def test_a_stream_has_tokens_updates_ids_and_an_end(http: httpx.AsyncClient) -> None:
    events = await stream_of(http, {"message": "a b c"})
    assert [event["event"] for event in events[:2]] == ["metadata", "attempt"]
    assert events[-1]["event"] == "end"
    assert all(re.fullmatch(r"\d+-\d+", event["id"]) for event in events)
    tokens = [event["data"]["data"][0]["content"] for event in events if event["event"] == "messages"]
    assert "".join(tokens).strip() == "you said: a b c"
    assert len(tokens) >= 5, "words must come one by one"
    updates = [event["data"]["data"] for event in events if event["event"] == "updates"]
    assert list(updates[0]) == ["answer"]
    assert events[-1]["data"]["answer"].strip() == "you said: a b c"


async def test_custom_events_and_subgraph_namespaces_reach_the_client(http: httpx.AsyncClient) -> None:
    events = await stream_of(http, {"message": "x", "graph": "nested"})
    inner = [event for event in events if event["event"] == "messages"]
    assert all(event["data"]["ns"][0].startswith("inner:") for event in inner)
    steps = await stream_of(http, {"message": "x", "graph": "steps"})
    assert [event["data"]["data"] for event in steps if event["event"] == "custom"][:2] == [{"step": 1}, {"step": 2}]


async def test_a_stream_is_resumed_after_any_event(http: httpx.AsyncClient) -> None:
    events = await stream_of(http, {"message": "a b c d"})
    run_id = events[0]["data"]["run_id"]
    for position in (0, 1, len(events) // 2, len(events) - 2):
        headers = {"Last-Event-ID": events[position]["id"]}
        async with http.stream("GET", f"/runs/{run_id}/stream", headers=headers) as response:
            rest = [event async for event in sse(response)]
        assert rest == events[position + 1 :]


async def test_repeating_a_request_with_its_idempotency_key_starts_nothing_new(http: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "order-1"}
    first = (await http.post("/chat", json={"message": "once"}, headers=headers)).json()
    again = (await http.post("/chat", json={"message": "once"}, headers=headers)).json()
    assert again["run_id"] == first["run_id"]
    streamed = await stream_of(http, {"message": "once"}, **headers)
    assert streamed[-1]["data"]["run_id"] == first["run_id"]
    accepted = await http.post("/chat/async", json={"message": "once"}, headers=headers)
    assert (accepted.status_code, accepted.json()["run_id"]) == (202, first["run_id"])
    other = await http.post("/chat", json={"message": "twice"}, headers=headers)
    assert (other.status_code, other.json()["type"]) == (409, "urn:slipway:problem:idempotency-mismatch")


async def test_a_running_run_is_cancelled(http: httpx.AsyncClient) -> None:
    run = (await http.post("/chat/async", json={"message": "x", "graph": "slow"})).json()

    async def look() -> dict[str, Any]:
        found: dict[str, Any] = (await http.get(f"/runs/{run['run_id']}")).json()
        return found

    await eventually(look, until=lambda found: found["status"] == "running")
    assert (await http.post(f"/runs/{run['run_id']}/cancel")).status_code == 202
    ended = await eventually(look, until=lambda found: found["status"] == "cancelled", seconds=5)
    assert ended["result"]["status"] == "cancelled"
    assert (await http.post(f"/runs/{run['run_id']}/cancel")).json()["status"] == "cancelled"


async def test_a_graph_that_asks_for_a_person_ends_as_interrupted(http: httpx.AsyncClient) -> None:
    answer = (await http.post("/chat", json={"message": "x", "graph": "asking"})).json()
    assert answer["status"] == "interrupted"
    assert answer["interrupts"][0]["value"] == {"question": "really?"}


async def test_a_failing_run_says_that_it_failed_and_not_why_inside(http: httpx.AsyncClient, service: Service) -> None:
    """The error's text quotes the user and names hosts: neither client nor log may see it."""
    response = await http.post("/chat", json={"message": "sk-secret-text", "graph": "failing"})
    problem = response.json()
    assert (response.status_code, problem["type"]) == (500, "urn:slipway:problem:run-failed")
    assert problem["run_id"]
    assert "sk-secret-text" not in response.text
    assert "ValueError" not in response.text
    for process in (service.api, *service.workers):
        assert "sk-secret-text" not in process.log
        assert "Traceback" not in process.log


async def test_a_transient_failure_is_tried_again_and_then_reported(http: httpx.AsyncClient) -> None:
    response = await http.post("/chat", json={"message": "unreachable", "graph": "failing"})
    assert (response.status_code, response.json()["type"]) == (502, "urn:slipway:problem:dependency-unavailable")
    assert "10.1.2.3" not in response.text
    run = (await http.get(f"/runs/{response.json()['run_id']}")).json()
    assert run["attempt"] == 3 or run["result"]["attempt"] == 3


BAD_BODIES = [
    (b"", 422),
    (b"{}", 422),
    (b"[]", 422),
    (b"null", 422),
    (b"{", 400),
    (b"not json", 400),
    (b'{"message": ""}', 422),
    (b'{"message": "  "}', 422),
    (b'{"message": 5}', 422),
    (b'{"message": null}', 422),
    (b'{"message": ["a"]}', 422),
    (b'{"message": {"a": 1}}', 422),
    (b'{"message": "a", "thread_id": 7}', 422),
    (b'{"message": "a", "thread_id": "../x"}', 422),
    (b'{"message": "a", "thread_id": "{agent-tasks}"}', 422),
    (b'{"message": "a", "thread_id": ""}', 422),
    (b'{"message": "a", "graph": "nobody"}', 422),
    (b'{"message": "a", "typo": 1}', 422),
    (b'{"message": "a", "' + b"k" * 9_000 + b'": 1}', 422),
    (b'{"message": "\\ud800"}', 422),
    (b'{"message": "\xff\xfe"}', 400),
    (b'{"message": "' + b"x" * 30_000 + b'"}', 422),
    (b'{"message": "' + b"x" * 1_000_000 + b'"}', 413),
    (b"[" * 100_000, 400),
    (b'{"message": "a", "thread_id": "00000000-0000-7000-8000-000000000000"}', 404),
]


@pytest.mark.parametrize("path", ["/chat", "/chat/async", "/api/stream"])
@pytest.mark.parametrize(("body", "status"), BAD_BODIES, ids=[body[:40].decode("latin-1") for body, _ in BAD_BODIES])
async def test_bad_bodies_are_refused_with_a_problem_and_leave_nothing(
    http: httpx.AsyncClient, service: Service, path: str, body: bytes, status: int
) -> None:
    before = kept(service)
    response = await http.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code == status, response.text
    assert_problem(response)
    assert len(response.content) < 1_000, "a problem does not say back what was sent"
    assert kept(service) == before, "a refused request left something in Redis"


def kept(service: Service) -> set[bytes]:
    """Every key in Redis, without the last claim of each worker: it comes and goes with the lease."""
    return {key for key in service.stored_keys() if b":claim:" not in key}


async def test_a_body_without_a_length_is_bounded_too(http: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'{"message": "'
        for _ in range(1_000):
            yield b"x" * 1_000

    response = await http.post("/chat", content=endless(), headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert_problem(response)


def assert_problem(response: httpx.Response) -> None:
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert {"type", "title", "status", "detail", "id"} <= problem.keys()
    assert problem["status"] == response.status_code
    assert problem["id"] == response.headers["x-request-id"]
    assert len(response.content) < 4_000, "what was sent must not be sent back"
    assert "Traceback" not in response.text


async def test_a_body_that_is_not_json_is_named_as_that(http: httpx.AsyncClient) -> None:
    response = await http.post(
        "/chat", content=b"message=hello", headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert response.status_code == 415
    assert_problem(response)


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer x", f"Basic {KEY}", f"Bearer {KEY[:-1]}z", "Bearer slw_" + "x" * 5000, f"Bearer {KEY}é"],
)
@pytest.mark.parametrize("path", ["/chat", "/runs/x", "/threads/x/history", "/memories"])
async def test_without_a_good_key_nothing_is_answered(service: Service, header: str, path: str) -> None:
    async with httpx.AsyncClient(base_url=service.url) as client:
        headers = {b"authorization": header.encode("latin-1")} if header else {}
        method = "POST" if path == "/chat" else "GET"
        response = await client.request(
            method, path, headers=headers, json={"message": "a"} if method == "POST" else None
        )
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert_problem(response)


async def test_another_tenants_runs_and_threads_are_not_found(http: httpx.AsyncClient, service: Service) -> None:
    mine = (await http.post("/chat", json={"message": "private"})).json()
    async with httpx.AsyncClient(base_url=service.url, headers={"Authorization": f"Bearer {OTHER_KEY}"}) as other:
        for method, path in (
            ("GET", f"/runs/{mine['run_id']}"),
            ("GET", f"/runs/{mine['run_id']}/stream"),
            ("POST", f"/runs/{mine['run_id']}/cancel"),
            ("GET", f"/threads/{mine['thread_id']}/history"),
        ):
            response = await other.request(method, path)
            assert response.status_code == 404, path
            assert_problem(response)
        response = await other.post("/chat", json={"message": "a", "thread_id": mine["thread_id"]})
        assert response.status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/runs/unknown", 404),
        ("GET", "/runs/unknown/stream", 404),
        ("POST", "/runs/unknown/cancel", 404),
        ("GET", "/threads/unknown/history", 404),
        ("GET", "/threads/unknown/history?limit=0", 422),
        ("GET", "/runs/" + "x" * 200, 422),
        ("GET", "/runs/%7Bx%7D", 422),
        ("GET", "/nowhere", 404),
        ("DELETE", "/chat", 405),
    ],
)
async def test_unknown_things_are_problems(http: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    response = await http.request(method, path)
    assert response.status_code == status, response.text
    assert_problem(response)


@pytest.mark.parametrize("last", ["x", "1", "-1-0", "1-2-3", "99999999999999999999999-0"])
async def test_a_malformed_last_event_id_is_refused(http: httpx.AsyncClient, last: str) -> None:
    run = (await http.post("/chat", json={"message": "a"})).json()
    for method, path, body in (
        ("GET", f"/runs/{run['run_id']}/stream", None),
        ("POST", "/api/stream", {"message": "a"}),
    ):
        response = await http.request(method, path, json=body, headers={"Last-Event-ID": last})
        assert response.status_code == 400
        assert_problem(response)


async def test_who_comes_back_after_the_end_is_sent_away(http: httpx.AsyncClient) -> None:
    """A browser's EventSource connects again whenever a stream ends, until it is told 204."""
    run = (await http.post("/chat", json={"message": "a"})).json()
    async with http.stream("GET", f"/runs/{run['run_id']}/stream") as response:
        last = [event async for event in sse(response)][-1]
    assert last["event"] == "end"
    path = f"/runs/{run['run_id']}/stream"
    response = await http.get(path, headers={"Last-Event-ID": last["id"]}, timeout=5)
    assert (response.status_code, response.content) == (204, b"")
    async with http.stream("GET", path, headers={"Last-Event-ID": "99999999999999-0"}) as response:
        gap, end = [event async for event in sse(response)]
    assert (gap["event"], end) == ("gap", last), "whoever names an event that never was is told the end"


async def test_a_new_run_is_streamed_from_its_beginning_whatever_the_last_event_id(http: httpx.AsyncClient) -> None:
    """The header of an earlier stream says nothing about a run that did not exist then."""
    events = await stream_of(http, {"message": "a"}, **{"Last-Event-ID": "99999999999999-0"})
    assert [events[0]["event"], events[-1]["event"]] == ["metadata", "end"]


async def test_health_readiness_docs_and_openapi_need_no_key(service: Service) -> None:
    async with httpx.AsyncClient(base_url=service.url) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        ready = (await client.get("/readiness")).json()
        assert ready["checks"]["redis"]["status"] == "ok"
        assert (ready["status"], ready["checks"]["model"]["status"]) == ("degraded", "failed")
        assert (await client.get("/docs")).status_code == 200
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"/chat", "/chat/async", "/api/stream", "/runs/{run_id}", "/threads/{thread_id}/history"} <= paths.keys()


async def test_logs_are_json_bound_to_run_and_request_and_hold_no_text(
    http: httpx.AsyncClient, service: Service
) -> None:
    answer = await http.post("/chat", json={"message": "quite private words"})
    run_id, request_id = answer.json()["run_id"], answer.headers["x-request-id"]

    async def look() -> list[dict[str, Any]]:
        return [line for line in service.workers[0].lines() if line.get("run_id") == run_id]

    (ended,) = await eventually(look, until=lambda lines: len(lines) == 1)
    assert (ended["event"], ended["request_id"], ended["tenant"]) == ("run ended", request_id, "acme")
    assert any(line.get("request_id") == request_id for line in service.api.lines())
    for process in (service.api, *service.workers):
        assert "quite private words" not in process.log
        assert KEY not in process.log


async def test_fifty_streams_at_once_each_get_their_own_run(http: httpx.AsyncClient) -> None:
    streams = await asyncio.gather(*[stream_of(http, {"message": f"n{number}"}) for number in range(50)])
    for number, events in enumerate(streams):
        assert events[-1]["data"]["answer"].strip() == f"you said: n{number}"
