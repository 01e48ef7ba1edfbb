"""Identifiers, as types: a run id is never passed where a thread id is meant."""

from __future__ import annotations

import re
import uuid
from typing import NewType

RunId = NewType("RunId", str)
ThreadId = NewType("ThreadId", str)
TenantId = NewType("TenantId", str)
UserId = NewType("UserId", str)
Release = NewType("Release", str)

STABLE = Release("stable")
"""The release whose queue bears the bare name; a deployment that says nothing of releases is this one."""

# Ids become segments of Redis keys, so they hold no separator, brace or space.
ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_ID = re.compile(ID_PATTERN)


def is_id(text: str) -> bool:
    """Whether `text` may be used as an id in a key: 1 to 64 letters, digits, `_`, `.`, `-`."""
    return _ID.fullmatch(text) is not None


def new_id() -> str:
    """A new unique id that sorts by the time it was made (UUIDv7 layout), 36 characters."""
    import secrets
    import time

    stamp = time.time_ns() // 1_000_000
    value = (stamp & 0xFFFFFFFFFFFF) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))
