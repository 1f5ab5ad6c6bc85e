"""The only place that adds and removes reference images: rows, files and the outside service agree whatever happens.

Where embeddings are kept here, each change is one transaction. Where an outside service keeps the faces, it is three
steps: rows that say ``pending`` (or ``withdrawing``), the outside calls, and the transaction that says ``active`` (or
removes the rows). What fails half way is taken back at once; what a crash or an outage leaves is found by its status.
"""

import asyncio
import hashlib
import logging
import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen import acting
from facescreen.backends.base import GalleryBackend, GalleryPhoto
from facescreen.db import blacklist, collections, files, idempotency, screenings
from facescreen.db.blacklist import NewEntry, NewImage
from facescreen.db.connection import Database
from facescreen.db.files import FileName, StoreName
from facescreen.domain.blacklist import OUR_USER_ID, Collection, Entry, ReferenceImage, Status, new_user_id
from facescreen.domain.trail import Action
from facescreen.errors import (
    CollectionNotFoundError,
    DuplicateImageError,
    EntryNotFoundError,
    EntryPendingError,
    FacescreenError,
    ReferenceImageNotFoundError,
)
from facescreen.images.decode import encode_jpeg
from facescreen.lifeline import to_the_end, uninterrupted
from facescreen.pool import WorkPool
from facescreen.services.answering import AnsweringModel
from facescreen.services.enrollment import Enrolled
from facescreen.services.files import StoredFiles, watched_by
from facescreen.services.trail import record

logger = logging.getLogger(__name__)

_QUALITY = 95


@dataclass(frozen=True, slots=True)
class NewPhoto:
    """A photo that was found usable.

    Attributes:
        copy: the upright photo as it is to be stored, JPEG.
        sha256: of ``copy``, or of the dropped file.
        dropped: file of the blacklist folder that it was enrolled from, ``None`` for uploads.
        seen_at: when that file was this photo.
        image_id: the same for all faces of one photo.
        photo: the name to store it under, ``None`` for one of its own.
    """

    enrolled: Enrolled
    copy: bytes
    sha256: str
    dropped: str | None = None
    seen_at: datetime | None = None
    image_id: str | None = None
    external_image_id: str | None = None
    photo: str | None = None


@dataclass(frozen=True, slots=True)
class Addition:
    """Photos for a new entry, or for one that there is."""

    entry: NewEntry | Entry
    photos: Sequence[NewPhoto]


@dataclass(frozen=True, slots=True)
class _Placed:
    """An addition whose entry is in the database, with the ids of the new images and their pixels."""

    entry: Entry
    image_ids: Sequence[int]
    photos: Sequence[NewPhoto]
    is_new: bool

    @property
    def wanted(self) -> frozenset[int] | None:
        """What is withdrawn to take it back."""
        return None if self.is_new else frozenset(self.image_ids)


