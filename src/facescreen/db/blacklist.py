"""Entries, reference images, embeddings and the change feed."""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    FromClause,
    RowMapping,
    Select,
    String,
    Tuple,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.sqlite import insert as insert_or_ignore
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db import clearances, faces
from facescreen.db.batches import batches
from facescreen.db.schema import (
    changes,
    collections,
    embeddings,
    entries,
    matches,
    reference_images,
    screened_faces,
    screenings,
)
from facescreen.db.vectors import StoredVector, of_image, pack, unpack
from facescreen.domain.blacklist import Change, ChangeKind, Entry, EntryChanges, ReferenceImage, Status
from facescreen.domain.faces import Face, Vector, Vectors
from facescreen.domain.names import folded
from facescreen.domain.quality import FaceQuality

_ENTRIES = select(
    *(column for column in entries.c if column is not entries.c.collection_id), collections.c.name.label("collection")
).join(collections)
"""What an :class:`Entry` is made of, without its images."""


class NewEntry(NamedTuple):
    """An entry that is about to be stored; what it has is as in :class:`facescreen.domain.blacklist.Entry`."""

    name: str
    reason: str
    folder: str
    user_id: str | None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """The raw embedding (dimension,) of a face, and the space that it belongs to."""

    space: str
    vector: Vector


@dataclass(frozen=True, slots=True)
class NewImage:
    """A reference image that is about to be stored; names, ids and quality as in ``domain.blacklist.ReferenceImage``.

    Attributes:
        embedded: one embedding for each space that it is stored in; none where an outside service keeps the face.
        seen_at: when the watched file was this photo; it is another one if it was changed later. ``None``: now.
    """

    photo: str
    watched: str | None
    sha256: str
    width: int
    height: int
    face: Face
    detector: str
    quality: FaceQuality
    quality_override: str | None
    embedded: Sequence[Embedded]
    image_id: str
    external_image_id: str | None = None
    seen_at: datetime | None = None


class WatchedFile(NamedTuple):
    """A file of the blacklist folder and the reference image that stands and falls with it."""

    entry_id: int
    reference_image_id: int
    name: str
    sha256: str
    created_at: datetime


async def insert_entry(connection: AsyncConnection, collection_id: int, new: NewEntry, *, status: Status) -> int:
    """Add an entry without images and return its id."""
    now = datetime.now(UTC)
    row = {
        **new._asdict(),
        "collection_id": collection_id,
        "status": status,
        "created_at": now,
        "updated_at": now,
    }
    added: int = (await connection.execute(insert(entries).values(row).returning(entries.c.id))).scalar_one()
    return added


async def insert_images(
    connection: AsyncConnection, entry_id: int, images: Iterable[NewImage], *, status: Status
) -> list[int]:
    """Add reference images with their embeddings, say so in the change feed, and return their ids.

    Active ones get a face id; pending ones get theirs from the outside service.
    """
    now = datetime.now(UTC)
    collection_id = await _collection_of(connection, entry_id)
    ids = []
    for image in images:
        row = {
            "collection_id": collection_id,
            "entry_id": entry_id,
            "photo": image.photo,
            "watched": image.watched,
            "status": status,
            "face_id": str(uuid.uuid4()) if status is Status.ACTIVE else None,
            "image_id": image.image_id,
            "external_image_id": image.external_image_id,
            "sha256": image.sha256,
            "width": image.width,
            "height": image.height,
            "detector": image.detector,
            "quality": asdict(image.quality),
            "quality_override": image.quality_override,
            "created_at": image.seen_at or now,
            **faces.to_columns(image.face),
        }
        added = await connection.execute(insert(reference_images).values(row).returning(reference_images.c.id))
        image_id = added.scalar_one()
        ids.append(image_id)
        for embedded in image.embedded:
            await insert_embedding(connection, image_id, embedded)
    await clearances.expire_for_entry(connection, entry_id)
    await _touch(connection, entry_id)
    return ids


