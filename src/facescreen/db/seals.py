"""Which embeddings and clearances are sealed, and what their keys do not open."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db import clearances as cleared
from facescreen.db.schema import clearances, collections, embeddings, reference_images, screenings
from facescreen.db.vectors import StoredVector, of_image, opened, sealed

_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Sealed:
    """How many are sealed, of how many there are."""

    count: int
    total: int


@dataclass(frozen=True, slots=True)
class BrokenEmbedding:
    """An embedding that cannot be decrypted, and the name of its collection."""

    collection: str
    reference_image_id: int
    space: str


async def embeddings_sealed(connection: AsyncConnection) -> Sealed:
    """Of all embeddings."""
    return await _sealed(connection, select(func.total(embeddings.c.sealed), func.count()))


async def clearances_sealed(connection: AsyncConnection) -> Sealed:
    """Of the clearances that hold."""
    counts = select(func.total(clearances.c.sealed), func.count())
    return await _sealed(connection, counts.where(clearances.c.vector.is_not(None)))


async def newest_files(connection: AsyncConnection) -> tuple[str | None, str | None]:
    """The newest reference photo and the newest copy of a result."""
    photo = select(reference_images.c.photo).order_by(reference_images.c.id.desc()).limit(1)
    copy = select(screenings.c.copy).where(screenings.c.copy.is_not(None)).order_by(screenings.c.id.desc()).limit(1)
    return (await connection.execute(photo)).scalar(), (await connection.execute(copy)).scalar()


async def seal_embeddings(connection: AsyncConnection, *, most: int) -> int:
    """Encrypt embeddings that are not, at most so many; how many that were."""
    columns = (embeddings.c.reference_image_id, embeddings.c.space, embeddings.c.vector, reference_images.c.photo)
    rows = await connection.execute(select(*columns).join(reference_images).where(~embeddings.c.sealed).limit(most))
    found = rows.all()
    raw = [
        StoredVector(row.vector, sealed=False, photo=row.photo, about=of_image(row.reference_image_id, row.space))
        for row in found
    ]
    if found:
        # By rows with all that they are found by, so that one statement does for all.
        ours = (embeddings.c.reference_image_id == bindparam("image"), embeddings.c.space == bindparam("its_space"))
        values = [
            {"image": row.reference_image_id, "its_space": row.space, **columns}
            for row, columns in zip(found, await sealed(connection, raw), strict=True)
        ]
        await connection.execute(update(embeddings).where(*ours), values)
    return len(found)


async def seal_clearances(connection: AsyncConnection, *, most: int) -> int:
    """Encrypt clearances that are not, at most so many; how many that were."""
    plain = (~clearances.c.sealed, func.length(clearances.c.vector) > 0)
    rows = (await connection.execute(select(clearances).where(*plain).limit(most))).mappings().all()
    photos = await cleared.first_photos(connection, [row["entry_id"] for row in rows])
    raw = [cleared.stored_vector(row, photos.get(row["entry_id"])) for row in rows]
    for row, values in zip(rows, await sealed(connection, raw), strict=True):
        await connection.execute(update(clearances).where(clearances.c.id == row["id"]).values(values))
    return len(rows)


async def broken_embeddings(connection: AsyncConnection) -> Sequence[BrokenEmbedding]:
    """Those that cannot be decrypted."""
    columns = (
        embeddings.c.reference_image_id,
        embeddings.c.space,
        embeddings.c.vector,
        reference_images.c.photo,
        collections.c.name,
    )
    joined = embeddings.join(reference_images).join(collections, collections.c.id == embeddings.c.collection_id)
    order = (embeddings.c.reference_image_id, embeddings.c.space)
    statement = select(*columns).select_from(joined).where(embeddings.c.sealed).order_by(*order)
    broken = []
    async with connection.stream(statement.execution_options(yield_per=_AT_ONCE)) as result:
        async for rows in result.partitions():
            about = [of_image(row.reference_image_id, row.space) for row in rows]
            stored = [
                StoredVector(row.vector, sealed=True, photo=row.photo, about=each)
                for row, each in zip(rows, about, strict=True)
            ]
            values = await opened(connection, stored)
            broken += [
                BrokenEmbedding(row.name, row.reference_image_id, row.space)
                for row, value in zip(rows, values, strict=True)
                if value is None
            ]
    return broken


async def broken_clearances(connection: AsyncConnection) -> Sequence[int]:
    """Ids of those that hold and cannot be decrypted."""
    rows = (
        (await connection.execute(select(clearances).where(clearances.c.sealed, clearances.c.vector.is_not(None))))
        .mappings()
        .all()
    )
    photos = await cleared.first_photos(connection, [row["entry_id"] for row in rows])
    values = await opened(connection, [cleared.stored_vector(row, photos.get(row["entry_id"])) for row in rows])
    return [row["id"] for row, value in zip(rows, values, strict=True) if value is None]


async def forget_embedding(connection: AsyncConnection, broken: BrokenEmbedding) -> None:
    """Remove an embedding, so that it is made anew of its photo."""
    this = (
        embeddings.c.reference_image_id == broken.reference_image_id,
        embeddings.c.space == broken.space,
    )
    await connection.execute(delete(embeddings).where(*this))


async def _sealed(connection: AsyncConnection, counts: Select[float, int]) -> Sealed:
    row = (await connection.execute(counts)).one()
    return Sealed(int(row[0]), row[1])
