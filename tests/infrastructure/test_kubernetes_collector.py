"""The collector: its configuration's order, and a real collector that does what it says (`otelcol` on PATH)."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from components.kubernetes.otel_collector import OtelCollector, OtelCollectorArgs
from components.kubernetes.otel_config import (
    HEALTH_PORT,
    HTTP_PORT,
    METRICS_PORT,
    LangSmithExport,
    OtlpExport,
    Sampling,
    collector_config,
)
from tests.support.components import (
    Render,
    assert_hardened,
    assert_no_secret_in_the_open,
    assert_selected,
    assert_valid,
    rendering,
)
from tests.support.loopback_http import LoopbackServer, QuietHandler
from tests.support.valkey import free_port

TOKEN, KEY = "Bearer of-the-telemetry", "lsv2_secret"
_PROGRAMS = ("otelcol", "otelcol-contrib")


@pytest.fixture
def render() -> Iterator[Render]:
    with rendering() as run:
        yield run


@pytest.fixture(scope="module")
def otelcol() -> str:
    found = next((path for path in map(shutil.which, _PROGRAMS) if path), None)
    if found is None:
        pytest.skip(f"no real collector: none of {', '.join(_PROGRAMS)} is on PATH")
    return found


def collector(**changes: Any) -> OtelCollector:
    return OtelCollector("collector", OtelCollectorArgs(**{"namespace": "agents", **changes}))  # type: ignore[typeddict-item]


def with_everything() -> OtelCollector:
    return collector(
        otlp={"endpoint": "https://otlp.example.com", "headers": {"authorization": pulumi.Output.secret(TOKEN + "\n")}},
        langsmith={"project": "slipway", "api_key": pulumi.Output.secret(KEY)},
        sampling={"slow_ms": 5_000, "percent": 1, "decision_seconds": 60},
    )


@pytest.mark.parametrize("make", [collector, with_everything])
def test_it_is_hardened_and_secrets_are_files(render: Render, make: Any) -> None:
    rendered = render(make)
    assert_hardened(rendered)
    assert_valid(rendered)
    assert_selected(rendered)
    assert_no_secret_in_the_open(rendered, TOKEN, KEY)


def test_memory_is_limited_before_anything_else_and_batches_come_last(render: Render) -> None:
    """A limiter behind a processor that holds spans would be asked too late."""
    config = yaml.safe_load(render(with_everything).only("ConfigMap")["data"]["config.yaml"])
    pipelines = config["service"]["pipelines"]
    for name, pipeline in pipelines.items():
        if "otlp" in pipeline["receivers"]:
            assert pipeline["processors"][0] == "memory_limiter", name
        if any(exporter.startswith(("otlp", "prometheus", "debug")) for exporter in pipeline["exporters"]):
            assert pipeline["processors"][-1] == "batch", name


def test_numbers_are_made_of_all_spans_before_any_is_dropped(render: Render) -> None:
    """Counts of sampled spans would be wrong by the share that is kept."""
    config = yaml.safe_load(render(collector).only("ConfigMap")["data"]["config.yaml"])
    everything = config["service"]["pipelines"]["traces/all"]
    assert "spanmetrics" in everything["exporters"]
    assert "tail_sampling" not in everything["processors"]


def test_it_opens_the_ports_that_somebody_asks_and_no_other(render: Render) -> None:
    """The charts' collector listens for Jaeger and Zipkin, too."""
    rendered = render(collector)
    ports = {port["containerPort"] for port in rendered.pods()[0][1]["containers"][0]["ports"]}
    assert ports == {4317, 4318, 8888, 8889, 13133}
    assert {port["port"] for port in rendered.only("Service")["spec"]["ports"]} == ports - {HEALTH_PORT}
    assert rendered.outputs["endpoint"] == "http://collector.agents:4318"


def test_a_header_has_no_newline_at_its_end(render: Render) -> None:
    """The collector takes the file as it is, and HTTP refuses such a value."""
    secret = render(with_everything).only("Secret", "collector-otlp")
    assert secret["stringData"] == {"authorization": TOKEN}