async def insert_embedding(connection: AsyncConnection, reference_image_id: int, embedded: Embedded) -> None:
    """Keep the raw embedding of a reference image in one more space, and say so in the change feed.

    Does nothing where the image has one in this space already, or is gone.
    """
    columns = (reference_images.c.entry_id, reference_images.c.collection_id, reference_images.c.photo)
    wanted = select(*columns).where(reference_images.c.id == reference_image_id)
    row = (await connection.execute(wanted)).one_or_none()
    if row is None:
        return
    about = of_image(reference_image_id, embedded.space)
    vector = await pack(connection, embedded.vector, photo=row.photo, about=about)
    result = await connection.execute(
        insert_or_ignore(embeddings)
        .values(
            reference_image_id=reference_image_id,
            space=embedded.space,
            collection_id=row.collection_id,
            **vector,
        )
        .on_conflict_do_nothing()
    )
    if result.rowcount:
        await _append(connection, ChangeKind.EMBEDDED, row.entry_id, reference_image_id=reference_image_id)


async def set_quality(connection: AsyncConnection, reference_image_id: int, quality: FaceQuality) -> None:
    """Keep what was measured of a photo that was stored before it could be."""
    of_image = reference_images.c.id == reference_image_id
    await connection.execute(update(reference_images).where(of_image).values(quality=asdict(quality)))


async def activate(connection: AsyncConnection, entry_id: int, face_ids: dict[int, str]) -> None:
    """An entry and these of its reference images are known to the outside service now, the faces by these ids."""
    for image_id, face_id in face_ids.items():
        await connection.execute(
            update(reference_images)
            .where(reference_images.c.id == image_id)
            .values(status=Status.ACTIVE, face_id=face_id)
        )
        await _append(connection, ChangeKind.EMBEDDED, entry_id, reference_image_id=image_id)
    await connection.execute(update(entries).where(entries.c.id == entry_id).values(status=Status.ACTIVE))
    await clearances.expire_for_entry(connection, entry_id)


async def begin_withdrawal(
    connection: AsyncConnection, entry_id: int, image_ids: Sequence[int], *, whole: bool
) -> None:
    """These reference images, and with ``whole`` the entry, match nobody from now on."""
    for image_id in image_ids:
        await connection.execute(
            update(reference_images)
            .where(reference_images.c.entry_id == entry_id, reference_images.c.id == image_id)
            .values(status=Status.WITHDRAWING)
        )
        await _append(connection, ChangeKind.WITHDRAWN, entry_id, reference_image_id=image_id)
    if image_ids:
        await clearances.expire_for_entry(connection, entry_id)
    if whole:
        await connection.execute(update(entries).where(entries.c.id == entry_id).values(status=Status.WITHDRAWING))


async def update_entry(connection: AsyncConnection, entry_id: int, changed: EntryChanges) -> None:
    """Change what is given."""
    await _touch(connection, entry_id, changed)
    await _append(connection, ChangeKind.EDITED, entry_id)


async def set_user_id(connection: AsyncConnection, entry_id: int, user_id: str | None) -> None:
    """Make the entry a person with this outward id, or no person of its own any more."""
    await connection.execute(update(entries).where(entries.c.id == entry_id).values(user_id=user_id))
    await _append(connection, ChangeKind.EDITED, entry_id)


async def move_images(connection: AsyncConnection, image_ids: Sequence[int], entry_id: int) -> None:
    """Make these reference images another entry's of the same collection; stored matches of them follow.

    A face in a result that has one match per person keeps the best of those that are the same person's now. Matches
    that were cleared count again: nobody said anything about the other entry.
    """
    changed = {entry_id}
    for image_id in image_ids:
        moved = reference_images.c.id == image_id
        owner = (await connection.execute(select(reference_images.c.entry_id).where(moved))).scalar_one()
        changed.add(owner)
        # By the entry that they are of, which is indexed; the image is not.
        theirs = and_(matches.c.entry_id == owner, matches.c.reference_image_id == image_id)
        await clearances.lift(connection, theirs)
        await connection.execute(update(matches).where(theirs).values(entry_id=entry_id))
        await connection.execute(update(reference_images).where(moved).values(entry_id=entry_id))
    await _keep_nearest(connection, entry_id)
    for each in changed:
        await clearances.expire_for_entry(connection, each)
    await _touch(connection, entry_id)
    await _append(connection, ChangeKind.EDITED, entry_id)


