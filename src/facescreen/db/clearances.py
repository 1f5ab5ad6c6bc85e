"""Cleared pairs: faces of results that a reviewer said are not the person of an entry.

A match carries the clearance that it does not count for; it is always one of the match's own entry.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, RowMapping, and_, case, delete, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db.batches import batches
from facescreen.db.schema import clearances, matches, reference_images, screened_faces
from facescreen.db.vectors import StoredVector, of_clearance, opened, pack, stacked
from facescreen.domain.faces import Vector
from facescreen.domain.screening import Clearance, Grade, Verdict

logger = logging.getLogger(__name__)

_CLEARANCE = select(*(column for column in clearances.c if column.name not in {"space", "vector", "sealed"}))
"""What a :class:`Clearance` is made of."""


@dataclass(frozen=True, slots=True)
class NewClearance:
    """A clearance that is about to be stored.

    Attributes:
        space, vector: the raw embedding (dimension,) of the face, and the space that it belongs to.
    """

    entry_id: int
    screening_id: int
    face_index: int
    note: str
    space: str
    vector: Vector


async def insert_clearance(connection: AsyncConnection, new: NewClearance) -> None:
    """Keep a clearance, which the face's matches of the entry carry from now on, and judge the face again.

    One that was given on the same face for the same entry before holds anew instead.
    """
    same = (
        clearances.c.entry_id == new.entry_id,
        clearances.c.screening_id == new.screening_id,
        clearances.c.face_index == new.face_index,
    )
    about = of_clearance(new.entry_id, new.screening_id, new.face_index)
    photo = (await first_photos(connection, [new.entry_id])).get(new.entry_id)
    holding = {
        "note": new.note,
        "expired_at": None,
        "space": new.space,
        **await pack(connection, new.vector, photo=photo, about=about),
    }
    renewed = await connection.execute(update(clearances).where(*same).values(holding).returning(clearances.c.id))
    clearance_id = renewed.scalar_one_or_none()
    if clearance_id is None:
        row = {
            "entry_id": new.entry_id,
            "screening_id": new.screening_id,
            "face_index": new.face_index,
            "created_at": datetime.now(UTC),
            **holding,
        }
        inserted = await connection.execute(insert(clearances).values(row).returning(clearances.c.id))
        clearance_id = inserted.scalar_one()
    face = select(screened_faces.c.id).where(
        screened_faces.c.screening_id == new.screening_id, screened_faces.c.face_index == new.face_index
    )
    face_id = (await connection.execute(face)).scalar_one()
    theirs = and_(matches.c.face_id == face_id, matches.c.entry_id == new.entry_id)
    await connection.execute(update(matches).where(theirs).values(clearance_id=clearance_id))
    await _forget_unseen(connection, clearances.c.entry_id == new.entry_id)
    await judge_again(connection, [face_id])


async def by_ids(connection: AsyncConnection, ids: Iterable[int]) -> Mapping[int, Clearance]:
    """Clearances by id, expired or not; ids that are gone are left out."""
    found: dict[int, Clearance] = {}
    for chunk in batches(ids):
        rows = await connection.execute(_CLEARANCE.where(clearances.c.id.in_(chunk)))
        found.update((row["id"], _clearance(row)) for row in rows.mappings())
    return found


async def clearances_of(
    connection: AsyncConnection, entry_ids: Iterable[int], space: str
) -> Mapping[int, list[tuple[Clearance, Vector]]]:
    """What holds for these entries in an embedding space, by entry, oldest first; entries without are left out.

    Each with the raw embedding (dimension,) of the face that was cleared. One that cannot be decrypted is left out, so
    that its pair alerts again.
    """
    found: defaultdict[int, list[tuple[Clearance, Vector]]] = defaultdict(list)
    for chunk in batches(entry_ids):
        rows = await connection.execute(
            select(clearances)
            .where(
                clearances.c.entry_id.in_(chunk),
                clearances.c.space == space,
                clearances.c.expired_at.is_(None),
            )
            .order_by(clearances.c.id)
        )
        held = rows.mappings().all()
        photos = await first_photos(connection, chunk)
        values = await opened(connection, [stored_vector(row, photos.get(row["entry_id"])) for row in held])
        for row, value in zip(held, values, strict=True):
            if value:
                found[row["entry_id"]].append((_clearance(row), stacked([value])[0]))
            elif value is None:
                logger.warning("clearance_unreadable")
    return dict(found)


async def clearances_elsewhere(
    connection: AsyncConnection, space: str, entry_ids: Iterable[int] | None = None
) -> list[Clearance]:
    """What holds in other embedding spaces, newest first.

    Args:
        entry_ids: only for these entries; for all where ``None``.
    """
    chunks = [[]] if entry_ids is None else batches(entry_ids)
    found: list[Clearance] = []
    for chunk in chunks:
        where = [clearances.c.space != space, clearances.c.expired_at.is_(None)]
        if entry_ids is not None:
            where.append(clearances.c.entry_id.in_(chunk))
        rows = await connection.execute(_CLEARANCE.where(*where).order_by(clearances.c.id.desc()))
        found += map(_clearance, rows.mappings())
    return found


async def replace_embedding(connection: AsyncConnection, clearance: Clearance, *, space: str, vector: Vector) -> None:
    """Keep the cleared face's raw embedding (dimension,) in this space instead, if the clearance still holds."""
    if clearance.screening_id is None:
        return
    about = of_clearance(clearance.entry_id, clearance.screening_id, clearance.face_index)
    photo = (await first_photos(connection, [clearance.entry_id])).get(clearance.entry_id)
    holding = (clearances.c.id == clearance.id, clearances.c.expired_at.is_(None))
    kept = {"space": space, **await pack(connection, vector, photo=photo, about=about)}
    await connection.execute(update(clearances).where(*holding).values(kept))


