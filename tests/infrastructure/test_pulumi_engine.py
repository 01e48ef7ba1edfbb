"""The local resources under Pulumi's real engine: a scratch project with one small program behind a supervisor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.local.supervisor import Supervisor
from tests.infrastructure.conftest import SERVER, alive, ask

REPOSITORY = Path(__file__).resolve().parents[2]
PULUMI = shutil.which("pulumi")
pytestmark = pytest.mark.skipif(PULUMI is None, reason="pulumi is not on PATH; `make test` provides it")

PROGRAM = """
import sys
from pathlib import Path
sys.path[0] = str(Path(__file__).resolve().parents[1])
import pulumi
from components.local.resources import Process, Secret, Supervisor

given = pulumi.Config("slipway")
supervisor = Supervisor("supervisor", folder=given.require("folder"), keep_data=False)
token = Secret("token").value
web = Process("web", {
    "folder": supervisor.folder, "name": "web", "command": [sys.executable, "-I", given.require("server")],
    "cwd": given.require("cwd"), "env": {"COLOUR": given.require("colour"), "SEEN": given.require("cwd") + "/seen"},
    "secret_env": {"TOKEN": token}, "health": {"kind": "http", "target": "http://127.0.0.1:{port}/health"},
    "update": "beside", "grace_seconds": 10.0, "start_seconds": 20.0, "port_variable": "PORT",
})
pulumi.export("port", web.assigned_port)
pulumi.export("token", token)
"""


class Stack:
    """A scratch Pulumi project in a folder; its programs run from there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder, folder / "state"
        (folder / "stacks").mkdir()
        (folder / "stacks" / "__main__.py").write_text(PROGRAM)
        (folder / "Pulumi.yaml").write_text("name: slipway\nruntime: python\nmain: stacks\n")
        (folder / "server.py").write_text(SERVER)
        (folder / "backend").mkdir()
        for room in ("app", "components"):
            (folder / room).symlink_to(REPOSITORY / room)
        self.environment = {
            **os.environ,
            "PULUMI_BACKEND_URL": f"file://{folder / 'backend'}",
            "PULUMI_CONFIG_PASSPHRASE": "a passphrase",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            # Where `python3` is this environment's: Pulumi's language host takes it from PATH.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        self.run("stack", "init", "test")
        for key, value in {
            "folder": self.programs,
            "server": folder / "server.py",
            "cwd": folder,
            "colour": "red",
        }.items():
            self.set(key, str(value))

    def run(self, *arguments: str, fails: bool = False) -> str:
        done = subprocess.run(
            ["pulumi", *arguments, "--non-interactive"], cwd=self.folder, env=self.environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
        )  # fmt: skip
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def set(self, key: str, value: str) -> None:
        self.run("config", "set", f"slipway:{key}", value)

    def up(self, *, fails: bool = False) -> str:
        return self.run("up", "--yes", "--skip-preview", fails=fails)

    def outputs(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.run("stack", "output", "--json", "--show-secrets"))
        return shown


@pytest.fixture
def stack(tmp_path: Path) -> Any:
    """A project that is up; whatever of it still runs is ended afterwards."""
    stack = Stack(tmp_path)
    try:
        stack.up()
        yield stack
    finally:
        if stack.programs.exists():
            Supervisor(stack.programs).end(keep_data=False)


def test_the_life_of_a_stack(stack: Stack) -> None:
    """One story, because each engine run takes seconds: no change, crash, change, failure, mend, end."""
    port = stack.outputs()["port"]
    assert ask(port)["colour"] == "red"
    assert "4 unchanged" in stack.up(), "a second up changed something"

    secret = stack.outputs()["token"]
    kept = [path for path in (stack.folder / "backend").rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if secret in path.read_text(errors="replace")], "a secret stands in the state"

    program = Supervisor(stack.programs)
    first = ask(port)["pid"]
    for name in [path.stem for path in (stack.programs / "programs").iterdir()]:
        program.stop_program(name, grace_seconds=5)
    assert "updated" in stack.run("refresh", "--yes", "--skip-preview"), "refresh did not notice the stopped program"
    assert "1 updated" in stack.up()
    assert stack.outputs()["port"] == port
    repaired = ask(port)["pid"]
    assert repaired != first

    stack.set("colour", "broken")
    failed = stack.up(fails=True)
    assert "web ended while it started" in failed
    assert "no such colour: broken" in failed
    assert ask(port)["pid"] == repaired, "the running one did not survive the failed change"
    assert len(list((stack.programs / "programs").iterdir())) == 1

    stack.set("colour", "blue")
    assert "1 replaced" in stack.up()
    moved = stack.outputs()["port"]
    assert ask(moved)["colour"] == "blue"
    assert not alive(repaired), "the replaced one still runs"

    supervisor, last = program.pid(), ask(moved)["pid"]
    stack.run("destroy", "--yes", "--skip-preview")
    assert not alive(supervisor)
    assert not alive(last)
    assert not stack.programs.exists()
