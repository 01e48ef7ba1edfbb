"""The life of one supervised program: written, started, waited for, replaced, removed.

Two ways to change a running one. `restart`: it ends (SIGTERM, up to its grace, then SIGKILL) and starts again, on the
same port; for what owns a folder or a fixed address. `beside`: the new one starts next to the old one under a
new name and port, becomes healthy, whoever routes to it is told, and only then the old one drains; Pulumi's
replacement does exactly that, so such a program gets a new name at each creation.
"""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from components.local import ports
from components.local.errors import LocalError, StartFailed
from components.local.health import Health, probe
from components.local.supervisor import Status, Supervisor, write_private

_POLL_SECONDS = 0.05
_TAIL_LINES, _TAIL_BYTES = 20, 8_192


class ProcessSpec(TypedDict):
    """What a program is. Plain JSON: it is the input of a Pulumi resource."""

    folder: str
    """The stack's folder, absolute."""
    name: str
    """Name within the stack: letters, digits, `_`, `.`, `-`."""
    command: list[str]
    """Program (absolute path) and arguments. Nothing secret: arguments are visible to every user of the machine."""
    cwd: str
    """Working directory, absolute."""
    health: Health
    update: Literal["restart", "beside"]
    grace_seconds: float
    """Between SIGTERM and SIGKILL."""
    start_seconds: float
    """Longest until it is healthy."""
    env: NotRequired[dict[str, str]]
    secret_env: NotRequired[dict[str, str]]
    """Like `env`, encrypted in the state."""
    files: NotRequired[dict[str, str]]
    """Files it reads, by path below the stack's folder, mode 0600; a changed one restarts it."""
    seeds: NotRequired[dict[str, str]]
    """Files that must be there at its first start and belong to somebody else afterwards: never overwritten."""
    keep: NotRequired[list[str]]
    """Folders it writes to, below the stack's folder; made before it starts, and left alone when it is removed."""
    port: NotRequired[int]
    """Port it listens on, when that is fixed."""
    port_variable: NotRequired[str]
    """Variable that tells it a port chosen at each creation; `{port}` in `health` stands for it."""
    build: NotRequired[str]
    """Digest of the code it runs: new code, new process."""


class Running(TypedDict):
    """A program that came up."""

    program: str
    """Its name in the supervisor."""
    pid: int
    port: int
    status: str


def create(spec: ProcessSpec) -> Running:
    """Start it and wait until it is healthy. Raises `StartFailed`, with nothing of it left but its log."""
    supervisor = Supervisor(Path(spec["folder"]))
    program = spec["name"] if spec["update"] == "restart" else f"{spec['name']}.{secrets.token_hex(3)}"
    _sweep(supervisor, spec)
    pending = supervisor.folder / "specs" / f"{program}.pending"
    write_private(pending, "")
    try:
        running = _start(supervisor, spec, program, _port(spec))
    except BaseException:
        supervisor.remove(program, grace_seconds=spec["grace_seconds"], keep_log=True)
        raise
    finally:
        pending.unlink(missing_ok=True)
    return running


def update(spec: ProcessSpec, running: Running) -> Running:
    """Restart it with `spec` under its name; where it chose its own port, on the same one if that is free."""
    supervisor = Supervisor(Path(spec["folder"]))
    program = running["program"]
    supervisor.stop_program(program, grace_seconds=spec["grace_seconds"])
    port = running["port"]
    if not (spec.get("port_variable") and ports.free(port)):
        # One that lost its supervisor may still be on its way out.
        port = _port(spec, wait_seconds=spec["grace_seconds"])
    return _start(supervisor, spec, program, port)


def read(running: Running, folder: str) -> Running:
    """How it is now: `status` is supervisord's word, or GONE."""
    status = Supervisor(Path(folder)).status(running["program"])
    return {**running, "status": status.state if not status.runs else "RUNNING", "pid": status.pid}


def runs(running: Running, folder: str) -> bool:
    return Supervisor(Path(folder)).status(running["program"]).runs


