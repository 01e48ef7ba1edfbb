"""Puts a case to the service as a client would: one streamed turn after the other, over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.evaluation.dataset import Case, Turn

_MOST_WAITS = 5
"""Answers 429 in a row after which a turn counts as failed: the evaluation's own pace is not what is judged."""


class TurnFailed(Exception):
    """The service gave no answer. The text says what it gave instead; never a failure of the answer itself."""


@dataclass(frozen=True, slots=True)
class Source:
    """What an answer rests on, as the service names it. `text` is the cited passage, if it was sent."""

    uri: str
    title: str = ""
    text: str = ""


@dataclass(slots=True)
class Reply:
    """What one turn gave."""

    answer: str = ""
    streamed: str = ""
    """The text of all message pieces, as a client would have shown them while they came."""
    sources: list[Source] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)
    """Tools that were called, in order, as the run's steps report them."""
    intent: str = ""
    """What the service took the message for; empty when no step said so."""
    model: str = ""
    release: str = ""
    run_id: str = ""
    thread_id: str = ""
    status: str = ""
    finish_reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    seconds: float = 0.0
    """From the request to the end of the run."""
    first_text_seconds: float | None = None
    """From the request to the first piece of text; None when no text was streamed."""


@dataclass(slots=True)
class Transcript:
    """What a case gave: the replies so far, and the error that ended it, if one did."""

    replies: list[Reply] = field(default_factory=list)
    error: str = ""

    @property
    def last(self) -> Reply:
        return self.replies[-1] if self.replies else Reply()


class ServiceClient:
    """A client of one running service. Use it as an async context manager."""

    def __init__(self, url: str, key: str, *, timeout_seconds: float = 180) -> None:
        self._timeout = timeout_seconds
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"),
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(30, read=timeout_seconds),
        )

    async def __aenter__(self) -> ServiceClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def check(self) -> None:
        """Whether the service is there and takes the key. Raises `TurnFailed` with what to do."""
        try:
            ready = await self._http.get("/readiness")
            known = await self._http.get(f"/runs/{uuid.uuid4()}")
        except httpx.HTTPError as error:
            raise TurnFailed(
                f"the service does not answer ({type(error).__name__}); is it up? see `make up`"
            ) from error
        if ready.status_code != 200:
            raise TurnFailed(f"the service is not ready: /readiness says {ready.status_code}")
        if known.status_code == 401:
            raise TurnFailed("the service does not know the key; `make -s outputs SHOW_SECRETS=1` prints the right one")

    async def play(self, case: Case) -> Transcript:
        """All turns of a case, each after the one before; what it asked to be remembered is deleted afterwards."""
        transcript = Transcript()
        users = {name: f"eval-{uuid.uuid4().hex[:16]}" for name in ("first", "other")}
        thread: str | None = None
        try:
            for turn in case.turns:
                thread = None if turn.thread == "new" else thread
                reply = await self._within(turn, thread, users[turn.user])
                transcript.replies.append(reply)
                thread = reply.thread_id
            if case.category == "memory":
                for user in {users[turn.user] for turn in case.turns}:
                    await self._http.delete("/memories", headers={"X-User-Id": user})
        except TurnFailed as failure:
            transcript.error = str(failure)
        except httpx.HTTPError as error:
            transcript.error = f"{type(error).__name__}: no complete answer"
        return transcript

    async def _within(self, turn: Turn, thread: str | None, user: str) -> Reply:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._turn(turn, thread, user)
        except TimeoutError:
            raise TurnFailed(f"no end within {self._timeout:g} s") from None

    async def _turn(self, turn: Turn, thread: str | None, user: str) -> Reply:
        body = {"message": turn.say} | ({"thread_id": thread} if thread else {})
        headers = {"X-User-Id": user}
        for _ in range(_MOST_WAITS):
            begun = time.monotonic()
            async with self._http.stream("POST", "/api/stream", json=body, headers=headers) as response:
                if response.status_code == 429:
                    await asyncio.sleep(_retry_after(response))
                    continue
                if response.status_code != 200:
                    raise TurnFailed(f"HTTP {response.status_code}: {_problem(await response.aread())}")
                return await _read(response, begun)
        raise TurnFailed(f"refused with 429 {_MOST_WAITS} times; lower --concurrency or raise RATE_LIMIT_CALLS")


async def _read(response: httpx.Response, begun: float) -> Reply:
    reply = Reply()
    async for name, data in events(response.aiter_lines()):
        if name == "attempt":
            reply.streamed, reply.tools = "", []  # what an earlier attempt sent is superseded
        elif name == "messages":
            text = _text_of(data["data"][0])
            if text and reply.first_text_seconds is None:
                reply.first_text_seconds = time.monotonic() - begun
            reply.streamed += text
        elif name in ("updates", "custom"):
            reply.tools += tools_in(data.get("data"))
            reply.intent = intent_in(data.get("data")) or reply.intent
        elif name == "end":
            _finish(reply, data, time.monotonic() - begun)
            return reply
    raise TurnFailed("the stream ended before the run did")


def _finish(reply: Reply, result: dict[str, Any], seconds: float) -> None:
    reply.status = result["status"]
    if reply.status not in ("success", "interrupted"):
        raise TurnFailed(f"the run ended as {reply.status} ({result.get('error', {}).get('kind', 'no reason given')})")
    reply.answer = result.get("answer") or ""
    reply.sources = [
        Source(str(source["uri"]), str(source.get("title", "")), str(source.get("excerpt", "")))
        for source in result.get("sources", [])
    ]
    usage = result.get("usage") or {}
    reply.input_tokens, reply.output_tokens = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
    reply.cost_usd, reply.seconds = result.get("cost_usd"), seconds
    reply.finish_reason = result.get("finish_reason") or ""
    for name in ("model", "release", "run_id", "thread_id"):
        setattr(reply, name, result.get(name) or "")


async def events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Name and data of each Server-Sent Event. Raises `TurnFailed` for data that is no JSON object."""
    name, parts = "", list[str]()
    async for line in lines:
        if not line:
            if parts:
                yield name, _json("\n".join(parts))
            name, parts = "", []
            continue
        label, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if label == "event":
            name = value
        elif label == "data":
            parts.append(value)


def tools_in(update: Any) -> list[str]:
    """Names of the tools whose results a step reports, in order; see `Reply.tools`."""
    return list(_tools(update))


def intent_in(update: Any) -> str:
    """The intent that a step wrote into the state, "" when it wrote none."""
    steps = update.values() if isinstance(update, dict) else ()
    found = [step["intent"] for step in steps if isinstance(step, dict) and isinstance(step.get("intent"), str)]
    return found[-1] if found else ""


def _tools(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for part in value:
            yield from _tools(part)
    elif isinstance(value, dict):
        if isinstance(value.get("tool"), str) and "ok" in value:
            yield value["tool"]
            return
        for part in value.values():
            yield from _tools(part)


def _text_of(chunk: dict[str, Any]) -> str:
    if chunk.get("type") not in ("AIMessageChunk", "ai"):
        return ""
    content = chunk.get("content")
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or [] if isinstance(part, dict))


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise TurnFailed("an event's data is not JSON") from error
    if not isinstance(value, dict):
        raise TurnFailed("an event's data is not a JSON object")
    return value


def _problem(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return "no problem document"


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("retry-after", "2")
    return min(60.0, float(value)) if value.isdigit() else 2.0
