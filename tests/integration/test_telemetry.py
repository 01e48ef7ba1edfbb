"""What leaves the service by OTLP: one trace per request across the queue, every declared metric, and no text."""

from __future__ import annotations

import asyncio
import re
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from app.infra import telemetry
from app.infra.keys import Keys
from tests.support.model_server import MODEL, ModelServer
from tests.support.service import ROOT, Service
from tests.support.waiting import eventually

QUESTION = "When does the harbour office open?"
ANSWER = "The harbour office opens at 7:30 and closes at 16:00"
DOCUMENT = f"# The harbour of Norvik\n\n## Opening hours\n\n{ANSWER}. It is closed on Sundays.\n"


class Collector:
    """An OTLP/HTTP receiver on loopback that keeps what it gets."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[tuple[str, Span]] = []
        self._metrics: dict[str, Metric] = {}
        self.raw = b""
        """Everything that came in, as it came."""

        def receive(path: str, body: bytes) -> None:
            with self._lock:
                self.raw += body
                if path == "/v1/traces":
                    for part in ExportTraceServiceRequest.FromString(body).resource_spans:
                        service = next(
                            a.value.string_value for a in part.resource.attributes if a.key == "service.name"
                        )
                        self._spans += [(service, span) for scope in part.scope_spans for span in scope.spans]
                elif path == "/v1/metrics":
                    for told in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                        self._metrics |= {one.name: one for scope in told.scope_metrics for one in scope.metrics}

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receive(self.path, self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: the tests look at what was received."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def spans(self, trace_id: str) -> list[tuple[str, Span]]:
        """The spans of a trace as (service, span)."""
        with self._lock:
            return [(service, span) for service, span in self._spans if span.trace_id.hex() == trace_id]

    def all_spans(self) -> list[Span]:
        with self._lock:
            return [span for _, span in self._spans]

    def metrics(self) -> dict[str, Metric]:
        with self._lock:
            return dict(self._metrics)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


@pytest.fixture(scope="module")
def service(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The built-in agent, exporting every fraction of a second."""
    documents: Path = tmp_path_factory.mktemp("documents")
    (documents / "harbour.md").write_text(DOCUMENT)
    with ModelServer() as models:
        env = {
            **models.env(),
            "LANGGRAPH_CONFIG": str(ROOT / "langgraph.json"),
            "DEFAULT_GRAPH": "agent",
            "DOCUMENTS_PATH": str(documents),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
        }
        with Service(env=env) as running:
            yield running


async def ask(service: Service, message: str) -> tuple[str, dict[str, Any]]:
    """Ask as a traced client would: the id of its trace, and the answer or problem."""
    trace_id = uuid.uuid4().hex
    async with service.client() as http:
        headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
        response = await http.post("/chat", json={"message": message}, headers=headers)
    found: dict[str, Any] = response.json()
    return trace_id, found


async def spans_until(collector: Collector, trace_id: str, wanted: Callable[[set[str]], bool]) -> dict[str, Any]:
    """The trace's spans by name, once `wanted` accepts their names."""

    async def look() -> dict[str, tuple[str, Span]]:
        return {span.name: (service, span) for service, span in collector.spans(trace_id)}

    return await eventually(look, until=lambda found: wanted(set(found)), seconds=30)


async def test_one_trace_leads_from_the_request_to_the_worker_its_model_calls_and_tools(
    service: Service, collector: Collector
) -> None:
    """Each span lies inside the one that caused it, also where a queue and another process are between them."""
    trace_id, answer = await ask(service, QUESTION)
    assert answer["answer"].startswith(ANSWER)
    chat = f"chat {MODEL}"
    wanted = {"POST /chat", "run agent", chat, "execute_tool search_documents"}
    spans = await spans_until(collector, trace_id, lambda names: wanted <= names)
    assert spans["POST /chat"][0] == "slipway-api"
    assert {spans[name][0] for name in wanted - {"POST /chat"}} == {"slipway-worker"}
    by_id = {span.span_id: span for _, span in collector.spans(trace_id)}

    def above(span: Span) -> list[str]:
        names = []
        while span.parent_span_id in by_id:
            span = by_id[span.parent_span_id]
            names.append(span.name)
        return names

    assert above(spans["run agent"][1]) == ["POST /chat"]
    for name in (chat, "execute_tool search_documents"):
        assert above(spans[name][1])[-2:] == ["run agent", "POST /chat"], name
    calls = [span for _, span in collector.spans(trace_id) if span.name == chat]
    assert len(calls) == 2, "the plan and the answer"
    attributes = {a.key: a.value for a in spans["run agent"][1].attributes}
    assert attributes["slipway.run.id"].string_value == answer["run_id"]
    assert attributes["slipway.run.status"].string_value == "success"


