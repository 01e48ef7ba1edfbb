"""Whether the models' endpoints answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.infra.settings import ModelSettings
from app.models.reachability import endpoints, reachable

LOCAL = "http://127.0.0.1:8001/v1"


def settings(**values: Any) -> ModelSettings:
    given = {"openai_base_url": LOCAL, "openai_api_key": "secret", **values}
    return ModelSettings(_env_file=None, **given)


def client(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


@pytest.mark.parametrize(
    ("status", "there"), [(200, True), (401, True), (404, True), (429, True), (500, True), (502, False), (503, False)]
)
async def test_any_answer_of_the_server_itself_will_do(status: int, there: bool) -> None:
    """A refusal proves that somebody is there; a gateway's 502 that nobody is."""
    async with client(lambda request: httpx.Response(status)) as http:
        assert await reachable(settings(), http) is there


async def test_silence_is_no_answer() -> None:
    """Readiness says false, it does not fail."""

    def silent(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("too long")

    async with client(silent) as http:
        assert not await reachable(settings(), http)


async def test_the_check_is_free_and_tells_no_secret() -> None:
    """It runs every few seconds on every process."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    async with client(answer) as http:
        await reachable(settings(), http)
    assert [(request.method, str(request.url)) for request in seen] == [("GET", f"{LOCAL}/models")]
    assert "authorization" not in seen[0].headers


def test_each_provider_in_use_is_asked_once() -> None:
    """Two roles at one provider are one endpoint; a provider without a role is none."""
    both = settings(orchestrator_model="claude-sonnet-4-5", reasoning_model="gpt-5")
    assert endpoints(both) == ["https://api.anthropic.com/v1/models", f"{LOCAL}/models"]
    assert endpoints(settings()) == [f"{LOCAL}/models"]
