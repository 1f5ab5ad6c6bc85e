"""Embeddings as the database keeps them: raw, little-endian float32."""

from collections.abc import Iterable

import numpy as np

from facescreen.domain.faces import Vector, Vectors

_STORED = np.dtype("<f4")


def pack(vector: Vector) -> bytes:
    """One embedding (dimension,) as a column's value."""
    return vector.astype(_STORED).tobytes()


def unpack(values: Iterable[bytes]) -> Vectors:
    """The embeddings (n, dimension) of what :func:`pack` gave, all of one dimension; shape (0, 0) of nothing."""
    stored = list(values)
    if not stored:
        return np.empty((0, 0), np.float32)
    return np.frombuffer(b"".join(stored), _STORED).reshape(len(stored), -1).astype(np.float32)
