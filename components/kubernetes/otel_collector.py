"""An OpenTelemetry collector: takes traces and metrics of the service, samples traces, offers numbers to Prometheus.

Its configuration is built by `otel_config` and is immutable: a change is a rollout. One replica: a trace can be judged
only where all its spans are. What it holds in memory is lost with the pod; the service does not wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import pulumi
import yaml
from pulumi_kubernetes import apps, core, meta

from components.kubernetes import otel_config
from components.kubernetes.labels import dns_label, labels, selector
from components.kubernetes.otel_config import GRPC_PORT, HEALTH_PORT, HTTP_PORT, METRICS_PORT, SELF_PORT
from components.kubernetes.parts import metadata, one_may_go
from components.kubernetes.pod import (
    Container,
    PlacementArgs,
    Probes,
    ResourcesArgs,
    config_volume,
    container,
    http_probe,
    pod_template,
    secret_volume,
    tcp_probe,
)
from components.kubernetes.secrets import immutable_secret

IMAGE = (
    "otel/opentelemetry-collector-contrib:0.159.0"
    "@sha256:1f2c54a30e713fac6b3ae77a1ec84010c2007e29ced8ec666214fc2f6739c1cc"
)
_CONFIG, _OTLP, _LANGSMITH = "/etc/otelcol", "/run/otlp-headers", "/run/langsmith"
_LANGSMITH_KEY = "langsmith_api_key"
_PORTS = {"otlp-grpc": GRPC_PORT, "otlp-http": HTTP_PORT, "metrics": METRICS_PORT, "self-metrics": SELF_PORT}


class OtlpExporterArgs(TypedDict):
    """An OTLP server that traces and metrics are sent on to."""

    endpoint: str
    """Its base URL, without /v1/traces."""
    headers: NotRequired[Mapping[str, pulumi.Input[str]]]
    """Headers with their values, such as `authorization`. Give secret ones as Pulumi secrets."""
    secret_name: NotRequired[pulumi.Input[str]]
    """Existing Secret with values of headers, in place of `headers`; a value must not end with a newline."""
    secret_headers: NotRequired[Sequence[str]]
    """Keys of that Secret, which are the headers' names."""
    metrics: NotRequired[bool]
    """Whether it takes metrics, too; default true."""


class LangSmithExporterArgs(TypedDict):
    """LangSmith, which kept traces are sent to: either `api_key` or `secret_name`."""

    project: str
    """Project in LangSmith."""
    api_key: NotRequired[pulumi.Input[str]]
    """LangSmith's API key. Give it as a Pulumi secret."""
    secret_name: NotRequired[pulumi.Input[str]]
    """Existing Secret with the API key under `langsmith_api_key`, without a newline at its end."""
    endpoint: NotRequired[str]
    """LangSmith's server; default: the hosted one in the United States."""


class SamplingArgs(TypedDict):
    """Which traces are kept, besides the failed ones."""

    slow_ms: NotRequired[int]
    """Those that took at least this many milliseconds; default 10000."""
    percent: NotRequired[float]
    """And this share of the others; default 10."""
    decision_seconds: NotRequired[int]
    """How long a trace is gathered before it is judged; default 30."""


class OtelCollectorArgs(TypedDict):
    """What a collector needs to know."""

    namespace: pulumi.Input[str]
    """Namespace that everything goes into."""
    otlp: NotRequired[OtlpExporterArgs]
    """OTLP server to send to; default: none."""
    langsmith: NotRequired[LangSmithExporterArgs]
    """LangSmith to send traces to; default: none. Without both, the log says how many came."""
    sampling: NotRequired[SamplingArgs]
    """Which traces are kept, besides the failed ones."""
    image: NotRequired[pulumi.Input[str]]
    """Image of the contrib distribution 0.159 or later, by digest."""
    memory_mb: NotRequired[int]
    """Memory in MiB, default 512; above four fifths of it the collector refuses what comes."""
    resources: NotRequired[ResourcesArgs]
    """CPU and storage; memory follows `memory_mb`. Default: 100m to 1 CPU."""
    placement: NotRequired[PlacementArgs]
    """Where the pod may run."""


