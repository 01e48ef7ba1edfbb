"""Starts one supervised program: reads its spec, takes on its environment, becomes it.

Run as a script with two paths: the spec, a JSON file of mode 0600 with `command`, `env` and `cwd`, and the
supervisor's pid file. So no secret stands in an argument list or in the supervisor's configuration. The program is
asked to end (SIGTERM) when the supervisor dies, however it dies: nothing is left behind. Imports only the standard
library: it runs before each start.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h; kept over execve


def main(spec_path: str, pid_path: str) -> None:
    with open(spec_path, encoding="utf-8") as file:
        spec = json.load(file)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    with open(pid_path, encoding="utf-8") as file:
        if os.getppid() != int(file.read()):  # it died before the request above
            sys.exit("the supervisor is gone")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SUPERVISOR_")}
    os.chdir(spec["cwd"])
    environment = {**inherited, **spec["env"]}
    os.execve(spec["command"][0], spec["command"], environment)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
