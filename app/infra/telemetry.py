"""Traces and metrics through OpenTelemetry, exported by OTLP when OTEL_EXPORTER_OTLP_ENDPOINT is set.

All metrics of the service stand here, with their units. Without an endpoint the instruments exist and cost
next to nothing. One trace leads from the HTTP request through the queue to the worker, its model calls and its tools:
the run record carries the request's `traceparent`, the worker continues it. No text that people wrote, models answered
or errors quote is exported.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status

from app.infra.settings import Settings, TelemetrySettings

tracer = trace.get_tracer("slipway")
_meter = metrics.get_meter("slipway")

runs_accepted = _meter.create_counter("slipway.runs.accepted", "{run}", "Runs written to the queue.")
runs_ended = _meter.create_counter("slipway.runs.ended", "{run}", "Runs that ended, by status and graph.")
run_duration = _meter.create_histogram("slipway.run.duration", "s", "From acceptance to the end, waiting included.")
queue_wait = _meter.create_histogram("slipway.run.queue_wait", "s", "From due to claimed; retries count again.")
fencing_refusals = _meter.create_counter("slipway.fencing.refusals", "{write}", "Writes refused for an old epoch.")
drains = _meter.create_counter("slipway.worker.drains", "{run}", "Runs handed back by a stopping worker.")
tokens = _meter.create_counter("slipway.tokens", "{token}", "Tokens used, by model and direction.")
cost = _meter.create_counter("slipway.cost", "USD", "Cost of model calls whose price is known.")
time_to_first_token = _meter.create_histogram(
    "slipway.run.time_to_first_token", "s", "From acceptance to the first token; counted for each attempt that has one."
)
tool_duration = _meter.create_histogram("slipway.tool.duration", "s", "Of one tool call, by tool and outcome.")
effects = _meter.create_counter(
    "slipway.effects",
    "{call}",
    "Tool calls by outcome: done, failed, unknown; recorded (not made again), again, decided by a person; refused.",
)


def configure(settings: Settings, *, process: str) -> None:
    """Set up exporters for `process` (`api` or `worker`), and LangSmith's variables; nothing where none is asked for.

    To be called before LangChain is imported, which reads those variables once.
    """
    os.environ.update(_variables(settings.telemetry))
    if settings.telemetry.otel_exporter_otlp_endpoint is None or os.environ.get("OTEL_SDK_DISABLED") == "true":
        return
    # Imported here: the exporters cost 15 MB that a process without a collector need not carry.
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    resource = Resource.create(
        {
            "service.name": f"{settings.telemetry.otel_service_name}-{process}",
            "service.version": settings.release,
            "deployment.environment.name": settings.service.environment,
        }
    )
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(_WithoutErrorTexts(OTLPSpanExporter())))
    trace.set_tracer_provider(traces)
    metrics.set_meter_provider(
        MeterProvider(resource=resource, metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter())])
    )
    if process == "worker":
        from opentelemetry.instrumentation.genai.langchain import LangChainInstrumentor

        # Unchecked: it asks for the package `langchain`, but all that it touches is langchain-core and LangGraph.
        LangChainInstrumentor().instrument(skip_dep_check=True)  # type: ignore[no-untyped-call]


def _variables(chosen: TelemetrySettings) -> dict[str, str]:
    """What the libraries read from the environment alone, although it may stand in `.env` or in a mounted file."""
    said: dict[str, str | None] = {"OTEL_EXPORTER_OTLP_ENDPOINT": chosen.otel_exporter_otlp_endpoint}
    if chosen.langsmith_tracing:
        key = chosen.langsmith_api_key
        said |= {
            "LANGSMITH_TRACING": "true",
            "LANGSMITH_API_KEY": None if key is None else key.get_secret_value(),
            "LANGSMITH_PROJECT": chosen.langsmith_project,
            "LANGSMITH_ENDPOINT": chosen.langsmith_endpoint,
        }
    return {name: value for name, value in said.items() if value}


class _WithoutErrorTexts(SpanExporter):
    """Exports spans with the class of an error, but not its text.

    Libraries put the text of what was raised into a span's status and events (the LangChain instrumentation does,
    1.3b0), and a model client's text quotes what the server answered.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([_without_error_text(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _without_error_text(span: ReadableSpan) -> ReadableSpan:
    if span.status.description is None and not span.events:
        return span
    texts = ("exception.message", "exception.stacktrace")
    events = [
        Event(
            event.name,
            {key: value for key, value in (event.attributes or {}).items() if key not in texts},
            event.timestamp,
        )
        for event in span.events
    ]
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=events,
        links=span.links,
        kind=span.kind,
        instrumentation_scope=span.instrumentation_scope,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
    )


def shutdown() -> None:
    """Send what is still held back."""
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        stop = getattr(provider, "shutdown", None)
        if stop is not None:
            stop()


def carry() -> str:
    """The current trace as a W3C `traceparent`, to be stored with a run; empty when nothing is traced."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent", "")


def resume(traceparent: str) -> Context:
    """The trace that a run was accepted in."""
    return propagate.extract({"traceparent": traceparent} if traceparent else {})
