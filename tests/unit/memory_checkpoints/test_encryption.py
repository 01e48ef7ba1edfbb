"""Checkpoints under keys: who can open what."""

from __future__ import annotations

import os
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from pydantic import SecretStr

from app.infra.settings import RunSettings
from app.memory.checkpoints import CheckpointSealed, layout, open_serializer, serializer
from app.memory.checkpoints.encryption import KeyRing

OLD, NEW = os.urandom(16), os.urandom(32)


def under(*keys: bytes) -> Any:
    """The serializer of a process with these keys."""
    text = ",".join(key.hex() for key in keys)
    return open_serializer(RunSettings(checkpoint_encryption_key=SecretStr(text) if text else None))


@pytest.mark.parametrize("value", [None, b"", b"\x00+", "text", {"a": [AIMessage("hi")]}, 2**63])
@pytest.mark.parametrize("key", [os.urandom(16), os.urandom(24), os.urandom(32)])
def test_a_value_is_read_as_it_was_written(value: Any, key: bytes) -> None:
    serde = under(key)
    assert layout.read_value(serde, layout.write_value(serde, value)) == value


def test_the_same_value_never_looks_the_same() -> None:
    """Else it shows who says the same as whom."""
    assert under(NEW).dumps_typed("yes") != under(NEW).dumps_typed("yes")


def test_after_a_rotation_the_new_key_writes_and_the_old_one_still_reads() -> None:
    """No thread is written anew because a key has changed."""
    stored = under(OLD).dumps_typed("secret")
    assert under(NEW, OLD).loads_typed(stored) == "secret"
    assert under(NEW).loads_typed(under(NEW, OLD).dumps_typed("secret")) == "secret"


@pytest.mark.parametrize("keys", [(), (NEW,)])
def test_without_its_key_a_value_is_an_error_that_names_the_setting(keys: tuple[bytes, ...]) -> None:
    """A run that took it for nothing would begin the thread anew, and overwrite it."""
    stored = under(OLD).dumps_typed("secret")
    with pytest.raises(CheckpointSealed, match=r"no such key is set; .* CHECKPOINT_ENCRYPTION_KEY"):
        under(*keys).loads_typed(stored)


def test_a_changed_value_is_not_opened() -> None:
    kind, data = under(NEW).dumps_typed("secret")
    for broken in (data[:-1] + bytes([data[-1] ^ 1]), data[:5], b""):
        with pytest.raises(CheckpointSealed, match="its bytes were changed"):
            under(NEW).loads_typed((kind, broken))


def test_what_was_stored_before_there_was_a_key_stays_readable() -> None:
    """A key may be set on a service that has threads."""
    assert under(NEW).loads_typed(under().dumps_typed("open")) == "open"


def test_an_error_names_the_key_by_a_hash_and_not_by_its_value() -> None:
    kind, _ = under(OLD).dumps_typed("secret")
    with pytest.raises(CheckpointSealed) as caught:
        under(NEW).loads_typed((kind, b"x"))
    assert caught.value.cipher in kind
    assert OLD.hex()[:8] not in str(caught.value)


def test_the_allow_list_of_a_graphs_types_reaches_through_the_encryption() -> None:
    """LangGraph adds the types of a graph's schema to the inner serializer; ours must be one that it knows."""
    serde = EncryptedSerializer(KeyRing([NEW]), serializer())
    allowed = BaseCheckpointSaver[str](serde=serde).with_allowlist({("some.module", "Kind")}).serde
    assert isinstance(allowed, EncryptedSerializer)
    assert allowed is not serde
    with pytest.raises(CheckpointSealed):
        allowed.loads_typed(under(OLD).dumps_typed("secret"))


def test_a_process_makes_its_serializer_once() -> None:
    """Workers make a saver per run; LangGraph derives an allow-list per serializer and graph."""
    assert under(NEW) is under(NEW)
    assert under() is under()
