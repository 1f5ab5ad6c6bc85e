"""Embeddings as the database keeps them: raw, little-endian float32, or that encrypted with the key of a photo."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.domain.faces import Vector, Vectors
from facescreen.domain.sealing import DataKeys, SealBrokenError, seal, unseal
from facescreen.errors import EmbeddingsUnreadableError

_STORED = np.dtype("<f4")


class StoredVector(NamedTuple):
    """What a row has.

    Attributes:
        photo: the reference photo whose key encrypts it, ``None`` where there is none.
        about: which row it belongs to.
    """

    value: bytes
    sealed: bool
    photo: str | None
    about: str


def key_of(photo: str) -> str:
    """Name of the key of a reference photo on this machine, as the photo's store has it."""
    return f"blacklist/{photo}"


def of_image(reference_image_id: int, space: str) -> str:
    """Which row of ``embeddings``."""
    return f"embedding {reference_image_id} {space}"


def of_clearance(entry_id: int, screening_id: int, face_index: int) -> str:
    """Which row of ``clearances``."""
    return f"clearance {entry_id} {screening_id} {face_index}"


async def pack(connection: AsyncConnection, vector: Vector, *, photo: str | None, about: str) -> Mapping[str, Any]:
    """One embedding (dimension,) as the values of its columns."""
    raw = StoredVector(vector.astype(_STORED).tobytes(), sealed=False, photo=photo, about=about)
    (columns,) = await sealed(connection, [raw])
    return columns


async def sealed(connection: AsyncConnection, raw: Sequence[StoredVector]) -> Sequence[Mapping[str, Any]]:
    """The values of the columns of vectors that are raw, sealed if this database has keys."""
    keys = _keys(connection)
    if keys is None:
        return [{"vector": each.value, "sealed": False} for each in raw]
    return await asyncio.to_thread(_sealed, keys, raw)


async def opened(connection: AsyncConnection, stored: Sequence[StoredVector]) -> Sequence[bytes | None]:
    """What :func:`pack` was given, as bytes; ``None`` for what cannot be decrypted."""
    if not any(each.sealed for each in stored):
        return [each.value for each in stored]
    return await asyncio.to_thread(_opened, _keys(connection), stored)


async def unpack(connection: AsyncConnection, stored: Sequence[StoredVector]) -> Vectors:
    """The embeddings (n, dimension) of what :func:`pack` gave, all of one dimension; shape (0, 0) of nothing.

    Raises:
        EmbeddingsUnreadableError: some cannot be decrypted.
    """
    values = await opened(connection, stored)
    if unreadable := sum(value is None for value in values):
        raise EmbeddingsUnreadableError(
            f"{unreadable} of {len(values)} embeddings cannot be decrypted: the keys are not those of this list, or "
            "somebody changed it; run: facescreen audit"
        )
    return stacked(value for value in values if value is not None)


def stacked(values: Iterable[bytes]) -> Vectors:
    """Raw embeddings of one dimension as rows (n, dimension)."""
    raw = list(values)
    if not raw:
        return np.empty((0, 0), np.float32)
    return np.frombuffer(b"".join(raw), _STORED).reshape(len(raw), -1).astype(np.float32)


def _keys(connection: AsyncConnection) -> DataKeys | None:
    """What :class:`facescreen.db.connection.Database` was given."""
    keys: DataKeys | None = connection.info["keys"]
    return keys


def _sealed(keys: DataKeys, raw: Sequence[StoredVector]) -> list[Mapping[str, Any]]:
    made = keys.make({key_of(each.photo) for each in raw if each.photo is not None})
    return [
        {"vector": seal(made[key_of(each.photo)], each.value, each.about.encode()), "sealed": True}
        if each.photo is not None
        else {"vector": b"", "sealed": False}  # it can only be a clearance that nothing is compared with
        for each in raw
    ]


def _opened(keys: DataKeys | None, stored: Sequence[StoredVector]) -> list[bytes | None]:
    names = {key_of(each.photo) for each in stored if each.sealed and each.photo is not None}
    found = keys.find(names) if keys is not None else {}
    values: list[bytes | None] = []
    for each in stored:
        if not each.sealed:
            values.append(each.value)
            continue
        try:
            values.append(unseal(found[key_of(each.photo or "")], each.value, each.about.encode()))
        except (KeyError, SealBrokenError):
            values.append(None)
    return values
