"""Encryption at rest: AES-256-GCM (NIST SP 800-38D) with a random nonce, bound to what the ciphertext belongs to."""

import os
from collections.abc import Iterable, Mapping
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
"""What GCM is made for; a key of ours encrypts so little that random ones never meet."""


class SealBrokenError(FileNotFoundError):
    """What is sealed cannot be opened: its key was dropped, or some of it was changed. It is as good as gone."""


class DataKeys(Protocol):
    """The keys that photos, copies and embeddings are encrypted with, by name, shared by every process.

    Safe for use by several threads. A key is named after the file that lives as long as it: ``<store>/<name>``.
    """

    def find(self, names: Iterable[str]) -> Mapping[str, AESGCM]:
        """Those of the keys that there are."""
        ...

    def make(self, names: Iterable[str]) -> Mapping[str, AESGCM]:
        """All of the keys; those that were not there before survive a power cut once this returns."""
        ...

    def drop(self, names: Iterable[str]) -> None:
        """Forget keys for good, so that no copy of what they encrypted can be read any more."""
        ...


def seal(key: AESGCM, data: bytes, about: bytes) -> bytes:
    """Nonce, ciphertext and tag.

    Args:
        about: what the ciphertext belongs to; nothing else opens it.
    """
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + key.encrypt(nonce, data, about)


def unseal(key: AESGCM, sealed: bytes, about: bytes) -> bytes:
    """What :func:`seal` was given.

    Raises:
        SealBrokenError: it is not what was sealed, for this, with this key.
    """
    try:
        return key.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about)
    except (InvalidTag, ValueError):  # ValueError: there is too little of it for a nonce
        raise SealBrokenError("what is sealed was changed, or belongs to something else") from None
