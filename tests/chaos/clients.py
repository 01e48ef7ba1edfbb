"""The clients: one task per thread, asking and recording. They do what a careful client does, and nothing more.

A lost answer is asked for again under the same Idempotency-Key, a broken stream is taken up after its last event, each
time at either api. Who gives up says so in the history (`unfinished`), which the checker takes for a lost run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from tests.chaos.history import History, Look, Reply, Seen, Stream, TurnHistory
from tests.chaos.outside import Store
from tests.chaos.plan import Talk
from tests.support.service import KEY

_PATIENCE_SECONDS = 180.0
"""How long a client waits for one run, faults included, before it takes the run for lost."""
_POLL_SECONDS = 0.3
_AGAIN_SECONDS = 0.15
_READ_SECONDS = 10.0
"""Silence on a stream, heartbeats included, after which a client connects again."""
_PATHS = {"chat": "/chat", "async": "/chat/async", "stream": "/api/stream"}
_OVER = ("success", "error", "timeout", "interrupted", "cancelled")


class _Transport(httpx.AsyncHTTPTransport):
    """A connection that ended as it began is an error of the transport; anyio 4 asks the dead socket for its name."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except (AttributeError, OSError) as error:
            raise httpx.ConnectError("the connection ended as it began") from error


class Clients:
    """All clients of one history. `urls` are the apis; `calm` waits until nobody is frozen or cut off."""

    def __init__(self, history: History, urls: list[str], store: Store, calm: Callable[[], Awaitable[None]]) -> None:
        self._history, self._urls, self._store, self._calm = history, urls, store, calm
        self._dice = random.Random(history.plan.seed)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self._http = httpx.AsyncClient(
            transport=_Transport(limits=limits),
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=httpx.Timeout(5, read=_READ_SECONDS),
        )
        self._chat_timeout = httpx.Timeout(5, read=40)
        self.done = 0

    async def run(self) -> None:
        """Every talk, each at its time."""
        async with asyncio.TaskGroup() as group:
            for talk in self._history.plan.talks:
                group.create_task(self._talk(talk))

    async def close(self) -> None:
        await self._http.aclose()

    async def _talk(self, talk: Talk) -> None:
        await asyncio.sleep(max(0.0, talk.at - self._history.now()))
        thread_id = ""
        async with asyncio.TaskGroup() as group:
            for turn in talk.turns:
                found = TurnHistory(turn, talk.name, f"key-{self._history.plan.seed}-{turn.tag}", thread_id)
                self._history.turns[turn.tag] = found
                accepted = asyncio.Event()
                task = group.create_task(self._turn(found, accepted))
                await accepted.wait()
                if not (turn.eager and found.runs):
                    await task
                if found.unfinished:
                    return
                thread_id = found.thread_id

    async def _turn(self, found: TurnHistory, accepted: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._ask(found, accepted)
        except TimeoutError:
            found.unfinished = f"no end after {_PATIENCE_SECONDS:g} s"
        except (_Refused, ExceptionGroup) as error:
            found.unfinished = str(_refusal(error))
        finally:
            accepted.set()
            self.done += 1

    async def _ask(self, found: TurnHistory, accepted: asyncio.Event) -> None:
        turn = found.turn
        body: dict[str, Any] = {"message": turn.job.message}
        if found.thread_id:
            body["thread_id"] = found.thread_id
        async with asyncio.TaskGroup() as beside:
            request = "first"
            result = await self._run(found, body, found.key, request, accepted, beside)
            while result["status"] == "interrupted":
                body = {"thread_id": found.thread_id, "resume": await self._decide(found, result)}
                request = f"resume{len(found.runs)}"
                try:
                    result = await self._run(found, body, f"{found.key}-{len(found.runs)}", request, accepted, beside)
                except _Refused:  # cancelling the run may have taken its question back
                    result = await self._end(found, found.runs[-1])
                    if result["status"] != "cancelled":
                        raise
            if turn.repeat:
                # At any address: it is the same request.
                path = self._dice.choice(list(_PATHS.values()))
                await self._post(found, path, self._first_body(found), found.key, "first again")

    def _first_body(self, found: TurnHistory) -> dict[str, Any]:
        body: dict[str, Any] = {"message": found.turn.job.message}
        first = self._history.talk_of(found.turn.tag)[0]
        if first is not found:
            body["thread_id"] = found.thread_id
        return body

    async def _run(
        self,
        found: TurnHistory,
        body: dict[str, Any],
        key: str,
        name: str,
        accepted: asyncio.Event,
        beside: asyncio.TaskGroup,
    ) -> dict[str, Any]:
        """One run from acceptance to its end; its result."""

        def began(run_id: str, thread_id: str) -> None:
            if run_id in found.runs:
                return
            found.runs.append(run_id)
            found.thread_id = found.thread_id or thread_id
            accepted.set()
            if found.turn.follow:
                beside.create_task(self._follow(found, Stream(f"follower of {run_id}", run_id), ()))
            if found.turn.cancel_after is not None:
                beside.create_task(self._cancel(found, run_id, found.turn.cancel_after))

        mode = found.turn.mode
        if mode == "stream":
            stream = await self._stream(found, body, key, name, began)
            await self._follow(found, stream, found.turn.drops)
            run_id = stream.run_id
        else:
            answer = await self._post(found, _PATHS[mode], body, key, name)
            run_id = answer["run_id"]
            began(run_id, answer["thread_id"])
            if mode == "chat" and "answer" in answer:  # else it is a view of the run, which took longer
                found.answers.append((run_id, answer))
        return await self._end(found, run_id)

    async def _post(self, found: TurnHistory, path: str, body: dict[str, Any], key: str, name: str) -> dict[str, Any]:
        """Ask until there is an answer that names a run. Raises `_Refused` for one that will not change."""
        while True:
            api = self._api()
            at, request = self._history.now(), f"POST {name} {path}"
            try:
                response = await self._http.post(
                    self._urls[api] + path, json=body, headers={"Idempotency-Key": key}, timeout=self._chat_timeout
                )
            except httpx.TransportError as error:
                found.replies.append(Reply(at, request, api, 0, note=type(error).__name__))
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            answer = _json(response)
            run_id = answer.get("run_id", "") or response.headers.get("x-run-id", "")
            found.replies.append(Reply(at, request, api, response.status_code, run_id, answer.get("type", "")))
            if run_id:
                return answer
            if response.status_code < 500:
                raise _Refused(f"{request} answered {response.status_code}: {answer.get('detail')}")
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _stream(
        self, found: TurnHistory, body: dict[str, Any], key: str, name: str, began: Callable[[str, str], None]
    ) -> Stream:
        """Ask for a stream until one begins, and read it until it breaks, ends or the client leaves."""
        while True:
            api = self._api()
            at, request = self._history.now(), f"POST {name} /api/stream"
            url = self._urls[api] + "/api/stream"
            try:
                async with self._http.stream("POST", url, json=body, headers={"Idempotency-Key": key}) as response:
                    run_id = response.headers.get("x-run-id", "")
                    found.replies.append(Reply(at, request, api, response.status_code, run_id))
                    if run_id:
                        began(run_id, response.headers["x-thread-id"])
                        stream = Stream(f"streamer of {run_id}", run_id, connections=[(at, api, "0-0")])
                        found.streams.append(stream)
                        with contextlib.suppress(httpx.TransportError):
                            await self._read(response, stream, found.turn.drops[:1])
                        return stream
                    if response.status_code < 500:
                        raise _Refused(f"{request} answered {response.status_code}: {(await response.aread())[:300]!r}")
            except httpx.TransportError as error:
                found.replies.append(Reply(at, request, api, 0, note=type(error).__name__))
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _follow(self, found: TurnHistory, stream: Stream, drops: tuple[int, ...]) -> None:
        """Read the run's stream to its end, after a break from where it broke."""
        if stream not in found.streams:
            found.streams.append(stream)
        while not (stream.events and stream.events[-1].name == "end"):
            api = self._api()
            last = next((seen.id for seen in reversed(stream.events)), "")
            stream.connections.append((self._history.now(), api, last))
            drop = drops[len(stream.connections) - 1 : len(stream.connections)]
            try:
                url = f"{self._urls[api]}/runs/{stream.run_id}/stream"
                async with self._http.stream("GET", url, headers={"Last-Event-ID": last} if last else {}) as response:
                    if response.status_code == 204:
                        stream.refused_over = True
                        return
                    if response.status_code == 200:
                        await self._read(response, stream, drop)
                        continue
                    if response.status_code < 500:
                        raise _Refused(f"GET {url} answered {response.status_code}")
            except httpx.TransportError:
                pass
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _read(self, response: httpx.Response, stream: Stream, drop: tuple[int, ...]) -> None:
        """Record events until the connection ends, or after `drop` of them."""
        id_ = name = ""
        count = 0
        async for line in response.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "id":
                id_ = value
            elif field == "event":
                name = value
            elif field == "data":
                stream.events.append(Seen(self._history.now(), id_, name, json.loads(value)))
                count += 1
                if name == "lost":
                    raise _Refused(f"the stream says that run {stream.run_id} is lost")
                if name == "end" or (drop and count >= drop[0]):
                    return

    async def _end(self, found: TurnHistory, run_id: str) -> dict[str, Any]:
        """The run's result, as GET /runs/{run_id} tells it."""
        while True:
            look = await self.look(found, run_id)
            if look is not None and look.status in _OVER:
                if look.result is None:
                    raise _Refused(f"run {run_id} is {look.status} and has no result")
                return look.result
            await asyncio.sleep(_POLL_SECONDS)

    async def look(self, found: TurnHistory, run_id: str) -> Look | None:
        """One look at the run; None when no api answered."""
        api = self._api()
        at = self._history.now()
        try:
            response = await self._http.get(f"{self._urls[api]}/runs/{run_id}")
        except httpx.TransportError:
            return None
        if response.status_code >= 500:
            return None
        if response.status_code != 200:
            raise _Refused(f"GET /runs/{run_id} answered {response.status_code}")
        answer = response.json()
        look = Look(at, run_id, answer["status"], answer["result"])
        found.looks.append(look)
        return look

    async def _cancel(self, found: TurnHistory, run_id: str, after: float) -> None:
        await asyncio.sleep(after)
        while True:
            api = self._api()
            at = self._history.now()
            try:
                response = await self._http.post(f"{self._urls[api]}/runs/{run_id}/cancel")
            except httpx.TransportError as error:
                found.replies.append(Reply(at, "cancel", api, 0, note=type(error).__name__))
            else:
                status = _json(response).get("status", "")
                found.replies.append(Reply(at, "cancel", api, response.status_code, run_id, str(status)))
                if response.status_code == 202:
                    found.cancelled = True
                    return
                if response.status_code < 500:
                    raise _Refused(f"cancelling {run_id} answered {response.status_code}")
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _decide(self, found: TurnHistory, result: dict[str, Any]) -> dict[str, Any]:
        """What a person says who is asked for outcomes that nobody knows: looks at the outside world, and tells.

        They look only when whoever made the call can no longer be at it: a call on its way cannot be called back.
        """
        await self._calm()
        made = {(effect.tag, effect.call): effect for effect in await asyncio.to_thread(self._store.effects)}
        said: dict[str, dict[str, Any]] = {}
        for question in result["interrupts"]:
            if question["value"].get("kind") != "effect_unknown":
                raise _Refused(f"run {result['run_id']} asks {question['value']!r}, which nobody planned")
            said[question["id"]] = {}
            for call in question["value"]["calls"]:
                done = (call["args"]["tag"], call["args"]["call"]) in made
                said[question["id"]][call["call_id"]] = (
                    {"decision": "done", "result": f"{call['tool']} {call['args']['call']} done"}
                    if done
                    else {"decision": "repeat"}
                )
        found.decisions.append((self._history.now(), result["run_id"], said))
        # One question takes its answer as it is, several take theirs by the question's id.
        return said if len(said) > 1 else next(iter(said.values()))

    def _api(self) -> int:
        return self._dice.randrange(len(self._urls))


class _Refused(Exception):
    """An answer that asking again would not change."""


def _refusal(error: Exception) -> _Refused:
    """The refusal that a client's tasks ended with. Raises `error` itself when something else is among it."""
    if isinstance(error, _Refused):
        return error
    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        return _refusal(error.exceptions[0])
    raise error


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
