"""An agent whose pods are somebody: each has a name and a disk of its own, which it finds again after a restart.

For sessions that live in a pod (a browser, a shell, a local index). Whoever calls names the pod, `<name>-0` and so on,
at `<pod>.<name>-nodes.<namespace>`. Ordinary agents need none of this: their state is in Redis (`AgentWorkers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import pulumi
from pulumi_kubernetes import apps, core, meta

from components.kubernetes.agent import SECRETS_PATH
from components.kubernetes.labels import dns_label, labels, selector
from components.kubernetes.parts import (
    CLAIM_IS_FIXED,
    DiskArgs,
    claim_template,
    headless_service,
    metadata,
    one_may_go,
    retention,
)
from components.kubernetes.pod import (
    GRACE_SECONDS,
    Container,
    PlacementArgs,
    Probes,
    ResourcesArgs,
    container,
    exec_probe,
    http_probe,
    pod_template,
    secrets_volume,
)

DATA = "/data"
_RESOURCES: ResourcesArgs = {
    **{"cpu": "250m", "cpu_limit": "1", "memory": "512Mi", "memory_limit": "1Gi"},
    **{"storage": "64Mi", "storage_limit": "512Mi"},
}
_START_SECONDS = 180


class StatefulAgentArgs(TypedDict):
    """What an agent with an identity needs to know: either `port` or `health_command`."""

    namespace: pulumi.Input[str]
    """Namespace that everything goes into."""
    image: pulumi.Input[str]
    """Image to run, by digest; the service's, or one made from it."""
    replicas: NotRequired[int]
    """Pods; default 1. Fewer later: the last ones go, their disks stay."""
    command: NotRequired[Sequence[pulumi.Input[str]]]
    """In place of the image's entry point, which in the service's image is `python -m app`."""
    arguments: NotRequired[Sequence[pulumi.Input[str]]]
    """Arguments of the command or the entry point. No secrets."""
    port: NotRequired[int]
    """Port on which each pod answers HTTP."""
    health_path: NotRequired[str]
    """Path that answers 200 while the pod serves; default /healthz."""
    health_command: NotRequired[Sequence[str]]
    """Command that ends with 0 while the pod works, where there is no port; say `python -m app health worker`."""
    env: NotRequired[Mapping[str, pulumi.Input[str]]]
    """Environment variables. No secrets. HOSTNAME is the pod's name, DATA_PATH its disk."""
    secrets: NotRequired[Sequence[pulumi.Input[str]]]
    """Secrets to be mounted as files; the service reads its settings there (SECRETS_PATH)."""
    disk: NotRequired[DiskArgs]
    """Disk of each pod, mounted at /data; default 5Gi, kept."""
    grace_seconds: NotRequired[int]
    """Time that a pod has to end in order; default and least 120."""
    resources: NotRequired[ResourcesArgs]
    """What a pod may use; default: 250m to 1 CPU, 512 MiB to 1 GiB."""
    placement: NotRequired[PlacementArgs]
    """Where pods may run."""


class StatefulAgent(pulumi.ComponentResource):
    """Pods with identity.

    Outputs: `pod_hosts`, the host name of each pod; `service_name`, the Service that names them; `pod_labels`, by which
    a NetworkPolicy finds them.
    """

    pod_hosts: pulumi.Output[Sequence[str]]
    service_name: pulumi.Output[str]
    pod_labels: pulumi.Output[Mapping[str, str]]

    def __init__(self, name: str, args: StatefulAgentArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:kubernetes:StatefulAgent", name, {}, opts)
        dns_label(f"{name}-nodes", "name of the agent")
        _check(args)
        child = pulumi.ResourceOptions(parent=self)
        ports = [core.v1.ServicePortArgs(name="http", port=_port(args), target_port="http")] if "port" in args else []
        headless_service("stateful-agent", name, args["namespace"], ports, child)
        apps.v1.StatefulSet(
            name,
            metadata=metadata("stateful-agent", name, args["namespace"], fixed=name),
            spec=apps.v1.StatefulSetSpecArgs(
                replicas=_replicas(args),
                service_name=f"{name}-nodes",
                pod_management_policy="Parallel",  # they do not wait for one another
                selector=meta.v1.LabelSelectorArgs(match_labels=selector("stateful-agent", name)),
                persistent_volume_claim_retention_policy=retention(args.get("disk", {})),
                volume_claim_templates=[claim_template(args.get("disk", {}), "5Gi")],
                template=pod_template(
                    labels=labels("stateful-agent", name),
                    selector=selector("stateful-agent", name),
                    containers=[container(_container(args))],
                    volumes=[secrets_volume("secrets", args["secrets"])] if args.get("secrets") else [],
                    placement=args.get("placement"),
                    grace_seconds=int(args.get("grace_seconds", GRACE_SECONDS)),
                ),
            ),
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=list(CLAIM_IS_FIXED)),
        )
        one_may_go("stateful-agent", name, args["namespace"], child)
        self.pod_hosts = pulumi.Output.from_input(args["namespace"]).apply(
            lambda namespace: [f"{name}-{at}.{name}-nodes.{namespace}" for at in range(_replicas(args))]
        )
        self.service_name = pulumi.Output.from_input(f"{name}-nodes")
        self.pod_labels = pulumi.Output.from_input(selector("stateful-agent", name))
        self.register_outputs(
            {"pod_hosts": self.pod_hosts, "service_name": self.service_name, "pod_labels": self.pod_labels}
        )


def _replicas(args: StatefulAgentArgs) -> int:
    return int(args.get("replicas", 1))


def _port(args: StatefulAgentArgs) -> int:
    return int(args["port"])


def _check(args: StatefulAgentArgs) -> None:
    if ("port" in args) == ("health_command" in args):
        raise ValueError("port, health_command: give one of them, by which a pod's health is asked")
    if _replicas(args) < 1:
        raise ValueError(f"replicas: {_replicas(args)} is below 1")


def _container(args: StatefulAgentArgs) -> Container:
    secrets = {"secrets": SECRETS_PATH} if args.get("secrets") else {}
    if "port" in args:
        path = args.get("health_path", "/healthz")
        probes = Probes(
            startup=http_probe(path, "http", failures=_START_SECONDS // 5),
            readiness=http_probe(path, "http"),
            liveness=http_probe(path, "http", period=10, failures=6),
        )
    else:
        command = args["health_command"]
        probes = Probes(
            startup=exec_probe(command, period=5, failures=_START_SECONDS // 5, timeout=10),
            readiness=exec_probe(command, period=30, timeout=10),
            liveness=exec_probe(command, period=30, failures=4, timeout=10),
        )
    return Container(
        name="agent",
        image=args["image"],
        command=args.get("command"),
        args=args.get("arguments"),
        env={"DATA_PATH": DATA, **({"SECRETS_PATH": SECRETS_PATH} if secrets else {}), **args.get("env", {})},
        ports={"http": _port(args)} if "port" in args else {},
        mounts={"data": DATA},
        read_only_mounts=secrets,
        resources=args.get("resources", {}),
        defaults=_RESOURCES,
        probes=probes,
    )
