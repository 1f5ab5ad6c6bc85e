"""Entries, reference images, embeddings and the change feed."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import ColumnElement, RowMapping, Select, and_, delete, func, insert, or_, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or_ignore
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db import faces
from facescreen.db.schema import changes, embeddings, entries, reference_images
from facescreen.domain.blacklist import Change, ChangeKind, Entry, ReferenceImage
from facescreen.domain.faces import Face, Vector, Vectors

_VECTOR = np.dtype("<f4")
_CHUNK = 500
"""Ids in one statement, below SQLite's limit on bound values."""

_IMAGES = select(reference_images, entries.c.folder).join(entries)
"""What :func:`_image` reads."""


class PhotoFile(NamedTuple):
    """A stored photo: its name in the entry's folder, and the SHA-256 of its bytes in hex."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class NewImage:
    """A reference image that is about to be stored, with its raw embedding (dimension,) in ``space``."""

    width: int
    height: int
    face: Face
    detector: str
    space: str
    vector: Vector


class StoredFile(NamedTuple):
    """A reference image's file, by its entry."""

    entry_id: int
    reference_image_id: int
    folder: str
    file: str
    sha256: str
    created_at: datetime


async def insert_entry(connection: AsyncConnection, *, name: str, reason: str, folder: str) -> int:
    """Add an entry without images and return its id."""
    now = datetime.now(UTC)
    row = {"name": name, "reason": reason, "folder": folder, "created_at": now, "updated_at": now}
    added: int = (await connection.execute(insert(entries).values(row).returning(entries.c.id))).scalar_one()
    return added


async def insert_images(
    connection: AsyncConnection, entry_id: int, images: Iterable[tuple[PhotoFile, NewImage]]
) -> None:
    """Add reference images with their embeddings, and say so in the change feed."""
    now = datetime.now(UTC)
    for file, image in images:
        row = {
            "entry_id": entry_id,
            "file": file.name,
            "sha256": file.sha256,
            "width": image.width,
            "height": image.height,
            "detector": image.detector,
            "created_at": now,
            **faces.to_columns(image.face),
        }
        added = await connection.execute(insert(reference_images).values(row).returning(reference_images.c.id))
        await insert_embedding(connection, entry_id, added.scalar_one(), space=image.space, vector=image.vector)
    await _touch(connection, entry_id)


async def insert_embedding(
    connection: AsyncConnection, entry_id: int, reference_image_id: int, *, space: str, vector: Vector
) -> None:
    """Keep the raw embedding of a reference image in one more space, and say so in the change feed.

    Does nothing where the image has one in this space already, or is gone.
    """
    exists = select(reference_images.c.id).where(reference_images.c.id == reference_image_id)
    if (await connection.execute(exists)).first() is None:
        return
    result = await connection.execute(
        insert_or_ignore(embeddings)
        .values(reference_image_id=reference_image_id, space=space, vector=vector.astype(_VECTOR).tobytes())
        .on_conflict_do_nothing()
    )
    if result.rowcount:
        await _append(connection, ChangeKind.EMBEDDED, entry_id, reference_image_id=reference_image_id)


async def update_entry(connection: AsyncConnection, entry_id: int, *, name: str | None, reason: str | None) -> bool:
    """Change what is given; whether there is such an entry."""
    values = {key: value for key, value in (("name", name), ("reason", reason)) if value is not None}
    if not await _touch(connection, entry_id, **values):
        return False
    await _append(connection, ChangeKind.EDITED, entry_id)
    return True


async def delete_images(connection: AsyncConnection, entry_id: int, image_ids: Sequence[int]) -> None:
    """Remove reference images of an entry and their embeddings, and say so in the change feed."""
    for image_id in image_ids:
        await connection.execute(
            delete(reference_images).where(reference_images.c.entry_id == entry_id, reference_images.c.id == image_id)
        )
        await _append(connection, ChangeKind.WITHDRAWN, entry_id, reference_image_id=image_id)
    await _touch(connection, entry_id)


