"""Traces and metrics through OpenTelemetry, exported by OTLP when OTEL_EXPORTER_OTLP_ENDPOINT is set.

All metrics of the service stand here, with their units. Without an endpoint the instruments exist and cost
next to nothing. One trace leads from the HTTP request through the queue to the worker and its model calls: the
run record carries the request's `traceparent`, the worker continues it.
"""

from __future__ import annotations

import os

from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from app.infra.settings import Settings

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
    "slipway.run.time_to_first_token", "s", "From acceptance to the first token of the answer."
)


def configure(settings: Settings, *, process: str) -> None:
    """Set up exporters for `process` (`api` or `worker`); does nothing where no endpoint is configured."""
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
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(traces)
    metrics.set_meter_provider(
        MeterProvider(resource=resource, metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter())])
    )
    if process == "worker":
        from opentelemetry.instrumentation.genai.langchain import LangChainInstrumentor

        LangChainInstrumentor().instrument()  # type: ignore[no-untyped-call]


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
