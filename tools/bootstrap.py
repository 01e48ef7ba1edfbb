"""Gets what a command needs, then runs the command. Standard library only; works on a bare Python 3.11.

    python3 tools/bootstrap.py run [--pulumi] [--aimock] COMMAND …   installs, then becomes COMMAND
    python3 tools/bootstrap.py environment | pulumi | aimock         installs and prints where it is

Everything it says goes to stderr. COMMAND gets the environment's Python, uv and Pulumi first on PATH.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036  an older one must get this far, and no further
    sys.exit(
        f"error: Python {sys.version_info[0]}.{sys.version_info[1]} is too old, 3.11 or newer is needed\n"
        "  to do: install one and name it, for example `make up PYTHON=python3.12`"
    )

import argparse
import os
import shutil
import signal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.provision.console import Failure
from tools.provision.environment import REPOSITORY, sync, trust, uv
from tools.provision.node import aimock
from tools.provision.pulumi_cli import pulumi

AIMOCK_VARIABLE = "SLIPWAY_AIMOCK"
"""Names the launcher of the scripted model server to the tests."""


def inside(environment: Path, *, with_pulumi: bool = False, with_aimock: bool = False) -> dict[str, str]:
    """The variables for a command that runs inside the environment; installs what it is to find there."""
    made = {**trust(), **os.environ, "VIRTUAL_ENV": str(environment)}
    made.pop("PYTHONHOME", None)
    folders = [str(environment / "bin")]
    if with_pulumi:
        found = pulumi()
        folders.append(str(found.folder))
        if found.built_here:
            # It was built because downloads are out of reach: without this the engine retries them for long seconds.
            made.setdefault("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "1")
    if with_aimock:
        made[AIMOCK_VARIABLE] = str(aimock())
    folders.append(str(uv().parent))
    made["PATH"] = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)])
    return made


def run(command: list[str], *, with_pulumi: bool, with_aimock: bool) -> None:
    """Become `command`; returns only by raising."""
    variables = inside(sync(), with_pulumi=with_pulumi, with_aimock=with_aimock)
    program = shutil.which(command[0], path=variables["PATH"])
    if program is None:
        raise Failure(f"there is no program {command[0]}", fix="check the spelling")
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(REPOSITORY)
    os.execve(program, command, variables)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bootstrap.py", description="Gets what a command needs, then runs it.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run", help="install, then become COMMAND inside the environment")
    runner.add_argument("--pulumi", action="store_true", help="with Pulumi")
    runner.add_argument("--aimock", action="store_true", help=f"with the scripted model server ({AIMOCK_VARIABLE})")
    runner.add_argument("command", nargs=argparse.REMAINDER)
    verbs.add_parser("environment", help="print the Python environment's folder")
    verbs.add_parser("pulumi", help="print the folder of pulumi")
    verbs.add_parser("aimock", help="print the launcher of the scripted model server")
    chosen = parser.parse_args(arguments)
    # A time limit of CI ends us with SIGTERM: clear up as after Ctrl-C, and let no build go on without us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if chosen.verb == "run":
            if not chosen.command:
                parser.error("run: which command?")
            run(chosen.command, with_pulumi=chosen.pulumi, with_aimock=chosen.aimock)
        elif chosen.verb == "environment":
            print(sync())
        elif chosen.verb == "pulumi":
            print(pulumi().folder)
        else:
            print(aimock())
    except Failure as failure:
        print(failure.report(), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nslipway: interrupted; what was half done is cleared away by the next run", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
