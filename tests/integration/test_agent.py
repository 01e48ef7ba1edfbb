"""The built-in agent on real processes, with a model server that says what its scripts say.

Everything else is real: Valkey, api, worker, vector store, embeddings, the sample database. Each question belongs to
one test: `tests/support/fixtures/` holds what the model answers to it.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.model_server import MODEL, ModelServer
from tests.support.service import OTHER_KEY, ROOT, Service
from tests.support.vector_store import VectorStore

MODEL_TIMEOUT_SECONDS = 3

DOCUMENT = """# The harbour of Norvik

## Opening hours

The harbour office opens at 7:30 and closes at 16:00. It is closed on Sundays.

## Mooring

A boat of up to 8 metres pays 14 euros a night. Longer boats pay 3 euros more for each metre.
A boat may stay for 21 nights a year.

## Lighthouse

The lighthouse stands on the western pier. Ingrid Solberg keeps the lamp of the lighthouse.

## Fish market

The market sells cod and herring on Saturdays, from the boats.

## Basin and crane

The basin is 6 metres deep at low tide. The crane is 18 metres high and lifts boats of up to 20 tonnes.
"""


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture(scope="module")
def service(models: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service over a folder with one document, the bundled database and a vector store of its own."""
    documents: Path = tmp_path_factory.mktemp("documents")
    (documents / "harbour.md").write_text(DOCUMENT)
    with VectorStore() as vectors:
        env = {
            **models.env(),
            "LANGGRAPH_CONFIG": str(ROOT / "langgraph.json"),
            "DEFAULT_GRAPH": "agent",
            "DOCUMENTS_PATH": str(documents),
            "QDRANT_URL": vectors.url,
            "HTTP_ALLOWED_HOSTS": json.dumps(["localhost", "api.example.com"]),
            "MODEL_TIMEOUT_SECONDS": str(MODEL_TIMEOUT_SECONDS),
        }
        with Service(env=env) as running:
            yield running


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with service.client() as client:
        yield client


async def chat(http: httpx.AsyncClient, message: str, thread_id: str | None = None, **headers: str) -> dict[str, Any]:
    """The answer to `message`; fails the test for anything but 200."""
    body = {"message": message} | ({"thread_id": thread_id} if thread_id else {})
    response = await http.post("/chat", json=body, headers={name.replace("_", "-"): v for name, v in headers.items()})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def stream(http: httpx.AsyncClient, message: str) -> list[tuple[str, Any]]:
    """All events of a run as (name, data)."""
    events: list[tuple[str, Any]] = []
    name = ""
    async with http.stream("POST", "/api/stream", json={"message": message}) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
    return events