async def delete_images(connection: AsyncConnection, entry_id: int, image_ids: Sequence[int]) -> None:
    """Remove reference images of an entry and their embeddings, and say so in the change feed."""
    for image_id in image_ids:
        await connection.execute(
            delete(reference_images).where(reference_images.c.entry_id == entry_id, reference_images.c.id == image_id)
        )
        await _append(connection, ChangeKind.WITHDRAWN, entry_id, reference_image_id=image_id)
    if image_ids:
        await clearances.expire_for_entry(connection, entry_id)
    await _touch(connection, entry_id)


async def delete_entry(connection: AsyncConnection, entry_id: int) -> None:
    """Remove an entry with all that hangs on it, and say so in the change feed."""
    ids = (
        await connection.execute(select(reference_images.c.id).where(reference_images.c.entry_id == entry_id))
    ).scalars()
    await delete_images(connection, entry_id, list(ids))
    await _append(connection, ChangeKind.WITHDRAWN, entry_id)
    await connection.execute(delete(entries).where(entries.c.id == entry_id))


async def get_entry(connection: AsyncConnection, entry_id: int) -> Entry | None:
    """The entry with its images, or ``None``."""
    found = await _with_images(connection, _ENTRIES.where(entries.c.id == entry_id))
    return found[0] if found else None


async def get_person(connection: AsyncConnection, collection_id: int, user_id: str) -> Entry | None:
    """The entry with this outward id, or ``None``."""
    where = (entries.c.collection_id == collection_id, entries.c.user_id == user_id)
    found = await _with_images(connection, _ENTRIES.where(*where))
    return found[0] if found else None


async def list_entries(
    connection: AsyncConnection, collection_id: int, *, query: str | None = None, offset: int = 0, limit: int | None
) -> tuple[int, list[Entry]]:
    """How many entries match, and a page of them, oldest first.

    Args:
        query: part of the name or the reason, in any case of any script and however it is encoded.
    """
    where: list[ColumnElement[bool]] = [entries.c.collection_id == collection_id]
    if query:
        texts = (func.folded(column, type_=String) for column in (entries.c.name, entries.c.reason))
        where.append(or_(*(text.contains(folded(query), autoescape=True) for text in texts)))
    total = (await connection.execute(select(func.count()).select_from(entries).where(*where))).scalar_one()
    page = _ENTRIES.where(*where).order_by(entries.c.id).offset(offset).limit(-1 if limit is None else limit)
    return total, await _with_images(connection, page)


async def unsettled_entries(connection: AsyncConnection) -> list[Entry]:
    """Entries of all collections that are, or have photos that are, pending or being withdrawn."""
    images = select(reference_images.c.entry_id).where(reference_images.c.status != Status.ACTIVE)
    where = or_(entries.c.status != Status.ACTIVE, entries.c.id.in_(images))
    return await _with_images(connection, _ENTRIES.where(where).order_by(entries.c.id))


def is_in_force() -> ColumnElement[bool]:
    """Whether an entry has not expired at this moment; one that has matches nobody, though it is still there."""
    return or_(entries.c.expires_at.is_(None), entries.c.expires_at > datetime.now(UTC))


async def expired_entries(connection: AsyncConnection) -> list[Entry]:
    """Entries of all collections that have expired."""
    return await _with_images(connection, _ENTRIES.where(~is_in_force()).order_by(entries.c.id))


async def existing_entries(connection: AsyncConnection, ids: Iterable[int]) -> set[int]:
    """Which of these entries there are."""
    rows = await connection.execute(select(entries.c.id).where(entries.c.id.in_(set(ids))))
    return set(rows.scalars())


