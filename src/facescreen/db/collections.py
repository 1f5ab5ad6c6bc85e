"""Collections."""

from collections.abc import Collection as Ids
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db.blacklist import is_in_force
from facescreen.db.schema import changes, collections, entries, reference_images
from facescreen.domain.blacklist import Collection, Status


class Size(NamedTuple):
    """How many entries a collection has, how many of them are people with an outward id, and how many photos."""

    entries: int
    people: int
    images: int


async def insert_collection(connection: AsyncConnection, name: str) -> Collection:
    """Add an empty collection; its name must be new."""
    row = {"name": name, "created_at": datetime.now(UTC)}
    added = await connection.execute(insert(collections).values(row).returning(collections))
    return Collection(**added.mappings().one())


async def get_collection(connection: AsyncConnection, name: str) -> Collection | None:
    """The collection of this name, or ``None``."""
    row = (await connection.execute(select(collections).where(collections.c.name == name))).mappings().one_or_none()
    return Collection(**row) if row else None


async def list_collections(connection: AsyncConnection) -> list[Collection]:
    """All collections, by name."""
    rows = await connection.execute(select(collections).order_by(collections.c.name))
    return [Collection(**row) for row in rows.mappings()]


async def collection_ids(connection: AsyncConnection) -> Ids[int]:
    """Ids of all collections."""
    return set((await connection.execute(select(collections.c.id))).scalars())


async def size(connection: AsyncConnection, collection_id: int) -> Size:
    """How much a collection holds; what is pending, being withdrawn or has expired does not count."""
    mine = (entries.c.collection_id == collection_id, entries.c.status == Status.ACTIVE, is_in_force())
    everybody, people = (
        await connection.execute(select(func.count(), func.count(entries.c.user_id)).select_from(entries).where(*mine))
    ).one()
    photos = (
        select(func.count())
        .select_from(reference_images.join(entries))
        .where(
            reference_images.c.collection_id == collection_id,
            reference_images.c.status == Status.ACTIVE,
            is_in_force(),
        )
    )
    return Size(everybody, people, (await connection.execute(photos)).scalar_one())


async def delete_collection(connection: AsyncConnection, collection_id: int) -> None:
    """Remove a collection with everything in it, its change feed as well."""
    await connection.execute(delete(collections).where(collections.c.id == collection_id))
    await connection.execute(delete(changes).where(changes.c.collection_id == collection_id))