def custom(events: list[tuple[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The agent's own events of one type."""
    return [data["data"] for name, data in events if name == "custom" and data["data"].get("type") == kind]


async def test_an_answer_names_sources_model_tokens_and_cost(http: httpx.AsyncClient) -> None:
    """What it cost is the sum over plan and answer, at the listed price of the model."""
    answer = await chat(http, "When does the harbour office open?")
    assert answer["answer"] == "The harbour office opens at 7:30 and closes at 16:00 [1]."
    assert answer["model"] == MODEL
    (source,) = answer["sources"]
    assert source["uri"].startswith("harbour.md#")
    assert "7:30" in source["excerpt"]
    assert answer["usage"] == {"input_tokens": 1500, "output_tokens": 120, "total_tokens": 1620}
    assert answer["cost_usd"] == pytest.approx(1500 * 0.25e-6 + 120 * 2e-6)
    assert (answer["status"], answer["graph"], answer["attempt"]) == ("success", "agent", 1)


async def test_a_data_question_is_answered_from_the_database(http: httpx.AsyncClient, models: ModelServer) -> None:
    """The model is shown the rows that the query gave: there is nowhere else that it could have the figure from."""
    answer = await chat(http, "How many customers live in Germany?")
    assert answer["answer"] == "12 customers live in Germany [1]."
    assert [source["uri"] for source in answer["sources"]] == ["database:customers"]
    planning, answering = models.requests("How many customers live in Germany?")
    assert "CREATE TABLE customers" in str(planning["messages"]), "a planner must see the tables"
    assert "customers" in str(answering["messages"])
    assert "12" in str(answering["messages"])


async def test_only_tokens_of_the_answer_are_streamed(http: httpx.AsyncClient) -> None:
    """The plan is the model's output too, and no reader should see JSON appear before the answer."""
    question = "What does a night at the harbour cost, and how many orders were cancelled?"
    events = await stream(http, question)
    tokens = [data["data"] for name, data in events if name == "messages"]
    assert {where["langgraph_node"] for _, where in tokens} == {"answer"}
    text = "".join(token["content"] for token, _ in tokens)
    assert text == "A boat of up to 8 metres pays 14 euros a night [1]. 6 orders were cancelled [2]."
    assert len(tokens) > 3
    name, end = events[-1]
    assert name == "end"
    assert end["answer"] == text
    stages = [event["stage"] for event in custom(events, "progress")]
    assert stages == ["classify", "plan", "execute", "answer", "validate"]
    (execute,) = [event for event in custom(events, "progress") if event["stage"] == "execute"]
    assert execute["tools"] == ["search_documents", "query_database"], "independent calls run in one step"
    assert [source["uri"].split("#")[0] for source in end["sources"]] == ["harbour.md", "database:orders"]


async def test_an_ungrounded_draft_is_taken_back_and_written_again(
    http: httpx.AsyncClient, models: ModelServer
) -> None:
    """Its tokens have been streamed by then: the client is told which message to drop."""
    events = await stream(http, "Who keeps the lamp of the lighthouse?")
    (superseded,) = custom(events, "answer-superseded")
    drafts: dict[str, str] = {}
    for name, data in events:
        if name == "messages":
            token, _ = data["data"]
            drafts[token["id"]] = drafts.get(token["id"], "") + token["content"]
    assert "Barnabas Quill" in drafts.pop(superseded["message_id"])
    assert list(drafts.values()) == ["Ingrid Solberg keeps the lamp of the lighthouse [1]."]
    assert any("1874" in reason for reason in superseded["reason"])
    assert events[-1][1]["answer"] == "Ingrid Solberg keeps the lamp of the lighthouse [1]."
    *_, second = models.requests("Who keeps the lamp of the lighthouse?")
    assert "1874" in str(second["messages"]), "the model must be told what was wrong"
    history = await http.get(f"/threads/{events[-1][1]['thread_id']}/history")
    assert "Quill" not in history.text


async def test_a_wrong_plan_goes_back_to_the_model_with_what_is_wrong(
    http: httpx.AsyncClient, models: ModelServer
) -> None:
    answer = await chat(http, "Which fish does the market sell?")
    assert answer["answer"] == "The market sells cod and herring on Saturdays [1]."
    assert answer["attempt"] == 1
    _, repaired, _ = models.requests("Which fish does the market sell?")
    assert "there is no tool teleport" in str(repaired["messages"])


async def test_sql_that_writes_is_refused_and_the_answer_says_so(http: httpx.AsyncClient, models: ModelServer) -> None:
    """By the driver, whatever the model plans. Both plans are tried, and the data is what it was."""
    answer = await chat(http, "Throw away all orders and make everything free.")
    assert answer["status"] == "success"
    assert answer["answer"].startswith("I could not look this up.")
    assert "SELECT" in answer["answer"]
    assert answer["sources"] == []
    first, second = models.requests("Throw away all orders")
    assert "DROP TABLE orders" not in str(first["messages"])
    assert "DROP TABLE orders" in str(second["messages"]), "the second plan must know what the first one tried"
    after = await chat(http, "What does a night at the harbour cost, and how many orders were cancelled?")
    assert "6 orders were cancelled" in after["answer"]


async def test_an_allowed_host_with_a_private_address_is_not_called(
    http: httpx.AsyncClient, models: ModelServer
) -> None:
    """A name on the allow-list that leads inside would open the whole network to whoever writes the question."""
    question = "What does the page on this machine say?"
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as inside:
        inside.setblocking(False)
        url = f"http://localhost:{inside.getsockname()[1]}/secret"
        call = {"id": "a", "tool": "http_get", "args": {"url": url}}
        plain = {"id": "b", "tool": "http_get", "args": {"url": "http://localhost/secret"}}
        planned = {"content": {"calls": [call, plain]}}
        models.script({"match": {"userMessage": question, "responseFormat": "json_schema"}, "response": planned})
        answer = await chat(http, question)
        with pytest.raises(BlockingIOError):
            inside.accept()
    assert answer["answer"].startswith("I could not look this up.")
    assert "not public" in answer["answer"]
    assert "not allowed" in answer["answer"]


async def test_what_a_user_asked_to_remember_is_theirs_in_every_thread(
    http: httpx.AsyncClient, models: ModelServer
) -> None:
    """Found by the same user in another thread; not by another user, and not by that name at another tenant."""
    asked = "What is the name of my boat?"
    said = await chat(http, "Remember that my boat is called Fulmar.", X_User_Id="ada")
    assert said["answer"] == "Remembered: The user's boat is called Fulmar."
    found = await chat(http, asked, X_User_Id="ada")
    assert found["thread_id"] != said["thread_id"]
    assert found["answer"] == "Your boat is called Fulmar [1]."
    assert found["sources"][0]["uri"].startswith("memory:")
    seen = len(models.requests("Fulmar"))
    of_others = [
        await chat(http, asked, X_User_Id="bob"),
        await chat(http, asked, X_User_Id="ada", Authorization=f"Bearer {OTHER_KEY}"),
    ]
    for other in of_others:
        assert "Fulmar" not in json.dumps(other)
        assert "nothing" in other["answer"]
    assert len(models.requests("Fulmar")) == seen, "not even the model may see it"


async def test_memories_are_listed_and_forgotten(http: httpx.AsyncClient) -> None:
    ada, bob = {"X-User-Id": "ada-lists"}, {"X-User-Id": "bob-lists"}
    await chat(http, "Remember that my boat is called Fulmar.", X_User_Id="ada-lists")
    (memory,) = (await http.get("/memories", headers=ada)).json()
    assert memory["text"] == "The user's boat is called Fulmar."
    assert (await http.get("/memories", headers=bob)).json() == []
    refused = await http.delete(f"/memories/{memory['id']}", headers=bob)
    assert refused.status_code == 404
    assert (await http.delete(f"/memories/{memory['id']}", headers=ada)).json() == {"deleted": 1}
    assert (await http.get("/memories", headers=ada)).json() == []
    forgotten = await chat(http, "What is the name of my boat?", X_User_Id="ada-lists")
    assert "Fulmar" not in forgotten["answer"]


async def test_a_later_question_is_planned_and_answered_with_the_conversation(
    http: httpx.AsyncClient, models: ModelServer
) -> None:
    first = await chat(http, "What does a boat of 8 metres pay?")
    second = await chat(http, "And how long may it stay?", first["thread_id"])
    assert second["answer"] == "A boat may stay for 21 nights a year [1]."
    assert [source["excerpt"].count("14 euros") for source in second["sources"]] == [1]
    planning, answering = models.requests("And how long may it stay?")
    for request in (planning, answering):
        assert "What does a boat of 8 metres pay?" in str(request["messages"])
        assert "pays 14 euros a night [1]" in str(request["messages"])


async def test_an_overloaded_model_server_costs_an_attempt_and_no_step(
    http: httpx.AsyncClient, models: ModelServer
) -> None:
    """One 500 is repeated by the client itself; two 429 end the attempt, and the next goes on behind the plan."""
    answer = await chat(http, "How deep is the basin?")
    assert answer["answer"] == "The basin is 6 metres deep at low tide [1]."
    assert answer["attempt"] == 2
    planned = [request for request in models.requests("How deep is the basin?") if "response_format" in request]
    assert len(planned) == 2, "one 500 and one plan: a step that is saved is not done again"


async def test_an_answer_cut_off_in_its_middle_is_written_again(http: httpx.AsyncClient) -> None:
    """The end of a stream is no end of an answer: half a sentence must not be taken for one."""
    events = await stream(http, "How high is the crane?")
    assert [data["attempt"] for name, data in events if name == "attempt"] == [1, 2]
    assert events[-1][1]["answer"] == "The crane is 18 metres high and lifts boats of up to 20 tonnes [1]."
    assert events[-1][1]["status"] == "success"


async def test_a_model_server_that_stays_down_is_a_502(http: httpx.AsyncClient, service: Service) -> None:
    """Neither the client nor the log gets to see what the server said."""
    response = await http.post("/chat", json={"message": "Is the model always down?"})
    assert (response.status_code, response.json()["type"]) == (502, "urn:slipway:problem:dependency-unavailable")
    run = (await http.get(f"/runs/{response.json()['run_id']}")).json()
    assert (run["status"], run["attempt"]) == ("error", 3)
    told = response.text + json.dumps(run) + service.workers[0].log
    assert "the secret of the house" not in told


async def test_a_model_server_that_hangs_is_given_up(http: httpx.AsyncClient) -> None:
    """Three attempts of two calls of MODEL_TIMEOUT_SECONDS, and the pauses between them."""
    started = time.monotonic()
    response = await http.post("/chat", json={"message": "Does the model ever answer?"})
    assert (response.status_code, response.json()["type"]) == (502, "urn:slipway:problem:dependency-unavailable")
    assert time.monotonic() - started < 3 * 2 * MODEL_TIMEOUT_SECONDS + 20
