"""The api of one release: a Deployment, the Service before it, and how many of it must stay up.

It leaves alone who gets which requests (`TrafficSplit`) and how its runs are executed (`AgentWorkers`).
"""

from __future__ import annotations

from typing import NotRequired

import pulumi
from pulumi_kubernetes import apps, autoscaling, core, meta, policy

from components.kubernetes import labels
from components.kubernetes.agent import (
    KEY_VOLUME,
    PORT,
    PRE_STOP_SECONDS,
    SECRETS_VOLUME,
    AgentArgs,
    agent_container,
    checked,
    first_key_container,
    grace_seconds,
)
from components.kubernetes.pod import Probes, ResourcesArgs, http_probe, pod_template, secrets_volume

COMPONENT = "api"
_REPLICAS = 2
"""One can be moved while the other answers."""
_CPU_PERCENT = 70
"""Of the CPU asked for: above it, another api is started."""
_START_SECONDS = 180
"""Importing the service and loading its models takes seconds; on a busy node, many."""
_SETTLE_SECONDS = 300
"""Load must be lower for so long before apis go: each that goes ends streams."""

_RESOURCES: ResourcesArgs = {
    "cpu": "250m",
    "memory": "384Mi",
    "cpu_limit": "1",
    "memory_limit": "768Mi",
    "storage": "64Mi",
    "storage_limit": "512Mi",
}


class AgentServiceArgs(AgentArgs):
    """What the api of a release needs to know."""

    first_key_secret: NotRequired[pulumi.Input[str]]
    """Secret with the file `api_key`: that key is registered before the api answers."""
    replicas: NotRequired[int]
    """How many apis there are, or are at least. Default 2."""
    max_replicas: NotRequired[int]
    """How many there are at most: above `replicas`, load decides. Default: `replicas`."""


