"""Checkpoints encrypted at rest: LangGraph's `EncryptedSerializer` under the keys of CHECKPOINT_ENCRYPTION_KEY.

Encrypted are the values of channels, what tasks wrote, and each checkpoint with its metadata. Thread, run, channel
and node names and versions stay readable: the scripts work with them. What was stored before a key was set stays
readable too, and is encrypted when it is next written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from langgraph.checkpoint.serde.base import CipherProtocol

from app.memory.checkpoints.errors import CheckpointSealed

_NONCE_BYTES = 12


class KeyRing(CipherProtocol):
    """AES-GCM-SIV (RFC 8452) under several keys: the first one writes, each of them reads what it wrote.

    Of that mode because one key serves for years: with random nonces plain GCM is safe for 2^32 values only, and
    LangGraph's own cipher (EAX) takes 50 times as long. A stored value names its key by a hash.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = {_name(key): AESGCMSIV(key) for key in keys}
        self._writing = _name(keys[0])

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        nonce = os.urandom(_NONCE_BYTES)
        return self._writing, nonce + self._ciphers[self._writing].encrypt(nonce, plaintext, None)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        """Raises `CheckpointSealed` for a key that is not there and for bytes that this key did not write."""
        cipher = self._ciphers.get(ciphername)
        if cipher is None:
            raise CheckpointSealed(ciphername)
        try:
            return cipher.decrypt(ciphertext[:_NONCE_BYTES], ciphertext[_NONCE_BYTES:], None)
        except (InvalidTag, ValueError) as error:
            raise CheckpointSealed(ciphername, "its bytes were changed") from error


def _name(key: bytes) -> str:
    """A name that tells keys apart and nothing about them."""
    return f"aes-{hashlib.sha256(b'slipway checkpoint key' + key).hexdigest()[:8]}"
