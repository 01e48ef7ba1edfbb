"""The small language model of stacks without any key: a real one, on loopback, often wrong.

It stands where an OpenAI-compatible server would, so nothing else of the stack knows the difference.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TypedDict

import pulumi

from components.local.resources import Process

_REPOSITORY = Path(__file__).resolve().parents[1]
_START_SECONDS, _GRACE_SECONDS = 60.0, 10.0


class ModelServerArgs(TypedDict):
    """What the model server needs to know."""

    folder: pulumi.Input[str]
    """The stack's folder, absolute."""
    port: pulumi.Input[int]
    """Port on loopback."""
    build: str
    """Digest of the code that it runs."""


class ModelServer(pulumi.ComponentResource):
    """One model server process. Outputs: `base_url` for OPENAI_BASE_URL; `process`."""

    def __init__(self, name: str, args: ModelServerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:components:ModelServer", name, {}, opts)
        url = pulumi.Output.concat("http://127.0.0.1:", pulumi.Output.from_input(args["port"]).apply(str))
        command = [sys.executable, "-m", "components.local.model_server", "--port"]
        self.process = Process(
            name,
            {
                "folder": args["folder"],
                "name": name,
                "command": pulumi.Output.from_input(args["port"]).apply(lambda port: [*command, str(int(port))]),
                "cwd": str(_REPOSITORY),
                "build": args["build"],
                "health": {"kind": "http", "target": pulumi.Output.concat(url, "/health")},
                "port": args["port"],
                "update": "restart",
                "grace_seconds": _GRACE_SECONDS,
                "start_seconds": _START_SECONDS,
            },
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.base_url = pulumi.Output.all(url, self.process.id).apply(lambda known: f"{known[0]}/v1")
        self.register_outputs({"base_url": self.base_url})