class AgentService(pulumi.ComponentResource):
    """The api of one release. Outputs: `service_name` and `port` within the namespace; `deployment_name`."""

    service_name: pulumi.Output[str]
    port: pulumi.Output[int]
    deployment_name: pulumi.Output[str]

    def __init__(self, name: str, args: AgentServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:kubernetes:AgentService", name, {}, opts)
        object_name = checked(args, COMPONENT)
        least = args.get("replicas", _REPLICAS)
        most = args.get("max_replicas", least)
        if not 1 <= least <= most:
            raise ValueError(f"replicas: {least} must be 1 or more and not above max_replicas, {most}")
        child = pulumi.ResourceOptions(parent=self)
        selector = labels.selector(COMPONENT, args["release"])
        metadata = meta.v1.ObjectMetaArgs(
            name=object_name, namespace=args["namespace"], labels=labels.labels(COMPONENT, args["release"])
        )
        deployment = self._deployment(name, args, metadata, selector, None if most > least else least, child)
        self.deployment_name = deployment.metadata.apply(lambda made: str(made.name))
        service = core.v1.Service(
            f"{name}-service",
            metadata=metadata,
            spec=core.v1.ServiceSpecArgs(
                type="ClusterIP",
                selector=selector,
                ports=[core.v1.ServicePortArgs(name="http", port=PORT, target_port="http", app_protocol="http")],
            ),
            opts=child,
        )
        if most > least:
            self._autoscaler(name, metadata, self.deployment_name, least, most, child)
        disruption_budget(name, metadata, selector, 1, child)
        self.service_name = service.metadata.apply(lambda made: str(made.name))
        self.port = pulumi.Output.from_input(PORT)
        self.register_outputs(
            {"service_name": self.service_name, "port": self.port, "deployment_name": self.deployment_name}
        )

    @staticmethod
    def _deployment(
        name: str,
        args: AgentServiceArgs,
        metadata: meta.v1.ObjectMetaArgs,
        selector: dict[str, str],
        replicas: int | None,
        opts: pulumi.ResourceOptions,
    ) -> apps.v1.Deployment:
        probes = Probes(
            startup=http_probe("/healthz", "http", period=2, failures=_START_SECONDS // 2),
            readiness=http_probe("/readiness", "http"),
            liveness=http_probe("/healthz", "http", period=10, failures=6, timeout=5),
        )
        volumes = [secrets_volume(SECRETS_VOLUME, args["secrets"])]
        before = []
        if "first_key_secret" in args:
            before.append(first_key_container(args))
            volumes.append(secrets_volume(KEY_VOLUME, [*args["secrets"], args["first_key_secret"]]))
        api = agent_container("api", args, _RESOURCES, probes, ports={"http": PORT}, pre_stop=PRE_STOP_SECONDS)
        return apps.v1.Deployment(
            f"{name}-deployment",
            metadata=metadata,
            spec=apps.v1.DeploymentSpecArgs(
                replicas=replicas,
                revision_history_limit=3,
                selector=meta.v1.LabelSelectorArgs(match_labels=selector),
                strategy=rolling(1),
                template=pod_template(
                    labels=labels.labels(COMPONENT, args["release"]),
                    selector=selector,
                    containers=[api],
                    init_containers=before,
                    volumes=volumes,
                    placement=args.get("placement"),
                    grace_seconds=grace_seconds(args),
                    revision_label="pod-template-hash",
                ),
            ),
            opts=opts,
        )

    @staticmethod
    def _autoscaler(
        name: str,
        metadata: meta.v1.ObjectMetaArgs,
        deployment: pulumi.Output[str],
        least: int,
        most: int,
        opts: pulumi.ResourceOptions,
    ) -> autoscaling.v2.HorizontalPodAutoscaler:
        return autoscaling.v2.HorizontalPodAutoscaler(
            f"{name}-autoscaler",
            metadata=metadata,
            spec=autoscaling.v2.HorizontalPodAutoscalerSpecArgs(
                scale_target_ref=autoscaling.v2.CrossVersionObjectReferenceArgs(
                    api_version="apps/v1", kind="Deployment", name=deployment
                ),
                min_replicas=least,
                max_replicas=most,
                metrics=[
                    autoscaling.v2.MetricSpecArgs(
                        type="Resource",
                        resource=autoscaling.v2.ResourceMetricSourceArgs(
                            name="cpu",
                            target=autoscaling.v2.MetricTargetArgs(
                                type="Utilization", average_utilization=_CPU_PERCENT
                            ),
                        ),
                    )
                ],
                behavior=autoscaling.v2.HorizontalPodAutoscalerBehaviorArgs(
                    scale_down=autoscaling.v2.HPAScalingRulesArgs(
                        stabilization_window_seconds=_SETTLE_SECONDS,
                        policies=[autoscaling.v2.HPAScalingPolicyArgs(type="Pods", value=1, period_seconds=60)],
                    )
                ),
            ),
            opts=opts,
        )


def rolling(surge: int | str) -> apps.v1.DeploymentStrategyArgs:
    """A rollout that starts `surge` new pods at a time and takes an old one away only once a new one is ready."""
    return apps.v1.DeploymentStrategyArgs(
        type="RollingUpdate", rolling_update=apps.v1.RollingUpdateDeploymentArgs(max_surge=surge, max_unavailable=0)
    )


def disruption_budget(
    name: str,
    metadata: meta.v1.ObjectMetaArgs,
    selector: dict[str, str],
    unavailable: int | str,
    opts: pulumi.ResourceOptions,
) -> policy.v1.PodDisruptionBudget:
    """How many pods may be evicted at a time, of one replica too: otherwise its node could never be drained."""
    return policy.v1.PodDisruptionBudget(
        f"{name}-disruption-budget",
        metadata=metadata,
        spec=policy.v1.PodDisruptionBudgetSpecArgs(
            max_unavailable=unavailable,
            selector=meta.v1.LabelSelectorArgs(match_labels=selector),
            # A pod that is not ready serves nobody: it must not keep a node from being drained.
            unhealthy_pod_eviction_policy="AlwaysAllow",
        ),
        opts=opts,
    )
