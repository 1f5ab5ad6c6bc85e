"""Puts a backup in the place of the data: all of it, or nothing.

Everything is written beside the data first: images into a hidden folder of each store, the database, migrated, beside
the present one. Then everything that is there is set aside in another hidden folder, which fails before anything is
lost if something cannot be removed. Renaming the new database to ``<database>-restored`` is the moment at which the
backup counts. What is killed before is undone by the next start, what is killed later finished by it; it does nothing
before that. Each of the steps can be done again.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from facescreen.db import snapshot
from facescreen.db.connection import RESTORED, Database
from facescreen.db.files import StoreName
from facescreen.domain.trail import Action
from facescreen.errors import BackupError, DataInUseError, StartupError
from facescreen.images.beneath import folder_beneath
from facescreen.images.folder_store import FolderStore
from facescreen.services.archive import DATABASE, ArchiveReader, Manifest, Progress, created, opened, translated
from facescreen.services.presence import alone
from facescreen.services.trail import record

logger = logging.getLogger(__name__)

_FAILURE = "the backup could not be restored"
_STAGED = ".restoring"
"""Folder in a store with the images that are to replace all others."""
_ASIDE = ".replaced"
"""Folder in a store with all that was in it, which is put back unless the backup counts."""
_DISCARDED = ".discarded"
"""The same folder once the backup counts."""
_NO_DATA = "lost+found"
"""What every new file system of its own has in it."""
_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database."""


@dataclass(frozen=True, slots=True)
class Restoration:
    """Replaces the data that are kept here.

    Attributes:
        database: the file.
        folders: of the stores.
        keys: folder of the keys that data are encrypted with, if there is one.
    """

    database: Path
    folders: Mapping[StoreName, Path]
    keys: Path | None = None

    async def restore(
        self, archive: Path, *, replace: bool, progress: Progress = lambda _done, _total: None
    ) -> Manifest:
        """Put a backup in the place of the data, and bring it to the newest schema.

        Args:
            replace: data that there are.
            progress: is told how many bytes are verified and images written, and of how many.

        Raises:
            BackupError: the file is no backup, not whole, or of a newer version, or something that is there cannot be
                moved; nothing was changed. Or something cannot be deleted that was replaced; the message says so.
            DataInUseError: there are data already, or somebody works on them.
            StorageFullError: there is no room for it beside the data; nothing was changed.
            StartupError: as :meth:`settle` does.
        """
        self._require_apart()
        for name, kept in (("the backup", archive), ("ENCRYPTION_KEY_DIR", self.keys)):
            if kept is not None and any(_holds(folder, kept) for folder in self.folders.values()):
                raise BackupError(f"{name} lies in the folder of a store, which is emptied; move it elsewhere")
        with translated(_FAILURE), alone(self.database), opened(archive, progress) as reader:
            if reader.manifest.schema not in snapshot.known_schemas():
                raise BackupError("the backup was made by a newer version of facescreen; upgrade facescreen")
            self._finish()
            if not replace and self._has_data():
                raise DataInUseError("there are data already; add --replace to delete them in favour of the backup's")
            self._discard()
            try:
                await self._stage(reader, progress)
                self._make_it_count()
            except BaseException:
                self._finish()
                self._discard()
                raise
            self._finish()
            with translated(f"the backup is restored, but what it replaced is not all deleted, see {_DISCARDED}"):
                self._discard()
            return reader.manifest

    async def settle(self) -> None:
        """Finish a restore that was killed after its backup counted; undo one that was killed before.

        Raises:
            StartupError: the stores and the database do not lie apart.
            BackupError: something on the disk stands in the way.
        """
        self._require_apart()
        if self._restored.exists() or any((folder / _ASIDE).exists() for folder in self.folders.values()):
            with translated(_FAILURE), alone(self.database, wait=True):
                self._finish()
        if self._leftovers():
            try:
                with suppress(DataInUseError), alone(self.database):
                    self._discard()
            except OSError:
                logger.warning("restore_leftovers_not_deleted", exc_info=True)

    def _require_apart(self) -> None:
        """Each store is emptied as a whole."""
        folders = self.folders.values()
        if any(_holds(folder, other) for folder, other in permutations(folders, 2)) or any(
            _holds(folder, self.database) for folder in folders
        ):
            raise StartupError(
                "BLACKLIST_DB_PATH, PROCESSED_IMAGES_OUTPUT_DIR and DATABASE_URL: "
                "neither folder may be, or hold, the other one or the database"
            )

    @property
    def _restoring(self) -> Path:
        return Path(f"{self.database}-restoring")

    @property
    def _restored(self) -> Path:
        return Path(f"{self.database}{RESTORED}")

    def _has_data(self) -> bool:
        there = self.database.exists() and snapshot.has_tables(self.database)
        return there or any(map(_visible, self.folders.values()))

    async def _stage(self, reader: ArchiveReader, progress: Progress) -> None:
        images = reader.manifest.images
        for folder in self.folders.values():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / _STAGED).mkdir(mode=0o700)
        stores = {store: FolderStore(folder / _STAGED) for store, folder in self.folders.items()}
        for done, (name, member) in enumerate(images.items()):
            progress(done, len(images))
            await stores[name.store].put(name.name, b"".join(reader.pieces(member)))
        for folder in self.folders.values():
            _sync(folder)
        self._stage_database(reader)
        subject = " ".join(filter(None, (reader.digest, snapshot.trail_end(self.database))))
        database = Database(f"sqlite+aiosqlite:///{self._restoring}")
        try:
            await database.migrate()
            async with database.write() as connection:
                await record(connection, Action.RESTORE, subject=subject)
            await database.truncate_wal()
        finally:
            await database.aclose()
        progress(len(images), len(images))

    def _stage_database(self, reader: ArchiveReader) -> None:
        (member,) = (member for member in reader.manifest.members if member.name == DATABASE)
        with created(self._restoring) as file:
            for piece in reader.pieces(member):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if snapshot.read(self._restoring).schema != reader.manifest.schema:
            raise BackupError("the backup's database is not of the schema that the backup names")

    def _make_it_count(self) -> None:
        if any(Path(f"{self._restoring}{end}").exists() for end in _BESIDE):
            raise BackupError("the backup's database could not be written whole")
        for folder in self.folders.values():
            _set_aside(folder)
        self._restoring.rename(self._restored)
        _sync(self.database.parent)

    def _finish(self) -> None:
        """Take what was staged if it counts, and put back what was set aside if it does not."""
        if not self._restored.exists():
            for folder in self.folders.values():
                _put_back(folder)
            return
        for folder in self.folders.values():
            _take(folder)
        for end in _BESIDE:
            Path(f"{self.database}{end}").unlink(missing_ok=True)
        _sync(self.database.parent)
        self._restored.rename(self.database)
        _sync(self.database.parent)

    def _leftovers(self) -> list[Path]:
        hidden = [folder / name for folder in self.folders.values() for name in (_STAGED, _DISCARDED)]
        beside = [Path(f"{self._restoring}{end}") for end in ("", *_BESIDE)]
        return [path for path in (*hidden, *beside) if path.exists()]

    def _discard(self) -> None:
        for path in self._leftovers():
            _remove(path)


