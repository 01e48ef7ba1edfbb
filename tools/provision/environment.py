"""uv, and with it the repository's Python environment `.venv`, exactly as `uv.lock` says."""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path

from tools.provision import cache
from tools.provision.console import Failure, run_logged, say
from tools.provision.fetch import unpack_wheel
from tools.provision.pins import LEAST_UV, UV
from tools.provision.platforms import this_platform
from tools.provision.programs import on_path

REPOSITORY = Path(__file__).resolve().parents[2]
_SYNC_GIGABYTES = 2.5


def uv() -> Path:
    """A uv that reads our lock file: the one on PATH if it is new enough, else a pinned one in the cache."""
    if found := on_path("uv", LEAST_UV, "--version"):
        return found
    platform = this_platform()
    wheel = UV[platform]

    def install(folder: Path) -> None:
        say("uv (installs the Python packages) is missing here: fetching it, 18 MB")
        unpack_wheel(wheel, folder)
        (scripts,) = folder.glob("uv-*.data/scripts")
        scripts.rename(folder / "bin")
        (folder / "bin" / "uv").chmod(0o755)

    return cache.installed("uv", f"{wheel.file.split('-')[1]}-{platform}", install) / "bin" / "uv"


def environment_folder() -> Path:
    """Where the environment is: `UV_PROJECT_ENVIRONMENT` or `.venv` in the repository."""
    return REPOSITORY / os.environ.get("UV_PROJECT_ENVIRONMENT", ".venv")


def _site_packages(folder: Path) -> list[Path]:
    return sorted(folder.glob("lib/python3*/site-packages"))


def facts(folder: Path, uv_arguments: list[str]) -> str:
    """Text that changes when the environment may no longer be what the lock file says.

    The packages' folder is touched by whoever installs or removes one, so that by hand done changes are seen too.
    """
    content = [(REPOSITORY / name).read_bytes().hex() for name in ("uv.lock", "pyproject.toml")]
    packages = [f"{path}:{path.stat().st_mtime_ns}" for path in _site_packages(folder)]
    return cache.stamp(*content, *packages, *uv_arguments, os.environ.get("UV_PYTHON", ""))


def sync() -> Path:
    """Bring `.venv` to what `uv.lock` says and give its folder. Milliseconds when nothing changed.

    A new environment gets the Python that runs this, or `UV_PYTHON`. `Failure` when a package cannot be had.
    """
    folder = environment_folder()
    mark = folder / ".slipway-synced"
    arguments = ["sync", "--locked"]
    python = folder / "bin" / "python"
    if python.exists() and mark.is_file() and mark.read_text(encoding="ascii") == facts(folder, arguments):
        return folder
    program = uv()
    choice: list[str] = []
    if not python.exists():
        say(f"installing the Python packages into {folder}: about 850 MB, one to three minutes when none is cached")
        cache.needs_space(_SYNC_GIGABYTES, "installing the Python packages")
        if "UV_PYTHON" not in os.environ:
            choice = ["--python", sys.executable]
    with cache.unwritable_explained(), cache.locked("environment"):
        run_logged(
            "Installing Python packages",
            [program, "--no-progress", *arguments, *choice],
            log=cache.logs() / "uv-sync.log",
            cwd=REPOSITORY,
            env=_uv_environment(),
            fix="read the lines above. Network: check it and HTTPS_PROXY. Certificate: set SSL_CERT_FILE. Lock file "
            "out of date after a change to pyproject.toml: run `uv lock`",
        )
        if not python.exists():
            raise Failure(f"{folder} has no Python after `uv sync`", fix=f"delete {folder} and run the command again")
        mark.write_text(facts(folder, arguments), encoding="ascii")
    return folder


def _uv_environment() -> dict[str, str]:
    """The user's, without an environment that happens to be active: uv would warn that it is not this one."""
    return {**trust(), **{name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}}


def trust() -> dict[str, str]:
    """Makes uv and Node trust the machine's certificates, as Python, Go and git do; both bring a list of their own.

    Behind a proxy that signs anew, the machine's list is the one that works.
    """
    made = {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true"}  # one name after the other, by uv's version
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        made["NODE_EXTRA_CA_CERTS"] = paths.cafile
    return made