async def delete_entry(connection: AsyncConnection, entry_id: int) -> None:
    """Remove an entry with all that hangs on it, and say so in the change feed."""
    ids = (
        await connection.execute(select(reference_images.c.id).where(reference_images.c.entry_id == entry_id))
    ).scalars()
    await delete_images(connection, entry_id, list(ids))
    await connection.execute(delete(entries).where(entries.c.id == entry_id))
    await _append(connection, ChangeKind.WITHDRAWN, entry_id)


async def get_entry(connection: AsyncConnection, entry_id: int) -> Entry | None:
    """The entry with its images, or ``None``."""
    found = await _entries(connection, select(entries).where(entries.c.id == entry_id))
    return found[0] if found else None


async def list_entries(
    connection: AsyncConnection, *, query: str | None, offset: int, limit: int | None
) -> tuple[int, list[Entry]]:
    """How many entries match, and a page of them, oldest first; ``query`` looks into name and reason, ignoring case."""
    where: list[ColumnElement[bool]] = []
    if query:
        where.append(or_(*(column.icontains(query, autoescape=True) for column in (entries.c.name, entries.c.reason))))
    total = (await connection.execute(select(func.count()).select_from(entries).where(*where))).scalar_one()
    page = select(entries).where(*where).order_by(entries.c.id).offset(offset).limit(-1 if limit is None else limit)
    return total, await _entries(connection, page)


async def existing_entries(connection: AsyncConnection, ids: Iterable[int]) -> set[int]:
    """Which of these entries there are."""
    rows = await connection.execute(select(entries.c.id).where(entries.c.id.in_(set(ids))))
    return set(rows.scalars())


async def references(connection: AsyncConnection, ids: Iterable[int]) -> dict[int, tuple[Entry, ReferenceImage]]:
    """Reference images by id, each with its entry (whose ``images`` are left empty). Ids that are gone are left out."""
    found = {}
    wanted = sorted(set(ids))
    for start in range(0, len(wanted), _CHUNK):
        chunk = reference_images.c.id.in_(wanted[start : start + _CHUNK])
        rows = await connection.execute(_IMAGES.where(chunk))
        images = [_image(row) for row in rows.mappings()]
        owners = await _bare_entries(connection, {image.entry_id for image in images})
        found.update({image.id: (owners[image.entry_id], image) for image in images})
    return found


async def image_hashes(connection: AsyncConnection, entry_id: int) -> set[str]:
    """SHA-256 of each of the entry's stored photos."""
    rows = await connection.execute(select(reference_images.c.sha256).where(reference_images.c.entry_id == entry_id))
    return set(rows.scalars())


async def stored_files(connection: AsyncConnection) -> list[StoredFile]:
    """The file of every reference image."""
    table = reference_images
    rows = await connection.execute(
        select(table.c.entry_id, table.c.id, entries.c.folder, table.c.file, table.c.sha256, table.c.created_at)
        .join(entries)
        .order_by(table.c.id)
    )
    return [StoredFile(*row) for row in rows]


async def entry_of_folder(connection: AsyncConnection, folder: str) -> int | None:
    """Id of the entry whose photos are in this folder."""
    return (await connection.execute(select(entries.c.id).where(entries.c.folder == folder))).scalar_one_or_none()


async def version(connection: AsyncConnection) -> int:
    """The version of the list: that of its last change, 0 before the first."""
    return (await connection.execute(select(func.max(changes.c.version)))).scalar_one() or 0


async def changes_since(connection: AsyncConnection, known: int) -> list[Change]:
    """The changes after a version, in order."""
    rows = await connection.execute(select(changes).where(changes.c.version > known).order_by(changes.c.version))
    return [Change(row.version, ChangeKind(row.kind), row.entry_id, row.reference_image_id) for row in rows]


