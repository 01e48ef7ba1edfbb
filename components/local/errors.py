"""Errors of the platform `local`; Pulumi shows their text to whoever ran `pulumi up`."""

from __future__ import annotations

from pathlib import Path


class LocalError(Exception):
    """Something on this machine is not as it must be. The text ends with what to do."""


class SupervisorGone(LocalError):
    """No supervisor answers on the stack's socket: nothing of the stack runs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"the supervisor of {folder} does not run; `pulumi up` starts it and all its programs")


class StartFailed(LocalError):
    """A program did not become healthy. It has been stopped and removed again; its log is kept."""

    def __init__(self, name: str, why: str, log: Path, tail: str) -> None:
        quoted = "".join(f"\n    | {line}" for line in tail.splitlines()) or "\n    | (it wrote nothing)"
        super().__init__(
            f"{name} {why}. The last lines of its log:{quoted}\n  The whole log: {log}\n"
            "  Mend what it says and run `pulumi up` again; nothing of the failed start is left running."
        )
        self.name, self.why, self.log = name, why, log
