"""Qdrant, the agents with identity and the model server, as rendered."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from components.kubernetes.model_server import GPU, ModelServer, ModelServerArgs
from components.kubernetes.qdrant import _WRITE_CONFIG, Qdrant, QdrantArgs
from components.kubernetes.stateful_agent import StatefulAgent, StatefulAgentArgs
from tests.support.components import (
    Render,
    assert_hardened,
    assert_no_secret_in_the_open,
    assert_selected,
    assert_valid,
    rendering,
)

KEY = "a-key-that-nobody-may-see"
IMAGE = "registry.example.com/slipway@sha256:" + "0" * 64


@pytest.fixture
def render() -> Iterator[Render]:
    with rendering() as run:
        yield run


def qdrant(**changes: Any) -> Qdrant:
    args: dict[str, Any] = {"namespace": "agents", "api_key": pulumi.Output.secret(KEY), **changes}
    return Qdrant("qdrant", QdrantArgs(**{key: value for key, value in args.items() if value is not None}))  # type: ignore[typeddict-item]


def agent(**changes: Any) -> StatefulAgent:
    args: dict[str, Any] = {"namespace": "agents", "image": IMAGE, "port": 8000, **changes}
    return StatefulAgent("sessions", StatefulAgentArgs(**{key: value for key, value in args.items() if value}))  # type: ignore[typeddict-item]


def model_server(**changes: Any) -> ModelServer:
    args: dict[str, Any] = {"namespace": "agents", "model": "Qwen/Qwen3-8B", "api_key": pulumi.Output.secret(KEY)}
    return ModelServer("models", ModelServerArgs(**{**args, **changes}))  # type: ignore[typeddict-item]


@pytest.mark.parametrize("make", [qdrant, agent, model_server])
def test_each_is_hardened_and_reached_by_what_selects_it(render: Render, make: Any) -> None:
    rendered = render(make)
    assert_hardened(rendered)
    assert_valid(rendered)
    assert_selected(rendered)
    assert_no_secret_in_the_open(rendered, KEY)


def test_qdrant_runs_unprivileged_with_its_scratch_on_volumes(render: Render) -> None:
    """Its root file system is read-only: what it writes must lie on the disk or in /tmp."""
    rendered = render(qdrant)
    server = rendered.pods()[0][1]["containers"][0]
    assert "-unprivileged" in server["image"]
    env = {one["name"]: one["value"] for one in server["env"]}
    assert env["QDRANT__STORAGE__SNAPSHOTS_PATH"].startswith("/qdrant/storage/")
    assert env["QDRANT__STORAGE__TEMP_PATH"].startswith("/qdrant/storage/")
    assert env["QDRANT_INIT_FILE_PATH"].startswith("/tmp/")
    assert server["command"][1:] == ["--config-path", "/run/qdrant-config/config.yaml"]
    assert rendered.outputs["url"] == "http://qdrant.agents:6333"


@pytest.mark.parametrize("key", ["plain", "it's: {quoted}", "#hash", "'"])
def test_qdrants_key_reaches_its_configuration_whatever_is_in_it(tmp_path: Path, key: str) -> None:
    """A key that changes the meaning of the file would leave Qdrant open."""
    (tmp_path / "api_key").write_text(key + "\n")
    script = _WRITE_CONFIG.replace("/run/qdrant-secret", str(tmp_path)).replace("/run/qdrant-config", str(tmp_path))
    subprocess.run(["sh", "-c", script], check=True, timeout=10)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {"service": {"api_key": key}}


def test_qdrant_does_not_start_open(tmp_path: Path) -> None:
    """Without a key it would answer everybody."""
    (tmp_path / "api_key").write_text("")
    script = _WRITE_CONFIG.replace("/run/qdrant-secret", str(tmp_path)).replace("/run/qdrant-config", str(tmp_path))
    failed = subprocess.run(["sh", "-c", script], check=False, timeout=10, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "api_key" in failed.stderr


def test_each_agent_pod_has_a_name_and_a_disk(render: Render) -> None:
    rendered = render(lambda: agent(replicas=3))
    spec = rendered.only("StatefulSet")["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    assert rendered.outputs["pod_hosts"] == [f"sessions-{at}.sessions-nodes.agents" for at in range(3)]
    nodes = rendered.only("Service")["spec"]
    assert nodes["clusterIP"] == "None"
    assert nodes["publishNotReadyAddresses"] is True
    assert spec["serviceName"] == rendered.only("Service")["metadata"]["name"]


def test_a_worker_can_be_an_agent_with_identity(render: Render) -> None:
    """Without a port its health is asked by a command."""
    command = ["python", "-m", "app", "health", "worker"]
    rendered = render(
        lambda: agent(port=None, health_command=command, arguments=["worker"], secrets=["one", "two"], env={"X": "1"})
    )
    container = rendered.pods()[0][1]["containers"][0]
    assert container["livenessProbe"]["exec"]["command"] == command
    assert {"name": "SECRETS_PATH", "value": "/run/slipway"} in container["env"]
    sources = next(volume for volume in rendered.pods()[0][1]["volumes"] if volume["name"] == "secrets")
    assert [one["secret"]["name"] for one in sources["projected"]["sources"]] == ["one", "two"]


def test_a_model_server_asks_for_gpus_and_waits_until_the_model_is_there(render: Render) -> None:
    rendered = render(lambda: model_server(gpus=2, max_model_len=8192, options={"gpu-memory-utilization": "0.9"}))
    pod = rendered.pods()[0][1]
    server = pod["containers"][0]
    assert server["resources"]["limits"][GPU] == server["resources"]["requests"][GPU] == "2"
    startup = server["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 3_600
    assert server["readinessProbe"]["httpGet"]["path"] == "/health"
    assert rendered.only("Deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
    assert pod["tolerations"] == [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    config = yaml.safe_load(rendered.only("Secret")["stringData"]["config.yaml"])
    assert config["api-key"] == KEY
    assert config["tensor-parallel-size"] == 2
    assert config["max-model-len"] == 8192
    assert config["gpu-memory-utilization"] == "0.9"
    assert rendered.outputs["base_url"] == "http://models.agents:8000/v1"
    assert rendered.outputs["model"] == "Qwen/Qwen3-8B"


def test_models_are_kept_when_the_server_goes(render: Render) -> None:
    """Fetching them again takes long."""
    claim = render(model_server).only("PersistentVolumeClaim")
    assert claim["spec"]["resources"]["requests"]["storage"] == "100Gi"


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: qdrant(secret_name="also"), "api_key, secret_name"),
        (lambda: qdrant(api_key=None), "api_key, secret_name"),
        (lambda: agent(port=None), "port, health_command"),
        (lambda: agent(replicas=-1), "replicas"),
        (lambda: agent(grace_seconds=30), "grace_seconds"),
        (lambda: model_server(gpus=0), "gpus"),
        (lambda: model_server(options={"api-key": "x"}), "options: api-key"),
    ],
)
def test_a_wrong_input_is_named_at_construction(render: Render, make: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        render(make)
