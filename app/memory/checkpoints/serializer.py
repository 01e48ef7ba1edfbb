"""How values become bytes: LangGraph's msgpack serializer, closed.

Nothing is ever pickled, and no type is built from stored bytes unless it is in langgraph-checkpoint's list of safe
types (messages, dates, ids, `Send`, `Interrupt` …), named in `allowed`, or part of the graph's own schemas: LangGraph
adds those itself through `with_allowlist` when LANGGRAPH_STRICT_MSGPACK is set before it is imported. Any other
object comes back as the plain data that it was made of, with a warning in the log.

With CHECKPOINT_ENCRYPTION_KEY set, the bytes are encrypted too: see `encryption`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from app.infra.encryption import aes_keys
from app.infra.settings import RunSettings
from app.memory.checkpoints.errors import CheckpointSealed


class ClosedSerializer(JsonPlusSerializer):
    """LangGraph's serializer, which knows an encrypted value when it is not there to open it."""

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Raises `CheckpointSealed` for an encrypted value: `EncryptedSerializer` takes its mark off."""
        _, encrypted, cipher = data[0].partition("+")
        if encrypted:
            raise CheckpointSealed(cipher)
        return super().loads_typed(data)


def serializer(allowed: Iterable[type | tuple[str, str]] = ()) -> ClosedSerializer:
    """A serializer that builds safe types and `allowed` ones: classes, or pairs of module and name."""
    names = [(kind.__module__, kind.__name__) if isinstance(kind, type) else kind for kind in allowed]
    return ClosedSerializer(pickle_fallback=False, allowed_json_modules=None, allowed_msgpack_modules=names or None)


def open_serializer(settings: RunSettings) -> SerializerProtocol:
    """The process's serializer: `serializer()`, encrypting when CHECKPOINT_ENCRYPTION_KEY is set."""
    key = settings.checkpoint_encryption_key
    return _opened("" if key is None else key.get_secret_value())


@lru_cache(maxsize=8)
def _opened(keys: str) -> SerializerProtocol:
    if not keys:
        return serializer()
    from app.memory.checkpoints.encryption import KeyRing  # a process without keys need not load the ciphers

    return EncryptedSerializer(KeyRing(aes_keys(keys)), serializer())
