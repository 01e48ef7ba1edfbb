"""One release of the service: an api and its workers, on a track of its own.

Changing anything of it replaces its processes side by side: the new ones are healthy before the front door is told,
and the old ones drain afterwards. It leaves the split between releases alone: that is the front door's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NotRequired, TypedDict

import pulumi

from components.local.resources import Process

_REPOSITORY = Path(__file__).resolve().parents[1]
_START_SECONDS = 120.0
"""Importing the service and loading its models takes seconds; on a busy small machine, many."""
_LAST_SECONDS = 10.0
"""After the time to drain: what the process needs to close what it holds, before it is killed."""


class ReleaseArgs(TypedDict):
    """What a release needs to know."""

    folder: pulumi.Input[str]
    """The stack's folder, absolute."""
    release: str
    """Its name, which is its track: the same for life."""
    env: Mapping[str, pulumi.Input[str]]
    """Its settings, as variables; not HOST, PORT and RELEASE."""
    secret_env: Mapping[str, pulumi.Input[str]]
    """Settings that are secret."""
    workers: int
    """Worker processes, at least one."""
    build: str
    """Digest of the code that it runs: new code, new processes."""
    drain_seconds: float
    """Its DRAIN_SECONDS: the longest that a stopping process goes on."""
    api: NotRequired[bool]
    """Whether it takes requests. Default true; a draining release has only workers."""


class Release(pulumi.ComponentResource):
    """The processes of one release. Outputs: `address` (host:port of its api, None without one); `programs`."""

    def __init__(self, name: str, args: ReleaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:components:Release", name, {}, opts)
        release = args["release"]
        self.address: pulumi.Output[str] | None = None
        self.programs: dict[str, pulumi.Output[str]] = {}
        if args.get("api", True):
            api = self._process(
                f"api-{release}", "api", args, {"kind": "http", "target": "http://127.0.0.1:{port}/readiness"}
            )
            self.address = api.assigned_port.apply(lambda port: f"127.0.0.1:{int(port)}")
        for index in range(1, args["workers"] + 1):
            self._process(f"worker-{release}-{index}", "worker", args, {"kind": "log", "target": "worker ready"})
        self.register_outputs({"address": self.address, "programs": self.programs})

    def _process(self, name: str, command: str, args: ReleaseArgs, health: dict[str, str]) -> Process:
        spec = {
            "folder": args["folder"],
            "name": name,
            "command": [sys.executable, "-m", "app", command],
            "cwd": str(_REPOSITORY),
            "env": {**args["env"], "RELEASE": args["release"], "HOST": "127.0.0.1"},
            "secret_env": dict(args["secret_env"]),
            "build": args["build"],
            "health": health,
            "update": "beside",
            "grace_seconds": args["drain_seconds"] + _LAST_SECONDS,
            "start_seconds": _START_SECONDS,
        }
        if command == "api":
            spec["port_variable"] = "PORT"
        process = Process(name, spec, opts=pulumi.ResourceOptions(parent=self))
        self.programs[name] = process.program
        return process
