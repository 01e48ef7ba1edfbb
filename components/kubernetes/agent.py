"""What the pods of the service have in common, whether they run the api or a worker.

One image runs both. Settings are variables of the container, so a change is a rollout and a rollback has the old ones;
secrets are files under SECRETS_PATH and stand in no variable, argument or state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import pulumi
from pulumi_kubernetes import core

from app.infra.ids import is_id
from components.kubernetes import labels
from components.kubernetes.pod import GRACE_SECONDS, Container, PlacementArgs, Probes, ResourcesArgs, container

PORT = 8_000
SECRETS_PATH = "/run/slipway"
SECRETS_VOLUME, KEY_VOLUME = "secrets", "first-key"

PRE_STOP_SECONDS = 5
"""Until every proxy and every node has heard that a pod is leaving."""
_LAST_SECONDS = 15
"""After the time to drain: what a process needs to close what it holds."""
DRAIN_SECONDS = GRACE_SECONDS - PRE_STOP_SECONDS - _LAST_SECONDS
"""DRAIN_SECONDS where the settings do not say it: the longest that fits into the least grace."""

OWNED = ("RELEASE", "HOST", "PORT", "SECRETS_PATH", "DRAIN_SECONDS")
"""Variables that the components set."""

_KEY_RESOURCES: ResourcesArgs = {
    "cpu": "50m",
    "memory": "128Mi",
    "cpu_limit": "500m",
    "memory_limit": "256Mi",
    "storage": "32Mi",
    "storage_limit": "128Mi",
}


class AgentArgs(TypedDict):
    """What api and workers of a release both need to know."""

    namespace: pulumi.Input[str]
    """The namespace."""
    release: str
    """Name of the release, which is its track: the same for life. Lower-case letters, digits and dashes."""
    image: pulumi.Input[str]
    """The service's image, by digest."""
    secrets: Sequence[pulumi.Input[str]]
    """Names of the Secrets whose keys are settings in lower case (`redis_url`)."""
    env: NotRequired[Mapping[str, pulumi.Input[str]]]
    """Settings that are no secrets, by variable."""
    drain_seconds: NotRequired[float]
    """Longest that a stopping process lets a step or a stream go on; the pod's grace follows. Default 100."""
    resources: NotRequired[ResourcesArgs]
    """What a container gets."""
    placement: NotRequired[PlacementArgs]
    """Where the pods run."""


def checked(args: AgentArgs, component: str) -> str:
    """The name of the release's objects of that component. Raises ValueError that names the input."""
    release = args["release"]
    if not is_id(release):
        raise ValueError(f"release: {release!r} is no name of a release")
    owned = sorted(set(OWNED) & set(args.get("env", {})))
    if owned:
        raise ValueError(f"env: {', '.join(owned)} cannot be set; the component does")
    if args.get("drain_seconds", 1) <= 0:
        raise ValueError("drain_seconds: must be above 0")
    if not args["secrets"]:
        raise ValueError("secrets: the service cannot start without REDIS_URL; name a Secret with the key redis_url")
    return labels.dns_label(f"{component}-{release}", "release")


def grace_seconds(args: AgentArgs) -> int:
    """terminationGracePeriodSeconds: the time to drain, and what comes before and after it."""
    return max(GRACE_SECONDS, round(args.get("drain_seconds", DRAIN_SECONDS) + 0.5) + PRE_STOP_SECONDS + _LAST_SECONDS)


def agent_container(
    command: str, args: AgentArgs, defaults: ResourcesArgs, probes: Probes, *, ports: Mapping[str, int], pre_stop: int
) -> core.v1.ContainerArgs:
    """`python -m app <command>`, the image's entry point."""
    return container(
        Container(
            name=command,
            image=args["image"],
            args=[command],
            env=_env(args),
            ports=ports,
            resources=args.get("resources", {}),
            defaults=defaults,
            probes=probes,
            read_only_mounts={SECRETS_VOLUME: SECRETS_PATH},
            pre_stop_sleep=pre_stop,
        )
    )


def first_key_container(args: AgentArgs) -> core.v1.ContainerArgs:
    """Registers the first API key, once: what follows finds it there. It alone sees the key."""
    return container(
        Container(
            name="first-key",
            image=args["image"],
            args=["bootstrap", "key"],
            env=_env(args),
            resources={},
            defaults=_KEY_RESOURCES,
            probes=None,
            read_only_mounts={KEY_VOLUME: SECRETS_PATH},
        )
    )


def _env(args: AgentArgs) -> dict[str, pulumi.Input[str]]:
    return {
        **args.get("env", {}),
        "RELEASE": args["release"],
        "HOST": "0.0.0.0",  # noqa: S104 - a pod is reached by its address; the policies say from where
        "PORT": str(PORT),
        "SECRETS_PATH": SECRETS_PATH,
        "DRAIN_SECONDS": f"{args.get('drain_seconds', DRAIN_SECONDS):g}",
    }