async def owners_of(connection: AsyncConnection, image_ids: Iterable[int]) -> dict[int, int]:
    """Whose these reference images are, by id; ids that are gone, or of entries that have expired, are left out."""
    owners: dict[int, int] = {}
    owned = select(reference_images.c.id, reference_images.c.entry_id).join(entries).where(is_in_force())
    for ids in batches(image_ids):
        rows = await connection.execute(owned.where(reference_images.c.id.in_(ids)))
        owners.update((row.id, row.entry_id) for row in rows)
    return owners


async def references(connection: AsyncConnection, ids: Iterable[int]) -> dict[int, tuple[Entry, ReferenceImage]]:
    """Active reference images by id, each with its entry (whose ``images`` are left empty).

    Ids that are gone, or of entries that have expired, are left out.
    """
    return {image.id: (owner, image) for owner, image in await _owned(connection, reference_images.c.id, ids)}


async def references_by_face(
    connection: AsyncConnection, face_ids: Iterable[str]
) -> dict[str, tuple[Entry, ReferenceImage]]:
    """The same by the outward id of the face."""
    owned = await _owned(connection, reference_images.c.face_id, face_ids)
    return {image.face_id: (owner, image) for owner, image in owned if image.face_id is not None}


async def watched_files(connection: AsyncConnection) -> list[WatchedFile]:
    """Every file of the blacklist folder that a reference image stands and falls with."""
    table = reference_images
    rows = await connection.execute(
        select(table.c.entry_id, table.c.id, table.c.watched, table.c.sha256, table.c.created_at)
        .where(table.c.watched.is_not(None))
        .order_by(table.c.id)
    )
    return [WatchedFile(*row) for row in rows]


async def named_photos(connection: AsyncConnection) -> set[str]:
    """Names that rows know, of photos and of watched files."""
    found: set[str] = set()
    for column in (reference_images.c.photo, reference_images.c.watched):
        found.update((await connection.execute(select(column).where(column.is_not(None)))).scalars())
    return found


async def kept_photos(connection: AsyncConnection, names: Sequence[str]) -> set[str]:
    """Those of the names that rows know which are not being withdrawn."""
    found: set[str] = set()
    for some in batches(names):
        for column in (reference_images.c.photo, reference_images.c.watched):
            kept = select(column).where(column.in_(some), reference_images.c.status != Status.WITHDRAWING)
            found.update((await connection.execute(kept)).scalars())
    return found


async def faces_of_photo(connection: AsyncConnection, name: str) -> dict[int, list[int]]:
    """The reference images of a photo or watched file, by their entries."""
    table = reference_images
    known = or_(table.c.photo == name, table.c.watched == name)
    found: dict[int, list[int]] = defaultdict(list)
    for row in await connection.execute(select(table.c.entry_id, table.c.id).where(known)):
        found[row.entry_id].append(row.id)
    return found


async def photos(connection: AsyncConnection) -> set[str]:
    """Names of the photos of all active reference images."""
    statement = select(reference_images.c.photo).where(reference_images.c.status == Status.ACTIVE)
    return set((await connection.execute(statement)).scalars())


async def entry_of_folder(connection: AsyncConnection, folder: str) -> int | None:
    """Id of the entry whose photos are in this folder."""
    return (await connection.execute(select(entries.c.id).where(entries.c.folder == folder))).scalar_one_or_none()


async def version(connection: AsyncConnection, collection_id: int) -> int:
    """The version of a collection: that of its last change, 0 before the first."""
    newest = select(func.max(changes.c.version)).where(changes.c.collection_id == collection_id)
    return (await connection.execute(newest)).scalar_one() or 0


async def changes_since(connection: AsyncConnection, collection_id: int, known: int) -> list[Change]:
    """The changes of a collection after a version, in order."""
    rows = await connection.execute(
        select(changes)
        .where(changes.c.collection_id == collection_id, changes.c.version > known)
        .order_by(changes.c.version)
    )
    return [Change(row.version, ChangeKind(row.kind), row.entry_id, row.reference_image_id) for row in rows]


