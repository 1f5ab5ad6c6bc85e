"""Compares the database with the stores and the outside service, and repairs whichever side is wrong."""

import re
from collections.abc import AsyncIterator, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from facescreen.backends.base import GalleryBackend, GalleryFace, GalleryPhoto, Inventory
from facescreen.config import DetectorName, ModelName
from facescreen.db import blacklist, clearances, collections, files, screenings
from facescreen.db.connection import Database
from facescreen.db.files import FileName, StoreName
from facescreen.domain.blacklist import OUR_USER_ID, Collection, Entry, ReferenceImage, Status
from facescreen.domain.trail import Action
from facescreen.errors import AwsCollectionMissingError, EntryNotFoundError, InputError, ReferenceImageNotFoundError
from facescreen.services.encryption import EncryptionService
from facescreen.services.files import StoredFiles
from facescreen.services.intake import Intake
from facescreen.services.register import Register, gallery_key, person_of, present_entry
from facescreen.services.trail import record

_OUR_PHOTO = re.compile(rf"({OUR_USER_ID.pattern}|[a-z0-9\-]+-[0-9a-f]{{8}})/[0-9a-f]{{64}}\.jpg")
_OUR_COPY = re.compile(r"\d{4}-\d\d-\d\d/[0-9a-f]{32}\.jpg")
_SAME_FACE = 0.3
"""Overlap above which a detected box is the stored one; detectors differ in how much forehead belongs to a face."""


class FindingKind(StrEnum):
    """What does not fit."""

    UNFINISHED = "unfinished"
    """An entry or photo whose enrollment or withdrawal nobody goes on with."""
    FILE_LEFT_OVER = "file_left_over"
    """A stored file that no row names."""
    PHOTO_MISSING = "photo_missing"
    """A row's photo is not where it should be."""
    COPY_MISSING = "copy_missing"
    """The picture of a result is gone."""
    COLLECTION_MISSING = "collection_missing"
    """The outside service lacks the collection."""
    FACE_LEFT_OVER = "face_left_over"
    """The outside service keeps a face that no row knows."""
    FACE_MISSING = "face_missing"
    """The outside service lacks a face, or knows it under another id or as nobody's."""
    PERSON_LEFT_OVER = "person_left_over"
    """The outside service keeps a person that is no entry."""
    SEAL_BROKEN = "seal_broken"
    """An encrypted photo, copy, embedding or clearance that cannot be decrypted: its key is gone, or it was changed."""
    KEY_LEFT_OVER = "key_left_over"
    """A key of a file that no row knows."""
    FOREIGN = "foreign"
    """The outside service or a store holds something that was never ours; it is left alone."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not fit.

    Attributes:
        where: the store, or the collection.
        subject: our id, or the name of the file or face there.
        repaired: whether it fits now.
    """

    kind: FindingKind
    where: str
    subject: str
    repaired: bool = False


