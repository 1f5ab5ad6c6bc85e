"""Keep the list: enroll people from photos, change, look up and withdraw them."""

import re
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

from facescreen.db import blacklist
from facescreen.db.blacklist import NewEntry
from facescreen.db.connection import Database
from facescreen.domain.blacklist import Collection, Entry, EntryChanges, ReferenceImage, new_user_id
from facescreen.domain.trail import Action
from facescreen.errors import (
    DuplicateImageError,
    EnrollmentRejectedError,
    EntryNotFoundError,
    ExpiryInPastError,
    FaceUnusableError,
    InputError,
    NoFaceError,
    ReferenceImageNotFoundError,
    RejectedFile,
    TooManyImagesError,
)
from facescreen.services.collections import CollectionService
from facescreen.services.enrollment import Enroller, FaceSelection
from facescreen.services.files import StoredFiles
from facescreen.services.intake import Intake
from facescreen.services.register import Addition, NewPhoto, Register, entry_in_force, present_entry
from facescreen.services.resemblance import EnrollmentWarning, NamedPhoto, PhotoName, Resemblance
from facescreen.services.trail import record

NAME_LENGTH = 200
"""Characters that the name of an entry has at most."""


class Photo(NamedTuple):
    """An uploaded file: its name as the caller gave it, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class EnrollmentOptions:
    """What one request chooses.

    Attributes:
        quality_override: why photos are to be taken that miss the limits for reference photos.
        reject_duplicates: take nothing that looks like another entry.
    """

    selection: FaceSelection = FaceSelection.SINGLE
    quality_override: str | None = None
    reject_duplicates: bool = False


@dataclass(frozen=True, slots=True)
class Person:
    """Who is to be put on the list, and why; ``expires_at`` as in :class:`facescreen.domain.blacklist.Entry`."""

    name: str
    reason: str = ""
    expires_at: datetime | None = None


class Enrollment(NamedTuple):
    """The entry with its new photos, and what somebody should look at."""

    entry: Entry
    warnings: Sequence[EnrollmentWarning]


class BlacklistService:
    """Entries of one collection at a time, which every method is given the name of.

    Args:
        max_images: photos in one request.
    """

    def __init__(
        self,
        *,
        database: Database,
        collections: CollectionService,
        stored: StoredFiles,
        register: Register,
        enroller: Enroller,
        resemblance: Resemblance,
        intake: Intake,
        max_images: int,
    ) -> None:
        self._database = database
        self._collections = collections
        self._stored = stored
        self._register = register
        self._enroller = enroller
        self._resemblance = resemblance
        self._intake = intake
        self._max_images = max_images

    async def create(
        self, collection: str, person: Person, *, photos: Sequence[Photo], options: EnrollmentOptions
    ) -> Enrollment:
        """A new entry, recognized by these photos.

        Raises:
            ExpiryInPastError: it would have expired before it is stored.
            EnrollmentRejectedError: at least one photo is not usable or not good enough; nothing was stored.
            DuplicateEntryError: it looks like another entry, and the request rejects that; nothing was stored.
        """
        _refuse_past(person.expires_at)
        into = await self._collections.get(collection)
        usable = await self._usable(photos, options)
        warnings = await self._warnings(into, photos, usable, options=options)
        entry = NewEntry(person.name, person.reason, new_folder(person.name), new_user_id(), person.expires_at)
        return Enrollment(await self._add(into, entry, photos, usable=usable), warnings)

    async def add_images(
        self, collection: str, entry_id: int, photos: Sequence[Photo], *, options: EnrollmentOptions
    ) -> Enrollment:
        """The entry with more photos.

        Raises:
            EntryNotFoundError: there is no such entry.
            EnrollmentRejectedError: at least one photo is not usable, not good enough or stored already; nothing was
                stored.
            DuplicateEntryError: one looks like another entry, and the request rejects that; nothing was stored.
        """
        into = await self._collections.get(collection)
        entry = await self.get(collection, entry_id)
        usable = await self._usable(photos, options)
        warnings = await self._warnings(into, photos, usable, options=options, entry=entry)
        try:
            return Enrollment(await self._add(into, entry, photos, usable=usable), warnings)
        except DuplicateImageError as error:
            known = {image.sha256 for image in (await self.get(collection, entry_id)).images}
            rejected = [
                RejectedFile(photo.name, error.code, str(error))
                for photo, new in zip(photos, usable, strict=True)
                if new.sha256 in known
            ]
            if not rejected:  # known by what is stored of it: it was dropped into the folder as another file
                raise
            raise EnrollmentRejectedError(rejected) from None

    async def get(self, collection: str, entry_id: int) -> Entry:
        """The entry, or :class:`EntryNotFoundError`."""
        within = await self._collections.get(collection)
        async with self._database.read() as connection:
            return await present_entry(connection, entry_id, within=within)

    async def page(
        self, collection: str, query: str | None, *, offset: int, limit: int | None
    ) -> tuple[int, Sequence[Entry]]:
        """How many entries match the query, and a page of them, oldest first."""
        within = await self._collections.get(collection)
        async with self._database.read() as connection:
            return await blacklist.list_entries(connection, within.id, query=query, offset=offset, limit=limit)

    async def update(self, collection: str, entry_id: int, changed: EntryChanges) -> Entry:
        """The entry with what was given changed.

        Raises:
            EntryNotFoundError: there is no such entry, or it has expired, which nobody takes back.
            ExpiryInPastError: it would have expired already; to be rid of an entry, delete it.
        """
        _refuse_past(changed.get("expires_at"))
        within = await self._collections.get(collection)
        async with self._database.write() as connection:
            entry_in_force(await present_entry(connection, entry_id, within=within))
            await blacklist.update_entry(connection, entry_id, changed)
            await record(connection, Action.ENTRY_UPDATE, collection_id=within.id, entry_ids=[entry_id])
            return await present_entry(connection, entry_id, within=within)

    async def delete(self, collection: str, entry_id: int) -> Entry:
        """The entry that was; its folder, embeddings and matches are gone when this returns."""
        entry = await self.get(collection, entry_id)
        await self._register.withdraw(entry)
        return entry

    async def image(self, collection: str, entry_id: int, image_id: int) -> bytes:
        """The stored photo as browsers show it, or :class:`ReferenceImageNotFoundError`."""
        image = _image(await self.get(collection, entry_id), image_id)
        try:
            data = await self._stored.read_photo(image.photo)
        except FileNotFoundError:
            raise _no_image(image_id) from None
        return await self._intake.shown(data)

    async def delete_image(self, collection: str, entry_id: int, image_id: int) -> Entry:
        """The entry without this photo; one without photos stays and matches nobody, unless it was no person's."""
        entry = await self.get(collection, entry_id)
        _image(entry, image_id)
        await self._register.withdraw(entry, [image_id])
        try:
            return await self.get(collection, entry_id)
        except EntryNotFoundError:  # a face that was never made a person goes with its photo
            return replace(entry, images=())

    async def _add(
        self, into: Collection, entry: NewEntry | Entry, photos: Sequence[Photo], *, usable: Sequence[NewPhoto]
    ) -> Entry:
        try:
            (added,) = await self._register.add(into, [Addition(entry, usable)])
        except (NoFaceError, FaceUnusableError) as error:
            # The outside service takes a person's photos together and does not say which of them it refuses.
            name = photos[0].name if len(photos) == 1 else "images"
            raise EnrollmentRejectedError([RejectedFile(name, error.code, str(error))]) from None
        return added

    async def _warnings(
        self,
        into: Collection,
        photos: Sequence[Photo],
        usable: Sequence[NewPhoto],
        *,
        options: EnrollmentOptions,
        entry: Entry | None = None,
    ) -> list[EnrollmentWarning]:
        named = [
            NamedPhoto(PhotoName(photo.name, is_stored=False), new.enrolled)
            for photo, new in zip(photos, usable, strict=True)
        ]
        return await self._resemblance.warnings(into, named, entry=entry, reject_duplicates=options.reject_duplicates)

    async def _usable(self, photos: Sequence[Photo], options: EnrollmentOptions) -> list[NewPhoto]:
        rejected: list[RejectedFile] = []
        usable: list[NewPhoto] = []
        seen: set[str] = set()
        if len(photos) > self._max_images:
            raise TooManyImagesError(f"{len(photos)} photos in one request; at most {self._max_images} are allowed")
        for photo in photos:
            try:
                enrolled = await self._enroller.enroll(
                    photo.data, options.selection, quality_override=options.quality_override
                )
                new = await self._register.photo(enrolled)
                if new.sha256 in seen:
                    raise DuplicateImageError("this entry has the same photo already")
            except InputError as error:
                rejected.append(RejectedFile(photo.name, error.code, str(error)))
            else:
                seen.add(new.sha256)
                usable.append(new)
        if rejected:
            raise EnrollmentRejectedError(rejected)
        return usable


def lone_face(external_image_id: str | None, image_id: str) -> NewEntry:
    """An entry for a face that is no person's, named by the caller's name for its photo, else by the photo's id."""
    name = (external_image_id or image_id)[:NAME_LENGTH]
    return NewEntry(name, "", new_folder(name), None)


def new_folder(name: str) -> str:
    """A folder for the photos of somebody of this name that nobody else has."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")[:64] or "person"
    return f"{slug}-{secrets.token_hex(4)}"


def _refuse_past(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise ExpiryInPastError("`expires_at` must be in the future")


def _image(entry: Entry, image_id: int) -> ReferenceImage:
    for image in entry.images:
        if image.id == image_id:
            return image
    raise _no_image(image_id)


def _no_image(image_id: int) -> ReferenceImageNotFoundError:
    return ReferenceImageNotFoundError(f"this entry has no reference image {image_id}")
