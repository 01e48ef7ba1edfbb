"""The hardened pod that every workload of ours is made of.

A container made by `container` and put into a pod by `pod_template` fulfils the Pod Security Standard `restricted` and
more: it runs as a user above 10000 without any capability, on a read-only root file system (a bounded /tmp is
writable), without a token for the cluster's API, with requests, limits and all three probes. There is no argument that
takes one of these back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

import pulumi
from pulumi_kubernetes import core, meta

USER = 10_001
"""User and group of the service's image (Dockerfile). Above 10000, so that it is no user of the node."""
GRACE_SECONDS = 120
"""Least time between SIGTERM and SIGKILL: a step or stream under way may end."""
TMP_SIZE = "64Mi"
SECRET_MODE = 0o440
"""Of mounted secrets: the pod's group reads them, nobody writes."""
IMAGE_PULL_POLICY = "IfNotPresent"
"""Images are named by digest: what is on the node is what is meant."""


class ResourcesArgs(TypedDict):
    """What a container asks for and may use at most, in Kubernetes' units (`250m`, `512Mi`)."""

    cpu: NotRequired[pulumi.Input[str]]
    """Share of a CPU that it is sure to get."""
    memory: NotRequired[pulumi.Input[str]]
    """Memory that it is sure to get."""
    cpu_limit: NotRequired[pulumi.Input[str]]
    """Most CPU; above, it is slowed down."""
    memory_limit: NotRequired[pulumi.Input[str]]
    """Most memory; above, it is killed."""
    storage: NotRequired[pulumi.Input[str]]
    """Space on the node (logs, /tmp) that it is sure to get."""
    storage_limit: NotRequired[pulumi.Input[str]]
    """Most space on the node; above, the pod is evicted."""


class TolerationArgs(TypedDict):
    """A taint that does not keep the pods off a node."""

    key: NotRequired[pulumi.Input[str]]
    """The taint's key; without one, every taint."""
    operator: NotRequired[pulumi.Input[str]]
    """`Equal` (the default) or `Exists`."""
    value: NotRequired[pulumi.Input[str]]
    """The taint's value, for `Equal`."""
    effect: NotRequired[pulumi.Input[str]]
    """`NoSchedule`, `PreferNoSchedule` or `NoExecute`; without one, all."""


class PlacementArgs(TypedDict):
    """Where pods may run."""

    node_selector: NotRequired[pulumi.Input[Mapping[str, pulumi.Input[str]]]]
    """Labels that a node must have."""
    tolerations: NotRequired[Sequence[TolerationArgs]]
    """Taints that do not keep the pods off."""
    priority_class: NotRequired[pulumi.Input[str]]
    """PriorityClass: who goes first when the cluster is full."""
    service_account: NotRequired[pulumi.Input[str]]
    """ServiceAccount, say for a cloud's workload identity; its token for the cluster's API is not mounted."""
    image_pull_secret: NotRequired[pulumi.Input[str]]
    """Name of the Secret with the registry's credentials."""
    runtime_class: NotRequired[pulumi.Input[str]]
    """RuntimeClass, say one that sandboxes."""


@dataclass(frozen=True, slots=True)
class Probes:
    """All three, as `http_probe`, `exec_probe` and `tcp_probe` make them."""

    startup: core.v1.ProbeArgs
    """Holds the other two back until the process has started."""
    readiness: core.v1.ProbeArgs
    """Whether it is to get work; also what a rollout waits for."""
    liveness: core.v1.ProbeArgs
    """Whether it must be started anew. Never asks what it depends on, or an outage there restarts everything here."""


def http_probe(
    path: str, port: int | str, *, period: int = 5, failures: int = 3, timeout: int = 3, scheme: str = "HTTP"
) -> core.v1.ProbeArgs:
    """Asks by GET; times in seconds."""
    return core.v1.ProbeArgs(
        http_get=core.v1.HTTPGetActionArgs(path=path, port=port, scheme=scheme),
        period_seconds=period,
        failure_threshold=failures,
        timeout_seconds=timeout,
    )


def exec_probe(command: Sequence[str], *, period: int = 10, failures: int = 3, timeout: int = 5) -> core.v1.ProbeArgs:
    """Runs a command in the container; times in seconds."""
    return core.v1.ProbeArgs(
        exec_=core.v1.ExecActionArgs(command=list(command)),
        period_seconds=period,
        failure_threshold=failures,
        timeout_seconds=timeout,
    )