class AuditService:
    """Finds and repairs what crashes, outages and other people's hands left behind.

    Args:
        gallery: the outside service that keeps the faces, ``None`` where embeddings are kept here.
        copies_to: where every reference photo should be.
        encryption: ``None`` where nothing is encrypted.
    """

    def __init__(
        self,
        *,
        database: Database,
        stored: StoredFiles,
        register: Register,
        intake: Intake,
        gallery: GalleryBackend | None,
        copies_to: Sequence[StoreName],
        encryption: EncryptionService | None,
        detector: DetectorName,
        model: ModelName,
    ) -> None:
        self._database = database
        self._stored = stored
        self._register = register
        self._intake = intake
        self._gallery = gallery
        self._copies_to = copies_to
        self._encryption = encryption
        self._detector = detector
        self._model = model

    async def audit(self, *, fix: bool) -> AsyncIterator[Finding]:
        """Everything that does not fit, as it is found; repaired at once with ``fix``.

        Raises:
            AwsError: the outside service or the bucket cannot be asked.
        """
        if fix:
            # First: repairs are many transactions, and what ends them half way leaves none without an event.
            async with self._database.write() as connection:
                await record(connection, Action.AUDIT_FIX)
        async for finding in self._findings(fix=fix):
            yield finding

    async def _findings(self, *, fix: bool) -> AsyncIterator[Finding]:
        async for finding in self._unfinished(fix=fix):
            yield finding
        async for finding in self._files(fix=fix):
            yield finding
        if self._encryption is not None:
            async for finding in self._seals(self._encryption, fix=fix):
                yield finding
        if self._gallery is not None:
            for collection in await self._collections():
                async for finding in self._collection(self._gallery, collection, fix=fix):
                    yield finding

    async def _unfinished(self, *, fix: bool) -> AsyncIterator[Finding]:
        if fix:
            await self._stored.recover()
        for entry in await self._register.abandoned():
            repaired = fix and await self._register.finish(entry)
            yield Finding(FindingKind.UNFINISHED, entry.collection, f"entry {entry.id}", repaired=repaired)

    async def _files(self, *, fix: bool) -> AsyncIterator[Finding]:
        # Rows, files, and rows again: whatever is listed was announced before it was written, so rows or intents know
        # it then, and only what a row named before and still names has to be there.
        async with self._database.read() as connection:
            copies_before = await screenings.copies(connection)
            photos_before = await blacklist.photos(connection)
        listed = {store: set(await self._stored.names(store)) for store in self._stored.stores}
        async with self._database.read() as connection:
            named = await blacklist.named_photos(connection)
            copies = await screenings.copies(connection)
            announced = {intent.file for intent in await files.intents(connection)}
            photos = await blacklist.photos(connection)
        for store, known, ours in (
            (StoreName.PROCESSED, copies, _OUR_COPY),
            (StoreName.BUCKET, named, _OUR_PHOTO),
            (StoreName.BLACKLIST, named, None),  # people put their files there
        ):
            for name in sorted(listed.get(store, set()) - known):
                file = FileName(store, name)
                if file in announced:
                    continue
                if ours is None or not ours.fullmatch(name):
                    yield Finding(FindingKind.FOREIGN, store, name)
                else:
                    yield Finding(FindingKind.FILE_LEFT_OVER, store, name, repaired=fix and await self._forget(file))
        for name in sorted(copies & copies_before - listed[StoreName.PROCESSED]):
            yield Finding(FindingKind.COPY_MISSING, StoreName.PROCESSED, name)
        for store in self._copies_to:
            for name in sorted(photos & photos_before - listed[store]):
                if FileName(store, name) not in announced:
                    repaired = fix and await self._copy(name, store)
                    yield Finding(FindingKind.PHOTO_MISSING, store, name, repaired=repaired)

    async def _seals(self, encryption: EncryptionService, *, fix: bool) -> AsyncIterator[Finding]:
        # Where most keys are missing, the folder is another's or lost, and everything would go.
        fix = fix and await encryption.fits()
        async for broken in encryption.broken_files():
            repaired = fix and broken.is_erased and await self._delete_again(broken.file)
            yield Finding(FindingKind.SEAL_BROKEN, broken.file.store, broken.file.name, repaired=repaired)
        for embedding in await encryption.broken_embeddings():
            if fix:
                await encryption.forget(embedding)
            subject = f"embedding of photo {embedding.reference_image_id}, {embedding.space}"
            yield Finding(FindingKind.SEAL_BROKEN, embedding.collection, subject, repaired=fix)
        for clearance_id in await encryption.broken_clearances():
            if fix:
                async with self._database.write() as connection:
                    await clearances.undo(connection, clearance_id)
            yield Finding(FindingKind.SEAL_BROKEN, "database", f"clearance {clearance_id}", repaired=fix)
        for key in await encryption.keys_left_over():
            if fix:
                await encryption.drop(key)
            yield Finding(FindingKind.KEY_LEFT_OVER, "keys", key, repaired=fix)

    async def _delete_again(self, file: FileName) -> bool:
        """Remove what was deleted, and came back with a backup without its key; whether nothing is left of it."""
        if file.store is StoreName.PROCESSED:
            async with self._database.write() as connection:
                await screenings.forget_copy(connection, file.name)
                await files.intend(connection, [file], owner=None)
            return await self._stored.remove([file]) is None
        with suppress(FileNotFoundError):
            await self._stored.read_photo(file.name)
            return False  # another store has it
        async with self._database.read() as connection:
            faces = await blacklist.faces_of_photo(connection, file.name)
        for entry_id, image_ids in faces.items():
            with suppress(EntryNotFoundError, ReferenceImageNotFoundError):
                async with self._database.read() as connection:
                    entry = await present_entry(connection, entry_id)
                whole = {image.id for image in entry.images} == set(image_ids)
                await self._register.withdraw(entry, None if whole else image_ids)
        return True

    async def _collection(
        self, gallery: GalleryBackend, collection: Collection, *, fix: bool
    ) -> AsyncIterator[Finding]:
        # Others enroll and withdraw meanwhile. A face that the service has was known before or is known after, and only
        # one that was known before and is still so has to be there.
        before = await self._entries(collection)
        try:
            inventory = await gallery.inventory(collection.name)
        except AwsCollectionMissingError:
            if collection not in await self._collections():
                return  # deleted meanwhile
            try:
                if fix:
                    await gallery.create_collection(collection.name)
            except InputError:  # made on this machine, by a name that is too long there
                yield Finding(FindingKind.COLLECTION_MISSING, collection.name, collection.name)
                return
            yield Finding(FindingKind.COLLECTION_MISSING, collection.name, collection.name, repaired=fix)
            inventory = Inventory((), frozenset())
        after = await self._entries(collection)
        for steps in (self._faces_left_over, self._people_left_over):
            async for finding in steps(
                gallery, collection.name, inventory=inventory, entries=[*before, *after], fix=fix
            ):
                yield finding
        kept = {(face.face_id, face.person) for face in inventory.faces}
        settled = {(entry.user_id, image.id, image.face_id) for entry in before for image in _active(entry)}
        for entry in after:
            for image in _active(entry):
                is_settled = (entry.user_id, image.id, image.face_id) in settled
                if is_settled and (image.face_id, entry.user_id) not in kept:
                    repaired = fix and await self._enroll(gallery, entry, image, inventory=inventory)
                    yield Finding(FindingKind.FACE_MISSING, collection.name, f"photo {image.id}", repaired=repaired)

    async def _faces_left_over(
        self, gallery: GalleryBackend, name: str, *, inventory: Inventory, entries: Sequence[Entry], fix: bool
    ) -> AsyncIterator[Finding]:
        people = {entry.user_id for entry in entries}
        known = {
            (gallery_key(entry, image.id), image.face_id)
            for entry in entries
            if entry.user_id
            for image in entry.images
        }
        for face in inventory.faces:
            # Pending rows get the id of their face last.
            if not known.isdisjoint({(face.key, face.face_id), (face.key, None)}):
                continue
            if not _is_ours(face, people):
                yield Finding(FindingKind.FOREIGN, name, f"face {face.face_id}")
                continue
            if fix:
                await gallery.remove_faces(name, [face.face_id])
            yield Finding(FindingKind.FACE_LEFT_OVER, name, f"face {face.face_id}", repaired=fix)

    async def _people_left_over(
        self, gallery: GalleryBackend, name: str, *, inventory: Inventory, entries: Sequence[Entry], fix: bool
    ) -> AsyncIterator[Finding]:
        people = {entry.user_id for entry in entries}
        # A facescreen that is the service itself gives ids like ours to people of its own.
        others = {face.person for face in inventory.faces if not _is_ours(face, people)}
        for person in sorted(inventory.people - people):
            if person in others or not OUR_USER_ID.fullmatch(person):
                yield Finding(FindingKind.FOREIGN, name, f"user {person}")
                continue
            if fix:
                await gallery.withdraw(name, person, [], whole=True)
            yield Finding(FindingKind.PERSON_LEFT_OVER, name, f"user {person}", repaired=fix)

    async def _forget(self, file: FileName) -> bool:
        """Whether the file is gone; not if a row has come to know it since."""
        async with self._database.write() as connection:
            if await blacklist.kept_photos(connection, [file.name]):
                return False
            await files.intend(connection, [file], owner=None)
        return await self._stored.remove([file]) is None

    async def _copy(self, name: str, to: StoreName) -> bool:
        """Whether the photo was anywhere, and is in this store now."""
        copy = FileName(to, name)
        try:
            data = await self._stored.read_photo(name)
        except FileNotFoundError:
            return False
        # Not announced, for a row names it already: whatever fails now, the photo must not go.
        await self._stored.write({copy: data})
        return not await self._forget(copy)

    async def _enroll(
        self, gallery: GalleryBackend, entry: Entry, image: ReferenceImage, *, inventory: Inventory
    ) -> bool:
        """Whether the service knows the face now; not if its photo is gone or the service finds no such face."""
        try:
            pixels = await self._intake.decode(await self._stored.read_photo(image.photo))
            faces = await gallery.detect(pixels, self._detector)
            crops = (await gallery.prepare(pixels, faces, self._model)).crops
            overlaps = [image.face.box.intersection_over_union(face.box) for face in faces]
            if max(overlaps, default=0.0) < _SAME_FACE:
                return False
            crop = crops[overlaps.index(max(overlaps))]
            entry = await self._register.make_person(entry)
        except (FileNotFoundError, InputError, EntryNotFoundError):
            return False
        person, key = person_of(entry), gallery_key(entry, image.id)
        # What the service has under this key, but as nobody's, would be found a second time.
        stale = [face.face_id for face in inventory.faces if face.key == key]
        if stale:
            await gallery.remove_faces(entry.collection, stale)
        try:
            (face_id,) = await gallery.enroll(entry.collection, person, [GalleryPhoto(key, crop)])
        except InputError:
            await gallery.withdraw(entry.collection, person, [key], whole=False)
            return False
        async with self._database.write() as connection:
            present = await blacklist.get_entry(connection, entry.id)
            if present is not None and image in present.images:
                await blacklist.activate(connection, entry.id, {image.id: face_id})
                return True
        # Withdrawn meanwhile.
        await gallery.withdraw(entry.collection, person, [key], whole=present is None)
        return False

    async def _collections(self) -> list[Collection]:
        async with self._database.read() as connection:
            return await collections.list_collections(connection)

    async def _entries(self, collection: Collection) -> list[Entry]:
        async with self._database.read() as connection:
            _, entries = await blacklist.list_entries(connection, collection.id, limit=None)
        return entries


def _active(entry: Entry) -> list[ReferenceImage]:
    return [image for image in entry.images if image.status is Status.ACTIVE]


def _is_ours(face: GalleryFace, people: Container[str | None]) -> bool:
    """Whether the key is of the form of ours, and its person of the form of ours or an entry."""
    person, dot, image_id = (face.key or "").rpartition(".")
    return bool(dot) and image_id.isdecimal() and (person in people or OUR_USER_ID.fullmatch(person) is not None)
