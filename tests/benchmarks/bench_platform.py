"""`make up` as a newcomer has it: a fresh clone, twice, and what then lies idle.

With the cache of tools as it is on this machine (warm) or, with `cold=True`, with nothing but python3, make and git:
then Go, Pulumi and all packages are fetched or built.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.service import ROOT

_LONGEST_SECONDS = 1_800
_SETTLE_SECONDS = 120.0
_LOOK_SECONDS = 2.0
_IDLE_SHARE = 0.05
"""Share of one core below which the stack idles."""


@dataclass(frozen=True, slots=True)
class PlatformFigures:
    """Seconds of the first and second `make up`, of the first answer, of `make down`; memory by program, in MiB."""

    cold: bool
    first_up_s: float
    second_up_s: float
    answer_s: float
    down_s: float
    memory_mib: dict[str, float]
    """Proportional set size (PSS) once it idles after `make up`; what processes share is divided among them."""
    answered_mib: float
    """In all once it idles after the first answer: the model's client and the embedding network are loaded then."""
    model_mib: float
    """The bundled language model's server, which is not counted above."""

    @property
    def total_mib(self) -> float:
        return sum(self.memory_mib.values())


def measure(*, cold: bool = False) -> PlatformFigures:
    """Clone, `make up` twice, ask, `make down`. Cold takes ten minutes."""
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as name:
        folder = Path(name)
        clone = folder / "slipway"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environment = _bare(folder) if cold else dict(os.environ)
        try:
            first = _timed(["make", "up"], clone, environment)
            second = _timed(["make", "up"], clone, environment)
            outputs = json.loads(_output(["make", "-s", "outputs"], clone, {**environment, "SHOW_SECRETS": "1"}))
            _settle(clone)
            memory = _memory(clone)
            answer = _ask(outputs)
            _settle(clone)
            later = _memory(clone)
        finally:
            down = _timed(["make", "down"], clone, environment)
        model = memory.pop("model-server", 0.0)
        answered = sum(later.values()) - later["model-server"]
        return PlatformFigures(cold, first, second, answer, down, memory, answered, model)


def _bare(folder: Path) -> dict[str, str]:
    """The environment of a machine that has never seen Slipway: an empty home, no tools but the system's."""
    home = folder / "home"
    home.mkdir()
    tools = folder / "bin"
    tools.mkdir()
    for tool in ("python3", "make", "git", "sh", "env", "rm", "awk", "find", "echo"):
        path = shutil.which(tool)
        if path is not None:
            (tools / tool).symlink_to(Path(path).resolve() if tool == "python3" else path)
    kept = {name: os.environ[name] for name in ("LANG", "SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ}
    return {"HOME": str(home), "PATH": str(tools), **kept}


def _timed(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    started = time.perf_counter()
    _output(command, folder, environment)
    return time.perf_counter() - started


def _output(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_LONGEST_SECONDS
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def _ask(outputs: dict[str, str]) -> float:
    """Seconds until the README's first question is answered."""
    import httpx

    started = time.perf_counter()
    httpx.post(
        f"{outputs['serviceUrl']}/chat",
        json={"message": "What happens to a run when a worker is killed?"},
        headers={"Authorization": f"Bearer {outputs['apiKey']}"},
        timeout=180,
    ).raise_for_status()
    return time.perf_counter() - started


def _settle(clone: Path) -> None:
    """Wait until the stack idles: after the first start its documents are being indexed."""
    until, before = time.monotonic() + _SETTLE_SECONDS, _cpu_seconds(clone)
    while time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
        now = _cpu_seconds(clone)
        if now - before < _IDLE_SHARE * _LOOK_SECONDS:
            return
        before = now
    raise RuntimeError(f"the stack did not idle within {_SETTLE_SECONDS:g} s")


def _cpu_seconds(clone: Path) -> float:
    total = 0
    for process in _children(_supervisor(clone)):
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _memory(clone: Path) -> dict[str, float]:
    """Program → MiB of every process that the stack's supervisor started, and of the supervisor."""
    root = _supervisor(clone)
    found = {"supervisor": pss(root)}
    for child in _children(root):
        command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        name = _program(command)
        found[name] = found.get(name, 0.0) + pss(child)
    return found


def _supervisor(clone: Path) -> int:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"supervisord" in command and str(clone).encode() in command:
            return int(entry.name)
    raise RuntimeError("no supervisor runs for the stack")


def _program(command: str) -> str:
    for pattern, name in (
        (r"-m app (\w+)", r"\1"),
        (r"components\.local\.(\w+)", r"\1"),
        (r"(valkey)-server", r"\1"),
        (r"/(envoy) ", r"\1"),
    ):
        if match := re.search(pattern, command):
            return match.expand(name).replace("_", "-")
    return command.split()[0].rsplit("/", 1)[-1]


def pss(pid: int) -> float:
    """Proportional set size of a process, in MiB."""
    line = next(line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    print(measure())
