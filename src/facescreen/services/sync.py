"""The blacklist folder: photos that somebody drops into or removes from it by hand become part of the list."""

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from facescreen.db import blacklist, files
from facescreen.db.blacklist import NewEntry, WatchedFile
from facescreen.db.connection import Database
from facescreen.db.files import FileName, StoreName
from facescreen.domain.blacklist import DEFAULT_COLLECTION, MAX_NAME_LENGTH, Entry, new_user_id
from facescreen.domain.names import escaped, fault_of_name
from facescreen.domain.sealing import SealBrokenError
from facescreen.domain.trail import Action
from facescreen.errors import (
    CollectionNotFoundError,
    DuplicateImageError,
    EntryNotFoundError,
    EntryPendingError,
    FacescreenError,
    FileNameUnusableError,
    FileNotListedError,
    FileUnfinishedError,
    FolderEmptyError,
    InputError,
    NotInPersonFolderError,
    PhotoUnreadableError,
    ReferenceImageNotFoundError,
    RejectedFile,
    StorageFullError,
    UnsupportedFormatError,
)
from facescreen.images.decode import UNSUPPORTED, format_of
from facescreen.images.folder_store import FolderStore, medium_faults_translated
from facescreen.images.sealed_store import SealedStore, is_sealed
from facescreen.services.collections import CollectionService
from facescreen.services.enrollment import Enroller, FaceSelection
from facescreen.services.files import StoredFiles, watched_by
from facescreen.services.presence import is_locked
from facescreen.services.register import Addition, Register
from facescreen.services.reindex import Progress
from facescreen.services.resemblance import EnrollmentWarning, NamedPhoto, PhotoName, Resemblance
from facescreen.services.trail import TrailService

logger = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 0.2
"""How long to wait until it is tried again to be the only one who synchronises."""

_TICK_SECONDS = 0.02
"""File systems stamp changes with the time of the kernel's last tick, which is up to 10 ms old (``CONFIG_HZ=100``)."""

_UNFINISHED = re.compile(r".*\.(part|partial|filepart|crdownload|download|tmp)", re.IGNORECASE)

_UNREADABLE = "the file cannot be read: it is another user's, or the disk is failing"


@dataclass(slots=True)
class SyncReport:
    """What a synchronisation did; files as ``<folder>/<file>``."""

    added: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    skipped: list[RejectedFile] = field(default_factory=list)
    warnings: list[EnrollmentWarning] = field(default_factory=list)
    unchanged: int = 0


