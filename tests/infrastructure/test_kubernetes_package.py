"""The components as a package of Pulumi, and alone in a program of somebody else."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
import yaml
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from components.kubernetes import plugin
from tests.support.components import assert_hardened, assert_selected, assert_valid, rendering

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "components" / "kubernetes"
_TYPES = {"string", "integer", "number", "boolean", "array", "object"}


@pytest.fixture(scope="module")
def schema() -> Iterator[dict[str, Any]]:
    """What Pulumi's engine is told, by the program that it starts."""
    with subprocess.Popen(
        [sys.executable, str(FOLDER), "127.0.0.1:1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/"
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().decode().strip()
            if not port:
                process.kill()
                pytest.fail(f"the package does not start: {process.communicate()[1].decode()[-2000:]}")
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = provider_pb2_grpc.ResourceProviderStub(channel)
                told = stub.GetSchema(provider_pb2.GetSchemaRequest(version=0), timeout=30)
            yield json.loads(told.schema)
        finally:
            process.kill()


def test_each_component_is_in_the_package(schema: dict[str, Any]) -> None:
    """One that is missing there exists in Python only."""
    named = {token.rpartition(":")[2] for token in schema["resources"]}
    written = {
        line.split("(")[0].removeprefix("class ")
        for path in FOLDER.glob("*.py")
        for line in path.read_text().splitlines()
        if line.startswith("class ") and "(pulumi.ComponentResource)" in line
    }
    assert named <= written
    # Parts of the stack's own: they keep the service's secrets, and make no sense without it.
    assert written - named == {"ServiceSecrets", "FirstKey"}


def test_each_input_has_a_type_and_a_description(schema: dict[str, Any]) -> None:
    """The schema is the documentation in every other language."""
    shapes = {
        **{token: made["inputProperties"] for token, made in schema["resources"].items()},
        **{token: made.get("properties", {}) for token, made in schema["types"].items()},
    }
    assert len(shapes) > 20
    for token, properties in shapes.items():
        for name, found in properties.items():
            assert found.get("type") in _TYPES or found.get("$ref"), f"{token}.{name} has no type: {found}"
            assert len(found.get("description", "")) > 5, f"{token}.{name} has no description"
            assert "pulumi.json#/Any" not in found.get("$ref", ""), f"{token}.{name} takes anything"
    for token, made in schema["resources"].items():
        assert made.get("description"), token
        assert made["isComponent"] is True, token
        assert made.get("properties"), f"{token} gives nothing out"


def test_only_what_has_no_sensible_default_is_required(schema: dict[str, Any]) -> None:
    required = {
        token.rpartition(":")[2]: sorted(made.get("requiredInputs", [])) for token, made in schema["resources"].items()
    }
    assert required["Redis"] == ["namespace"]
    assert required["Qdrant"] == ["namespace"]
    assert required["OtelCollector"] == ["namespace"]
    assert required["Backup"] == ["namespace"]
    assert required["BatchJob"] == ["image", "namespace"]
    assert required["ScheduledBatch"] == ["image", "namespace", "schedule"]
    assert required["StatefulAgent"] == ["image", "namespace"]
    assert required["ModelServer"] == ["apiKey", "model", "namespace"]


def test_pulumi_finds_out_how_to_start_it() -> None:
    told = yaml.safe_load((FOLDER / "PulumiPlugin.yaml").read_text())
    assert told["runtime"]["name"] == "python"
    assert (FOLDER / told["runtime"]["options"]["virtualenv"]).resolve() == ROOT / ".venv"


def test_the_analyzer_is_left_as_it_was() -> None:
    """The package changes Pulumi's library only while its own schema is made."""
    from pulumi.provider.experimental import analyzer, component

    plugin.provider()
    assert component.Analyzer is analyzer.Analyzer  # type: ignore[attr-defined]


def test_the_example_uses_three_components_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An example that nobody runs goes wrong unseen."""
    example = ROOT / "examples" / "three_components"
    image = "registry.example.com/agent@sha256:" + "0" * 64
    config = {"three-components:image": image, "three-components:redisPassword": "a-long-password-of-the-example"}
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps(config))

    def program() -> None:
        runpy.run_path(str(example), run_name="__main__")

    with rendering(project="three-components") as render:
        rendered = render(program)
    assert_hardened(rendered)
    assert_valid(rendered)
    assert_selected(rendered)
    kinds = {one["kind"] for one in rendered.objects}
    assert {"StatefulSet", "Service", "CronJob", "PodDisruptionBudget", "Secret", "ConfigMap"} == kinds
    assert sorted(one["metadata"]["name"] for one in rendered.of("CronJob")) == [
        "backup-redis",
        "backup-redis-restore",
        "report",
    ]
    project = yaml.safe_load((example / "Pulumi.yaml").read_text())
    assert set(project["config"]) == {"namespace", "image", "redisPassword"}
