"""Dynamic providers that put only a name into the state.

Pulumi pickles a dynamic provider into the state file and unpickles it in a process of its own, whose working
directory is the program's folder (`stacks/`), so the repository is not importable there. A provider of this module is
therefore pickled as "run `find_provider.py` of this repository and take what it finds": the state holds no code and no
absolute path, so old states run the code of today, under a newer Python and in another checkout too.
"""

from __future__ import annotations

import operator
import runpy
from typing import Any

from pulumi.dynamic import CreateResult, DiffResult, ReadResult, ResourceProvider, UpdateResult
from pulumi.output import Unknown

_FIND = "../components/local/find_provider.py"
"""Seen from the program's folder."""


class _Found:
    """Pickles as the names that `find_provider.py` leaves."""

    def __init__(self, provider: type[ByName]) -> None:
        self._wanted = provider.__module__, provider.__qualname__

    def __reduce__(self) -> tuple[Any, ...]:
        return runpy.run_path, (_FIND, {"wanted": self._wanted})


class ByName(ResourceProvider):
    """Base of all our providers. Subclasses have no state and take no arguments."""

    serialize_as_secret_always = False

    def __reduce__(self) -> tuple[Any, ...]:
        return operator.getitem, (_Found(type(self)), "provider")


Props = dict[str, Any]
"""Inputs or outputs of a resource, as plain JSON values. Secrets arrive in clear; in the state they are encrypted."""


def unknown(value: Any) -> bool:
    """Whether a preview does not know `value` yet, wholly or in part."""
    if isinstance(value, dict):
        return any(unknown(part) for part in value.values())
    if isinstance(value, list):
        return any(unknown(part) for part in value)
    return isinstance(value, Unknown)


def changed(olds: Props, news: Props, keys: tuple[str, ...]) -> list[str]:
    """Which of `keys` differ. Absent and None are the same."""
    return [key for key in keys if olds.get(key) != news.get(key)]


__all__ = ["ByName", "CreateResult", "DiffResult", "Props", "ReadResult", "UpdateResult", "changed", "unknown"]
