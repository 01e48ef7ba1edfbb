"""The built-in agent on the bundled language model: a handful of questions, as somebody without a key asks them.

Nothing is scripted here. The model is small and often wrong, so what is held is what the service owes in any case:
an answer in time that rests on a named source, or on nothing at all where it says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from components.local.model_server import MODEL
from tests.support.service import ROOT, Service
from tests.support.valkey import free_port
from tests.support.vector_store import VectorStore

FIRST_QUESTION = "What happens to a run when a worker is killed?"
"""The README's: what a newcomer sees of the agent."""
TURN_SECONDS = 60.0
"""Promised for a turn on two cores of one's own; on a busy machine a test may take twice as long."""
_PATIENCE_SECONDS = 2 * TURN_SECONDS
_START_SECONDS = 60.0


@pytest.fixture(scope="module")
def model_url() -> Iterator[str]:
    """The bundled model's server, as the platform starts it."""
    port = free_port()
    command = [sys.executable, "-m", "components.local.model_server", "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, f"the model server ended with {process.returncode}"
            assert time.monotonic() < deadline, f"the model server was not ready within {_START_SECONDS:g} s"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def service(model_url: str) -> Iterator[Service]:
    """The service as `make up` configures it without a key: this repository's documents, the bundled model."""
    with VectorStore() as vectors:
        env = {
            "LANGGRAPH_CONFIG": str(ROOT / "langgraph.json"),
            "DEFAULT_GRAPH": "agent",
            "OPENAI_BASE_URL": model_url,
            "OPENAI_API_KEY": "local",
            "ORCHESTRATOR_MODEL": MODEL,
            "REASONING_MODEL": MODEL,
            "QDRANT_URL": vectors.url,
            "CHAT_TIMEOUT_SECONDS": str(_PATIENCE_SECONDS),
        }
        with Service(env=env) as running:
            yield running


async def ask(service: Service, message: str, **headers: str) -> dict[str, Any]:
    """The answer within the patience; prints how long it took."""
    started = time.monotonic()
    async with service.client() as http:
        response = await http.post("/chat", json={"message": message}, headers=headers, timeout=_PATIENCE_SECONDS)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    print(f"{message!r}: {time.monotonic() - started:.1f} s: {answer['answer']!r}")
    return answer


async def test_the_first_question_is_answered_from_the_documents(service: Service) -> None:
    """Asked right after the start, while the documents are still being indexed."""
    answer = await ask(service, FIRST_QUESTION)
    assert answer["status"] == "success"
    assert answer["model"] == MODEL
    assert any(source["uri"].startswith("runs.md#") for source in answer["sources"]), answer["sources"]
    said = answer["answer"].lower()
    goes_on = ("another worker", "next free worker", "not lost", "checkpoint", "takes its run over", "taken over")
    assert any(words in said for words in goes_on), said
    assert answer["usage"]["output_tokens"] > 0
    assert answer["cost_usd"] == 0, "it runs on our own machine"


async def test_a_question_in_other_words_is_answered_from_the_documents(service: Service) -> None:
    answer = await ask(service, "How long are memories of a user found again?")
    assert answer["model"] == MODEL
    assert answer["sources"], "nothing was found"


async def test_tokens_stream_while_the_model_writes(service: Service) -> None:
    """On a small machine the first words come long before the last."""
    events: list[tuple[str, Any]] = []
    name = ""
    body = {"message": "What is an epoch?"}
    async with (
        service.client() as http,
        http.stream("POST", "/api/stream", json=body, timeout=_PATIENCE_SECONDS) as response,
    ):
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
    tokens = [data["data"] for kind, data in events if kind == "messages"]
    assert sum(token["type"] == "AIMessageChunk" and bool(token["content"]) for token, _ in tokens) >= 3
    assert events[-1][0] == "end"
    assert events[-1][1]["answer"]
    assert events[-1][1]["sources"]


async def test_what_was_remembered_is_known_in_another_thread(service: Service) -> None:
    said = await ask(service, "Remember that my team is called Orion.", **{"X-User-Id": "mara"})
    assert "Orion" in said["answer"]
    found = await ask(service, "What is my team called?", **{"X-User-Id": "mara"})
    assert found["thread_id"] != said["thread_id"]
    assert "Orion" in found["answer"]
    other = await ask(service, "What is my team called?", **{"X-User-Id": "nils"})
    assert "Orion" not in other["answer"]


async def test_a_data_question_says_what_the_model_cannot_do(service: Service) -> None:
    """Too small to write SQL: saying so beats a number that it made up."""
    answer = await ask(service, "How many customers do we have?")
    assert MODEL in answer["answer"]
    assert "too small" in answer["answer"]
