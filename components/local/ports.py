"""Free ports, chosen once and kept: a URL handed out stays true over restarts and later `pulumi up`s."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

LOW, HIGH = 20_000, 32_000
"""Below Linux's ephemeral range (32768 and up): no outgoing connection can hold a port while its program restarts."""


def free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a program could listen on `port` now."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((host, port))
        except OSError:
            return False
    return True


def choose(names: list[str], held: dict[str, int] | None = None) -> dict[str, int]:
    """A port for each of `names`: the one that `held` has, else a free one that nobody of `held` has."""
    ports = {name: port for name, port in (held or {}).items() if name in names}
    taken = set((held or {}).values())
    with ExitStack() as stack:
        for name in names:
            while name not in ports:
                port = random.randint(LOW, HIGH)  # noqa: S311 - nothing secret about a port
                if port in taken:
                    continue
                candidate = stack.enter_context(socket.socket())
                try:
                    candidate.bind(("127.0.0.1", port))
                except OSError:
                    continue
                ports[name] = port
                taken.add(port)
    return ports
