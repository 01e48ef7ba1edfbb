"""Docker for a test: whether a daemon answers, which images can be had, and one Compose project that leaves nothing.

Images: a variable (PYTHON_IMAGE, REDIS_IMAGE, …) names one; else the default pinned in Dockerfile and compose.yaml,
where it is there or can be pulled; else the same repository and version without its digest, where that is there.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
_PULL_SECONDS = 300.0


def docker(
    *arguments: str, seconds: float = 60.0, check: bool = True, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the client. A failure is an AssertionError with the end of what it printed."""
    done = subprocess.run(
        ["docker", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, **(env or {})},
        cwd=REPOSITORY,
    )
    if check:
        said = (done.stdout + done.stderr)[-4000:]
        assert done.returncode == 0, f"docker {' '.join(arguments[:4])} … ended with {done.returncode}:\n{said}"
    return done


@cache
def missing() -> str:
    """Why no container can be run here; empty when one can."""
    if shutil.which("docker") is None:
        return "there is no docker client on PATH"
    for command in (("version", "--format", "{{.Server.Version}}"), ("compose", "version"), ("buildx", "version")):
        try:
            done = docker(*command, check=False, seconds=20)
        except subprocess.TimeoutExpired:
            return f"docker {command[0]} does not answer within 20 s"
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            return f"docker {command[0]} fails: {said[0] if said else 'it says nothing'}"
    return ""


def pinned(variable: str) -> str:
    """The default of an image variable, as compose.yaml states it."""
    found = re.search(rf"\$\{{{variable}:-([^}}]+)\}}", (REPOSITORY / "compose.yaml").read_text())
    assert found is not None, f"compose.yaml has no default for {variable}"
    return found[1]


@cache
def image(variable: str) -> str | None:
    """An image that can be used for `variable`, or None."""
    named = os.environ.get(variable, "")
    if named:
        assert _there(named) or _pulled(named), f"{variable}={named} is not there and cannot be pulled"
        return named
    default = pinned(variable)
    if _there(default):
        return default
    for candidate in _loose(default):
        if _there(candidate):
            return candidate
    return default if _pulled(default) else None


def _loose(reference: str) -> list[str]:
    """`python:3.13.15-slim-trixie@sha256:…` → that tag, then `python:3.13-slim` and `python:3`-like shorter tags."""
    repository, _, tag = reference.partition("@")[0].partition(":")
    version, *variant = tag.split("-")
    parts = version.split(".")
    shorter = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    variants = ["-".join(variant[:count]) for count in range(len(variant), -1, -1)]
    return [f"{repository}:{number}{f'-{kind}' if kind else ''}" for number in shorter for kind in variants]


def _there(reference: str) -> bool:
    return docker("image", "inspect", reference, check=False).returncode == 0


def _pulled(reference: str) -> bool:
    try:
        return docker("pull", "-q", reference, check=False, seconds=_PULL_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@dataclass
class Project:
    """One Compose project of its own name, from compose.yaml and `overrides`; `env` feeds its variables."""

    env: dict[str, str]
    overrides: tuple[Path, ...] = ()
    name: str = field(default_factory=lambda: f"slipway-test-{secrets.token_hex(4)}")
    events: str = ""
    """What `watched` saw, a JSON object a line."""

    def compose(self, *arguments: str, seconds: float = 60.0, check: bool = True) -> subprocess.CompletedProcess[str]:
        files = [part for path in (REPOSITORY / "compose.yaml", *self.overrides) for part in ("-f", str(path))]
        # No .env: what a developer keeps there is not the test's business.
        fixed = ["compose", "--env-file", os.devnull, "-p", self.name, *files]
        return docker(*fixed, *arguments, seconds=seconds, check=check, env=self.env)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note the changes of health meanwhile: the daemon itself remembers only its last 256 events."""
        wanted = ["--filter", "event=health_status", "--filter", f"label=com.docker.compose.project={self.name}"]
        with tempfile.TemporaryFile("w+") as seen:
            command = ["docker", "events", *wanted, "--format", "{{json .}}"]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=seen)
            try:
                yield
            finally:
                process.terminate()
                process.wait()
                seen.seek(0)
                self.events = seen.read()

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """What the daemon says of its containers (`docker inspect`), or of one service's, ended ones included."""
        labels = [f"label=com.docker.compose.project={self.name}"]
        labels += [f"label=com.docker.compose.service={service}"] if service else []
        filters = [part for label in labels for part in ("--filter", label)]
        ids = docker("ps", "-aq", "--no-trunc", *filters).stdout.split()
        return json.loads(docker("inspect", *ids).stdout) if ids else []

    def read(self, service: str, path: str) -> str:
        """A file of a running container."""
        return self.compose("exec", "-T", service, "cat", path).stdout.strip()

    def left(self) -> dict[str, list[str]]:
        """Containers, volumes and networks of the project, by kind."""
        label = f"label=com.docker.compose.project={self.name}"
        commands = {"containers": ("ps", "-aq"), "volumes": ("volume", "ls", "-q"), "networks": ("network", "ls", "-q")}
        return {kind: docker(*words, "--filter", label).stdout.split() for kind, words in commands.items()}
