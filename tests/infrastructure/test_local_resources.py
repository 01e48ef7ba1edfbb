"""The dynamic providers for real, driven as Pulumi drives them: by plain properties, through a pickle."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.output import Unknown

from app.infra.auth import digest
from app.infra.keys import Keys
from components.local import ports, process
from components.local.dynamic import ByName
from components.local.health import redis_client
from components.local.resources import (
    ApiKeyProvider,
    PortsProvider,
    ProcessProvider,
    RoutesProvider,
    SecretProvider,
    SupervisorProvider,
)
from components.local.supervisor import Supervisor
from components.valkey import _binary, configuration
from tests.infrastructure.conftest import SpecFactory, alive, ask, until

REPOSITORY = Path(__file__).resolve().parents[2]
PROVIDERS = [ApiKeyProvider, PortsProvider, ProcessProvider, RoutesProvider, SecretProvider, SupervisorProvider]

LOAD = """
import base64, sys, dill
for line in sys.stdin:
    provider = dill.loads(base64.b64decode(line))
    print(type(provider).__module__, type(provider).__name__)
print("stacks" in {entry.rpartition("/")[2] for entry in sys.path})
"""


def test_a_provider_is_found_from_the_programs_folder() -> None:
    """Pulumi loads it in a process that starts in `stacks/`, where the repository is not importable by itself."""
    pickled = "\n".join(serialize_provider(provider()) for provider in PROVIDERS)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD], input=pickled, cwd=REPOSITORY / "stacks", env=environment, capture_output=True,
        text=True, check=True, timeout=60,
    )  # fmt: skip
    expected = [f"components.local.resources {provider.__name__}" for provider in PROVIDERS]
    assert loaded.stdout.splitlines() == [*expected, "False"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_state_holds_a_name_and_not_the_checkout(provider: type[ByName]) -> None:
    """So that a second `up` is no change, and another checkout can destroy what this one made."""
    pickled = serialize_provider(provider())
    assert pickled == serialize_provider(provider())
    content = base64.b64decode(pickled)
    assert provider.__name__.encode() in content
    assert str(REPOSITORY).encode() not in content
    assert len(content) < 300, "more than names"


class Driven:
    """A provider with the state that Pulumi would keep for its one resource."""

    def __init__(self, provider: ByName, **inputs: Any) -> None:
        self.provider, self.inputs = provider, inputs
        made = provider.create(dict(inputs))
        self.id, self.state = made.id, dict(made.outs or {})

    def diff(self, **changes: Any) -> Any:
        return self.provider.diff(self.id, dict(self.state), {**self.inputs, **changes})

    def update(self, **changes: Any) -> None:
        self.inputs |= changes
        self.state = dict(self.provider.update(self.id, dict(self.state), dict(self.inputs)).outs or {})

    def refresh(self) -> None:
        self.state = dict(self.provider.read(self.id, dict(self.state)).outs or {})


def test_a_process_that_runs_as_told_is_no_change(server_spec: SpecFactory) -> None:
    web = Driven(ProcessProvider(), **server_spec())
    assert web.diff().changes is False
    web.refresh()
    assert web.diff().changes is False


def test_a_process_that_ended_is_a_change_without_any_refresh(server_spec: SpecFactory, stack_folder: Path) -> None:
    """`pulumi up` alone repairs; `pulumi refresh` shows why."""
    web = Driven(ProcessProvider(), **server_spec())
    Supervisor(stack_folder).stop_program(web.state["program"], grace_seconds=5)
    assert web.diff().changes is True
    assert not web.diff().replaces
    web.refresh()
    assert (web.state["status"], web.state["pid"]) == ("STOPPED", 0)
    web.update()
    assert web.diff().changes is False
    assert ask(web.state["assigned_port"])["pid"] == web.state["pid"]


def test_a_process_that_crashed_and_came_back_is_shown_by_refresh_and_needs_nothing(server_spec: SpecFactory) -> None:
    web = Driven(ProcessProvider(), **server_spec())
    before = web.state["pid"]
    os.kill(before, signal.SIGKILL)

    def back() -> bool:
        web.refresh()
        return bool(web.state["status"] == "RUNNING" and web.state["pid"] not in (0, before))

    until(back, "refresh shows another pid")
    assert web.diff().changes is False


def test_a_changed_environment_replaces_a_process_beside(server_spec: SpecFactory) -> None:
    """Created before the old one is deleted: no moment without an api."""
    web = Driven(ProcessProvider(), **server_spec())
    diff = web.diff(env={"COLOUR": "blue"})
    assert (diff.changes, diff.replaces, diff.delete_before_replace) == (True, ["env"], False)
    assert web.diff(build="another").replaces == ["build"]
    assert web.diff(secret_env={"TOKEN": "other"}).replaces == ["secret_env"]


def test_a_changed_environment_restarts_a_process_that_owns_its_place(server_spec: SpecFactory) -> None:
    web = Driven(ProcessProvider(), **server_spec(update="restart"))
    diff = web.diff(env={"COLOUR": "blue"})
    assert diff.changes is True
    assert not diff.replaces


def test_more_patience_restarts_nothing(server_spec: SpecFactory) -> None:
    """How long we would wait is nothing that the program must hear of."""
    web = Driven(ProcessProvider(), **server_spec())
    pid = web.state["pid"]
    assert not web.diff(start_seconds=99.0).replaces
    web.update(start_seconds=99.0)
    assert web.state["pid"] == pid
    assert alive(pid)
    assert web.diff().changes is False


def test_a_wrong_name_or_relative_command_fails_the_check(server_spec: SpecFactory) -> None:
    """A preview must find it, not the supervisor."""
    checked = ProcessProvider().check({}, {**server_spec(), "name": "a b", "command": ["python"]})
    assert [failure.property for failure in checked.failures] == ["name", "command"]
    assert ProcessProvider().check({}, dict(server_spec())).failures == []


def test_a_preview_that_does_not_know_yet_passes_the_check(server_spec: SpecFactory) -> None:
    """On a first preview no port is chosen and no folder made."""
    unknown = {**server_spec(), **dict.fromkeys(("name", "command", "port"), Unknown())}  # type: ignore[no-untyped-call]
    assert ProcessProvider().check({}, unknown).failures == []


def test_ports_stay_when_names_come(server_spec: SpecFactory) -> None:
    held = Driven(PortsProvider(), names=["a"])
    assert held.diff().changes is False
    assert held.diff(names=["a", "b"]).changes is True
    before = held.state["ports"]["a"]
    held.update(names=["a", "b"])
    assert held.state["ports"]["a"] == before
    assert set(held.state["ports"]) == {"a", "b"}


def test_a_secret_is_made_once() -> None:
    made, other = Driven(SecretProvider()), Driven(SecretProvider())
    assert made.diff().changes is False
    assert len(made.state["value"]) >= 43, "256 bits"
    assert made.state["value"] != other.state["value"]


def test_a_dead_supervisor_is_a_change_and_comes_back(tmp_path: Path) -> None:
    """What a reboot leaves: state, folder, and nothing that runs."""
    supervisor = Driven(SupervisorProvider(), folder=str(tmp_path / "stack"), keep_data=False)
    try:
        assert supervisor.diff().changes is False
        os.kill(supervisor.state["pid"], signal.SIGKILL)
        until(lambda: not alive(supervisor.state["pid"]), "it has ended")
        assert supervisor.diff().changes is True
        supervisor.refresh()
        assert supervisor.state["pid"] == 0
        supervisor.update()
        assert supervisor.diff().changes is False
    finally:
        supervisor.provider.delete(supervisor.id, supervisor.state)
    assert not (tmp_path / "stack").exists()


@pytest.fixture
def valkey_url(stack_folder: Path) -> str:
    """A Valkey as the platform runs it."""
    port = ports.choose(["valkey"])["valkey"]
    url = f"redis://:hush@127.0.0.1:{port}/0"
    conf = configuration(password="hush", port=port, folder=stack_folder / "data" / "valkey", appendfsync="always")
    spec: process.ProcessSpec = {
        "folder": str(stack_folder),
        "name": "valkey",
        "command": [str(_binary()), "./valkey.conf"],
        "cwd": str(stack_folder / "valkey"),
        "files": {"valkey/valkey.conf": conf},
        "keep": ["data/valkey"],
        "health": {"kind": "redis", "target": url},
        "port": port,
        "update": "restart",
        "grace_seconds": 10.0,
        "start_seconds": 30.0,
    }
    process.create(spec)
    return url


def test_valkey_keeps_what_it_acknowledged_and_never_drops_a_key(valkey_url: str, stack_folder: Path) -> None:
    """A queue that evicts loses runs; one that does not write loses them in a crash."""
    client = redis_client(valkey_url, seconds=5)
    try:
        settings = {name: client.config_get(name)[name] for name in ("appendonly", "appendfsync", "maxmemory-policy")}
        assert settings == {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
        client.set("kept", "1")
        pid = Supervisor(stack_folder).status("valkey").pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: _get(valkey_url, "kept") == "1", "the restarted Valkey has the key")
    finally:
        client.close()


def test_valkey_refuses_who_has_no_password(valkey_url: str) -> None:
    client = redis_client(valkey_url.replace(":hush@", ""), seconds=5)
    with pytest.raises(redis.AuthenticationError):
        client.ping()
    client.close()


def test_an_api_key_is_stored_as_its_digest_and_put_back_when_lost(valkey_url: str) -> None:
    """The key outlives the data: callers notice nothing of a lost Redis but the loss."""
    key = Driven(ApiKeyProvider(), redis_url=valkey_url, prefixes=["", "shadow:next:"])
    text = key.state["key"]
    client = redis_client(valkey_url, seconds=5)
    try:
        for prefix in ("", "shadow:next:"):
            record = client.hgetall(Keys(prefix).api_key(key.id))
            assert record["sha256"] == digest(text)
            assert text not in str(record)
        assert key.diff().changes is False
        client.flushall()
        assert key.diff().changes is True
        key.refresh()
        assert key.state["registered"] is False
        key.update()
        assert key.state["key"] == text
        assert key.diff().changes is False
        key.provider.delete(key.id, key.state)
        assert client.keys("*") == []
    finally:
        client.close()


def test_an_api_key_without_redis_is_a_change_and_its_deletion_no_failure() -> None:
    """A preview on a stopped stack must not fail, nor a destroy."""
    port = ports.choose(["none"])["none"]
    state = {"redis_url": f"redis://127.0.0.1:{port}/0", "prefixes": [""], "key": f"slw_{'a' * 12}_{'b' * 43}"}
    assert ApiKeyProvider().diff("a" * 12, state, state).changes is True
    ApiKeyProvider().delete("a" * 12, state)


def _get(url: str, key: str) -> Any:
    client = redis_client(url, seconds=1)
    try:
        return client.get(key)
    except redis.RedisError:
        return None
    finally:
        client.close()