def delete(spec: ProcessSpec, running: Running) -> None:
    """Drain and forget it. What it keeps on disk stays until the stack's folder goes."""
    supervisor = Supervisor(Path(spec["folder"]))
    supervisor.remove(running["program"], grace_seconds=spec["grace_seconds"])
    for path in (*spec.get("files", {}), *spec.get("seeds", {})):
        (supervisor.folder / path).unlink(missing_ok=True)


def _port(spec: ProcessSpec, *, wait_seconds: float = 0.0) -> int:
    if spec.get("port_variable"):
        return ports.choose([spec["name"]])[spec["name"]]
    port = int(spec.get("port", 0))
    deadline = time.monotonic() + wait_seconds
    while port and not ports.free(port):
        if time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            continue
        raise LocalError(
            f"port {port} of {spec['name']} is in use by another program; end that one (`ss -ltnp 'sport = :{port}'` "
            "names it) and run `pulumi up` again"
        )
    return port


def _sweep(supervisor: Supervisor, spec: ProcessSpec) -> None:
    """Remove what a killed `pulumi up` left of this program: it is in nobody's state."""
    name = spec["name"]
    for marker in (supervisor.folder / "specs").glob(f"{name}*.pending"):
        program = marker.name.removesuffix(".pending")
        if program == name or program.rpartition(".")[0] == name:
            supervisor.remove(program, grace_seconds=spec["grace_seconds"])
            marker.unlink(missing_ok=True)
    if spec["update"] == "restart":
        supervisor.stop_program(name, grace_seconds=spec["grace_seconds"])


def _start(supervisor: Supervisor, spec: ProcessSpec, program: str, port: int) -> Running:
    folder = supervisor.folder
    for path in spec.get("keep", []):
        (folder / path).mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, text in spec.get("files", {}).items():
        write_private(folder / path, text)
    for path, text in spec.get("seeds", {}).items():
        if not (folder / path).exists():
            write_private(folder / path, text)
    env = {**spec.get("env", {}), **spec.get("secret_env", {})}
    if spec.get("port_variable"):
        env[spec["port_variable"]] = str(port)
    write_private(
        supervisor.spec(program), json.dumps({"command": spec["command"], "env": env, "cwd": spec["cwd"]}, indent=1)
    )
    log = supervisor.log(program)
    written = log.stat().st_size if log.exists() else 0
    supervisor.add(program, grace_seconds=spec["grace_seconds"])
    supervisor.start_program(program)
    try:
        status = _healthy(supervisor, spec, program, port, written)
    except _NotHealthyError as error:
        supervisor.stop_program(program, grace_seconds=spec["grace_seconds"])
        raise StartFailed(spec["name"], error.why, log, _tail(log, written)) from None
    return {"program": program, "pid": status.pid, "port": port, "status": "RUNNING"}


class _NotHealthyError(Exception):
    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def _healthy(supervisor: Supervisor, spec: ProcessSpec, program: str, port: int, written: int) -> Status:
    """Poll until it is healthy. A first exit ends the wait: a start that needs luck is not one."""
    deadline = time.monotonic() + spec["start_seconds"]
    first = 0
    while True:
        status = supervisor.status(program)
        if not status.runs or (first and status.pid not in (0, first)):
            why = f" ({status.detail})" if status.state == "FATAL" else ""
            raise _NotHealthyError(f"ended while it started{why}")
        first = first or status.pid
        missing = "has not started"
        if status.pid:
            missing = probe(spec["health"], port=port, log=supervisor.log(program), written=written)
        if not missing:
            return status
        if time.monotonic() > deadline:
            raise _NotHealthyError(f"was not healthy within {spec['start_seconds']:g} s: it {missing}")
        time.sleep(_POLL_SECONDS)


def _tail(log: Path, start: int) -> str:
    """The last lines written since byte `start`."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(start if start <= size else 0, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-_TAIL_LINES:])


def spec_of(props: dict[str, Any]) -> ProcessSpec:
    """The spec within a resource's inputs or outputs."""
    names = ProcessSpec.__annotations__
    return {key: value for key, value in props.items() if key in names and value is not None}  # type: ignore[return-value]


def running_of(props: dict[str, Any]) -> Running:
    return {
        "program": props["program"],
        "pid": int(props.get("pid") or 0),
        "port": int(props.get("assigned_port") or 0),
        "status": str(props.get("status") or "GONE"),
    }
