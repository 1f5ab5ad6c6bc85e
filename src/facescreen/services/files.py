"""Files and rows that agree whatever happens: every file is announced before it is written and before it is removed.

A file is written in three steps: a transaction that records the intent, the write, and the transaction that names the
file and settles the intent. A file is removed in three steps too: the transaction that removes the row records the
intent, the file goes, the intent is settled. Whatever a crash leaves in between, :meth:`StoredFiles.recover` finds by
the intents and removes.
"""

import fcntl
import logging
import os
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db import files
from facescreen.db.connection import Database
from facescreen.db.files import FileName, Intent, StoreName
from facescreen.domain.blacklist import ReferenceImage
from facescreen.errors import AwsError, StorageFullError
from facescreen.images.store import ImageStore

logger = logging.getLogger(__name__)


def watched_by(images: Iterable[ReferenceImage]) -> set[FileName]:
    """The files of the blacklist folder that these images stand and fall with."""
    return {FileName(StoreName.BLACKLIST, image.watched) for image in images if image.watched}


class StoredFiles:
    """The image stores, kept in step with the database. There is one of these in a process."""

    def __init__(self, database: Database, stores: Mapping[StoreName, ImageStore]) -> None:
        self._database = database
        self._stores = stores
        # Each process holds the lock of one byte until it ends. Whoever shares the folder sees it, as with SQLite's own
        # locks: in other containers too, where process ids and host names mean nothing.
        self._writers = os.open(f"{database.path}-writers", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode=0o600)
        self._byte = secrets.randbits(62)
        fcntl.lockf(self._writers, fcntl.LOCK_EX, 1, self._byte)

    @property
    def stores_of_photos(self) -> Sequence[StoreName]:
        """Where a reference photo may be, the nearest first."""
        return [store for store in (StoreName.BLACKLIST, StoreName.BUCKET) if store in self._stores]

    @property
    def stores(self) -> Sequence[StoreName]:
        """All that there are."""
        return list(self._stores)

    def close(self) -> None:
        os.close(self._writers)

    async def read(self, file: FileName) -> bytes:
        """The file's bytes.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return await self._stores[file.store].get(file.name)

    async def read_photo(self, name: str) -> bytes:
        """A reference photo, from wherever it is.

        Raises:
            FileNotFoundError: it is nowhere.
        """
        for store in self.stores_of_photos:
            try:
                return await self._stores[store].get(name)
            except FileNotFoundError:
                continue
        raise FileNotFoundError("the photo is in no store")

    def photos_of(self, images: Iterable[ReferenceImage]) -> set[FileName]:
        """Where the photos of these images may be, in every store that can have them."""
        return {FileName(store, image.photo) for image in images for store in self.stores_of_photos}

    async def names(self, store: StoreName) -> list[str]:
        """Every file of a store."""
        return await self._stores[store].list()

    async def within(self, store: StoreName, folder: str) -> list[FileName]:
        """Every file in and below a folder of a store, named by a row or not."""
        return [FileName(store, name) for name in await self._stores[store].list(folder)]

    @asynccontextmanager
    async def writing(self, contents: Mapping[FileName, bytes]) -> AsyncIterator[None]:
        """Write files for rows that the block commits; the block settles them in its transaction.

        If the block fails, the files are gone again. If it is cancelled, the next start removes them.
        """
        async with self._database.write() as connection:
            await self.announce(connection, contents)
        try:
            await self.write(contents)
            yield
        except Exception:  # not a cancellation: what was cancelled may still be writing, or be committed, in its thread
            await self.remove(list(contents))
            raise

    async def announce(self, connection: AsyncConnection, names: Iterable[FileName]) -> None:
        """Record in the caller's transaction that this process is about to write these files."""
        await files.intend(connection, names, owner=str(self._byte))

    async def write(self, contents: Mapping[FileName, bytes]) -> None:
        """Write files that were announced."""
        for file, data in contents.items():
            await self._stores[file.store].put(file.name, data)

    async def remove(self, names: Sequence[FileName]) -> AwsError | None:
        """Remove files that no row needs and settle their intents. What cannot be removed now stays intended.

        Returns:
            Why the bucket keeps some of them, ``None`` if it does not.
        """
        removed = []
        fault: AwsError | None = None
        for file in names:
            if fault is not None and file.store is StoreName.BUCKET:
                continue  # whoever waits should not wait for every photo to fail
            try:
                await self._stores[file.store].delete(file.name)
                removed.append(file)
            except (OSError, AwsError) as error:
                logger.exception("file_not_removed", extra={"store": file.store.value})
                fault = error if isinstance(error, AwsError) else fault
        try:
            async with self._database.write() as connection:
                await files.settle(connection, removed)
        except StorageFullError:
            logger.warning("intents_not_settled", extra={"files": len(removed)})
        return fault

    async def are_being_written(self, names: Iterable[FileName]) -> bool:
        """Whether a process that is alive has announced one of these files and not settled it yet."""
        wanted = set(names)
        owners = {intent.owner for intent in await self._intents() if intent.file in wanted}
        return any(owner is not None and self._is_alive(int(owner)) for owner in owners)

    async def recover(self) -> int:
        """Remove what interrupted writes and removals left behind; how many files that were."""
        owners = {intent.owner for intent in await self._intents()}
        gone = {owner for owner in owners if owner is None or not self._is_alive(int(owner))}
        # Read again, for who is gone now may have settled since.
        # What is in a bucket waits for a process that has it.
        leftovers = [i.file for i in await self._intents() if i.owner in gone and i.file.store in self._stores]
        if leftovers:
            await self.remove(leftovers)
        # A deletion that was killed after its commit left what it deleted readable in the log.
        await self._database.truncate_wal()
        return len(leftovers)

    async def _intents(self) -> list[Intent]:
        async with self._database.read() as connection:
            return await files.intents(connection)

    def _is_alive(self, byte: int) -> bool:
        """Whether the process that this byte belongs to may still be at work."""
        if byte == self._byte:
            return True
        try:
            fcntl.lockf(self._writers, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            return True
        fcntl.lockf(self._writers, fcntl.LOCK_UN, 1, byte)
        return False
