"""Processes that stop, die or lose Redis: streams end or go on elsewhere, accepted runs finish, no traceback."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import httpx
import pytest

from tests.integration.test_api import sse
from tests.support.service import Service
from tests.support.waiting import eventually


async def ended(http: httpx.AsyncClient, run_id: str, seconds: float = 30) -> dict[str, Any]:
    async def look() -> dict[str, Any]:
        try:
            response = await http.get(f"/runs/{run_id}")
        except httpx.HTTPError:
            return {"status": "unreachable"}
        found: dict[str, Any] = response.json()
        return found

    return await eventually(
        look,
        until=lambda run: run["status"] not in ("unreachable", "pending", "running", 503),
        seconds=seconds,
        every=0.05,
    )


async def test_a_stopping_worker_hands_its_run_over_at_the_next_step(tmp_path: Any) -> None:
    """Scale-in and rollout stop workers in the middle of runs; the run goes on from its last step."""
    with Service(workers=1) as service:
        async with service.client() as http:
            async with http.stream("POST", "/api/stream", json={"message": "x", "graph": "steps"}) as response:
                events: list[dict[str, Any]] = []
                async for event in sse(response):
                    events.append(event)
                    if event["event"] == "custom" and event["data"]["data"] == {"step": 3}:
                        service.workers[0].send(signal.SIGTERM)
                        stopping = time.monotonic()
                        successor = await asyncio.to_thread(service.start_worker)
                        service.workers.append(successor)
            assert service.workers[0].wait(10) == 0
            assert time.monotonic() - stopping < 60
            assert events[-1]["data"]["answer"] == "after 10 steps"
            assert [event["data"]["attempt"] for event in events if event["event"] == "attempt"] == [1, 1]
            done = [event["data"]["data"]["step"] for event in events if event["event"] == "custom"]
            assert done == list(range(1, 11)), "a drained step is neither repeated nor skipped"
            assert "Traceback" not in service.workers[0].log
            assert "worker stopped" in service.workers[0].log


async def test_a_killed_workers_run_goes_on_elsewhere_from_its_last_checkpoint() -> None:
    with Service(workers=2, env={"LEASE_SECONDS": "1"}) as service:
        async with service.client() as http:
            async with http.stream("POST", "/api/stream", json={"message": "x", "graph": "steps"}) as response:
                events: list[dict[str, Any]] = []
                async for event in sse(response):
                    events.append(event)
                    if (
                        event["event"] == "custom"
                        and event["data"]["data"] == {"step": 4}
                        and len(service.workers) == 2
                    ):
                        # Whichever has it: kill the one whose log says nothing of it is not possible, so kill one;
                        # when it was the other, the run simply goes on.
                        service.workers[0].send(signal.SIGKILL)
                        service.workers[1].send(signal.SIGKILL)
                        service.workers.append(await asyncio.to_thread(service.start_worker))
            assert events[-1]["data"]["answer"] == "after 10 steps"
            assert events[-1]["data"]["attempt"] == 2
            done = [event["data"]["data"]["step"] for event in events if event["event"] == "custom"]
            assert sorted(set(done)) == list(range(1, 11))
            assert len(done) <= 12, f"more than the step under way was repeated: {done}"


async def test_a_graph_that_blocks_the_event_loop_keeps_its_lease() -> None:
    """A careless node computes for longer than the lease; nobody may take its run over meanwhile."""
    with Service(workers=2, env={"LEASE_SECONDS": "1"}) as service:
        async with service.client() as http:
            answer = (await http.post("/chat", json={"message": "x", "graph": "blocking"})).json()
            assert (answer["answer"], answer["attempt"]) == ("done", 1)


async def test_a_stopping_api_ends_its_streams_between_two_events_and_they_go_on_elsewhere() -> None:
    with Service(workers=1, env={"DRAIN_SECONDS": "1"}) as service:
        async with service.client() as http:
            first: list[dict[str, Any]] = []
            async with http.stream("POST", "/api/stream", json={"message": "x", "graph": "slow"}) as response:
                async for event in sse(response):
                    first.append(event)
                    if len(first) == 5:
                        service.api.send(signal.SIGTERM)
            assert first[-1]["event"] != "end", "the run takes five seconds, the stream was to end after one"
            assert service.api.wait(10) == 0
            assert "Traceback" not in service.api.log
            assert all(isinstance(line, dict) for line in service.api.lines())
        await asyncio.to_thread(service.start_api)
        async with service.client() as http:
            run_id = first[0]["data"]["run_id"]
            async with http.stream(
                "GET", f"/runs/{run_id}/stream", headers={"Last-Event-ID": first[-1]["id"]}
            ) as response:
                rest = [event async for event in sse(response)]
        tokens = [e["data"]["data"][0]["content"] for e in first + rest if e["event"] == "messages"]
        assert "".join(tokens) == "".join(f"w{number} " for number in range(100))


async def test_a_waiting_chat_is_answered_with_its_run_when_the_api_stops() -> None:
    with Service(workers=1, env={"DRAIN_SECONDS": "1"}) as service:
        async with service.client() as http:
            waiting = asyncio.create_task(http.post("/chat", json={"message": "x", "graph": "slow"}))

            async def begun() -> int:
                return await asyncio.to_thread(service.redis.zcard, "agent-tasks")

            await eventually(begun, until=lambda size: size == 1)
            service.api.send(signal.SIGTERM)
            response = await waiting
            assert response.status_code == 202
            assert service.api.wait(10) == 0
        await asyncio.to_thread(service.start_api)
        async with service.client() as http:
            assert (await ended(http, response.json()["run_id"]))["status"] == "success"


@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_ten_seconds_without_redis_are_said_and_survived(how: str) -> None:
    """/readiness within 3 s, 503 with Retry-After meanwhile, and everything by itself afterwards."""
    with Service(workers=1) as service:
        async with service.client() as http:
            slow = (await http.post("/chat/async", json={"message": "x", "graph": "slow"})).json()
            steps = (await http.post("/chat/async", json={"message": "x", "graph": "steps"})).json()
            away = time.monotonic()
            (service.valkey.stop if how == "stopped" else service.valkey.freeze)()

            async def ready() -> int:
                return (await http.get("/readiness")).status_code

            await eventually(ready, until=lambda status: status == 503, seconds=3)
            for path in ("/chat", "/chat/async", "/api/stream"):
                refused = await http.post(path, json={"message": "x"})
                assert refused.status_code == 503
                assert int(refused.headers["retry-after"]) > 0
                assert refused.json()["type"] == "urn:slipway:problem:redis-unavailable"
            assert (await http.get("/healthz")).status_code == 200, "a sick Redis is no reason to restart the api"
            await asyncio.sleep(max(0.0, 10 - (time.monotonic() - away)))
            (service.valkey.start if how == "stopped" else service.valkey.thaw)()
            await eventually(ready, until=lambda status: status == 200, seconds=10)
            answer = await http.post("/chat", json={"message": "back"})
            assert answer.status_code == 200, answer.text
            for run in (slow, steps):
                assert (await ended(http, run["run_id"]))["status"] == "success"
        for process in (service.api, *service.workers):
            assert "Traceback" not in process.log


async def test_a_full_redis_is_an_outage_and_no_failure() -> None:
    """Out of memory, Redis answers reads and refuses writes: callers get 503, workers wait, accepted runs finish."""
    with Service(workers=1, env={"LEASE_SECONDS": "2"}) as service:
        async with service.client() as http:
            running = (await http.post("/chat/async", json={"message": "x", "graph": "steps"})).json()

            async def state() -> str:
                return str((await http.get(f"/runs/{running['run_id']}")).json()["status"])

            await eventually(state, until=lambda status: status == "running")
            service.redis.config_set("maxmemory", "1mb")
            refused = await http.post("/chat/async", json={"message": "x"})
            assert refused.status_code == 503, refused.text
            assert int(refused.headers["retry-after"]) > 0
            assert (await http.get("/readiness")).json()["checks"]["redis"]["status"] == "failed"
            service.workers[0].wait_for("Redis does not answer")
            service.redis.config_set("maxmemory", "0")
            assert (await http.post("/chat", json={"message": "back"})).status_code == 200
            assert (await ended(http, running["run_id"]))["status"] == "success"
        for process in (service.api, *service.workers):
            process.send(signal.SIGTERM)
            assert process.wait(20) == 0
            assert '"level": "error"' not in process.log


async def test_threads_survive_a_restart_of_everything() -> None:
    with Service(workers=1) as service:
        async with service.client() as http:
            first = (await http.post("/chat", json={"message": "one"})).json()
        for process in (service.api, *service.workers):
            process.send(signal.SIGTERM)
        for process in (service.api, *service.workers):
            assert process.wait(15) == 0
        service.valkey.stop()
        service.valkey.start()
        service.workers = [await asyncio.to_thread(service.start_worker)]
        await asyncio.to_thread(service.start_api)
        async with service.client() as http:
            await http.post("/chat", json={"message": "two", "thread_id": first["thread_id"]})
            history = (await http.get(f"/threads/{first['thread_id']}/history")).json()
        assert [message["content"].strip() for message in history["messages"]] == [
            "one",
            "you said: one",
            "two",
            "you said: two",
        ]