def tcp_probe(port: int | str, *, period: int = 5, failures: int = 3, timeout: int = 3) -> core.v1.ProbeArgs:
    """Opens a connection; times in seconds."""
    return core.v1.ProbeArgs(
        tcp_socket=core.v1.TCPSocketActionArgs(port=port),
        period_seconds=period,
        failure_threshold=failures,
        timeout_seconds=timeout,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What one container of ours differs in from another; `container` adds the rest."""

    name: str
    image: pulumi.Input[str]
    """By digest."""
    resources: ResourcesArgs
    defaults: ResourcesArgs
    """All six: what holds where `resources` says nothing."""
    probes: Probes | None
    """None only for what runs to its end: the containers of a Job, and init containers."""
    command: Sequence[pulumi.Input[str]] | None = None
    """In place of the image's entry point."""
    args: Sequence[pulumi.Input[str]] | None = None
    env: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    """Never a secret: mount it with `secret_volume`."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """Name → port."""
    mounts: Mapping[str, str] = field(default_factory=dict)
    """Volume → path, read and written; /tmp is there already."""
    read_only_mounts: Mapping[str, str] = field(default_factory=dict)
    """Volume → path, only read: secrets, configuration."""
    pre_stop_sleep: int = 0
    """Seconds before SIGTERM in which whoever sends requests learns that they must go elsewhere."""


def container(spec: Container) -> core.v1.ContainerArgs:
    """The hardened container. Raises ValueError when a resource has neither value nor default."""
    probes = spec.probes
    return core.v1.ContainerArgs(
        name=spec.name,
        image=spec.image,
        image_pull_policy=IMAGE_PULL_POLICY,
        command=list(spec.command) if spec.command is not None else None,
        args=list(spec.args) if spec.args is not None else None,
        env=[core.v1.EnvVarArgs(name=name, value=spec.env[name]) for name in sorted(spec.env)] or None,
        ports=[core.v1.ContainerPortArgs(name=name, container_port=port) for name, port in spec.ports.items()] or None,
        resources=_resources(spec),
        startup_probe=probes.startup if probes else None,
        readiness_probe=probes.readiness if probes else None,
        liveness_probe=probes.liveness if probes else None,
        lifecycle=core.v1.LifecycleArgs(
            pre_stop=core.v1.LifecycleHandlerArgs(sleep=core.v1.SleepActionArgs(seconds=spec.pre_stop_sleep))
        )
        if spec.pre_stop_sleep
        else None,
        security_context=core.v1.SecurityContextArgs(
            allow_privilege_escalation=False,
            capabilities=core.v1.CapabilitiesArgs(drop=["ALL"]),
            privileged=False,
            read_only_root_filesystem=True,
            run_as_non_root=True,
            seccomp_profile=core.v1.SeccompProfileArgs(type="RuntimeDefault"),
        ),
        termination_message_policy="FallbackToLogsOnError",
        volume_mounts=[
            core.v1.VolumeMountArgs(name="tmp", mount_path="/tmp"),  # noqa: S108 - a volume of the pod's own
            *(core.v1.VolumeMountArgs(name=name, mount_path=path) for name, path in spec.mounts.items()),
            *(
                core.v1.VolumeMountArgs(name=name, mount_path=path, read_only=True)
                for name, path in spec.read_only_mounts.items()
            ),
        ],
    )


def _resources(spec: Container) -> core.v1.ResourceRequirementsArgs:
    merged: ResourcesArgs = {**spec.defaults, **spec.resources}
    missing = sorted(ResourcesArgs.__annotations__.keys() - merged.keys())
    if missing:
        raise ValueError(
            f"container {spec.name}: resources have neither a value nor a default for {', '.join(missing)}"
        )
    return core.v1.ResourceRequirementsArgs(
        requests={"cpu": merged["cpu"], "memory": merged["memory"], "ephemeral-storage": merged["storage"]},
        limits={
            "cpu": merged["cpu_limit"],
            "memory": merged["memory_limit"],
            "ephemeral-storage": merged["storage_limit"],
        },
    )


def secret_volume(name: str, secret: pulumi.Input[str]) -> core.v1.VolumeArgs:
    """A Secret as files, named by its keys, readable by the pod's group."""
    return core.v1.VolumeArgs(
        name=name, secret=core.v1.SecretVolumeSourceArgs(secret_name=secret, default_mode=SECRET_MODE)
    )


def secrets_volume(name: str, secrets: Sequence[pulumi.Input[str]]) -> core.v1.VolumeArgs:
    """Several Secrets as the files of one folder, named by their keys, readable by the pod's group."""
    return core.v1.VolumeArgs(
        name=name,
        projected=core.v1.ProjectedVolumeSourceArgs(
            default_mode=SECRET_MODE,
            sources=[
                core.v1.VolumeProjectionArgs(secret=core.v1.SecretProjectionArgs(name=secret)) for secret in secrets
            ],
        ),
    )


def config_volume(name: str, config_map: pulumi.Input[str]) -> core.v1.VolumeArgs:
    """A ConfigMap as files, named by its keys."""
    return core.v1.VolumeArgs(name=name, config_map=core.v1.ConfigMapVolumeSourceArgs(name=config_map))


def pod_template(
    *,
    labels: Mapping[str, str],
    selector: Mapping[str, str],
    containers: Sequence[core.v1.ContainerArgs],
    init_containers: Sequence[core.v1.ContainerArgs] = (),
    volumes: Sequence[core.v1.VolumeArgs] = (),
    placement: PlacementArgs | None = None,
    annotations: Mapping[str, pulumi.Input[str]] | None = None,
    user: int = USER,
    group: int = USER,
    grace_seconds: int = GRACE_SECONDS,
    restart_policy: str = "Always",
    tmp_size: str = TMP_SIZE,
    revision_label: str | None = None,
) -> core.v1.PodTemplateSpecArgs:
    """The hardened pod around `containers`, spread over zones and nodes.

    `selector` is what the workload selects by, a part of `labels`. `user` and `group` must be above 10000; volumes
    belong to the group. `revision_label` is the label by which the workload tells its revisions apart
    (`pod-template-hash` of a Deployment): with it a new revision is spread by itself. Raises ValueError for a grace
    below GRACE_SECONDS and a user or group that a node may have.
    """
    if grace_seconds < GRACE_SECONDS:
        raise ValueError(f"grace_seconds: {grace_seconds} s would cut work short; give {GRACE_SECONDS} or more")
    if min(user, group) <= 10_000:
        raise ValueError(f"user and group: {user}:{group} may be a user of the node; take numbers above 10000")
    where = placement or {}
    return core.v1.PodTemplateSpecArgs(
        metadata=meta.v1.ObjectMetaArgs(labels=dict(labels), annotations=dict(annotations) if annotations else None),
        spec=core.v1.PodSpecArgs(
            automount_service_account_token=False,
            containers=list(containers),
            enable_service_links=False,
            image_pull_secrets=[core.v1.LocalObjectReferenceArgs(name=where["image_pull_secret"])]
            if "image_pull_secret" in where
            else None,
            init_containers=list(init_containers) or None,
            node_selector=where.get("node_selector"),
            priority_class_name=where.get("priority_class"),
            restart_policy=restart_policy,
            runtime_class_name=where.get("runtime_class"),
            security_context=core.v1.PodSecurityContextArgs(
                fs_group=group,
                fs_group_change_policy="OnRootMismatch",
                run_as_group=group,
                run_as_non_root=True,
                run_as_user=user,
                seccomp_profile=core.v1.SeccompProfileArgs(type="RuntimeDefault"),
            ),
            service_account_name=where.get("service_account"),
            termination_grace_period_seconds=grace_seconds,
            tolerations=[core.v1.TolerationArgs(**taint) for taint in where.get("tolerations", ())] or None,
            topology_spread_constraints=[
                core.v1.TopologySpreadConstraintArgs(
                    topology_key=key,
                    max_skew=1,
                    # Rather a crowded node than a pod that waits.
                    when_unsatisfiable="ScheduleAnyway",
                    label_selector=meta.v1.LabelSelectorArgs(match_labels=dict(selector)),
                    match_label_keys=[revision_label] if revision_label else None,
                )
                for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
            ],
            volumes=[
                core.v1.VolumeArgs(name="tmp", empty_dir=core.v1.EmptyDirVolumeSourceArgs(size_limit=tmp_size)),
                *volumes,
            ],
        ),
    )