async def vectors(
    connection: AsyncConnection, collection_id: int, space: str, *, ids: Sequence[int] | None = None
) -> tuple[list[int], Vectors]:
    """Raw embeddings of a space as reference image ids and rows (n, dimension); shape (0, 0) where there are none.

    Args:
        ids: only these reference images; all of the collection where ``None``.

    Raises:
        EmbeddingsUnreadableError: some of them cannot be decrypted.
    """
    columns = (embeddings.c.reference_image_id, embeddings.c.vector, embeddings.c.sealed, reference_images.c.photo)
    statement = (
        select(*columns)
        .join(reference_images)
        .where(embeddings.c.collection_id == collection_id, embeddings.c.space == space)
    )
    if ids is None:
        rows = (await connection.execute(statement)).all()
    else:
        rows = []
        for some in batches(ids):
            rows += (await connection.execute(statement.where(embeddings.c.reference_image_id.in_(some)))).all()
    stored = [StoredVector(row.vector, row.sealed, row.photo, of_image(row.reference_image_id, space)) for row in rows]
    return [row.reference_image_id for row in rows], await unpack(connection, stored)


async def count_embedded(connection: AsyncConnection, collection_id: int, space: str) -> tuple[int, int]:
    """How many active reference images of the collection have an embedding in the space, and how many have none."""
    images = select(func.count()).where(
        reference_images.c.collection_id == collection_id, reference_images.c.status == Status.ACTIVE
    )
    embedded = select(func.count()).where(embeddings.c.collection_id == collection_id, embeddings.c.space == space)
    row = (await connection.execute(select(images.scalar_subquery(), embedded.scalar_subquery()))).one()
    return row[1], row[0] - row[1]


async def coverage(connection: AsyncConnection, collection_id: int) -> tuple[int, dict[str, int]]:
    """How many active reference images the collection has, and how many have an embedding in each space."""
    images = select(func.count()).where(
        reference_images.c.collection_id == collection_id, reference_images.c.status == Status.ACTIVE
    )
    embedded = (
        select(embeddings.c.space, func.count())
        .where(embeddings.c.collection_id == collection_id)
        .group_by(embeddings.c.space)
    )
    size: int = (await connection.execute(images)).scalar_one()
    return size, {row[0]: row[1] for row in await connection.execute(embedded)}


async def incomplete_collections(connection: AsyncConnection, space: str) -> dict[int, tuple[int, int]]:
    """Collections with photos that have no embedding in the space: how many photos, and how many of them have none."""
    images, owner = reference_images.c, embeddings.c.collection_id
    active = select(images.collection_id, func.count()).where(images.status == Status.ACTIVE)
    sizes = await connection.execute(active.group_by(images.collection_id))
    counted = select(owner, func.count()).where(embeddings.c.space == space).group_by(owner)
    embedded = {row[0]: row[1] for row in await connection.execute(counted)}
    found = {row[0]: (row[1], row[1] - embedded.get(row[0], 0)) for row in sizes}
    return {id_: (size, missing) for id_, (size, missing) in found.items() if missing > 0}


async def images_without_embedding(
    connection: AsyncConnection, space: str, collection_id: int | None = None
) -> list[ReferenceImage]:
    """Active reference images, of one collection or of all, without an embedding in the space, oldest first."""
    embedded = and_(embeddings.c.reference_image_id == reference_images.c.id, embeddings.c.space == space)
    where = [embeddings.c.space.is_(None), reference_images.c.status == Status.ACTIVE]
    if collection_id is not None:
        where.append(reference_images.c.collection_id == collection_id)
    rows = await connection.execute(
        select(reference_images).outerjoin(embeddings, embedded).where(*where).order_by(reference_images.c.id)
    )
    return [_image(row) for row in rows.mappings()]


async def lacks_embedding(connection: AsyncConnection, reference_image_id: int, space: str) -> bool:
    """Whether the reference image is there, active and without an embedding in the space."""
    embedded = exists().where(embeddings.c.reference_image_id == reference_images.c.id, embeddings.c.space == space)
    where = (reference_images.c.id == reference_image_id, reference_images.c.status == Status.ACTIVE, ~embedded)
    return (await connection.execute(select(reference_images.c.id).where(*where))).first() is not None