async def holding(connection: AsyncConnection, ids: Iterable[int]) -> set[int]:
    """Which of these clearances hold."""
    found: set[int] = set()
    for chunk in batches(ids):
        where = (clearances.c.id.in_(chunk), clearances.c.expired_at.is_(None))
        found.update((await connection.execute(select(clearances.c.id).where(*where))).scalars())
    return found


async def first_photos(connection: AsyncConnection, entry_ids: Iterable[int]) -> Mapping[int, str]:
    """The photos whose keys encrypt these entries' clearances, which hold while the entry's photos stay the same."""
    first = select(func.min(reference_images.c.id)).group_by(reference_images.c.entry_id)
    photos: dict[int, str] = {}
    for chunk in batches(entry_ids):
        ids = first.where(reference_images.c.entry_id.in_(chunk))
        columns = (reference_images.c.entry_id, reference_images.c.photo)
        rows = await connection.execute(select(*columns).where(reference_images.c.id.in_(ids)))
        photos.update((row.entry_id, row.photo) for row in rows)
    return photos


def stored_vector(row: RowMapping, photo: str | None) -> StoredVector:
    """The vector of a row, with the photo whose key encrypts it."""
    about = of_clearance(row["entry_id"], row["screening_id"], row["face_index"])
    return StoredVector(row["vector"], row["sealed"], photo, about)


async def expire_for_entry(connection: AsyncConnection, entry_id: int) -> None:
    """The entry's references change: what was cleared against the old ones does not hold any more.

    Results keep showing that they were judged with it; the embeddings are gone. What no result shows goes as a whole.
    """
    await _expire(connection, clearances.c.entry_id == entry_id)
    await _forget_unseen(connection, clearances.c.entry_id == entry_id)


async def expire_for_screenings(connection: AsyncConnection, screening_ids: Sequence[int]) -> None:
    """These results are about to be deleted, in this transaction: what was cleared on them does not hold any more.

    A clearance stays for as long as another result shows it.
    """
    on_them = clearances.c.screening_id.in_(screening_ids)
    await _expire(connection, on_them)
    theirs = matches.c.face_id.in_(select(screened_faces.c.id).where(screened_faces.c.screening_id.in_(screening_ids)))
    carried = select(matches.c.clearance_id).where(theirs, matches.c.clearance_id.is_not(None))
    given = select(clearances.c.id).where(on_them)
    ids = (await connection.execute(carried.union(given))).scalars().all()
    await connection.execute(update(matches).where(theirs).values(clearance_id=None))
    for chunk in batches(ids):
        await _forget_unseen(connection, clearances.c.id.in_(chunk))


async def undo(connection: AsyncConnection, clearance_id: int) -> None:
    """Remove a clearance: every match that carries it counts again, in every result."""
    await lift(connection, matches.c.clearance_id == clearance_id)
    await connection.execute(delete(clearances).where(clearances.c.id == clearance_id))


async def lift(connection: AsyncConnection, which: ColumnElement[bool]) -> None:
    """Those of ``matches`` that were cleared count again, and their faces are judged again."""
    lifted = await connection.execute(
        update(matches)
        .where(which, matches.c.clearance_id.is_not(None))
        .values(clearance_id=None)
        .returning(matches.c.face_id)
    )
    await judge_again(connection, lifted.scalars().all())


async def judge_again(connection: AsyncConnection, face_ids: Iterable[int]) -> None:
    """Give faces of results the verdict of their matches that count, or without any that of the picture's quality.

    A face whose matches were withdrawn stays so until one counts again.
    """
    verdict = case(
        (_counts(Grade.MATCH), Verdict.MATCH),
        (_counts(Grade.POSSIBLE), Verdict.POSSIBLE),
        (screened_faces.c.verdict == Verdict.WITHDRAWN, Verdict.WITHDRAWN),
        (func.json_array_length(screened_faces.c.reasons) == 0, Verdict.CLEAR),
        else_=Verdict.NOT_SCREENABLE,
    )
    for chunk in batches(face_ids):
        await connection.execute(update(screened_faces).where(screened_faces.c.id.in_(chunk)).values(verdict=verdict))


def _counts(grade: Grade) -> ColumnElement[bool]:
    """Whether a face has a match of this grade that counts."""
    return exists().where(
        matches.c.face_id == screened_faces.c.id, matches.c.grade == grade, matches.c.clearance_id.is_(None)
    )


async def _expire(connection: AsyncConnection, which: ColumnElement[bool]) -> None:
    expired = {"vector": None, "expired_at": datetime.now(UTC)}
    await connection.execute(update(clearances).where(which, clearances.c.expired_at.is_(None)).values(expired))


async def _forget_unseen(connection: AsyncConnection, which: ColumnElement[bool]) -> None:
    unseen = ~exists().where(matches.c.clearance_id == clearances.c.id)
    await connection.execute(delete(clearances).where(which, clearances.c.expired_at.is_not(None), unseen))


def _clearance(row: RowMapping) -> Clearance:
    return Clearance(
        id=row["id"],
        entry_id=row["entry_id"],
        screening_id=row["screening_id"],
        face_index=row["face_index"],
        note=row["note"],
        created_at=row["created_at"],
        expired_at=row["expired_at"],
    )