class Register:
    """Adds and removes entries and their reference images.

    Args:
        gallery: the outside service that keeps the faces, ``None`` where embeddings are kept here.
        answering: embeds photos for the model that answers, ``None`` where an outside service keeps the faces.
        copies_to: where photos are written.
        folder: the blacklist folder.
    """

    def __init__(
        self,
        *,
        database: Database,
        stored: StoredFiles,
        pool: WorkPool,
        detector: str,
        gallery: GalleryBackend | None,
        answering: AnsweringModel | None,
        copies_to: Sequence[StoreName],
        folder: Path,
    ) -> None:
        self._database = database
        self._stored = stored
        self._pool = pool
        self._detector = detector
        self._gallery = gallery
        self._answering = answering
        self._copies_to = copies_to
        self._folder = folder
        self._running: set[asyncio.Task[Any]] = set()

    async def photo(self, enrolled: Enrolled) -> NewPhoto:
        """An uploaded photo, re-encoded without whatever its file said about itself."""
        copy = await self._pool.run(encode_jpeg, enrolled.pixels, quality=_QUALITY)
        return NewPhoto(enrolled, copy, hashlib.sha256(copy).hexdigest())

    async def add(self, collection: Collection, additions: Sequence[Addition]) -> list[Entry]:
        """The entries with their new photos, all of them or none.

        Raises:
            CollectionNotFoundError: the collection was deleted meanwhile.
            EntryNotFoundError: the collection has no such entry.
            EntryPendingError: the entry is being enrolled or withdrawn.
            DuplicateImageError: the entry has one of the photos already.
            AwsError, FaceUnusableError, NoFaceError: the outside service did not take all of it.
        """
        if self._gallery is None:
            return await self._add_here(collection, additions)
        with uninterrupted():
            return await to_the_end(self._add_outside(self._gallery, collection, additions), self._running)

    async def withdraw(
        self,
        entry: Entry,
        image_ids: Iterable[int] | None = None,
        *,
        keep_watched: bool = False,
        if_expired: bool = False,
    ) -> None:
        """Remove these reference images, or the whole entry with its folder and its matches in stored results.

        An entry that is no person of its own goes with its last photo. When this returns, nothing of it is left.

        Args:
            keep_watched: leave the blacklist folder alone, because what lies there now is something else.
            if_expired: not if somebody has prolonged it meanwhile.

        Raises:
            EntryNotFoundError, ReferenceImageNotFoundError: somebody was faster.
            EntryPendingError: one of the images is being enrolled.
            AwsError: the outside service did not do its part; the images match nobody, and doing it again goes on.
            StorageFullError: either nothing was done, or the photos are still on the disk, to go as soon as it lets
                them; then the images match nobody.
        """
        wanted = None if image_ids is None else frozenset(image_ids)
        # Photos that were dropped into the folder and not enrolled would be enrolled as somebody new one day.
        dropped = [] if keep_watched else await self._stored.within(StoreName.BLACKLIST, entry.folder)
        later = await self._put_there_later(entry, dropped)
        async with self._database.write() as connection:
            entry = await present_entry(connection, entry.id)
            if if_expired and not entry.has_expired(datetime.now(UTC)):
                raise EntryNotFoundError(f"blacklist entry {entry.id} has not expired any more")
            images = _chosen(entry, wanted)
            if wanted and not images:
                raise ReferenceImageNotFoundError("this entry has no such reference image any more")
            if await self._are_in_flight(images):
                raise EntryPendingError("this entry is being enrolled at this moment; try again shortly")
            leaving, watched = self._stored.photos_of(images), watched_by(images)
            if _is_whole(entry, wanted):
                watched.update(dropped)
                await idempotency.forget_answers(connection)
            leaving = leaving - watched if keep_watched else (leaving | watched) - later
            if self._gallery is None:
                await _delete(connection, entry, wanted)
            else:
                await _begin_withdrawal(connection, entry, wanted)
            kept = await blacklist.kept_photos(connection, [file.name for file in leaving])
            gone = [file for file in leaving if file.name not in kept]
            await files.intend(connection, gone, owner=None)
        if self._gallery is None:
            fault = await self._stored.remove(gone)
            await self._database.truncate_wal()
            if fault is not None:
                raise fault
        else:
            with uninterrupted():
                await to_the_end(self._withdraw_outside(self._gallery, entry, wanted, gone=gone), self._running)

    async def _put_there_later(self, entry: Entry, found: Sequence[FileName]) -> set[FileName]:
        """The files in the entry's folder that came, or were replaced, after it had expired: they are somebody else."""
        if entry.expires_at is None or not entry.has_expired(datetime.now(UTC)):
            return set()
        known = {(image.watched, image.sha256) for image in entry.images}
        later = set()
        for file in await asyncio.to_thread(self._changed_since, found, entry.expires_at):
            with suppress(FileNotFoundError):  # encryption and a restore change files, too
                if (file.name, hashlib.sha256(await self._stored.read(file)).hexdigest()) not in known:
                    later.add(file)
        return later

    def _changed_since(self, found: Iterable[FileName], moment: datetime) -> list[FileName]:
        changed = []
        for file in found:
            with suppress(FileNotFoundError):
                if (self._folder / file.name).stat().st_ctime >= moment.timestamp():
                    changed.append(file)
        return changed

    async def abandoned(self) -> list[Entry]:
        """Entries that are, or have photos that are, pending or being withdrawn, and nobody goes on with."""
        found = await self._unsettled()
        quiet = [entry for entry in found if not await self._are_in_flight(_unfinished(entry))]
        # Read again, for who was at work on it may have finished, and settled the files, since.
        unsettled = await self._unsettled()
        return [entry for entry in quiet if entry in unsettled]

    async def finish(self, entry: Entry) -> bool:
        """Take back an abandoned enrollment, or finish an abandoned withdrawal; not if somebody goes on with it."""
        wanted = [image.id for image in _unfinished(entry)] if entry.status is Status.ACTIVE else None
        with suppress(EntryNotFoundError, ReferenceImageNotFoundError):  # somebody was faster
            # Files of the blacklist folder that were to go with a withdrawal were announced by it. Those that an
            # enrollment failed for are somebody else's.
            try:
                await self.withdraw(entry, wanted, keep_watched=True)
            except EntryPendingError:
                return False
        return True

    async def make_person(self, entry: Entry) -> Entry:
        """The entry with an outward id, which it gets if it has none."""
        if entry.user_id is not None:
            return entry
        async with self._database.write() as connection:
            entry = await present_entry(connection, entry.id)
            if entry.user_id is None:
                await blacklist.set_user_id(connection, entry.id, new_user_id())
            return await present_entry(connection, entry.id)

    async def aclose(self) -> None:
        """Wait for what goes on though its caller is gone."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _add_here(self, collection: Collection, additions: Sequence[Addition]) -> list[Entry]:
        new, contents = await self._prepared(collection, additions)
        async with self._stored.writing(contents), self._database.write() as connection:
            placed = await self._place_all(connection, collection, new)
            await files.settle(connection, contents)
        if not all(item.is_new for item in placed):
            await self._database.truncate_wal()  # of clearances, which a new photo ends
        return [item.entry for item in placed]

    async def _add_outside(
        self, gallery: GalleryBackend, collection: Collection, additions: Sequence[Addition]
    ) -> list[Entry]:
        additions = [
            replace(addition, entry=await self.make_person(addition.entry))
            if isinstance(addition.entry, Entry)
            else addition
            for addition in additions
        ]
        new, contents = await self._prepared(collection, additions)
        # Rows before files, which are named after what is in them: that another request is about to write or to remove
        # the same one can be told by its row.
        async with self._database.write() as connection:
            placed = await self._place_all(connection, collection, new)
            await self._stored.announce(connection, contents)
        try:
            await self._stored.write(contents)
            return await self._publish(gallery, placed, contents)
        except Exception:
            await self._take_back(gallery, placed, contents)
            raise

    async def _prepared(
        self, collection: Collection, additions: Sequence[Addition]
    ) -> tuple[list[tuple[Addition, list[NewImage]]], dict[FileName, bytes]]:
        """The additions with their rows to be, and the files that go with them."""
        new = [
            (addition, [await self._new_image(collection, addition, photo) for photo in addition.photos])
            for addition in additions
        ]
        contents = {
            FileName(store, image.photo): photo.copy
            for addition, images in new
            for image, photo in zip(images, addition.photos, strict=True)
            for store in self._copies_to
            if FileName(store, image.photo) != FileName(StoreName.BLACKLIST, photo.dropped or "")
        }
        return new, contents

    async def _place_all(
        self, connection: AsyncConnection, collection: Collection, new: Iterable[tuple[Addition, list[NewImage]]]
    ) -> list[_Placed]:
        if await collections.get_collection(connection, collection.name) != collection:
            raise CollectionNotFoundError("this collection was deleted meanwhile")
        placed = [await self._place(connection, collection, addition, images=images) for addition, images in new]
        for action, is_new in ((Action.ENTRY_CREATE, True), (Action.IMAGE_ADD, False)):
            if ids := [item.entry.id for item in placed if item.is_new is is_new]:
                await record(connection, action, collection_id=collection.id, entry_ids=ids)
        return placed

    async def _place(
        self, connection: AsyncConnection, collection: Collection, addition: Addition, *, images: Sequence[NewImage]
    ) -> _Placed:
        status = Status.ACTIVE if self._gallery is None else Status.PENDING
        if isinstance(addition.entry, NewEntry):
            entry_id = await blacklist.insert_entry(connection, collection.id, addition.entry, status=status)
        else:
            entry_id = addition.entry.id
            present = entry_in_force(await present_entry(connection, entry_id, within=collection))
            hashes, names = {image.sha256 for image in images}, {image.photo for image in images}
            same = [image for image in present.images if image.sha256 in hashes or image.photo in names]
            if {present.status, *(image.status for image in same)} != {Status.ACTIVE}:
                raise EntryPendingError("this entry or photo is being enrolled or withdrawn at this moment")
            if same:
                raise DuplicateImageError("this entry has the same photo already")
        ids = await blacklist.insert_images(connection, entry_id, images, status=status)
        entry = await present_entry(connection, entry_id)
        return _Placed(entry, ids, addition.photos, is_new=isinstance(addition.entry, NewEntry))

    async def _publish(
        self, gallery: GalleryBackend, placed: Sequence[_Placed], contents: Mapping[FileName, bytes]
    ) -> list[Entry]:
        faces = []
        for item in placed:
            photos = [
                GalleryPhoto(gallery_key(item.entry, image_id), photo.enrolled.pixels)
                for image_id, photo in zip(item.image_ids, item.photos, strict=True)
            ]
            found = await gallery.enroll(item.entry.collection, person_of(item.entry), photos)
            faces.append(dict(zip(item.image_ids, found, strict=True)))
        async with self._database.write() as connection:
            for item, face_ids in zip(placed, faces, strict=True):
                present = await present_entry(connection, item.entry.id)
                if any(image.status is not Status.PENDING for image in _chosen(present, frozenset(face_ids))):
                    raise EntryPendingError("this entry was withdrawn meanwhile")
                await blacklist.activate(connection, item.entry.id, face_ids)
            await files.settle(connection, contents)
            return [await present_entry(connection, item.entry.id) for item in placed]

    async def _take_back(
        self, gallery: GalleryBackend, placed: Sequence[_Placed], contents: Iterable[FileName]
    ) -> None:
        try:
            async with self._database.write() as connection:
                await idempotency.retract_effect(connection)
                # Its collection may have been deleted meanwhile, and the entry with it.
                there = await blacklist.existing_entries(connection, [item.entry.id for item in placed])
                for item in placed:
                    if item.entry.id in there:
                        await _begin_withdrawal(connection, item.entry, item.wanted)
                await files.intend(connection, contents, owner=None)
            acting.claim.set(None)  # this task's own; what follows only undoes
            for item in placed:
                with suppress(EntryNotFoundError):
                    await self._withdraw_outside(gallery, item.entry, item.wanted, gone=list(contents))
        except FacescreenError as error:
            # Its rows are not active: the next start or audit goes on.
            logger.warning("enrollment_not_taken_back", extra={"code": error.code})

    async def _withdraw_outside(
        self, gallery: GalleryBackend, entry: Entry, wanted: frozenset[int] | None, *, gone: Sequence[FileName]
    ) -> None:
        """Remove what was announced to go, the files and what the service has, and the rows last."""
        if entry.user_id is not None:
            keys = [gallery_key(entry, image.id) for image in _chosen(entry, wanted)]
            await gallery.withdraw(entry.collection, entry.user_id, keys, whole=_is_whole(entry, wanted))
        fault = await self._stored.remove(gone)
        if fault is not None:
            raise fault
        async with self._database.write() as connection:
            await _delete(connection, await present_entry(connection, entry.id), wanted)
        await self._database.truncate_wal()

    async def _unsettled(self) -> list[Entry]:
        async with self._database.read() as connection:
            return await blacklist.unsettled_entries(connection)

    async def _are_in_flight(self, images: Sequence[ReferenceImage]) -> bool:
        """Whether a process that is alive is enrolling one of these images."""
        pending = [image for image in images if image.status is Status.PENDING]
        return bool(pending) and await self._stored.are_being_written(
            FileName(store, image.photo) for image in pending for store in self._copies_to
        )

    async def _new_image(self, collection: Collection, addition: Addition, photo: NewPhoto) -> NewImage:
        height, width, _ = photo.enrolled.pixels.shape
        name, watched = self._names(addition, photo)
        return NewImage(
            photo=name,
            watched=watched,
            sha256=photo.sha256,
            width=width,
            height=height,
            face=photo.enrolled.face,
            detector=self._detector,
            quality=photo.enrolled.quality,
            quality_override=photo.enrolled.quality_override,
            embedded=await self._answering.also_embedded(collection.id, photo.enrolled) if self._answering else (),
            image_id=photo.image_id or str(uuid.uuid4()),
            external_image_id=photo.external_image_id,
            seen_at=photo.seen_at,
        )

    def _names(self, addition: Addition, photo: NewPhoto) -> tuple[str, str | None]:
        """What the photo is stored under, and the file of the blacklist folder that it stands and falls with."""
        if self._gallery is not None:
            return f"{_own_folder(addition.entry)}/{hashlib.sha256(photo.copy).hexdigest()}.jpg", photo.dropped
        if photo.dropped is not None:
            return photo.dropped, photo.dropped
        if photo.photo is not None:
            return photo.photo, None
        name = photo_name(addition.entry.folder, photo.sha256)
        return name, name


def photo_name(folder: str, sha256: str) -> str:
    """A name for a photo that no other has.

    The random part keeps two requests with the same photo from announcing, and removing, each other's file.
    """
    return f"{folder}/{sha256[:16]}-{secrets.token_hex(4)}.jpg"


def gallery_key(entry: Entry, image_id: int) -> str:
    """Our name for a face in the outside service."""
    return f"{person_of(entry)}.{image_id}"


def person_of(entry: Entry | NewEntry) -> str:
    """The outward id of an entry that has one, as those have that :meth:`Register.make_person` returns."""
    if entry.user_id is None:
        raise AssertionError("an entry without an outward id cannot be enrolled in an outside service")
    return entry.user_id


def _own_folder(entry: Entry | NewEntry) -> str:
    """Where an entry's photos are kept for an outside service, which is no other entry's.

    An outward id that a caller chose need not be a name in a store, and entries of several collections may have it.
    The folder of such an entry, which was named after the id, is such a name and its alone.
    """
    user_id = person_of(entry)
    is_chosen = OUR_USER_ID.fullmatch(user_id) is None or entry.folder.startswith(f"{user_id}-")
    return entry.folder if is_chosen else user_id


def _chosen(entry: Entry, wanted: frozenset[int] | None) -> list[ReferenceImage]:
    """The entry's images with these ids, all where ``None``."""
    return [image for image in entry.images if wanted is None or image.id in wanted]


