"""Finding programs on PATH, and asking them for their version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tools.provision.cache import file_facts, remembered, stamp

_ASK_SECONDS = 30.0


def parse_version(text: str) -> tuple[int, ...] | None:
    """The first dotted number in what a program says of itself ("go version go1.26.6 linux/amd64")."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in found.groups(default="0")) if found else None


def version_of(program: Path, *arguments: str) -> tuple[int, ...] | None:
    """What a program says its version is; None when it does not run. Remembered until the file changes."""

    def ask() -> str:
        try:
            done = subprocess.run(
                [program, *arguments], capture_output=True, text=True, timeout=_ASK_SECONDS, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout.strip()

    key = stamp(program, *arguments)
    # A shim (pyenv, asdf) stays the same file while what it starts depends on these.
    chosen = [os.environ.get(name, "") for name in ("PYENV_VERSION", "ASDF_DIR")]
    return parse_version(remembered(f"version-{key[:16]}", stamp(file_facts(program.resolve()), *chosen), ask))


def on_path(name: str, least: tuple[int, ...], *arguments: str) -> Path | None:
    """The program of that name on PATH if it runs and is not older than `least`."""
    found = shutil.which(name)
    if found is None:
        return None
    program = Path(found).absolute()
    version = version_of(program, *arguments)
    return program if version is not None and version >= least else None
