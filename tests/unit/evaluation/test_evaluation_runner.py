"""The runner against a scripted server on loopback: what is asked, what is read, what the exit code says."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.infra.settings import REPOSITORY
from tests.evaluation import __main__ as runner
from tests.evaluation import thresholds

Event = tuple[str, dict[str, Any]]
Script = Callable[[dict[str, Any]], list[Event] | int]


def result(answer: str, *, thread: str = "t1", **more: Any) -> Event:
    """The event `end` of a run that succeeded."""
    data = {
        "run_id": "r1",
        "thread_id": thread,
        "release": "stable",
        "model": "smollm2-135m-instruct",
        "answer": answer,
    }
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    return "end", {**data, "status": "success", "finish_reason": "stop", "usage": usage, "sources": [], **more}


def piece(text: str) -> Event:
    """A piece of the answer as it is streamed."""
    return "messages", {"ns": [], "data": [{"type": "AIMessageChunk", "content": text}, {"langgraph_node": "answer"}]}


class Service:
    """A service that does what its script says; remembers what it was asked."""

    def __init__(self, script: Script) -> None:
        self.asked: list[dict[str, Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                if self.path.endswith("/stream"):
                    self._stream({"resumed": self.path, "after": self.headers["last-event-id"]})
                    return
                known = self.headers["authorization"] == "Bearer right"
                self._answer(200 if self.path == "/readiness" else 404 if known else 401)

            def do_DELETE(self) -> None:
                service.asked.append({"deleted": self.path, "user": self.headers["x-user-id"]})
                self._answer(204)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self._stream({**body, "user": self.headers["x-user-id"]})

            def _stream(self, asked: dict[str, Any]) -> None:
                service.asked.append(asked)
                said = script(asked)
                if isinstance(said, int):
                    detail = json.dumps({"detail": "no luck"}).encode()
                    self._answer(said, detail, retry_after="0")
                    return
                text = ": a comment\n\n" + "".join(
                    f"id: 1-{i}\nevent: {name}\ndata: {json.dumps(data)}\n\n" for i, (name, data) in enumerate(said)
                )
                self._answer(200, text.encode(), content_type="text/event-stream")

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Script], Service]]:
    """Starts services; ends them with the test."""
    services: list[Service] = []

    def start(script: Script) -> Service:
        services.append(Service(script))
        return services[-1]

    yield start
    for service in services:
        service.close()


@pytest.fixture
def limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Thresholds that want everything, in place of the real ones."""
    every = {"at_least": 1.0, "measured": None, "day": None}
    names = ("documents", "database", "tools", "refusal", "injection", "leakage", "memory")
    profile = {"models": ".*", "categories": dict.fromkeys(names, every), "grades": {"facts": every}}
    file = tmp_path / "thresholds.yaml"
    file.write_text(yaml.safe_dump({"errors_at_most": 0.0, "profiles": {"strict": profile}}))
    monkeypatch.setattr(thresholds.load, "__defaults__", (file,))
    return file


