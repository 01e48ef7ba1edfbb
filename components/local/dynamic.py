"""Dynamic providers that put only a name into the state.

Pulumi pickles a dynamic provider into the state file and unpickles it in a process of its own, whose working
directory is the program's folder (`stacks/`), so the repository is not importable there. A provider of this module is
therefore pickled as "find the repository above the working directory, import this class": the state holds no code,
old states run the code of today, and a moved checkout still works.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, ResourceProvider, UpdateResult


def _load(module: str, name: str) -> Any:
    import importlib
    import sys
    from pathlib import Path

    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "components" / "local" / "dynamic.py").is_file():
            # The program's own folder comes off the path: its modules must not shadow installed packages.
            sys.path[:] = [
                str(folder),
                *(entry for entry in sys.path if entry not in ("", ".", str(here), str(folder))),
            ]
            break
    return getattr(importlib.import_module(module), name)()


# dill pickles a function of `__main__` by value, one of any other module as a reference that the unpickling
# process could not follow before the path is set.
_load.__module__ = "__main__"


class ByName(ResourceProvider):
    """Base of all our providers. Subclasses have no state and take no arguments."""

    serialize_as_secret_always = False

    def __reduce__(self) -> tuple[Callable[[str, str], Any], tuple[str, str]]:
        return _load, (type(self).__module__, type(self).__qualname__)


Props = dict[str, Any]
"""Inputs or outputs of a resource, as plain JSON values. Secrets arrive in clear; in the state they are encrypted."""


def unknown(value: Any) -> bool:
    """Whether a preview does not know `value` yet, wholly or in part."""
    if isinstance(value, dict):
        return any(unknown(part) for part in value.values())
    if isinstance(value, list):
        return any(unknown(part) for part in value)
    return bool(value == pulumi.runtime.rpc.UNKNOWN)


def changed(olds: Props, news: Props, keys: tuple[str, ...]) -> list[str]:
    """Which of `keys` differ. Absent and None are the same."""
    return [key for key in keys if olds.get(key) != news.get(key)]


__all__ = ["ByName", "CreateResult", "DiffResult", "Props", "ReadResult", "UpdateResult", "changed", "unknown"]
