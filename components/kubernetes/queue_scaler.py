"""Scales one Deployment on the runs of one queue, those under way included.

KEDA counts the members of the release's queue (a sorted set whose members are queued or running), so a worker that is
busy is needed as much as one that must come. Going in never ends a run: the worker that leaves drains, and hands over
what it could not end. The trap: whatever is scaled here must name no `replicas`.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

import pulumi
from pulumi_kubernetes import apiextensions, meta

from components.kubernetes import labels

API = "keda.sh/v1alpha1"
COMPONENT = "worker"
RUNS_PER_WORKER = 5
MIN, MAX = 2, 50
_POLL_SECONDS = 5
"""How often the queue is counted while there is no worker: what the first run of an idle release waits."""
_COOLDOWN_SECONDS = 300
"""How long a queue must be empty before the last workers go."""
_SETTLE_SECONDS = 300
"""How long fewer workers must be enough before some go."""
_FAILURES = 3
"""Counts that fail in a row before the number that there are stays as it is."""


class RedisAccessArgs(TypedDict):
    """How KEDA reaches the Redis that holds the queue."""

    address: pulumi.Input[str]
    """`host:port`, with the namespace in the host: KEDA runs in another one."""
    secret_name: NotRequired[pulumi.Input[str]]
    """Secret with the password, in the workers' namespace. Default: no password."""
    password_key: NotRequired[str]
    """Key in that Secret. Default `password`."""
    username: NotRequired[pulumi.Input[str]]
    """ACL user. Default: Redis's `default`."""
    database: NotRequired[int]
    """Number of the database. Default 0."""
    tls: NotRequired[bool]
    """Whether it speaks TLS. Default false."""
    ca_secret_name: NotRequired[pulumi.Input[str]]
    """Secret with the authority's certificate, for one that is not public."""
    ca_key: NotRequired[str]
    """Key in that Secret. Default `ca.crt`."""


class QueueScalerArgs(TypedDict):
    """What a scaler needs to know."""

    namespace: pulumi.Input[str]
    """The namespace."""
    deployment: pulumi.Input[str]
    """Name of the Deployment that is scaled."""
    instance: str
    """Whose Deployment it is: the release. Names the objects."""
    queue: str
    """Redis key of the queue, with the prefix of a shadow release before it."""
    redis: RedisAccessArgs
    """Where the queue is."""
    min_replicas: NotRequired[int]
    """Least workers; 0 lets an idle release go. Default 2."""
    max_replicas: NotRequired[int]
    """Most workers. Default 50."""
    runs_per_worker: NotRequired[int]
    """Runs, queued or running, for each of which so many share a worker. Default 5, as WORKER_SLOTS."""


class QueueScaler(pulumi.ComponentResource):
    """A ScaledObject and its TriggerAuthentication. Output: `scaled_object_name`."""

    scaled_object_name: pulumi.Output[str]

    def __init__(self, name: str, args: QueueScalerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:kubernetes:QueueScaler", name, {}, opts)
        least, most = args.get("min_replicas", MIN), args.get("max_replicas", MAX)
        if not 0 <= least <= most or most < 1:
            raise ValueError(f"min_replicas: {least} must be 0 or more and not above max_replicas, {most}")
        if args.get("runs_per_worker", RUNS_PER_WORKER) < 1:
            raise ValueError("runs_per_worker: give 1 or more")
        object_name = labels.dns_label(f"{COMPONENT}-{args['instance']}", "instance")
        child = pulumi.ResourceOptions(parent=self)
        authentication = self._authentication(name, object_name, args, child)
        scaled = apiextensions.CustomResource(
            f"{name}-scaled-object",
            api_version=API,
            kind="ScaledObject",
            metadata=meta.v1.ObjectMetaArgs(
                name=object_name,
                namespace=args["namespace"],
                labels=labels.labels(COMPONENT, args["instance"]),
                annotations={"pulumi.com/waitFor": "condition=Ready"},
            ),
            spec={
                "scaleTargetRef": {"name": args["deployment"]},
                "minReplicaCount": least,
                "maxReplicaCount": most,
                "pollingInterval": _POLL_SECONDS,
                "cooldownPeriod": _COOLDOWN_SECONDS,
                # While Redis does not answer, the workers that there are stay.
                "fallback": {
                    "failureThreshold": _FAILURES,
                    "replicas": max(least, 1),
                    "behavior": "currentReplicasIfHigher",
                },
                "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _BEHAVIOR}},
                "triggers": [
                    {
                        "type": "redis",
                        "metricType": "AverageValue",
                        "metadata": self._trigger(args),
                        **({"authenticationRef": {"name": authentication}} if authentication is not None else {}),
                    }
                ],
            },
            # Two scaled objects on one Deployment are refused.
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )
        self.scaled_object_name = scaled.id.apply(lambda _: object_name)
        self.register_outputs({"scaled_object_name": self.scaled_object_name})

    @staticmethod
    def _trigger(args: QueueScalerArgs) -> dict[str, pulumi.Input[str]]:
        """What is counted; KEDA takes text only."""
        redis = args["redis"]
        found: dict[str, pulumi.Input[str]] = {
            "address": redis["address"],
            "listName": args["queue"],
            "listLength": str(args.get("runs_per_worker", RUNS_PER_WORKER)),
            "activationListLength": "0",
            "databaseIndex": str(redis.get("database", 0)),
            "enableTLS": str(redis.get("tls", False)).lower(),
        }
        if "username" in redis:
            found["username"] = redis["username"]
        return found

    @staticmethod
    def _authentication(
        name: str, object_name: str, args: QueueScalerArgs, opts: pulumi.ResourceOptions
    ) -> pulumi.Output[str] | None:
        redis = args["redis"]
        references: list[dict[str, Any]] = []
        if "secret_name" in redis:
            key = redis.get("password_key", "password")
            references.append({"parameter": "password", "name": redis["secret_name"], "key": key})
        if "ca_secret_name" in redis:
            references.append(
                {"parameter": "ca", "name": redis["ca_secret_name"], "key": redis.get("ca_key", "ca.crt")}
            )
        if not references:
            return None
        made = apiextensions.CustomResource(
            f"{name}-authentication",
            api_version=API,
            kind="TriggerAuthentication",
            metadata=meta.v1.ObjectMetaArgs(
                name=object_name, namespace=args["namespace"], labels=labels.labels(COMPONENT, args["instance"])
            ),
            spec={"secretTargetRef": references},
            opts=opts,
        )
        return made.id.apply(lambda _: object_name)


_BEHAVIOR = {
    # From 2 to 20 within a minute; the default doubles, from a small number slowly.
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15},
            {"type": "Pods", "value": 10, "periodSeconds": 15},
        ],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": _SETTLE_SECONDS,
        "policies": [{"type": "Percent", "value": 25, "periodSeconds": 60}],
    },
}
