"""Applies rendered routes to a running Envoy and waits until it serves them.

The order keeps requests whole: first the clusters, old and new together, then the routes, then the old clusters go.
Each step is believed only when Envoy's admin interface (a Unix socket) reports its version, so a `pulumi up` that
has returned means that the split is live.
"""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from typing import Any

from components.local import envoy
from components.local.errors import LocalError
from components.local.health import UnixHTTPConnection
from components.local.supervisor import write_private
from components.traffic import HeaderPin, ReleaseTraffic, Role, TrafficPlan

_APPLY_SECONDS = 10.0
_CLUSTERS, _ROUTES = "cluster_manager.cds.version_text", f"http.{envoy.ROUTES}.rds.{envoy.ROUTES}.version_text"


def apply(folder: Path, admin: Path, plan: list[dict[str, Any]], addresses: dict[str, str]) -> str:
    """Make Envoy serve `plan`; its version once it does. Raises `LocalError` when Envoy refuses or is not there."""
    traffic = plan_of(plan)
    version = envoy.version_of({"plan": plan}, addresses)
    before = _resources(folder / "cds.json")
    union = envoy.clusters(addresses, more=before)
    # A repeated apply must be seen as a new one: Envoy reports versions, so each carries when it was written.
    stamp = f"{version}.{time.time_ns():x}"
    _write(folder / "cds.json", envoy.response(f"{stamp}.union", union), admin, _CLUSTERS, f"{stamp}.union")
    _write(folder / "rds.json", envoy.response(stamp, [envoy.routes(traffic, addresses)]), admin, _ROUTES, stamp)
    _write(folder / "cds.json", envoy.response(stamp, envoy.clusters(addresses)), admin, _CLUSTERS, stamp)
    return version


def close(folder: Path) -> None:
    """Take all routes away. Envoy need not run."""
    if folder.is_dir():
        write_private(folder / "rds.json", envoy.CLOSED)
        write_private(folder / "cds.json", envoy.EMPTY)


def live_version(admin: Path) -> str:
    """The version of the routes that Envoy serves now; empty when it serves none or does not answer."""
    try:
        return _versions(admin).get(_ROUTES, "").partition(".")[0]
    except (OSError, http.client.HTTPException):
        return ""


def plan_of(plan: list[dict[str, Any]]) -> TrafficPlan:
    """The plan, from the plain JSON that a resource's inputs can hold (see `plain`)."""
    return TrafficPlan(
        tuple(
            ReleaseTraffic(
                name=part["name"],
                role=Role(part["role"]),
                weight=int(part["weight"]),
                pin=HeaderPin(**part["pin"]) if part.get("pin") else None,
                mirror_percent=float(part["mirror_percent"]),
            )
            for part in plan
        )
    )


def plain(plan: TrafficPlan) -> list[dict[str, Any]]:
    return [
        {
            "name": release.name,
            "role": release.role.value,
            "weight": release.weight,
            "mirror_percent": release.mirror_percent,
            **({"pin": {"header": release.pin.header, "value": release.pin.value}} if release.pin else {}),
        }
        for release in plan.releases
    ]


def _resources(path: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(path.read_text()).get("resources", []))
    except FileNotFoundError:
        return []


def _write(path: Path, text: str, admin: Path, statistic: str, version: str) -> None:
    write_private(path, text)
    deadline = time.monotonic() + _APPLY_SECONDS
    seen = ""
    while time.monotonic() < deadline:
        try:
            seen = _versions(admin).get(statistic, "")
        except (OSError, http.client.HTTPException) as error:
            raise LocalError(
                f"Envoy does not answer on {admin} ({type(error).__name__}); `pulumi up` starts it again"
            ) from error
        if seen == version:
            return
        time.sleep(0.02)
    raise LocalError(
        f"Envoy did not take {path} over within {_APPLY_SECONDS:g} s; its log in {path.parents[1] / 'logs'} says why. "
        "It still serves the earlier routes"
    )


def _versions(admin: Path) -> dict[str, str]:
    connection = UnixHTTPConnection(admin, 2.0)
    try:
        connection.request("GET", "/stats?filter=version_text$")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    lines = (line.partition(": ") for line in text.splitlines())
    return {name: value.strip().strip('"') for name, _, value in lines}