async def _with_images(connection: AsyncConnection, statement: Select[Any]) -> list[Entry]:
    rows = (await connection.execute(statement)).mappings().all()
    images: dict[int, list[ReferenceImage]] = defaultdict(list)
    for ids in batches(row["id"] for row in rows):
        chunk = reference_images.c.entry_id.in_(ids)
        found = await connection.execute(select(reference_images).where(chunk).order_by(reference_images.c.id))
        for row in found.mappings():
            images[row["entry_id"]].append(_image(row))
    return [_entry(row, tuple(images[row["id"]])) for row in rows]


async def _owned(
    connection: AsyncConnection, column: Column[Any], keys: Iterable[Any]
) -> list[tuple[Entry, ReferenceImage]]:
    """Active reference images of entries in force by a column's values, each with its entry without images."""
    found = []
    for some in batches(keys):
        active = reference_images.c.status == Status.ACTIVE
        rows = await connection.execute(select(reference_images).where(column.in_(some), active))
        images = [_image(row) for row in rows.mappings()]
        theirs = entries.c.id.in_({image.entry_id for image in images})
        owners = await connection.execute(_ENTRIES.where(theirs, is_in_force()))
        by_id = {row["id"]: _entry(row, ()) for row in owners.mappings()}
        found += [(by_id[image.entry_id], image) for image in images if image.entry_id in by_id]
    return found


async def _keep_nearest(connection: AsyncConnection, entry_id: int) -> None:
    """Of an entry's matches with one face, remove all but the nearest, unless all references were asked for.

    Whoever was cleared comes after those that count: an alert is never lost by this.
    """

    def rank(of: FromClause) -> Tuple:
        return tuple_(of.c.clearance_id.is_not(None), of.c.distance, of.c.reference_image_id)

    nearer = matches.alias()
    is_nearer = exists().where(
        nearer.c.face_id == matches.c.face_id, nearer.c.entry_id == entry_id, rank(nearer) < rank(matches)
    )
    asked_for_one = exists().where(
        screened_faces.c.id == matches.c.face_id,
        screenings.c.id == screened_faces.c.screening_id,
        ~screenings.c.all_references,
    )
    await connection.execute(delete(matches).where(matches.c.entry_id == entry_id, is_nearer, asked_for_one))


async def _touch(connection: AsyncConnection, entry_id: int, changed: EntryChanges | None = None) -> None:
    values_now = {"updated_at": datetime.now(UTC), **(changed or {})}
    await connection.execute(update(entries).where(entries.c.id == entry_id).values(values_now))


async def _collection_of(connection: AsyncConnection, entry_id: int) -> int:
    of_entry = select(entries.c.collection_id).where(entries.c.id == entry_id)
    found: int = (await connection.execute(of_entry)).scalar_one()
    return found


async def _append(
    connection: AsyncConnection, kind: ChangeKind, entry_id: int, *, reference_image_id: int | None = None
) -> None:
    await connection.execute(
        insert(changes).values(
            collection_id=await _collection_of(connection, entry_id),
            kind=kind,
            entry_id=entry_id,
            reference_image_id=reference_image_id,
            at=datetime.now(UTC),
        )
    )


def _entry(row: RowMapping, images: tuple[ReferenceImage, ...]) -> Entry:
    return Entry(**{**row, "status": Status(row["status"])}, images=images)


def _image(row: RowMapping) -> ReferenceImage:
    return ReferenceImage(
        id=row["id"],
        entry_id=row["entry_id"],
        photo=row["photo"],
        watched=row["watched"],
        status=Status(row["status"]),
        face_id=row["face_id"],
        image_id=row["image_id"],
        external_image_id=row["external_image_id"],
        sha256=row["sha256"],
        width=row["width"],
        height=row["height"],
        face=faces.from_row(row),
        detector=row["detector"],
        created_at=row["created_at"],
        quality=FaceQuality(**row["quality"]) if row["quality"] else None,
        quality_override=row["quality_override"],
    )