async def test_every_declared_metric_arrives(service: Service, collector: Collector) -> None:
    """Those of a quiet life; drains and refused writes need a stopping or a fenced worker."""
    await ask(service, QUESTION)
    rare = {"slipway.worker.drains", "slipway.fencing.refusals"}

    async def look() -> dict[str, Metric]:
        return collector.metrics()

    found = await eventually(look, until=lambda have: declared() - rare <= have.keys(), seconds=30)
    directions = {
        attribute.value.string_value
        for point in found["slipway.tokens"].sum.data_points
        for attribute in point.attributes
        if attribute.key == "direction"
    }
    assert directions == {"input", "output"}
    first_token = found["slipway.run.time_to_first_token"].histogram.data_points[0]
    whole = found["slipway.run.duration"].histogram.data_points[0]
    assert 0 < first_token.sum / first_token.count <= whole.sum / whole.count
    assert found["slipway.cost"].sum.data_points[0].as_double > 0


async def test_no_text_of_anybody_is_exported(service: Service, collector: Collector) -> None:
    """Not the question, not the answer, not a passage, and not what a failing model server said."""
    trace_id, _ = await ask(service, QUESTION)
    await spans_until(collector, trace_id, lambda names: {"POST /chat", "run agent"} <= names)
    failed_id, problem = await ask(service, "Is the model always down?")
    assert problem["status"] == 502, "the model server must have failed"
    failed = await spans_until(collector, failed_id, lambda names: {"POST /chat", f"chat {MODEL}"} <= names)
    span = failed[f"chat {MODEL}"][1]
    assert span.status.code == span.status.STATUS_CODE_ERROR
    assert any(a.key == "error.type" for a in span.attributes), "which error it was may be told"
    for text in (QUESTION, "harbour", "7:30", "Sundays", "always down", "the secret of the house"):
        assert text.encode() not in collector.raw, f"{text!r} was exported"


async def test_probes_leave_no_spans(service: Service, collector: Collector) -> None:
    """They come every few seconds for ever."""
    async with service.client() as http:
        assert (await http.get("/healthz")).status_code == 200
    trace_id, _ = await ask(service, QUESTION)
    await spans_until(collector, trace_id, lambda names: "POST /chat" in names)
    assert not [span.name for span in collector.all_spans() if "healthz" in span.name]


async def test_a_stopping_worker_sends_what_it_still_holds(collector: Collector) -> None:
    """Its last runs are those that one wants to see: what it was refused, and what it handed back."""
    env = {
        "LEASE_SECONDS": "1",
        "DRAIN_SECONDS": "1",
        # Nothing is sent for minutes, but at the end.
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "600000",
        "OTEL_METRIC_EXPORT_INTERVAL": "600000",
    }
    with Service(env=env) as own:
        trace_id, answer = await ask(own, "hello")
        assert answer["status"] == "success"
        worker = own.workers[0]
        async with own.client() as http:

            async def begin() -> str:
                accepted = await http.post("/chat/async", json={"message": "x", "graph": "slow"})
                run_id: str = accepted.json()["run_id"]

                async def look() -> str:
                    return str((await http.get(f"/runs/{run_id}")).json()["status"])

                await eventually(look, until=lambda status: status == "running")
                return run_id

            # As another worker would take the run over, had this one been frozen for a while.
            own.redis.hincrby(Keys().epochs, await begin(), 1)
            await asyncio.to_thread(worker.wait_for, "run has a newer owner")
            await begin()
        worker.send(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 30) == 0
    assert "run instant" in {span.name for _, span in collector.spans(trace_id)}
    assert {"slipway.worker.drains", "slipway.fencing.refusals"} <= collector.metrics().keys()


def declared() -> set[str]:
    """Names of the instruments of `app.infra.telemetry`."""
    return {
        name
        for value in vars(telemetry).values()
        if isinstance(name := getattr(value, "_name", None) or getattr(value, "name", None), str)
        and name.startswith("slipway.")
    }


def test_the_page_for_operators_names_every_metric() -> None:
    """And no other: a dashboard is written from it."""
    page = (ROOT / "docs/operations.md").read_text()
    assert set(re.findall(r"`(slipway\.[a-z_.]+)`", page)) == declared()
