"""The stack's own vector store, for stacks without a Qdrant: one process that owns a folder of vectors.

It answers the part of Qdrant's REST API that the service uses, on loopback, to whoever presents its key: every user of
the machine can reach a port there. For one machine; a real Qdrant takes its place with `qdrantUrl`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TypedDict

import pulumi

from components.local.resources import Process, Secret

_REPOSITORY = Path(__file__).resolve().parents[1]
_START_SECONDS, _GRACE_SECONDS = 60.0, 20.0
_KEY_VARIABLE = "QDRANT__SERVICE__API_KEY"
"""As `components.local.vector_store` and Qdrant itself have it; that module loads the store, which we do not need."""


class VectorStoreArgs(TypedDict):
    """What a vector store needs to know."""

    folder: pulumi.Input[str]
    """The stack's folder, absolute; vectors go to `data/vectors` below it."""
    port: pulumi.Input[int]
    """Port on loopback."""
    build: str
    """Digest of the code that it runs."""


class VectorStore(pulumi.ComponentResource):
    """One vector store process. Outputs: `url`, `api_key` (secret); `process`."""

    def __init__(self, name: str, args: VectorStoreArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:components:VectorStore", name, {}, opts)
        url = pulumi.Output.concat("http://127.0.0.1:", pulumi.Output.from_input(args["port"]).apply(str))
        child = pulumi.ResourceOptions(parent=self)
        self.api_key: pulumi.Output[str] = pulumi.Output.secret(Secret(f"{name}-key", opts=child).value)
        command = [sys.executable, "-m", "components.local.vector_store", "--path"]
        self.process = Process(
            name,
            {
                "folder": args["folder"],
                "name": name,
                "command": pulumi.Output.all(args["folder"], args["port"]).apply(
                    lambda known: [*command, f"{known[0]}/data/vectors", "--port", str(int(known[1]))]
                ),
                "cwd": str(_REPOSITORY),
                "secret_env": {_KEY_VARIABLE: self.api_key},
                "build": args["build"],
                "keep": ["data/vectors"],
                "health": {"kind": "http", "target": pulumi.Output.concat(url, "/readyz")},
                "port": args["port"],
                "update": "restart",
                "grace_seconds": _GRACE_SECONDS,
                "start_seconds": _START_SECONDS,
            },
            opts=child,
        )
        self.url = pulumi.Output.all(url, self.process.id).apply(lambda known: str(known[0]))
        self.register_outputs({"url": self.url, "api_key": self.api_key})
