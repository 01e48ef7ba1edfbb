"""Real programs for the tests of the local machinery: a scratch stack folder and a tiny HTTP server."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.local.process import ProcessSpec
from components.local.supervisor import Supervisor

SERVER = """
import http.server, json, os, signal, sys, time
busy = set()
print("starting", os.environ.get("COLOUR"), flush=True)
if os.environ.get("COLOUR") == "broken":
    sys.exit("no such colour: broken")

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet, or each answer waits for a delayed acknowledgement
    def note(self, text):
        with open(os.environ["SEEN"], "a") as file:
            file.write(text + "\\n")
    def do_GET(self):
        busy.add(self)
        try:
            self.answer()
        finally:
            busy.discard(self)
    def answer(self):
        if self.path == "/slow":
            self.note("begun")
            time.sleep(1)
        shown = {"colour": os.environ.get("COLOUR"), "pid": os.getpid(), "env": sorted(os.environ), "path": self.path}
        shown["host"] = self.headers.get("host")
        body = json.dumps(shown).encode()
        self.send_response(503 if os.environ.get("COLOUR") == "sick" and self.path == "/health" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.path != "/health":
            self.note(f"{self.command} {self.path}")
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.do_GET()
    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)

def leave(*_):
    import threading
    threading.Thread(target=server.shutdown).start()

signal.signal(signal.SIGTERM, leave)
print("serving", flush=True)
server.serve_forever(poll_interval=0.05)
while busy:
    time.sleep(0.01)
print("left in order", flush=True)
"""

SpecFactory = Callable[..., ProcessSpec]


@pytest.fixture
def stack_folder(tmp_path: Path) -> Iterator[Path]:
    """A stack's folder with a running supervisor; all of it is ended and gone afterwards."""
    folder = tmp_path / "stack"
    supervisor = Supervisor(folder)
    supervisor.start()
    yield folder
    supervisor.end(keep_data=False)


@pytest.fixture
def server_spec(tmp_path: Path, stack_folder: Path) -> SpecFactory:
    """Makes specs of a tiny HTTP server that tells its COLOUR, its pid and its environment."""
    program = tmp_path / "server.py"
    program.write_text(SERVER)

    def make(name: str = "web", colour: str = "red", **changes: Any) -> ProcessSpec:
        spec = {
            "folder": str(stack_folder),
            "name": name,
            "command": [sys.executable, "-I", str(program)],
            "cwd": str(tmp_path),
            "env": {"COLOUR": colour, "SEEN": str(tmp_path / f"{name}.seen")},
            "secret_env": {"TOKEN": "hush-hush"},
            "health": {"kind": "http", "target": "http://127.0.0.1:{port}/health"},
            "update": "beside",
            "grace_seconds": 10.0,
            "start_seconds": 10.0,
            "port_variable": "PORT",
        }
        return {**spec, **changes}  # type: ignore[typeddict-item]

    return make


def ask(port: int, path: str = "/") -> dict[str, Any]:
    """What the tiny server on `port` says."""
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        shown: dict[str, Any] = json.load(answer)
    return shown


def seen(folder: Path, name: str) -> list[str]:
    """What the tiny server `name` has noted of its requests, but for health checks."""
    path = folder / f"{name}.seen"
    return path.read_text().splitlines() if path.exists() else []


def until(met: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Return once `met()`; fail with `what` when it never comes true."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"never came true within {seconds:g} s: {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether `pid` runs. One that has ended and waits to be collected by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
