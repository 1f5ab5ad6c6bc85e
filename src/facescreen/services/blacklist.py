"""Keep the list: enroll people from photos, change, look up and withdraw them."""

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db import blacklist, files, screenings
from facescreen.db.blacklist import NewImage, PhotoFile
from facescreen.db.connection import Database
from facescreen.db.files import FileName, StoreName
from facescreen.domain.blacklist import Entry, ReferenceImage
from facescreen.errors import (
    DuplicateImageError,
    EnrollmentRejectedError,
    EntryNotFoundError,
    InputError,
    ReferenceImageNotFoundError,
    RejectedFile,
    TooManyImagesError,
)
from facescreen.images.decode import encode_jpeg
from facescreen.pool import WorkPool
from facescreen.services.enrollment import Enroller, FaceSelection
from facescreen.services.files import StoredFiles

_QUALITY = 95


class Photo(NamedTuple):
    """An uploaded file: its name as the caller gave it, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class _Enrollable:
    copy: bytes
    file: PhotoFile
    row: NewImage


class BlacklistService:
    """Every change is one transaction, made after all photos were found usable.

    Args:
        max_images: photos in one request.
    """

    def __init__(
        self,
        *,
        database: Database,
        stored: StoredFiles,
        enroller: Enroller,
        pool: WorkPool,
        max_images: int,
    ) -> None:
        self._database = database
        self._stored = stored
        self._enroller = enroller
        self._pool = pool
        self._max_images = max_images

    async def create(self, name: str, reason: str, photos: Sequence[Photo], *, selection: FaceSelection) -> Entry:
        """A new entry, recognized by these photos.

        Raises:
            EnrollmentRejectedError: at least one photo has no usable face (or several); nothing was stored.
        """
        folder = f"{_slug(name)}-{secrets.token_hex(4)}"
        enrollable = await self._enrollable(photos, selection)
        contents = _contents(folder, enrollable)
        async with self._stored.writing(contents), self._database.write() as connection:
            entry_id = await blacklist.insert_entry(connection, name=name, reason=reason, folder=folder)
            await blacklist.insert_images(connection, entry_id, [(photo.file, photo.row) for photo in enrollable])
            await files.settle(connection, contents)
            return await _entry(connection, entry_id)

    async def add_images(self, entry_id: int, photos: Sequence[Photo], selection: FaceSelection) -> Entry:
        """The entry with more photos.

        Raises:
            EntryNotFoundError: there is no such entry.
            EnrollmentRejectedError: at least one photo is not usable or is stored already; nothing was stored.
        """
        folder = (await self.get(entry_id)).folder
        enrollable = await self._enrollable(photos, selection)
        contents = _contents(folder, enrollable)
        async with self._stored.writing(contents), self._database.write() as connection:
            await _entry(connection, entry_id)
            known = await blacklist.image_hashes(connection, entry_id)
            _refuse_known(photos, enrollable, known)
            await blacklist.insert_images(connection, entry_id, [(photo.file, photo.row) for photo in enrollable])
            await files.settle(connection, contents)
            return await _entry(connection, entry_id)

    async def get(self, entry_id: int) -> Entry:
        """The entry, or :class:`EntryNotFoundError`."""
        async with self._database.read() as connection:
            return await _entry(connection, entry_id)

    async def page(self, query: str | None, offset: int, limit: int | None) -> tuple[int, Sequence[Entry]]:
        """How many entries match the query, and a page of them, oldest first."""
        async with self._database.read() as connection:
            return await blacklist.list_entries(connection, query=query, offset=offset, limit=limit)

    async def update(self, entry_id: int, name: str | None, reason: str | None) -> Entry:
        """The entry with what was given changed, or :class:`EntryNotFoundError`."""
        async with self._database.write() as connection:
            if not await blacklist.update_entry(connection, entry_id, name=name, reason=reason):
                raise _no_entry(entry_id)
            return await _entry(connection, entry_id)

    async def delete(self, entry_id: int) -> Entry:
        """The entry that was; its folder, embeddings and matches are gone when this returns."""
        # Photos that were dropped into the folder and not enrolled would be enrolled as somebody new one day.
        dropped = await self._stored.within(StoreName.BLACKLIST, (await self.get(entry_id)).folder)
        async with self._database.write() as connection:
            entry = await _entry(connection, entry_id)
            names = list({*dropped, *map(_file, entry.images)})
            await screenings.withdraw_entry(connection, entry_id)
            await blacklist.delete_entry(connection, entry_id)
            await files.intend(connection, names, owner=None)
        await self._erase(names)
        return entry

    async def image(self, entry_id: int, image_id: int) -> bytes:
        """The stored photo, or :class:`ReferenceImageNotFoundError`."""
        image = _image(await self.get(entry_id), image_id)
        try:
            return await self._stored.read(_file(image))
        except FileNotFoundError:
            raise _no_image(image_id) from None

    async def delete_image(self, entry_id: int, image_id: int) -> Entry:
        """The entry without this photo; an entry without photos stays and matches nobody."""
        async with self._database.write() as connection:
            names = [_file(_image(await _entry(connection, entry_id), image_id))]
            await blacklist.delete_images(connection, entry_id, [image_id])
            await files.intend(connection, names, owner=None)
            entry = await _entry(connection, entry_id)
        await self._erase(names)
        return entry

    async def _erase(self, names: Sequence[FileName]) -> None:
        await self._stored.remove(names)
        await self._database.truncate_wal()

    async def _enrollable(self, photos: Sequence[Photo], selection: FaceSelection) -> list[_Enrollable]:
        rejected: list[RejectedFile] = []
        usable: list[_Enrollable] = []
        seen: set[str] = set()
        if len(photos) > self._max_images:
            raise TooManyImagesError(f"{len(photos)} photos in one request; at most {self._max_images} are allowed")
        with self._pool.admit(len(photos)):
            for photo in photos:
                try:
                    enrollable = await self._enroll(photo, selection)
                    if enrollable.file.sha256 in seen:
                        raise _duplicate()
                except InputError as error:
                    rejected.append(RejectedFile(photo.name, error.code, str(error)))
                else:
                    seen.add(enrollable.file.sha256)
                    usable.append(enrollable)
        if rejected:
            raise EnrollmentRejectedError(rejected)
        return usable

    async def _enroll(self, photo: Photo, selection: FaceSelection) -> _Enrollable:
        enrolled = await self._enroller.enroll(photo.data, selection)
        copy = await self._pool.run(encode_jpeg, enrolled.pixels, quality=_QUALITY)
        sha256 = hashlib.sha256(copy).hexdigest()
        # The random part keeps two requests with the same photo from announcing, and removing, each other's file.
        name = f"{sha256[:16]}-{secrets.token_hex(4)}.jpg"
        return _Enrollable(copy, PhotoFile(name, sha256), enrolled.row)


def _slug(name: str) -> str:
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")[:64] or "person"


def _contents(folder: str, enrollable: Sequence[_Enrollable]) -> dict[FileName, bytes]:
    return {FileName(StoreName.BLACKLIST, f"{folder}/{photo.file.name}"): photo.copy for photo in enrollable}


def _file(image: ReferenceImage) -> FileName:
    return FileName(StoreName.BLACKLIST, image.identity)


async def _entry(connection: AsyncConnection, entry_id: int) -> Entry:
    entry = await blacklist.get_entry(connection, entry_id)
    if entry is None:
        raise _no_entry(entry_id)
    return entry


def _image(entry: Entry, image_id: int) -> ReferenceImage:
    for image in entry.images:
        if image.id == image_id:
            return image
    raise _no_image(image_id)


def _refuse_known(photos: Sequence[Photo], enrollable: Sequence[_Enrollable], known: set[str]) -> None:
    error = _duplicate()
    rejected = [
        RejectedFile(photo.name, error.code, str(error))
        for photo, new in zip(photos, enrollable, strict=True)
        if new.file.sha256 in known
    ]
    if rejected:
        raise EnrollmentRejectedError(rejected)


def _duplicate() -> DuplicateImageError:
    return DuplicateImageError("this entry has the same photo already")


def _no_entry(entry_id: int) -> EntryNotFoundError:
    return EntryNotFoundError(f"there is no blacklist entry {entry_id}")


def _no_image(image_id: int) -> ReferenceImageNotFoundError:
    return ReferenceImageNotFoundError(f"this entry has no reference image {image_id}")
