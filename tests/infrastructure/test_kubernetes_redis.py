"""The component Redis, as rendered: what it promises to whoever deploys it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pulumi
import pytest

from components.kubernetes.redis import AppendFsync, Redis, RedisArgs
from tests.support.components import (
    Render,
    assert_hardened,
    assert_no_secret_in_the_open,
    assert_selected,
    assert_valid,
    rendering,
)

PASSWORD = "correct-horse-battery-staple"


@pytest.fixture
def render() -> Iterator[Render]:
    with rendering() as run:
        yield run


def redis(**changes: Any) -> Redis:
    args: dict[str, Any] = {"namespace": "agents", "password": pulumi.Output.secret(PASSWORD), **changes}
    return Redis("redis", RedisArgs(**{key: value for key, value in args.items() if value is not None}))  # type: ignore[typeddict-item]


EVERYTHING = {
    "tls": {"secret_name": "redis-tls", "client_ca_path": "/run/ca/ca.crt"},
    "exporter": {},
    "appendfsync": AppendFsync.ALWAYS,
    "maxmemory_mb": 512,
    "disk": {"size": "20Gi", "storage_class": "fast", "keep": False},
}


@pytest.mark.parametrize("changes", [{}, EVERYTHING, {"password": None, "secret_name": "from-the-store"}])
def test_every_way_to_make_one_is_hardened(render: Render, changes: dict[str, Any]) -> None:
    """Hardening is no option that one can forget."""
    rendered = render(lambda: redis(**changes))
    assert_hardened(rendered)
    assert_valid(rendered)
    assert_selected(rendered)
    assert_no_secret_in_the_open(rendered, PASSWORD, *rendered.secrets)


def test_it_logs_every_write_and_never_drops_a_key(render: Render) -> None:
    """A queue that evicts keys forgets runs; without a log, a restart forgets all of them."""
    conf = render(redis).only("ConfigMap")["data"]["redis.conf"].splitlines()
    assert {"appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction", 'save ""'} <= set(conf)
    always = render(lambda: redis(appendfsync=AppendFsync.ALWAYS)).only("ConfigMap")["data"]["redis.conf"]
    assert "appendfsync always" in always


def test_a_rewrite_of_the_log_fits_into_the_memory(render: Render) -> None:
    """The forked process copies the pages that change meanwhile: up to all of the data once more."""
    pod = render(lambda: redis(maxmemory_mb=512)).pods()[0][1]
    assert pod["containers"][0]["resources"]["limits"]["memory"] == "1088Mi"


def test_loading_is_not_dead_and_not_ready(render: Render) -> None:
    """A restart during the reading of a large log would only begin the reading anew."""
    server = render(redis).pods()[0][1]["containers"][0]
    assert server["livenessProbe"]["exec"]["command"][-1] == "alive"
    assert server["readinessProbe"]["exec"]["command"][-1] == "ready"
    startup = server["startupProbe"]
    assert startup["exec"]["command"][-1] == "ready"
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 1_800


def test_the_only_pod_may_be_evicted(render: Render) -> None:
    """A budget that keeps the last pod would block the drain of its node for ever."""
    budget = render(redis).only("PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget


def test_each_user_has_a_password_of_its_own_and_the_url_is_the_apps(render: Render) -> None:
    """Whoever reads the scaler's Secret must not get to the data."""
    rendered = render(redis)
    passwords = rendered.only("Secret")["stringData"]
    assert sorted(passwords) == ["app", "backup", "scaler"]
    assert len(set(passwords.values())) == 3
    assert rendered.outputs["url"] == f"redis://app:{passwords['app']}@redis.agents:6379/0"
    assert rendered.secret_outputs == {"url"}
    assert rendered.outputs["data_claim"] == "data-redis-0"
    assert rendered.outputs["secret_name"] == "redis-passwords-generated"


def test_passwords_of_a_store_are_only_referred_to(render: Render) -> None:
    rendered = render(lambda: redis(password=None, secret_name="from-the-store"))
    assert rendered.of("Secret") == []
    volumes = {volume["name"]: volume for volume in rendered.pods()[0][1]["volumes"]}
    assert volumes["passwords"]["secret"]["secretName"] == "from-the-store"
    assert rendered.outputs["url"] == ""


def test_tls_leaves_no_plain_port(render: Render) -> None:
    rendered = render(lambda: redis(**EVERYTHING))
    conf = rendered.only("ConfigMap")["data"]["redis.conf"].splitlines()
    assert {"port 0", "tls-port 6379"} <= set(conf)
    assert rendered.outputs["url"].startswith("rediss://app:")
    assert rendered.outputs["url"].endswith("?ssl_ca_certs=/run/ca/ca.crt")


def test_the_disk_is_kept_unless_told_otherwise_and_its_size_replaces_nothing(render: Render) -> None:
    """Another size would replace the StatefulSet; with a disk that is not kept, the data would go with it."""
    kept = render(redis).only("StatefulSet")["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert kept == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    gone = render(lambda: redis(disk={"keep": False})).only("StatefulSet")["spec"]
    assert gone["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"


def test_the_exporter_gets_no_configuration_and_no_password_in_a_variable(render: Render) -> None:
    rendered = render(lambda: redis(exporter={}))
    exporter = rendered.pods()[0][1]["containers"][1]
    env = {one["name"]: one["value"] for one in exporter["env"]}
    assert env["REDIS_PASSWORD_FILE"] == "/run/redis/exporter.json"
    assert env["REDIS_EXPORTER_CONFIG_COMMAND"] == "-"
    assert "exporter" in rendered.only("Secret")["stringData"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"secret_name": "also"}, "password, secret_name"),
        ({"password": None}, "password, secret_name"),
        ({"maxmemory_mb": 8}, "maxmemory_mb"),
        ({"appendfsync": "never"}, "appendfsync"),
    ],
)
def test_a_wrong_input_is_named_at_construction(render: Render, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        render(lambda: redis(**changes))
