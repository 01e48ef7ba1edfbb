"""The workers of one release: a Deployment that takes runs from the release's queue.

How many there are is `QueueScaler`'s business: without `replicas` the Deployment names no number, because one would
put the count back at every deploy.
"""

from __future__ import annotations

from typing import NotRequired

import pulumi
from pulumi_kubernetes import apps, meta

from components.kubernetes import labels
from components.kubernetes.agent import SECRETS_VOLUME, AgentArgs, agent_container, checked, grace_seconds
from components.kubernetes.agent_service import disruption_budget, rolling
from components.kubernetes.pod import Probes, ResourcesArgs, exec_probe, pod_template, secrets_volume

COMPONENT = "worker"
_HEALTH = ("python", "-m", "app", "health", "worker")
_PERIOD_SECONDS = 30
"""A check costs 0.3 s of CPU."""
_ANSWER_SECONDS = 10
_START_PERIOD_SECONDS, _START_FAILURES = 5, 36
_SHARE = "25%"
"""Of the workers that may be replaced or evicted at a time, rounded up; other workers carry on with their runs."""

_RESOURCES: ResourcesArgs = {
    "cpu": "250m",
    "memory": "512Mi",
    "cpu_limit": "1",
    "memory_limit": "1Gi",
    "storage": "64Mi",
    "storage_limit": "512Mi",
}


class AgentWorkersArgs(AgentArgs):
    """What the workers of a release need to know."""

    replicas: NotRequired[int]
    """How many there are, where nothing scales them. Default: unsaid, for a `QueueScaler`."""


class AgentWorkers(pulumi.ComponentResource):
    """The workers of one release. Output: `deployment_name`."""

    deployment_name: pulumi.Output[str]

    def __init__(self, name: str, args: AgentWorkersArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:kubernetes:AgentWorkers", name, {}, opts)
        object_name = checked(args, COMPONENT)
        replicas = args.get("replicas")
        if replicas is not None and replicas < 1:
            raise ValueError("replicas: give 1 or more; a QueueScaler can go to zero")
        child = pulumi.ResourceOptions(parent=self)
        selector = labels.selector(COMPONENT, args["release"])
        metadata = meta.v1.ObjectMetaArgs(
            name=object_name, namespace=args["namespace"], labels=labels.labels(COMPONENT, args["release"])
        )
        deployment = self._deployment(name, args, metadata, selector, replicas, child)
        disruption_budget(name, metadata, selector, _SHARE, child)
        self.deployment_name = deployment.metadata.apply(lambda made: str(made.name))
        self.register_outputs({"deployment_name": self.deployment_name})

    @staticmethod
    def _deployment(
        name: str,
        args: AgentWorkersArgs,
        metadata: meta.v1.ObjectMetaArgs,
        selector: dict[str, str],
        replicas: int | None,
        opts: pulumi.ResourceOptions,
    ) -> apps.v1.Deployment:
        probes = Probes(
            startup=exec_probe(
                _HEALTH, period=_START_PERIOD_SECONDS, failures=_START_FAILURES, timeout=_ANSWER_SECONDS
            ),
            readiness=exec_probe(_HEALTH, period=_PERIOD_SECONDS, timeout=_ANSWER_SECONDS),
            liveness=exec_probe(_HEALTH, period=_PERIOD_SECONDS, timeout=_ANSWER_SECONDS, failures=4),
        )
        worker = agent_container("worker", args, _RESOURCES, probes, ports={}, pre_stop=0)
        return apps.v1.Deployment(
            f"{name}-deployment",
            metadata=metadata,
            spec=apps.v1.DeploymentSpecArgs(
                replicas=replicas,
                revision_history_limit=3,
                selector=meta.v1.LabelSelectorArgs(match_labels=selector),
                strategy=rolling(_SHARE),
                template=pod_template(
                    labels=labels.labels(COMPONENT, args["release"]),
                    selector=selector,
                    containers=[worker],
                    volumes=[secrets_volume(SECRETS_VOLUME, args["secrets"])],
                    placement=args.get("placement"),
                    grace_seconds=grace_seconds(args),
                    revision_label="pod-template-hash",
                ),
            ),
            opts=opts,
        )