class FolderSyncService:
    """Enrolls new photos, withdraws removed ones and leaves the others alone.

    A folder that no entry has becomes an entry of the default collection. A photo that lies in a recycle bin, in
    snapshots or among thumbnails is removed: whoever was deleted over a network share must not alert again.

    Args:
        folder: the blacklist folder, one sub-folder per person.
        photos: what is in it.
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
        trail: TrailService,
        folder: Path,
        photos: SealedStore,
    ) -> None:
        self._database = database
        self._collections = collections
        self._stored = stored
        self._register = register
        self._enroller = enroller
        self._resemblance = resemblance
        self._trail = trail
        self._folder = folder
        self._store = FolderStore(folder)
        self._photos = photos
        self._skipped: dict[str, RejectedFile] = {}

    async def sync(self, progress: Progress = lambda _done, _total: None) -> SyncReport:
        """Bring the list in line with the folder. One process at a time does this; others wait.

        Raises:
            FolderEmptyError: the folder is empty and the list is not; nothing was withdrawn.
            StorageFullError: the disk takes nothing; what was done before stays.
        """
        async with self._exclusive():
            await self._stored.recover()
            report = await self._sync(progress)
        await self._trail.note(Action.SYNC)
        return report

    async def _sync(self, progress: Progress) -> SyncReport:
        report = SyncReport()
        # Files first: whatever is listed was announced before it was written, so rows or intents read later know it.
        survey = await self._store.survey()
        found, binned = survey.files, set(survey.binned)
        async with self._database.read() as connection:
            stored = {file.name: file for file in await blacklist.watched_files(connection)}
            ours = await blacklist.named_photos(connection)
            ours |= {intent.file.name for intent in await files.intents(connection)}
        listed = set(found)
        gone = [
            file
            for name, file in stored.items()
            if name in binned or (name not in listed and not (self._folder / name).exists())
        ]
        if gone and not binned and not await self._is_photo_among(found, stored):
            raise FolderEmptyError(
                "the blacklist folder holds no photo but the list does; if that is meant, delete the entries instead"
            )
        for name in found:
            if gone and name not in ours:  # moved by hand: before the key of its old name goes
                with suppress(FileNotFoundError):
                    async with self._kept(name):
                        await self._adopt(name)
        touched = await asyncio.to_thread(self._touched_since, [stored[name] for name in found if name in stored])
        changed = []
        for file in touched:
            try:
                if await self._is_another(file):
                    changed.append(file)
            except StorageFullError:
                report.skipped.append(RejectedFile(file.name, PhotoUnreadableError.code, _UNREADABLE))
        await self._withdraw([*gone, *changed], report, binned=binned)
        expired = await self._withdraw_expired()
        report.withdrawn += expired
        fresh = {file.name for file in changed}
        new = [name for name in found if name in fresh or name not in ours]
        for done, name in enumerate(new):
            progress(done, len(new))
            try:
                warnings = await self._enroll(name)
                report.added.append(name)
                report.warnings += warnings
            except (InputError, EntryPendingError, EntryNotFoundError) as error:
                report.skipped.append(RejectedFile(escaped(name), error.code, str(error)))
            except (FileNotFoundError, CollectionNotFoundError):
                logger.info("photo_removed_during_sync")
        report.skipped += survey.left_out
        self._skipped = {skipped.file: skipped for skipped in report.skipped}
        progress(len(new), len(new))
        report.unchanged = len(stored) - len(gone) - len(changed) - len(expired)
        return report

    async def _enroll(self, name: str) -> list[EnrollmentWarning]:
        folder = _require_person(name)
        await self._require_photo(name)
        try:
            async with self._kept(name):
                await self._adopt(name)
            data = await self._photos.get(name)
        except SealBrokenError:
            raise PhotoUnreadableError("the photo is encrypted with a key that is not there; remove it") from None
        sha256 = hashlib.sha256(data).hexdigest()
        entry = await self._entry_of(folder)
        if entry is not None and sha256 in {image.sha256 for image in entry.images}:
            raise DuplicateImageError("this entry has the same photo already")
        enrolled = await self._enroller.enroll(data, FaceSelection.SINGLE, turns_upright=False)
        photo = await self._register.photo(enrolled)
        photo = replace(photo, sha256=sha256, dropped=name)
        into = await self._collections.get(entry.collection if entry else DEFAULT_COLLECTION)
        named = NamedPhoto(PhotoName(name, is_stored=True), photo.enrolled)
        warnings = await self._resemblance.warnings(into, [named], entry=entry)
        async with self._kept(name):
            await self._photos.seal(name, anew=True)
        seen_at = await self._moment_after(name)
        if hashlib.sha256(await self._photos.get(name)).hexdigest() != sha256:
            raise FileNotFoundError("the photo was replaced meanwhile")
        photo = replace(photo, seen_at=seen_at)
        addition = Addition(entry or NewEntry(folder, "", folder, new_user_id()), [photo])
        await self._register.add(into, [addition])
        return warnings

    async def not_listed(self) -> list[RejectedFile]:
        """Every file of the folder that is no reference photo, and why; nothing is enrolled.

        The reason is that of the last synchronisation by this process, where it had one.
        """
        try:
            survey = await self._store.survey()
        except StorageFullError as error:
            return [RejectedFile(".", error.code, str(error))]
        async with self._database.read() as connection:
            ours = await blacklist.named_photos(connection)
            ours |= {intent.file.name for intent in await files.intents(connection)}
        rejected = survey.left_out
        for name in survey.files:
            if name not in ours:
                rejected.append(self._skipped.get(name) or await self._why_not_listed(name))
        return sorted(rejected, key=lambda each: each.file)

    async def _why_not_listed(self, name: str) -> RejectedFile:
        reason: InputError = FileNotListedError()
        try:
            _require_person(name)
            await self._require_photo(name)
        except InputError as error:
            reason = error
        except FileNotFoundError:  # removed meanwhile
            pass
        return RejectedFile(name, reason.code, str(reason))

    async def _require_photo(self, name: str) -> None:
        """Look at the first bytes of a file, which may be a film of gigabytes.

        Raises:
            UnsupportedFormatError: they are no picture's, encrypted or not.
            PhotoUnreadableError: they cannot be read.
        """
        try:
            head = await self._store.head(name)
        except StorageFullError:
            raise PhotoUnreadableError(_UNREADABLE) from None
        if format_of(head) is None and not is_sealed(head):
            raise UnsupportedFormatError(UNSUPPORTED)

    async def _is_photo_among(self, names: Sequence[str], stored: Collection[str]) -> bool:
        if any(name in stored for name in names):
            return True
        for name in names:
            with suppress(InputError, FileNotFoundError):
                await self._require_photo(name)
                return True
        return False

    async def _adopt(self, name: str) -> None:
        if is_sealed(await self._store.head(name)):
            await self._photos.adopt(name)

    async def _withdraw(self, gone: list[WatchedFile], report: SyncReport, *, binned: Collection[str]) -> None:
        for file in gone:
            async with self._database.read() as connection:
                entry = await blacklist.get_entry(connection, file.entry_id)
            if entry is None or all(image.id != file.reference_image_id for image in entry.images):
                continue  # deleted meanwhile, and the entry perhaps kept on purpose
            is_gone = file.name in binned or not (self._folder / file.name).parent.exists()
            is_last = len(entry.images) == 1 and is_gone
            with suppress(EntryNotFoundError, EntryPendingError, ReferenceImageNotFoundError):
                await self._register.withdraw(entry, None if is_last else [file.reference_image_id], keep_watched=True)
                report.withdrawn.append(file.name)
                with suppress(FileNotFoundError):
                    async with self._kept(file.name):
                        await self._photos.release(file.name)

    async def _withdraw_expired(self) -> list[str]:
        """Do now what a sweep would do, so that a photo that was dropped since is enrolled as somebody new."""
        async with self._database.read() as connection:
            expired = await blacklist.expired_entries(connection)
        withdrawn: list[str] = []
        for entry in expired:
            try:
                await self._register.withdraw(entry, if_expired=True)
            except EntryNotFoundError:  # somebody was faster
                continue
            except FacescreenError as error:  # a sweep tries again; photos that were dropped for it are skipped
                logger.warning("entry_not_withdrawn", extra={"code": error.code})
            else:
                withdrawn += sorted(file.name for file in watched_by(entry.images))
        return withdrawn

    async def _entry_of(self, folder: str) -> Entry | None:
        async with self._database.read() as connection:
            entry_id = await blacklist.entry_of_folder(connection, folder)
            return None if entry_id is None else await blacklist.get_entry(connection, entry_id)

    def _touched_since(self, enrolled: list[WatchedFile]) -> list[WatchedFile]:
        """The files that may be others than those enrolled: whoever replaces a file cannot set back its change time."""
        touched = []
        for file in enrolled:
            with suppress(FileNotFoundError):
                if (self._folder / file.name).stat().st_ctime > file.created_at.timestamp():
                    touched.append(file)
        return touched

    async def _is_another(self, file: WatchedFile) -> bool:
        try:
            if not await self._photos.is_as_put(file.name):  # somebody moved it here, or put it there once more
                async with self._kept(file.name):
                    await self._photos.adopt(file.name)
                    if not await self._differs(file):
                        await self._photos.seal(file.name)
            return await self._differs(file)
        except FileNotFoundError:
            return False

    async def _differs(self, file: WatchedFile) -> bool:
        return hashlib.sha256(await self._photos.get(file.name)).hexdigest() != file.sha256

    async def _moment_after(self, name: str) -> datetime:
        """A moment after the last change of a file, which the change time of any later one is after, too."""
        path = self._folder / name
        wait = await asyncio.to_thread(lambda: path.stat().st_ctime) + _TICK_SECONDS - time.time()
        if 0 < wait <= _TICK_SECONDS:
            await asyncio.sleep(wait)
        return datetime.fromtimestamp(time.time() - _TICK_SECONDS, UTC)

    @asynccontextmanager
    async def _kept(self, name: str) -> AsyncIterator[None]:
        """Nobody begins to delete the file in this block: if it came back, it would be enrolled as somebody new.

        Raises:
            FileNotFoundError: somebody has begun.
        """
        async with self._database.write() as connection:
            if await files.is_intended(connection, FileName(StoreName.BLACKLIST, name)):
                raise FileNotFoundError("the photo is being removed")
            yield

    @asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[None]:
        with medium_faults_translated():
            self._folder.mkdir(parents=True, exist_ok=True)
            file = (self._folder / ".sync.lock").open("w")
        with file as lock:
            # Not in a thread, which would wait on when its request has ended, until there is none left for others.
            while not is_locked(lock):  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            yield


def _require_person(name: str) -> str:
    """The person's folder that a file lies in.

    Raises:
        NotInPersonFolderError: it lies in none.
        FileNameUnusableError: the folder's name cannot be a person's.
        FileUnfinishedError: the file's name is that of a copy or a download that goes on.
    """
    folder, slash, file = name.partition("/")
    if not slash or "/" in file:
        raise NotInPersonFolderError("photos belong into a person's folder: <folder>/<file>")
    if not 0 < len(folder.strip()) <= MAX_NAME_LENGTH:
        raise FileNameUnusableError(f"the folder's name becomes the person's: 1 to {MAX_NAME_LENGTH} characters")
    if fault := fault_of_name(folder):
        raise FileNameUnusableError(f"the folder's name becomes the person's, and {fault}")
    if _UNFINISHED.fullmatch(file):
        raise FileUnfinishedError
    return folder