def test_without_an_exporter_the_log_counts(render: Render) -> None:
    config = yaml.safe_load(render(collector).only("ConfigMap")["data"]["config.yaml"])
    assert config["service"]["pipelines"]["traces/sampled"]["exporters"] == ["debug"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"otlp": {"endpoint": "otlp.example.com:4317"}}, "otlp.endpoint"),
        ({"otlp": {"endpoint": "https://x", "secret_name": "s"}}, "otlp.secret_headers"),
        ({"otlp": {"endpoint": "https://x", "headers": {}, "secret_name": "s"}}, "otlp.headers, otlp.secret_name"),
        ({"langsmith": {"project": "p"}}, "langsmith.api_key, langsmith.secret_name"),
        ({"sampling": {"percent": 101}}, "sampling.percent"),
        ({"memory_mb": 64}, "memory_mb"),
    ],
)
def test_a_wrong_input_is_named_at_construction(render: Render, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        render(lambda: collector(**changes))


class Sink(LoopbackServer):
    """An OTLP server over HTTP: remembers the names of the spans that came and the headers they came with."""

    def __init__(self) -> None:
        self.spans: list[str] = []
        self.headers: list[dict[str, str]] = []
        sink = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:  # noqa: N802 - the library's name
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path.endswith("/v1/traces"):
                    request = ExportTraceServiceRequest.FromString(body)
                    for resource in request.resource_spans:
                        for scope in resource.scope_spans:
                            sink.spans += [span.name for span in scope.spans]
                    sink.headers.append(
                        {"path": self.path, **{name.lower(): value for name, value in self.headers.items()}}
                    )
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

        super().__init__(Handler)


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


class Running:
    """A real collector with that configuration on free ports."""

    def __init__(self, program: str, config: dict[str, Any], folder: Path) -> None:
        self._ports = {port: free_port() for port in (4317, HTTP_PORT, HEALTH_PORT, METRICS_PORT, 8888)}
        text = yaml.safe_dump(config, sort_keys=False)
        for port, free in self._ports.items():
            text = text.replace(f"0.0.0.0:{port}", f"127.0.0.1:{free}").replace(f"port: {port}", f"port: {free}")
        path = folder / "config.yaml"
        path.write_text(text.replace("host: 0.0.0.0", "host: 127.0.0.1"))
        self._log = (folder / "log").open("w+")
        self._process = subprocess.Popen([program, f"--config={path}"], stdout=self._log, stderr=self._log)
        self.until(lambda: self._get(HEALTH_PORT, "/") != "", "it is healthy")

    def send(self, name: str, *, milliseconds: int = 10, failed: bool = False) -> None:
        """One trace of one span."""
        now = time.time_ns()
        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        name_of_service = resource.resource.attributes.add(key="service.name")  # without, spans are not counted
        name_of_service.value.string_value = "slipway-worker"
        span = resource.scope_spans.add().spans.add()
        span.trace_id, span.span_id, span.name = os.urandom(16), os.urandom(8), name
        span.start_time_unix_nano, span.end_time_unix_nano = now - milliseconds * 1_000_000, now
        if failed:
            span.status.code = 2
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self._ports[HTTP_PORT]}/v1/traces",
            request.SerializeToString(),
            {"content-type": "application/x-protobuf"},
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert answer.status == 200

    def metrics(self) -> str:
        return self._get(METRICS_PORT, "/metrics")

    def until(self, met: Any, what: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not met():
            assert self._process.poll() is None, f"it ended: {self.log[-2000:]}"
            assert time.monotonic() < deadline, f"never within {seconds:g} s: {what}; its log ends: {self.log[-1500:]}"
            time.sleep(0.1)

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(15)
        self._log.close()

    def _get(self, port: int, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[port]}{path}", timeout=5) as answer:
                return str(answer.read().decode()) or "ok"
        except OSError:
            return ""


@pytest.mark.parametrize("everything", [False, True])
def test_a_real_collector_takes_the_configuration(otelcol: str, tmp_path: Path, everything: bool) -> None:
    (tmp_path / "key").write_text("secret\n")
    config = collector_config(
        otlp=OtlpExport("https://otlp.example.com", {"authorization": f"{tmp_path}/key"}) if everything else None,
        langsmith=LangSmithExport(f"{tmp_path}/key", "slipway") if everything else None,
    )
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    checked = subprocess.run(
        [otelcol, "validate", f"--config={path}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_a_real_collector_keeps_what_failed_or_was_slow_and_counts_all(
    otelcol: str, tmp_path: Path, sink: Sink
) -> None:
    """The two kinds of traces that somebody will look for, and right numbers although the rest is dropped."""
    (tmp_path / "otlp").write_text(TOKEN)
    (tmp_path / "langsmith").write_text(KEY)
    config = collector_config(
        otlp=OtlpExport(sink.url, {"authorization": f"{tmp_path}/otlp"}),
        langsmith=LangSmithExport(f"{tmp_path}/langsmith", "slipway", sink.url),
        sampling=Sampling(slow_ms=1_000, percent=0, decision_seconds=1),
    )
    config["connectors"]["spanmetrics"]["metrics_flush_interval"] = "1s"
    running = Running(otelcol, config, tmp_path)
    try:
        for number in range(20):
            running.send(f"ordinary-{number % 2}")
        running.send("failed", failed=True)
        running.send("slow", milliseconds=1_500)
        running.until(lambda: {"failed", "slow"} <= set(sink.spans), "both traces are kept")
        running.until(lambda: running.metrics().count("traces_span_metrics_calls_total{") >= 4, "all are counted")
        counted = [
            line for line in running.metrics().splitlines() if line.startswith("traces_span_metrics_calls_total{")
        ]
        assert sum(float(line.rsplit(" ", 1)[1]) for line in counted) == 22
        assert sorted(sink.spans) == ["failed", "failed", "slow", "slow"], "to both exporters, and nothing else"
        by_path = {one["path"]: one for one in sink.headers}
        assert by_path["/v1/traces"]["authorization"] == TOKEN
        assert by_path["/otel/v1/traces"]["x-api-key"] == KEY
        assert by_path["/otel/v1/traces"]["langsmith-project"] == "slipway"
        assert TOKEN not in running.log
    finally:
        running.close()