@pytest.fixture
def evaluate(tmp_path: Path, limits: Path) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Runs the program on some cases; gives exit code, report and page."""

    def run(
        service: Service, category: str, *cases: dict[str, Any], key: str = "right"
    ) -> tuple[int, dict[str, Any], str]:
        file, out = tmp_path / "cases.yaml", tmp_path / "out"
        file.write_text(yaml.safe_dump({"category": category, "cases": list(cases)}))
        code = runner.main(
            ["--url", service.url, "--key", key, "--dataset", str(file), "--out", str(out), "--timeout", "10"]
        )
        if code == 2:
            return code, {}, ""
        return code, json.loads((out / "report.json").read_text()), (out / "report.html").read_text()

    return run


CASE = {"id": "one", "ask": "How long is a lease?", "expect": {"all": ["lease"], "tools": ["search_documents"]}}


def test_a_right_answer_is_read_from_the_stream(serve: Any, evaluate: Any) -> None:
    """Text, tools, intent, sources, tokens: all of it comes from one stream."""
    steps: list[Event] = [
        ("metadata", {"run_id": "r1"}),
        ("attempt", {"attempt": 1}),
        ("updates", {"ns": [], "data": {"classify": {"intent": "documents"}}}),
        ("updates", {"ns": [], "data": {"plan": {"plan": [{"id": "a", "tool": "query_database", "args": {}}]}}}),
        (
            "updates",
            {"ns": [], "data": {"execute": {"results": [{"id": "a", "tool": "search_documents", "ok": True}]}}},
        ),
        piece("The lease "),
        piece("is short."),
    ]
    sources = [{"title": "Runs", "uri": "runs.md#lease", "excerpt": "A lease."}]
    service = serve(lambda _: [*steps, result("The lease is short.", sources=sources)])
    code, report, page = evaluate(service, "documents", CASE)
    assert code == 0
    reply = report["cases"][0]["replies"][0]
    assert (reply["streamed"], reply["tools"], reply["intent"]) == (
        "The lease is short.",
        ["search_documents"],
        "documents",
    )
    assert reply["sources"] == [{"uri": "runs.md#lease", "title": "Runs", "text": "A lease."}]
    assert report["figures"]["output_tokens"] == 5
    assert report["profile"] == "strict"
    assert "all thresholds held" in page


def test_what_an_earlier_attempt_streamed_does_not_count(serve: Any, evaluate: Any) -> None:
    """The worker died in between: its pieces were never the answer."""
    service = serve(lambda _: [piece("Wrong lea"), ("attempt", {"attempt": 2}), piece("lease"), result("lease")])
    _, report, _ = evaluate(service, "documents", {**CASE, "expect": {"all": ["lease"], "none": ["wrong"]}})
    assert report["cases"][0]["replies"][0]["streamed"] == "lease"
    assert report["held"]


def test_a_wrong_answer_fails_the_run(serve: Any, evaluate: Any) -> None:
    """Exit 1, and the page names the fact that is missing."""
    code, report, page = evaluate(serve(lambda _: [result("No idea.")]), "documents", CASE)
    assert code == 1
    assert not report["held"]
    assert "not stated: lease" in page


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (500, "HTTP 500: no luck"),
        ([piece("half an ans")], "ended before the run did"),
        ([("end", {"status": "error", "error": {"kind": "internal"}})], "ended as error (internal)"),
    ],
)
def test_no_answer_is_an_error_and_a_failure(serve: Any, evaluate: Any, said: Any, told: str) -> None:
    """Reported apart, so that an outage is not taken for a bad model."""
    code, report, page = evaluate(
        serve(lambda _: said), "leakage", {"id": "one", "ask": "?", "expect": {"none": ["x"]}}
    )
    assert code == 1
    assert told in report["cases"][0]["error"]
    assert told in page
    assert report["figures"]["errors"] == 1
    assert [check["passed"] for check in report["checks"] if check["kind"] == "category"] == [0]


def test_a_refusal_for_pace_is_waited_out(serve: Any, evaluate: Any) -> None:
    """The rate limit protects the service; the evaluation is the one that is too fast."""
    replies = iter([429, 429, [result("lease", sources=[])]])
    code, _, _ = evaluate(serve(lambda _: next(replies)), "documents", {**CASE, "expect": {"all": ["lease"]}})
    assert code == 0


def test_turns_share_a_thread_and_users_are_their_own(serve: Any, evaluate: Any) -> None:
    """A new thread is a new conversation, another user another id; what was remembered is deleted at the end."""
    threads = iter(["t1", "t1", "t2", "t3"])
    service = serve(lambda _: [result("Kestrel", thread=next(threads))])
    turns: list[dict[str, str]] = [
        {"say": "one"},
        {"say": "two"},
        {"say": "three", "thread": "new"},
        {"say": "four", "thread": "new", "user": "other"},
    ]
    evaluate(service, "memory", {"id": "one", "turns": turns, "expect": {"all": ["Kestrel"]}})
    asked, deleted = service.asked[:4], service.asked[4:]
    assert [turn.get("thread_id") for turn in asked] == [None, "t1", None, None]
    first, other = asked[0]["user"], asked[3]["user"]
    assert [turn["user"] for turn in asked] == [first, first, first, other]
    assert first != other
    assert {(one["deleted"], one["user"]) for one in deleted} == {("/memories", first), ("/memories", other)}


def test_a_wrong_key_ends_the_run_before_it_begins(
    serve: Any, evaluate: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forty failures for one reason help nobody; the key itself is not printed."""
    service = serve(lambda _: [result("x")])
    assert evaluate(service, "documents", CASE, key="wrong-secret")[0] == 2
    told = capsys.readouterr()
    assert "does not know the key" in told.err
    assert "wrong-secret" not in told.err + told.out
    assert service.asked == []


