"""Keys for what is encrypted at rest, as they stand in the environment."""

from __future__ import annotations

import base64
import binascii
import re

_SIZES = (16, 24, 32)
_HEX = re.compile(r"(?:[0-9A-Fa-f]{32}|[0-9A-Fa-f]{48}|[0-9A-Fa-f]{64})")


def aes_keys(text: str) -> tuple[bytes, ...]:
    """The keys in a comma-separated list, each 16, 24 or 32 bytes as base64 or hex. At least one.

    Raises ValueError, which names the place in the list and never the key.
    """
    keys = tuple(_key(part.strip(), place) for place, part in enumerate(text.split(","), start=1))
    if len(set(keys)) < len(keys):
        raise ValueError("must not hold the same key twice")
    return keys


def _key(text: str, place: int) -> bytes:
    # 32 hex digits would be good base64 too; no key that was chosen at random looks like hex by chance.
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    try:
        key = base64.b64decode(text.translate(_URL_SAFE), validate=True)
    except binascii.Error:
        key = b""
    if len(key) not in _SIZES:
        raise ValueError(f"key {place} must be 16, 24 or 32 random bytes, as base64 or hex")
    return key


_URL_SAFE = str.maketrans("-_", "+/")
