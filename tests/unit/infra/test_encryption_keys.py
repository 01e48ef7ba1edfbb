"""How CHECKPOINT_ENCRYPTION_KEY is read."""

from __future__ import annotations

import base64
import os

import pytest

from app.infra.encryption import aes_keys
from app.infra.errors import ConfigurationError
from app.infra.settings import load


@pytest.mark.parametrize("size", [16, 24, 32])
def test_a_key_may_stand_as_base64_or_hex(size: int) -> None:
    """`openssl rand -base64 32`, `openssl rand -hex 32` and URL-safe base64 are what people have."""
    key = os.urandom(size)
    for text in (base64.b64encode(key).decode(), base64.urlsafe_b64encode(key).decode(), key.hex(), key.hex().upper()):
        assert aes_keys(text) == (key,)


def test_keys_keep_their_order() -> None:
    """The first one writes."""
    first, second = bytes(range(32)), bytes(range(1, 17))
    assert aes_keys(f"{first.hex()}, {base64.b64encode(second).decode()}") == (first, second)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("correct horse battery staple", "key 1 must be 16, 24 or 32 random bytes, as base64 or hex"),
        (base64.b64encode(bytes(20)).decode(), "key 1 must be 16, 24 or 32 random bytes"),
        (bytes(31).hex(), "key 1 must be 16, 24 or 32 random bytes"),
        (f"{bytes(16).hex()},", "key 2 must be 16, 24 or 32 random bytes"),
        (f"{bytes(16).hex()},{bytes(16).hex()}", "must not hold the same key twice"),
    ],
)
def test_a_wrong_key_stops_the_start_with_one_line_that_does_not_show_it(
    text: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECKPOINT_ENCRYPTION_KEY", text)
    with pytest.raises(ConfigurationError) as caught:
        load(env_file=None)
    message = str(caught.value)
    assert message.startswith(f"CHECKPOINT_ENCRYPTION_KEY: {problem}")
    assert message.endswith("example: CHECKPOINT_ENCRYPTION_KEY=$(openssl rand -base64 32)")
    assert "\n" not in message
    assert not any(part and part in message for part in text.split(","))
