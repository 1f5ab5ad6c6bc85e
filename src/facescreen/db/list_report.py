"""What a report on a list reads: everybody and every photo, in portions, so that other requests get their turn."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db.batches import batches
from facescreen.db.blacklist import is_in_force
from facescreen.db.schema import entries, reference_images
from facescreen.domain.blacklist import Status
from facescreen.domain.list_report import ListedPerson, ListedPhoto
from facescreen.domain.quality import FaceQuality

_PORTION = 2000


@dataclass(frozen=True, slots=True)
class StoredPhoto:
    """A photo with what is known of its picture, as in :class:`facescreen.domain.blacklist.ReferenceImage`."""

    listed: ListedPhoto
    quality: FaceQuality | None
    quality_override: str | None


async def active_people(connection: AsyncConnection, collection_id: int) -> dict[int, ListedPerson]:
    """Everybody in the collection who is active and has not expired, by id, oldest first."""
    statement = (
        select(entries.c.id, entries.c.name)
        .where(entries.c.collection_id == collection_id, entries.c.status == Status.ACTIVE, is_in_force())
        .order_by(entries.c.id)
    )
    people: dict[int, ListedPerson] = {}
    async with connection.stream(statement) as result:
        async for portion in result.partitions(_PORTION):
            people.update((row.id, ListedPerson(row.id, row.name)) for row in portion)
    return people


async def names_of(connection: AsyncConnection, entry_ids: Iterable[int]) -> dict[int, str]:
    """The names of these entries; those that are gone are left out."""
    return await _texts(connection, select(entries.c.id, entries.c.name), entry_ids)


async def photos_of(connection: AsyncConnection, image_ids: Iterable[int]) -> dict[int, str]:
    """The names of the photos of these reference images; those that are gone are left out."""
    return await _texts(connection, select(reference_images.c.id, reference_images.c.photo), image_ids)


async def active_photos(connection: AsyncConnection, collection_id: int) -> list[StoredPhoto]:
    """Every active photo of those people, oldest first."""
    table = reference_images
    statement = (
        select(table.c.id, table.c.entry_id, table.c.photo, table.c.quality, table.c.quality_override)
        .join(entries, entries.c.id == table.c.entry_id)
        .where(
            table.c.collection_id == collection_id,
            table.c.status == Status.ACTIVE,
            entries.c.status == Status.ACTIVE,
            is_in_force(),
        )
        .order_by(table.c.id)
    )
    photos: list[StoredPhoto] = []
    async with connection.stream(statement) as result:
        async for portion in result.partitions(_PORTION):
            photos += [
                StoredPhoto(
                    ListedPhoto(row.id, row.entry_id, row.photo),
                    FaceQuality(**row.quality) if row.quality else None,
                    row.quality_override,
                )
                for row in portion
            ]
    return photos


async def _texts(connection: AsyncConnection, statement: Select[int, str], ids: Iterable[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for some in batches(ids):
        rows = await connection.execute(statement.where(statement.selected_columns[0].in_(some)))
        found.update((row[0], row[1]) for row in rows)
    return found
