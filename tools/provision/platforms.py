"""Which machine this is, in the words of those whose files we download."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from tools.provision.console import Failure

_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Platform:
    """`system` is linux or darwin, `machine` x86_64 or aarch64."""

    system: str
    machine: str

    @property
    def pulumi_name(self) -> str:
        """As in the name of Pulumi's releases, `linux-x64`."""
        return f"{self.system}-{'x64' if self.machine == 'x86_64' else 'arm64'}"

    def __str__(self) -> str:
        return f"{self.system}-{self.machine}"


def this_platform(system: str = "", machine: str = "", libc: str = "") -> Platform:
    """The platform we run on; the arguments stand in for what Python says, in tests.

    `Failure` where Slipway does not run: other systems and processors, and Linux with musl, for which several of the
    locked dependencies publish no wheels.
    """
    system = (system or platform.system()).lower()
    machine = (machine or platform.machine()).lower()
    if system not in ("linux", "darwin") or machine not in _MACHINES:
        raise Failure(
            f"Slipway's tools are not available for {system} on {machine}",
            fix="use Linux or macOS on x86_64 or arm64 (on Windows: inside WSL 2)",
        )
    if system == "linux" and (libc or platform.libc_ver()[0] or "musl") != "glibc":
        raise Failure(
            "this Linux has musl instead of glibc, for which some dependencies publish no packages",
            fix="use a distribution with glibc, such as Debian, Ubuntu or Fedora",
        )
    return Platform(system, _MACHINES[machine])
