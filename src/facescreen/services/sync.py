"""The blacklist folder: photos that somebody drops into or removes from it by hand become part of the list."""

import asyncio
import fcntl
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db import blacklist, files, screenings
from facescreen.db.blacklist import PhotoFile, StoredFile
from facescreen.db.connection import Database
from facescreen.db.files import FileName, StoreName
from facescreen.errors import DuplicateImageError, FolderEmptyError, InputError, NotInPersonFolderError, RejectedFile
from facescreen.images.folder_store import FolderStore
from facescreen.services.enrollment import Enroller, FaceSelection
from facescreen.services.files import StoredFiles
from facescreen.services.reindex import Progress

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class SyncReport:
    """What a synchronisation did; files as ``<folder>/<file>``."""

    added: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    skipped: list[RejectedFile] = field(default_factory=list)
    unchanged: int = 0


class FolderSyncService:
    """Enrolls new photos, withdraws removed ones and leaves the others alone.

    Args:
        folder: the blacklist folder, one sub-folder per person.
    """

    def __init__(self, *, database: Database, stored: StoredFiles, enroller: Enroller, folder: Path) -> None:
        self._database = database
        self._stored = stored
        self._enroller = enroller
        self._folder = folder
        self._store = FolderStore(folder)
        self._lock = asyncio.Lock()

    async def sync(self, progress: Progress = lambda _done, _total: None) -> SyncReport:
        """Bring the list in line with the folder. One process at a time does this; others wait.

        Raises:
            FolderEmptyError: the folder is empty and the list is not; nothing was withdrawn.
        """
        async with self._exclusive():
            await self._stored.recover()
            return await self._sync(progress)

    async def _sync(self, progress: Progress) -> SyncReport:
        report = SyncReport()
        # Files first: whatever is listed was announced before it was written, so rows or intents read later know it.
        found = await self._store.list()
        async with self._database.read() as connection:
            stored = {f"{file.folder}/{file.file}": file for file in await blacklist.stored_files(connection)}
            announced = {intent.file.name for intent in await files.intents(connection)}
        listed = set(found)
        gone = [file for name, file in stored.items() if name not in listed and not (self._folder / name).exists()]
        if gone and not found:
            raise FolderEmptyError(
                "the blacklist folder holds no photo but the list does; if that is meant, delete the entries instead"
            )
        await self._withdraw(gone, report)
        touched = await asyncio.to_thread(self._touched_since, [stored[name] for name in found if name in stored])
        changed = [file for file in touched if await self._is_another(file)]
        await self._withdraw(changed, report)
        fresh = {f"{file.folder}/{file.file}" for file in changed}
        new = [name for name in found if name in fresh or (name not in stored and name not in announced)]
        for done, name in enumerate(new):
            progress(done, len(new))
            try:
                await self._enroll(name)
                report.added.append(name)
            except InputError as error:
                report.skipped.append(RejectedFile(name, error.code, str(error)))
            except FileNotFoundError:
                logger.info("photo_removed_during_sync")
        progress(len(new), len(new))
        report.unchanged = len(stored) - len(gone) - len(changed)
        return report

    async def _enroll(self, name: str) -> None:
        folder, slash, file = name.partition("/")
        if not slash or "/" in file:
            raise NotInPersonFolderError("photos belong into a person's folder: <folder>/<file>")
        data = await self._stored.read(FileName(StoreName.BLACKLIST, name))
        sha256 = hashlib.sha256(data).hexdigest()
        async with self._database.read() as connection:
            await self._refuse_known(connection, folder, sha256)
        enrolled = await self._enroller.enroll(data, FaceSelection.SINGLE)
        async with self._database.write() as connection:
            entry_id = await self._refuse_known(connection, folder, sha256)
            if entry_id is None:
                entry_id = await blacklist.insert_entry(connection, name=folder, reason="", folder=folder)
            await blacklist.insert_images(connection, entry_id, [(PhotoFile(file, sha256), enrolled.row)])

    async def _withdraw(self, gone: list[StoredFile], report: SyncReport) -> None:
        for file in gone:
            async with self._database.write() as connection:
                entry = await blacklist.get_entry(connection, file.entry_id)
                if entry is None or all(image.id != file.reference_image_id for image in entry.images):
                    continue  # deleted meanwhile, and the entry perhaps kept on purpose
                await blacklist.delete_images(connection, entry.id, [file.reference_image_id])
                if len(entry.images) == 1 and not (self._folder / file.folder).exists():
                    await screenings.withdraw_entry(connection, entry.id)
                    await blacklist.delete_entry(connection, entry.id)
            report.withdrawn.append(f"{file.folder}/{file.file}")
        if gone:
            await self._database.truncate_wal()

    def _touched_since(self, enrolled: list[StoredFile]) -> list[StoredFile]:
        """The files that may be others than those enrolled: whoever replaces a file cannot set back its change time."""
        touched = []
        for file in enrolled:
            with suppress(FileNotFoundError):
                if (self._folder / file.folder / file.file).stat().st_ctime > file.created_at.timestamp():
                    touched.append(file)
        return touched

    async def _is_another(self, file: StoredFile) -> bool:
        try:
            return hashlib.sha256(await self._store.get(f"{file.folder}/{file.file}")).hexdigest() != file.sha256
        except FileNotFoundError:
            return False

    async def _refuse_known(self, connection: AsyncConnection, folder: str, sha256: str) -> int | None:
        """The entry of the folder, if there is one and it does not have this photo yet."""
        entry_id = await blacklist.entry_of_folder(connection, folder)
        if entry_id is not None and sha256 in await blacklist.image_hashes(connection, entry_id):
            raise DuplicateImageError("this entry has the same photo already")
        return entry_id

    @asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        # One waiter per process: waiting takes a thread, and whoever holds the lock needs threads to get on.
        async with self._lock:
            with (self._folder / ".sync.lock").open("w") as lock:
                await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
                yield
