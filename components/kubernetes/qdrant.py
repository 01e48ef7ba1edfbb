"""One Qdrant with a disk: documents and memories by meaning.

It asks for an API key, which comes from a Secret, and runs as an unprivileged image. One pod, one node of Qdrant:
`backup` copies its collections as snapshots. The trap is its init file and its scratch, which must lie on a volume:
the root file system is read-only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypedDict

import pulumi
from pulumi_kubernetes import apps, core, meta

from components.kubernetes.labels import dns_label, labels, selector
from components.kubernetes.parts import (
    CLAIM_IS_FIXED,
    DiskArgs,
    claim_template,
    headless_service,
    memory_volume,
    metadata,
    one_may_go,
    retention,
)
from components.kubernetes.pod import (
    Container,
    PlacementArgs,
    Probes,
    ResourcesArgs,
    container,
    http_probe,
    pod_template,
    secret_volume,
)
from components.kubernetes.secrets import immutable_secret

IMAGE = "qdrant/qdrant:v1.19.0-unprivileged@sha256:a0e04fe623cb064502cd869cefc1dc7ce359d8edd481063b5bd351c0a0a2c91e"
PORT = 6333
API_KEY_FILE = "api_key"
"""Key in the Secret."""
_SECRET, _CONFIG, _STORAGE = "/run/qdrant-secret", "/run/qdrant-config", "/qdrant/storage"
_START_SECONDS = 600
"""Longest loading of collections from the disk."""
_WRITE_CONFIG = f"""set -eu
umask 077
key=$(head -n 1 {_SECRET}/{API_KEY_FILE} | sed "s/'/''/g")
[ -n "$key" ] || {{ echo "the secret has no {API_KEY_FILE}" >&2; exit 1; }}
printf "service:\\n  api_key: '%s'\\n" "$key" > {_CONFIG}/config.yaml
"""
"""The key gets into a file in memory, so that it stands in no variable and no argument."""


class QdrantArgs(TypedDict):
    """What a Qdrant needs to know: either `api_key` or `secret_name`."""

    namespace: pulumi.Input[str]
    """Namespace that everything goes into."""
    api_key: NotRequired[pulumi.Input[str]]
    """The API key that it asks for. Give it as a Pulumi secret."""
    secret_name: NotRequired[pulumi.Input[str]]
    """Existing Secret with the API key under `api_key`. After a change there, restart the pod."""
    image: NotRequired[pulumi.Input[str]]
    """Unprivileged image of Qdrant, by digest."""
    disk: NotRequired[DiskArgs]
    """Where the data lie; default 10Gi, kept. Snapshots need as much again while a backup runs."""
    resources: NotRequired[ResourcesArgs]
    """What it may use; default: 250m to 1 CPU, 1 to 2 GiB."""
    placement: NotRequired[PlacementArgs]
    """Where the pod may run."""


class Qdrant(pulumi.ComponentResource):
    """One Qdrant.

    Outputs: `url` for QDRANT_URL; `secret_name` of the Secret with `api_key`; `data_claim`, the disk; `pod_labels`,
    by which a NetworkPolicy finds the pod.
    """

    url: pulumi.Output[str]
    secret_name: pulumi.Output[str]
    data_claim: pulumi.Output[str]
    pod_labels: pulumi.Output[Mapping[str, str]]

    def __init__(self, name: str, args: QdrantArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:kubernetes:Qdrant", name, {}, opts)
        dns_label(f"{name}-nodes", "name of the Qdrant")
        if ("api_key" in args) == ("secret_name" in args):
            raise ValueError("api_key, secret_name: give one of them, the other is left out")
        child = pulumi.ResourceOptions(parent=self)
        self.secret_name = (
            pulumi.Output.from_input(args["secret_name"])
            if "secret_name" in args
            else immutable_secret(f"{name}-key", args["namespace"], {API_KEY_FILE: args["api_key"]}, name, self)
        )
        port = core.v1.ServicePortArgs(name="http", port=PORT, target_port="http")
        headless_service("qdrant", name, args["namespace"], [port], child)
        core.v1.Service(
            name,
            metadata=metadata("qdrant", name, args["namespace"], fixed=name),
            spec=core.v1.ServiceSpecArgs(selector=selector("qdrant", name), ports=[port]),
            opts=child,
        )
        self._stateful_set(name, args)
        one_may_go("qdrant", name, args["namespace"], child)
        self.url = pulumi.Output.concat(f"http://{name}.", args["namespace"], f":{PORT}")
        self.data_claim = pulumi.Output.from_input(f"data-{name}-0")
        self.pod_labels = pulumi.Output.from_input(selector("qdrant", name))
        self.register_outputs(
            {
                "url": self.url,
                "secret_name": self.secret_name,
                "data_claim": self.data_claim,
                "pod_labels": self.pod_labels,
            }
        )

    def _stateful_set(self, name: str, args: QdrantArgs) -> None:
        apps.v1.StatefulSet(
            name,
            metadata=metadata("qdrant", name, args["namespace"], fixed=name),
            spec=apps.v1.StatefulSetSpecArgs(
                replicas=1,
                service_name=f"{name}-nodes",
                selector=meta.v1.LabelSelectorArgs(match_labels=selector("qdrant", name)),
                persistent_volume_claim_retention_policy=retention(args.get("disk", {})),
                volume_claim_templates=[claim_template(args.get("disk", {}), "10Gi")],
                template=pod_template(
                    labels=labels("qdrant", name),
                    selector=selector("qdrant", name),
                    init_containers=[container(_config(args))],
                    containers=[container(_server(args))],
                    volumes=[secret_volume("secret", self.secret_name), memory_volume("config", "1Mi")],
                    placement=args.get("placement"),
                ),
            ),
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=list(CLAIM_IS_FIXED)),
        )


def _config(args: QdrantArgs) -> Container:
    return Container(
        name="config",
        image=args.get("image", IMAGE),
        command=["sh", "-c", _WRITE_CONFIG],
        mounts={"config": _CONFIG},
        read_only_mounts={"secret": _SECRET},
        resources={},
        defaults={
            **{"cpu": "10m", "cpu_limit": "200m", "memory": "16Mi", "memory_limit": "64Mi"},
            **{"storage": "16Mi", "storage_limit": "64Mi"},
        },
        probes=None,
    )


def _server(args: QdrantArgs) -> Container:
    return Container(
        name="qdrant",
        image=args.get("image", IMAGE),
        command=["./entrypoint.sh", "--config-path", f"{_CONFIG}/config.yaml"],
        env={
            "QDRANT__STORAGE__SNAPSHOTS_PATH": f"{_STORAGE}/snapshots",
            "QDRANT__STORAGE__TEMP_PATH": f"{_STORAGE}/temp",
            "QDRANT__TELEMETRY_DISABLED": "true",
            "QDRANT_INIT_FILE_PATH": "/tmp/.qdrant-initialized",  # noqa: S108 - a volume of the pod's own
        },
        ports={"http": PORT},
        mounts={"data": _STORAGE},
        read_only_mounts={"config": _CONFIG},
        resources=args.get("resources", {}),
        defaults={
            **{"cpu": "250m", "cpu_limit": "1", "memory": "1Gi", "memory_limit": "2Gi"},
            **{"storage": "64Mi", "storage_limit": "256Mi"},
        },
        probes=Probes(  # these three are answered without a key
            startup=http_probe("/readyz", "http", failures=_START_SECONDS // 5),
            readiness=http_probe("/readyz", "http", failures=2),
            liveness=http_probe("/livez", "http", period=10, failures=6),
        ),
    )
