"""A copy of everything that is kept here, taken while the service works.

A snapshot of the database comes first, then the images that it names. One that is deleted meanwhile is named by the
next snapshot no more, and one that is replaced has another digest there, so snapshots are taken until one names only
what was copied.
"""

import asyncio
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from facescreen import __version__
from facescreen.db import snapshot
from facescreen.db.connection import Database
from facescreen.db.files import FileName, StoreName
from facescreen.db.snapshot import Snapshot
from facescreen.domain.trail import Action
from facescreen.images.beneath import folder_beneath
from facescreen.images.sealed_store import is_sealed
from facescreen.images.store import ImageStore
from facescreen.services.archive import DATABASE, ArchiveWriter, Manifest, Progress, created, member_name, translated
from facescreen.services.trail import record

T = TypeVar("T")

_FAILURE = "the backup could not be written"
_UNFINISHED = ".facescreen-backup-"
"""How the names of folders begin in which backups are made; they lie beside the backup to be."""


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What is in a backup: images, bytes in all, and images that the database names and that were not there."""

    images: int
    size: int
    missing: Sequence[str]


class BackupService:
    """Makes backups.

    Args:
        stores: of images, as they are stored: what is encrypted stays so.
        keeps_photos: whether reference photos have to be in the blacklist folder, or may be in the bucket alone.
        not_included: what a backup should say that it does not hold.
    """

    def __init__(
        self,
        *,
        database: Database,
        stores: Mapping[StoreName, ImageStore],
        keeps_photos: bool,
        not_included: Sequence[str],
    ) -> None:
        self._database = database
        self._stores = stores
        self._keeps_photos = keeps_photos
        self._not_included = not_included

    async def back_up(self, target: Path, progress: Progress = lambda _done, _total: None) -> BackupReport:
        """Write a backup, which replaces a file of this name once it is whole.

        Args:
            progress: is told how many images are copied, and how many there are.

        Raises:
            BackupError: it could not be written.
        """
        with translated(_FAILURE), _folder_beside(target) as folder:
            archive = folder / "archive"
            with created(archive) as file:
                writer = ArchiveWriter(file)
                named, missing = await self._copy(writer, folder, progress)
                writer.add_file(DATABASE, folder / DATABASE)
                manifest = Manifest(
                    version=__version__,
                    schema=named.schema,
                    created_at=datetime.now(UTC),
                    missing=sorted(map(member_name, missing)),
                    not_included=self._not_included,
                )
                digest = await _finished(lambda: writer.finish(manifest))
                report = BackupReport(len(writer.names) - 2, file.tell(), manifest.missing)
            # Nobody has a backup of which the trail knows nothing.
            async with self._database.write() as connection:
                await record(connection, Action.BACKUP, subject=digest)
            archive.replace(target)
            with folder_beneath(target.parent, ()) as parent:
                os.fsync(parent)
        return report

    async def _copy(self, writer: ArchiveWriter, folder: Path, progress: Progress) -> tuple[Snapshot, set[FileName]]:
        """The snapshot of the database, which lies in the folder then, and those of its images that are not there."""
        copied: dict[str, str | None] = {}
        odd_before: set[tuple[FileName, str | None]] = set()
        while True:
            (folder / DATABASE).unlink(missing_ok=True)
            taken = await _finished(lambda: snapshot.take(self._database.path, folder / DATABASE))
            wanted = {member_name(file): file for file in self._files(taken)}
            # What this snapshot does not say: files, each with the digest that it has or with none if it is not there.
            odd: set[tuple[FileName, str | None]] = set()
            for done, (name, file) in enumerate(sorted(wanted.items())):
                progress(done, len(wanted))
                digest = taken.digests.get(file.name) if file.store is StoreName.BLACKLIST else None
                if name in copied and copied[name] == digest:
                    continue
                if name in writer.names:
                    copied.pop(name, None)
                    writer.erase(name)
                try:
                    data = await self._stores[file.store].get(file.name)
                except FileNotFoundError:
                    odd.add((file, None))
                    continue
                writer.add(name, data)
                if digest in {None, found := sha256(data).hexdigest()} or is_sealed(data):
                    copied[name] = digest
                else:
                    odd.add((file, found))
            progress(len(wanted), len(wanted))
            # A row goes before its file does. What was not there before this snapshot, which names it, was not deleted
            # by the service; what was another photo then is one that the service has not enrolled.
            if odd <= odd_before:
                for name in writer.names - wanted.keys():
                    writer.erase(name)
                return taken, {file for file, found in odd if found is None}
            odd_before = odd

    def _files(self, taken: Snapshot) -> set[FileName]:
        photos = {*taken.watched, *(taken.photos if self._keeps_photos else ())}
        return {
            *(FileName(StoreName.BLACKLIST, name) for name in photos),
            *(FileName(StoreName.PROCESSED, name) for name in taken.copies),
        }


async def _finished(work: Callable[[], T]) -> T:
    """Result of work in a thread, which is over also if this is cancelled: what it writes goes with its folder."""
    running = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """A new folder for this user alone, and none that a killed backup left."""
    for left in target.parent.glob(f"{_UNFINISHED}*"):
        with suppress(BlockingIOError, FileNotFoundError), _locked(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = target.parent / f"{_UNFINISHED}{secrets.token_hex(8)}"
    folder.mkdir(mode=0o700)
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody takes the folder for one that was left behind."""
    with folder_beneath(folder, ()) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
