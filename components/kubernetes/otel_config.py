"""The collector's configuration, as data: what comes in, what is kept of it, where it goes.

    otlp → memory_limiter ┬→ spanmetrics (all spans) ──→ metrics
                          └→ tail_sampling → batch ──→ trace exporters
    otlp metrics, spanmetrics → memory_limiter → batch ──→ :8889 and metric exporters

`memory_limiter` comes first, so that a full collector refuses what clients then send again. Numbers are made of all
spans, before sampling; traces are kept when they failed, when they took long, and a share of the rest. Secrets stand
as `${file:…}`: the collector reads them from mounted files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GRPC_PORT, HTTP_PORT, HEALTH_PORT, METRICS_PORT, SELF_PORT = 4317, 4318, 13133, 8889, 8888
LANGSMITH_ENDPOINT = "https://api.smith.langchain.com"
_TRACES_HELD = 20_000
_SERIES = 2_000
"""Most combinations of dimensions; what exceeds them is counted as one, so that no attribute can fill the memory."""
_BUCKETS = ("50ms", "100ms", "250ms", "500ms", "1s", "2s", "5s", "10s", "30s", "60s", "120s", "300s", "600s")
_DIMENSIONS = ("gen_ai.operation.name", "gen_ai.request.model", "http.route", "error.type")


@dataclass(frozen=True, slots=True)
class OtlpExport:
    """An OTLP server that takes traces and metrics over HTTP."""

    endpoint: str
    """Its base URL, without /v1/traces."""
    header_files: Mapping[str, str] = field(default_factory=dict)
    """Header → file with its value."""
    metrics: bool = True
    """Whether it takes metrics, too."""


@dataclass(frozen=True, slots=True)
class LangSmithExport:
    """LangSmith, which takes traces."""

    key_file: str
    project: str
    endpoint: str = LANGSMITH_ENDPOINT


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which traces are kept besides the failed ones."""

    slow_ms: int = 10_000
    """Those that took at least this long."""
    percent: float = 10.0
    """And this share of the others."""
    decision_seconds: int = 30
    """How long a trace is gathered before it is judged; one that takes longer is judged by what has come."""


def collector_config(
    *, otlp: OtlpExport | None = None, langsmith: LangSmithExport | None = None, sampling: Sampling | None = None
) -> dict[str, Any]:
    """The configuration; without an exporter, traces are counted in the log and metrics wait on :8889."""
    sampling = sampling or Sampling()
    exporters = _exporters(otlp, langsmith)
    traces = [name for name in exporters if name != "prometheus"]
    metrics = ["prometheus", *(["otlp_http/server"] if otlp and otlp.metrics else [])]
    return {
        "extensions": {"health_check": {"endpoint": f"0.0.0.0:{HEALTH_PORT}"}},
        "receivers": {
            "otlp": {
                "protocols": {
                    "grpc": {"endpoint": f"0.0.0.0:{GRPC_PORT}"},
                    "http": {"endpoint": f"0.0.0.0:{HTTP_PORT}"},
                }
            }
        },
        "processors": {
            "memory_limiter": {"check_interval": "1s", "limit_percentage": 80, "spike_limit_percentage": 25},
            "tail_sampling": {
                "decision_wait": f"{sampling.decision_seconds}s",
                "num_traces": _TRACES_HELD,
                "policies": [
                    {"name": "failed", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
                    {"name": "slow", "type": "latency", "latency": {"threshold_ms": sampling.slow_ms}},
                    {
                        "name": "share",
                        "type": "probabilistic",
                        "probabilistic": {"sampling_percentage": sampling.percent},
                    },
                ],
            },
            "batch": {"timeout": "1s", "send_batch_size": 1_024, "send_batch_max_size": 2_048},
        },
        "connectors": {
            "forward/sampled": {},
            "spanmetrics": {
                "histogram": {"unit": "s", "explicit": {"buckets": list(_BUCKETS)}},
                "dimensions": [{"name": name} for name in _DIMENSIONS],
                "resource_metrics_key_attributes": ["service.name", "service.version"],
                "aggregation_cardinality_limit": _SERIES,
                "metrics_flush_interval": "15s",
            },
        },
        "exporters": exporters,
        "service": {
            "extensions": ["health_check"],
            "telemetry": {
                "metrics": {
                    "readers": [{"pull": {"exporter": {"prometheus": {"host": "0.0.0.0", "port": SELF_PORT}}}}]  # noqa: S104
                }
            },
            "pipelines": {
                "traces/all": {
                    "receivers": ["otlp"],
                    "processors": ["memory_limiter"],
                    "exporters": ["spanmetrics", "forward/sampled"],
                },
                "traces/sampled": {
                    "receivers": ["forward/sampled"],
                    "processors": ["tail_sampling", "batch"],
                    "exporters": traces,
                },
                "metrics": {
                    "receivers": ["otlp", "spanmetrics"],
                    "processors": ["memory_limiter", "batch"],
                    "exporters": metrics,
                },
            },
        },
    }


def _exporters(otlp: OtlpExport | None, langsmith: LangSmithExport | None) -> dict[str, Any]:
    exporters: dict[str, Any] = {
        "prometheus": {
            "endpoint": f"0.0.0.0:{METRICS_PORT}",
            "resource_to_telemetry_conversion": {"enabled": True},
        }
    }
    if otlp:
        exporters["otlp_http/server"] = _otlp_http(
            otlp.endpoint, {name: f"${{file:{path}}}" for name, path in otlp.header_files.items()}
        )
    if langsmith:
        exporters["otlp_http/langsmith"] = _otlp_http(
            f"{langsmith.endpoint.rstrip('/')}/otel",
            {"x-api-key": f"${{file:{langsmith.key_file}}}", "Langsmith-Project": langsmith.project},
        )
    if not otlp and not langsmith:
        exporters["debug"] = {"verbosity": "basic"}
    return exporters


def _otlp_http(endpoint: str, headers: dict[str, str]) -> dict[str, Any]:
    return {
        "endpoint": endpoint,
        "headers": headers,
        "compression": "gzip",
        "retry_on_failure": {"enabled": True, "max_elapsed_time": "300s"},
        "sending_queue": {"enabled": True, "queue_size": 1_000},
    }