def _unfinished(entry: Entry) -> list[ReferenceImage]:
    return [image for image in entry.images if image.status is not Status.ACTIVE]


def _is_whole(entry: Entry, wanted: frozenset[int] | None) -> bool:
    """Whether the entry goes with these images: it is asked for, or a face that was never made a person."""
    return wanted is None or (entry.user_id is None and len(_chosen(entry, wanted)) == len(entry.images))


async def _begin_withdrawal(connection: AsyncConnection, entry: Entry, wanted: frozenset[int] | None) -> None:
    ids = [image.id for image in _chosen(entry, wanted)]
    await blacklist.begin_withdrawal(connection, entry.id, ids, whole=_is_whole(entry, wanted))


async def _delete(connection: AsyncConnection, entry: Entry, wanted: frozenset[int] | None) -> None:
    is_whole = _is_whole(entry, wanted)
    if is_whole:
        await screenings.withdraw_entry(connection, entry.id)
        await blacklist.delete_entry(connection, entry.id)
    else:
        await blacklist.delete_images(connection, entry.id, [image.id for image in _chosen(entry, wanted)])
    within = await collections.get_collection(connection, entry.collection)
    await record(
        connection,
        Action.ENTRY_DELETE if is_whole else Action.IMAGE_DELETE,
        collection_id=within.id if within else None,
        entry_ids=[entry.id],
    )


async def present_entry(connection: AsyncConnection, entry_id: int, *, within: Collection | None = None) -> Entry:
    """The entry, or :class:`EntryNotFoundError`; also if it is not in the collection that is given."""
    entry = await blacklist.get_entry(connection, entry_id)
    if within is None:
        if entry is None:
            raise EntryNotFoundError(f"there is no blacklist entry {entry_id}")
    elif entry is None or entry.collection != within.name:
        raise EntryNotFoundError(
            f"there is no blacklist entry {entry_id} in the collection {within.name}",
            elsewhere=entry.collection if entry else None,
        )
    return entry


def entry_in_force(entry: Entry) -> Entry:
    """The entry, or :class:`EntryNotFoundError` if it has expired: it is as good as deleted."""
    if entry.has_expired(datetime.now(UTC)):
        raise EntryNotFoundError(f"blacklist entry {entry.id} has expired")
    return entry
