"""Who and what is in a collection, by outward ids, and in pages that stay apart whatever changes between them.

A page begins after the last row of the page before it, by row id, so that a row is on exactly one of them. Who has
expired is on none.
"""

from collections.abc import Collection as Ids
from typing import NamedTuple

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db import blacklist
from facescreen.db.schema import collections, entries, reference_images
from facescreen.domain.blacklist import Collection, ReferenceImage, Status


class KnownFace(NamedTuple):
    """A face of a collection, and the person that it is associated with, if any."""

    image: ReferenceImage
    user_id: str | None


class Person(NamedTuple):
    """A person of a collection: the row's id, the outward id, and whether there is a face of it."""

    id: int
    user_id: str
    has_faces: bool


async def list_collections(connection: AsyncConnection, *, after: int, limit: int) -> list[Collection]:
    """Collections from the one after the row ``after`` on, oldest first."""
    page = select(collections).where(collections.c.id > after).order_by(collections.c.id).limit(limit)
    return [Collection(**row) for row in (await connection.execute(page)).mappings()]


async def list_faces(
    connection: AsyncConnection,
    collection_id: int,
    *,
    after: int,
    limit: int,
    user_id: str | None = None,
    face_ids: Ids[str] | None = None,
) -> list[KnownFace]:
    """Faces from the one after the row ``after`` on, oldest first.

    Args:
        user_id: only this person's.
        face_ids: only these, at most some thousand.
    """
    where = [reference_images.c.id > after]
    if user_id is not None:
        people = select(entries.c.id).where(entries.c.collection_id == collection_id, entries.c.user_id == user_id)
        where.append(reference_images.c.entry_id.in_(people))
    if face_ids is not None:
        where.append(reference_images.c.face_id.in_(face_ids))
    return await _faces(connection, collection_id, where, limit=limit)


async def find_faces(connection: AsyncConnection, collection_id: int, face_ids: Ids[str]) -> dict[str, KnownFace]:
    """The collection's faces by outward id; ids of none are left out."""
    found = await _faces(connection, collection_id, [reference_images.c.face_id.in_(face_ids)])
    return {face.image.face_id: face for face in found if face.image.face_id is not None}


async def faces_of_photo(
    connection: AsyncConnection, collection_id: int, *, sha256: str, external_image_id: str | None
) -> list[KnownFace]:
    """The collection's faces of a photo that was given this name, or none, oldest first."""
    where = [
        reference_images.c.sha256 == sha256,
        reference_images.c.external_image_id.is_not_distinct_from(external_image_id),
    ]
    return await _faces(connection, collection_id, where)


async def list_people(connection: AsyncConnection, collection_id: int, *, after: int, limit: int) -> list[Person]:
    """People from the one after the row ``after`` on, oldest first."""
    has_faces = exists().where(reference_images.c.entry_id == entries.c.id, reference_images.c.status == Status.ACTIVE)
    page = (
        select(entries.c.id, entries.c.user_id, has_faces)
        .where(
            entries.c.collection_id == collection_id,
            entries.c.status == Status.ACTIVE,
            entries.c.user_id.is_not(None),
            entries.c.id > after,
            blacklist.is_in_force(),
        )
        .order_by(entries.c.id)
        .limit(limit)
    )
    return [Person(*row) for row in await connection.execute(page)]


async def _faces(
    connection: AsyncConnection, collection_id: int, where: list[ColumnElement[bool]], *, limit: int | None = None
) -> list[KnownFace]:
    """Active faces of the collection, oldest first."""
    mine = (reference_images.c.collection_id == collection_id, reference_images.c.status == Status.ACTIVE)
    in_force = select(reference_images.c.id).join(entries).where(*mine, blacklist.is_in_force())
    page = in_force.where(*where).order_by(reference_images.c.id).limit(limit)
    ids = (await connection.execute(page)).scalars().all()
    owned = await blacklist.references(connection, ids)
    return [KnownFace(image, entry.user_id) for entry, image in (owned[id_] for id_ in ids if id_ in owned)]