class OtelCollector(pulumi.ComponentResource):
    """One collector.

    Outputs: `endpoint` for OTEL_EXPORTER_OTLP_ENDPOINT (OTLP over HTTP); `pod_labels`, by which a NetworkPolicy finds
    the pod. Prometheus scrapes the ports `metrics` (8889) and `self-metrics` (8888).
    """

    endpoint: pulumi.Output[str]
    pod_labels: pulumi.Output[Mapping[str, str]]

    def __init__(self, name: str, args: OtelCollectorArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:kubernetes:OtelCollector", name, {}, opts)
        dns_label(name, "name of the collector")
        _check(args)
        child = pulumi.ResourceOptions(parent=self)
        core.v1.Service(
            name,
            metadata=metadata("collector", name, args["namespace"], fixed=name),
            spec=core.v1.ServiceSpecArgs(
                selector=selector("collector", name),
                ports=[core.v1.ServicePortArgs(name=at, port=port, target_port=at) for at, port in _PORTS.items()],
            ),
            opts=child,
        )
        self._deployment(name, args, child)
        one_may_go("collector", name, args["namespace"], child)
        self.endpoint = pulumi.Output.concat(f"http://{name}.", args["namespace"], f":{HTTP_PORT}")
        self.pod_labels = pulumi.Output.from_input(selector("collector", name))
        self.register_outputs({"endpoint": self.endpoint, "pod_labels": self.pod_labels})

    def _deployment(self, name: str, args: OtelCollectorArgs, child: pulumi.ResourceOptions) -> None:
        config = core.v1.ConfigMap(
            f"{name}-config",
            metadata=metadata("collector", name, args["namespace"]),
            immutable=True,
            data={"config.yaml": yaml.safe_dump(configuration(args), sort_keys=False)},
            opts=child,
        )
        volumes, mounts = [config_volume("config", config.metadata["name"])], {"config": _CONFIG}
        for volume, path, secret in self._secrets(name, args):
            volumes.append(secret_volume(volume, secret))
            mounts[volume] = path
        apps.v1.Deployment(
            name,
            metadata=metadata("collector", name, args["namespace"], fixed=name),
            spec=apps.v1.DeploymentSpecArgs(
                replicas=1,
                revision_history_limit=3,
                selector=meta.v1.LabelSelectorArgs(match_labels=selector("collector", name)),
                strategy=apps.v1.DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=apps.v1.RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
                ),
                template=pod_template(
                    labels=labels("collector", name),
                    selector=selector("collector", name),
                    containers=[container(_server(args, mounts))],
                    volumes=volumes,
                    placement=args.get("placement"),
                ),
            ),
            opts=child,
        )

    def _secrets(self, name: str, args: OtelCollectorArgs) -> list[tuple[str, str, pulumi.Input[str]]]:
        """Volume, path and Secret of each exporter that needs one."""
        found: list[tuple[str, str, pulumi.Input[str]]] = []
        otlp, langsmith = args.get("otlp"), args.get("langsmith")
        if otlp and "secret_name" in otlp:
            found.append(("otlp", _OTLP, otlp["secret_name"]))
        elif otlp and otlp.get("headers"):
            headers = {header: _one_line(value) for header, value in otlp["headers"].items()}
            made = immutable_secret(f"{name}-otlp", args["namespace"], headers, name, self)
            found.append(("otlp", _OTLP, made))
        if langsmith and "secret_name" in langsmith:
            found.append(("langsmith", _LANGSMITH, langsmith["secret_name"]))
        elif langsmith:
            key = {_LANGSMITH_KEY: _one_line(langsmith["api_key"])}
            made = immutable_secret(f"{name}-langsmith", args["namespace"], key, name, self)
            found.append(("langsmith", _LANGSMITH, made))
        return found


def configuration(args: OtelCollectorArgs) -> dict[str, object]:
    """The collector's configuration; secrets are references to files."""
    otlp, langsmith, sampling = args.get("otlp"), args.get("langsmith"), args.get("sampling", {})
    default = otel_config.Sampling()
    return otel_config.collector_config(
        otlp=otel_config.OtlpExport(
            otlp["endpoint"],
            {name: f"{_OTLP}/{name}" for name in (*otlp.get("headers", {}), *otlp.get("secret_headers", ()))},
            otlp.get("metrics", True),
        )
        if otlp
        else None,
        langsmith=otel_config.LangSmithExport(
            f"{_LANGSMITH}/{_LANGSMITH_KEY}",
            langsmith["project"],
            langsmith.get("endpoint", otel_config.LANGSMITH_ENDPOINT),
        )
        if langsmith
        else None,
        sampling=otel_config.Sampling(
            slow_ms=int(sampling.get("slow_ms", default.slow_ms)),
            percent=float(sampling.get("percent", default.percent)),
            decision_seconds=int(sampling.get("decision_seconds", default.decision_seconds)),
        ),
    )


def _check(args: OtelCollectorArgs) -> None:
    otlp, langsmith, sampling = args.get("otlp"), args.get("langsmith"), args.get("sampling", {})
    if otlp:
        if not otlp["endpoint"].startswith(("http://", "https://")):
            raise ValueError("otlp.endpoint: begins with neither http:// nor https://")
        if "headers" in otlp and "secret_name" in otlp:
            raise ValueError("otlp.headers, otlp.secret_name: give one of them, the other is left out")
        if ("secret_name" in otlp) != bool(otlp.get("secret_headers")):
            raise ValueError("otlp.secret_name, otlp.secret_headers: give both, or neither")
    if langsmith and ("api_key" in langsmith) == ("secret_name" in langsmith):
        raise ValueError("langsmith.api_key, langsmith.secret_name: give one of them, the other is left out")
    if not 0 <= sampling.get("percent", 0) <= 100:
        raise ValueError(f"sampling.percent: {sampling['percent']} is not within 0 and 100")
    if _memory(args) < 128:
        raise ValueError(f"memory_mb: {_memory(args)} is too little; give 128 or more")


def _one_line(value: pulumi.Input[str]) -> pulumi.Output[str]:
    """Without a newline at its end: the collector takes a file as it is, and HTTP refuses such a header."""
    return pulumi.Output.from_input(value).apply(lambda known: known.strip())


def _memory(args: OtelCollectorArgs) -> int:
    return int(args.get("memory_mb", 512))


def _server(args: OtelCollectorArgs, mounts: Mapping[str, str]) -> Container:
    memory = _memory(args)
    return Container(
        name="collector",
        image=args.get("image", IMAGE),
        args=[f"--config={_CONFIG}/config.yaml"],
        env={"GOMEMLIMIT": f"{memory * 4 // 5}MiB"},
        ports={**_PORTS, "health": HEALTH_PORT},
        read_only_mounts=mounts,
        resources=args.get("resources", {}),
        defaults={
            **{"cpu": "100m", "cpu_limit": "1", "memory": f"{memory}Mi", "memory_limit": f"{memory}Mi"},
            **{"storage": "32Mi", "storage_limit": "128Mi"},
        },
        probes=Probes(
            startup=http_probe("/", HEALTH_PORT, failures=24),
            readiness=http_probe("/", HEALTH_PORT),
            # A collector that takes nothing for want of memory is not ready, and no better after a restart.
            liveness=tcp_probe(HTTP_PORT, period=10, failures=6),
        ),
    )