async def vectors(
    connection: AsyncConnection, space: str, ids: Sequence[int] | None = None
) -> tuple[list[int], Vectors]:
    """Raw embeddings of a space as reference image ids and rows (n, dimension); shape (0, 0) where there are none.

    Args:
        ids: only these reference images; all of them where ``None``.
    """
    statement = select(embeddings.c.reference_image_id, embeddings.c.vector).where(embeddings.c.space == space)
    if ids is None:
        rows = (await connection.execute(statement)).all()
    else:
        rows = []
        for start in range(0, len(ids), _CHUNK):
            chunk = embeddings.c.reference_image_id.in_(ids[start : start + _CHUNK])
            rows += (await connection.execute(statement.where(chunk))).all()
    if not rows:
        return [], np.empty((0, 0), np.float32)
    found = np.frombuffer(b"".join(row.vector for row in rows), _VECTOR).reshape(len(rows), -1)
    return [row.reference_image_id for row in rows], found.astype(np.float32)


async def count_embeddings(connection: AsyncConnection, space: str) -> int:
    """How many reference images have an embedding in the space."""
    statement = select(func.count()).select_from(embeddings).where(embeddings.c.space == space)
    return (await connection.execute(statement)).scalar_one()


async def images_without_embedding(connection: AsyncConnection, space: str) -> list[ReferenceImage]:
    """Reference images that have no embedding in the space yet, oldest first."""
    embedded = and_(embeddings.c.reference_image_id == reference_images.c.id, embeddings.c.space == space)
    rows = await connection.execute(
        _IMAGES.outerjoin(embeddings, embedded).where(embeddings.c.space.is_(None)).order_by(reference_images.c.id)
    )
    return [_image(row) for row in rows.mappings()]


async def count(connection: AsyncConnection) -> tuple[int, int]:
    """How many entries and how many reference images there are."""
    people = (await connection.execute(select(func.count()).select_from(entries))).scalar_one()
    images = (await connection.execute(select(func.count()).select_from(reference_images))).scalar_one()
    return people, images


async def _entries(connection: AsyncConnection, statement: Select[Any]) -> list[Entry]:
    rows = (await connection.execute(statement)).all()
    images: dict[int, list[ReferenceImage]] = defaultdict(list)
    ids = [row.id for row in rows]
    for start in range(0, len(ids), _CHUNK):
        chunk = reference_images.c.entry_id.in_(ids[start : start + _CHUNK])
        found = await connection.execute(_IMAGES.where(chunk).order_by(reference_images.c.id))
        for row in found.mappings():
            images[row["entry_id"]].append(_image(row))
    return [Entry(**row._mapping, images=tuple(images[row.id])) for row in rows]  # noqa: SLF001 - SQLAlchemy's documented name


async def _bare_entries(connection: AsyncConnection, ids: set[int]) -> dict[int, Entry]:
    rows = (await connection.execute(select(entries).where(entries.c.id.in_(ids)))).mappings()
    return {row["id"]: Entry(**row, images=()) for row in rows}


async def _touch(connection: AsyncConnection, entry_id: int, **values: str) -> bool:
    statement = update(entries).where(entries.c.id == entry_id).values(updated_at=datetime.now(UTC), **values)
    return (await connection.execute(statement)).rowcount == 1


async def _append(
    connection: AsyncConnection, kind: ChangeKind, entry_id: int, *, reference_image_id: int | None = None
) -> None:
    await connection.execute(
        insert(changes).values(
            kind=kind, entry_id=entry_id, reference_image_id=reference_image_id, at=datetime.now(UTC)
        )
    )


def _image(row: RowMapping) -> ReferenceImage:
    return ReferenceImage(
        id=row["id"],
        entry_id=row["entry_id"],
        identity=f"{row['folder']}/{row['file']}",
        sha256=row["sha256"],
        width=row["width"],
        height=row["height"],
        face=faces.from_row(row),
        detector=row["detector"],
        created_at=row["created_at"],
    )
