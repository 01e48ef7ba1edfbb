"""What a stack gives: the same outputs on every platform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from stacks.config import StackConfig


@dataclass(frozen=True, slots=True)
class Platform:
    """What every platform gives; the stack's outputs are made of it."""

    service_url: pulumi.Output[str]
    """Where the front door answers, without a slash at the end; known once it does."""
    api_key: pulumi.Output[str]
    """A key for it (secret)."""


def export(stack: StackConfig, platform: Platform) -> None:
    """The outputs, the same on every platform."""
    url = platform.service_url
    pulumi.export("serviceUrl", url)
    pulumi.export("streamUrl", pulumi.Output.concat(url, "/api/stream"))
    pulumi.export("docsUrl", pulumi.Output.concat(url, "/docs"))
    pulumi.export("healthUrl", pulumi.Output.concat(url, "/readiness"))
    pulumi.export("releases", releases(stack))
    pulumi.export("apiKey", pulumi.Output.secret(platform.api_key))


def releases(stack: StackConfig) -> dict[str, Any]:
    """Each release's part in the traffic, as configured and served."""
    return {
        part.name: {
            "role": part.role.value,
            "weight": part.weight,
            "workers": _count(stack, part.name),
            **({"pin": f"{part.pin.header}: {part.pin.value}"} if part.pin else {}),
            **({"mirrorPercent": part.mirror_percent} if part.mirror_percent else {}),
            **({"env": dict(stack.releases[part.name].env)} if stack.releases[part.name].env else {}),
        }
        for part in stack.traffic().releases
    }


def _count(stack: StackConfig, release: str) -> int | dict[str, int]:
    """One number, or between which numbers the queue decides."""
    workers = stack.workers_of(release)
    return workers.min if workers.min == workers.max else {"min": workers.min, "max": workers.max}