def _holds(folder: Path, path: Path) -> bool:
    """Whether the path, or what it leads to, is the folder or in it."""
    folder = folder.resolve()
    return any(place.is_relative_to(folder) for place in (path.resolve(), path.parent.resolve() / path.name))


def _set_aside(folder: Path) -> None:
    aside = folder / _ASIDE
    aside.mkdir(mode=0o700)
    for path in _visible(folder):
        path.rename(aside / path.name)
    _sync(aside)
    _sync(folder)


def _put_back(folder: Path) -> None:
    aside = folder / _ASIDE
    if aside.exists():
        for path in _visible(aside):
            path.rename(folder / path.name)
        _sync(folder)
        aside.rmdir()


def _take(folder: Path) -> None:
    """Put what is staged in a store in the place of what was set aside."""
    staged, aside = folder / _STAGED, folder / _ASIDE
    if aside.exists():
        aside.rename(folder / _DISCARDED)
    for path in _visible(staged):
        _remove(folder / path.name)  # what somebody put there since
        path.rename(folder / path.name)
    _sync(folder)


def _visible(folder: Path) -> list[Path]:
    with suppress(FileNotFoundError):
        return [path for path in folder.iterdir() if not path.name.startswith(".") and path.name != _NO_DATA]
    return []


def _remove(path: Path) -> None:
    """Remove a file, a folder with all that is in it, or a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    with folder_beneath(folder, ()) as descriptor:
        os.fsync(descriptor)