def test_markup_in_an_answer_is_shown_and_not_run(serve: Any, evaluate: Any) -> None:
    """The page is opened in a browser, and a model writes what it was told to write."""
    attack = "lease <script>alert(1)</script><img src=x onerror=alert(1)>"
    _, _, page = evaluate(serve(lambda _: [result(attack)]), "documents", CASE)
    assert "<script>alert(1)" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_answers_can_be_graded_again_without_asking(serve: Any, evaluate: Any, tmp_path: Path, limits: Path) -> None:
    """After a change of a label or a grader, the answers that were paid for are still there."""
    sources = [{"title": "Runs", "uri": "runs.md", "excerpt": "A lease."}]
    service = serve(lambda _: [result("It is short.", sources=sources)])
    code, before, _ = evaluate(service, "documents", CASE)
    assert code == 1
    file, asked = tmp_path / "cases.yaml", len(service.asked)
    file.write_text(yaml.safe_dump({"category": "documents", "cases": [{**CASE, "expect": {"all": ["short"]}}]}))
    again = ["--regrade", str(tmp_path / "out/report.json"), "--dataset", str(file), "--out", str(tmp_path / "again")]
    assert runner.main(again) == 0
    after = json.loads((tmp_path / "again/report.json").read_text())
    assert after["cases"][0]["replies"] == before["cases"][0]["replies"]
    assert len(service.asked) == asked
    assert runner.main([*again[:1], str(file), *again[2:]]) == 2


def test_a_password_in_the_url_is_refused(capsys: pytest.CaptureFixture[str], limits: Path) -> None:
    """The URL stands in the report, and reports are attached to build logs."""
    assert runner.main(["--url", "http://me:hunter2@127.0.0.1:1", "--key", "right"]) == 2
    told = capsys.readouterr()
    assert "SLIPWAY_API_KEY" in told.err
    assert "hunter2" not in told.err + told.out


@pytest.mark.parametrize(
    ("more", "told"),
    [(["--concurrency", "0"], "at least 1"), (["--profile", "huge"], "use auto, strict"), (["--only", "xyz"], "xyz")],
)
def test_a_wrong_argument_is_told(more: list[str], told: str, limits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2 says that nothing was evaluated."""
    assert runner.main(["--url", "http://127.0.0.1:1", "--key", "right", *more]) == 2
    assert told in capsys.readouterr().err


def test_a_service_that_is_not_there_is_told(limits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before forty cases have failed for it."""
    assert runner.main(["--url", "http://127.0.0.1:1", "--key", "right"]) == 2
    assert "make up" in capsys.readouterr().err


def test_the_python_example_of_the_page_goes_on_where_it_left_off(serve: Any) -> None:
    """docs/streaming.md shows a client; it must be one that can be copied."""
    page = (REPOSITORY / "docs/streaming.md").read_text(encoding="utf-8")
    example: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], example)
    parts = iter([[("metadata", {"run_id": "r1"}), piece("Another")], [piece(" worker"), result("Another worker")]])
    service = serve(lambda _: next(parts))
    assert example["answer"](service.url, "right", "What happens?")["answer"] == "Another worker"
    assert service.asked[1] == {"resumed": "/runs/r1/stream", "after": "1-1"}
