"""What Dockerfile and compose.yaml promise, checked where no Docker daemon is: pins, confinement, one base image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.infra.version import VERSION

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
TEXT = (REPOSITORY / "compose.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
PINNED = re.compile(r"^[a-z0-9./-]+:v?\d+\.\d+\.\d+[a-z0-9.-]*@sha256:[0-9a-f]{64}$")


def defaults() -> dict[str, str]:
    return dict(re.findall(r"\$\{(\w+_IMAGE):-([^}]+)\}", TEXT))


def test_the_parts_are_all_there() -> None:
    """Two apis, three workers, and what they need."""
    assert {"api", "worker", "redis", "qdrant", "otel-collector", "front"} <= set(SERVICES)
    assert (SERVICES["api"]["deploy"]["replicas"], SERVICES["worker"]["deploy"]["replicas"]) == (2, 3)


@pytest.mark.parametrize(("variable", "default"), [pair for pair in defaults().items() if pair[0] != "SLIPWAY_IMAGE"])
def test_an_image_is_pinned_by_version_and_digest(variable: str, default: str) -> None:
    """A tag alone can be moved; a digest alone tells nobody what it is."""
    assert PINNED.match(default), f"{variable}: {default}"


def test_compose_and_dockerfile_name_the_same_base() -> None:
    """Whoever raises one raises both."""
    assert f"ARG PYTHON_IMAGE={defaults()['PYTHON_IMAGE']}\n" in DOCKERFILE


def test_the_image_bears_the_version_of_the_service() -> None:
    assert f"ARG VERSION={VERSION}\n" in DOCKERFILE


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined(name: str) -> None:
    """Read-only, no capabilities, limits, bounded logs, loopback ports."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", ["api", "worker"])
def test_the_grace_period_outlasts_the_drain(name: str) -> None:
    """DRAIN_SECONDS for the step or stream under way, three more for the last bytes."""
    service = SERVICES[name]
    assert int(service["stop_grace_period"].removesuffix("s")) > int(service["environment"]["DRAIN_SECONDS"]) + 3
