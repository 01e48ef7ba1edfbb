"""Who gets which requests: one model, rendered by each platform (Envoy here, `HTTPRoute` on Kubernetes).

A release takes part in one of three ways. A serving release has a weight; the weights of all sum to 100, and 0 is
allowed: the release stands ready and gets what is pinned to it. A shadow gets copies of a share of the requests,
answers nobody, and writes under its own prefix. A draining one gets no request; its workers finish its runs.
The rules are pure, so that a wrong split fails a preview and not a request.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PIN_HEADER = "x-slipway-release"
"""Header that a pinned release answers to when its configuration names none."""

MIRRORED_METHOD = "POST"
"""Only these are copied to a shadow: reads ask for runs and threads that a shadow never has."""


def shadow_prefix(release: str) -> str:
    """Before every key of a shadow release: what it writes lies apart from everything else."""
    return f"shadow:{release}:"


class Role(StrEnum):
    """How a release takes part."""

    SERVING = "serving"
    SHADOW = "shadow"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class HeaderPin:
    """A request with this header, of exactly this value, goes to the release whatever the weights say."""

    header: str
    value: str


@dataclass(frozen=True, slots=True)
class ReleaseTraffic:
    """One release's part."""

    name: str
    role: Role = Role.SERVING
    weight: int = 0
    """Percent of the unpinned requests; 0 for a shadow or draining release."""
    pin: HeaderPin | None = None
    mirror_percent: float = 0.0
    """Percent of the unpinned POST requests that a shadow gets a copy of."""


@dataclass(frozen=True, slots=True)
class TrafficPlan:
    """All releases' parts, in the order of the configuration. Raises ValueError when they do not make a whole."""

    releases: tuple[ReleaseTraffic, ...]

    def __post_init__(self) -> None:
        total = sum(release.weight for release in self.releases)
        if total != 100:
            shares = ", ".join(f"{release.name} {release.weight}" for release in self.releases)
            raise ValueError(f"the weights sum to {total} ({shares}), not to 100; change them so that they do")
        for release in self.releases:
            if release.role is not Role.SERVING and (release.weight or release.pin):
                raise ValueError(
                    f"{release.name} is {release.role}: it answers nobody; set its weight to 0 and take its pin out"
                )
        if len(self.shadows) > 1:
            names = " and ".join(release.name for release in self.shadows)
            raise ValueError(f"{names} both have mirrorPercent; one release at a time can be the shadow: take one out")
        pins = [(release.pin.header.lower(), release.pin.value) for release in self.pinned if release.pin]
        if len(set(pins)) < len(pins):
            raise ValueError("two releases are pinned by the same header and value; give each its own value")

    @property
    def weighted(self) -> tuple[ReleaseTraffic, ...]:
        """Those that share the unpinned requests, those of weight 0 included: raising one is then one route write."""
        return tuple(release for release in self.releases if release.role is Role.SERVING)

    @property
    def pinned(self) -> tuple[ReleaseTraffic, ...]:
        return tuple(release for release in self.releases if release.pin is not None)

    @property
    def shadows(self) -> tuple[ReleaseTraffic, ...]:
        return tuple(release for release in self.releases if release.role is Role.SHADOW)

    @property
    def shadow(self) -> ReleaseTraffic | None:
        return self.shadows[0] if self.shadows else None
