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
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from facescreen.db import files
from facescreen.db.connection import Database
from facescreen.db.files import FileName, Intent, StoreName
from facescreen.errors import StorageFullError
from facescreen.images.store import ImageStore

logger = logging.getLogger(__name__)


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

    def close(self) -> None:
        os.close(self._writers)

    async def read(self, file: FileName) -> bytes:
        """The file's bytes.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return await self._stores[file.store].get(file.name)

    async def within(self, store: StoreName, folder: str) -> list[FileName]:
        """Every file in and below a folder of a store, named by a row or not."""
        return [FileName(store, name) for name in await self._stores[store].list(folder)]

    @asynccontextmanager
    async def writing(self, contents: Mapping[FileName, bytes]) -> AsyncIterator[None]:
        """Write files for rows that the block commits; the block settles them in its transaction.

        If the block fails, the files are gone again. If it is cancelled, the next start removes them.
        """
        async with self._database.write() as connection:
            await files.intend(connection, contents, owner=str(self._byte))
        try:
            for file, data in contents.items():
                await self._stores[file.store].put(file.name, data)
            yield
        except Exception:  # not a cancellation: what was cancelled may still be writing, or be committed, in its thread
            await self.remove(list(contents))
            raise

    async def remove(self, names: Sequence[FileName]) -> None:
        """Remove files that no row names and settle their intents. What cannot be removed now stays intended."""
        removed = []
        for file in names:
            try:
                await self._stores[file.store].delete(file.name)
                removed.append(file)
            except OSError:
                logger.exception("file_not_removed", extra={"store": file.store.value})
        try:
            async with self._database.write() as connection:
                await files.settle(connection, removed)
        except StorageFullError:
            logger.warning("intents_not_settled", extra={"files": len(removed)})

    async def recover(self) -> int:
        """Remove what interrupted writes and removals left behind; how many files that were."""
        owners = {intent.owner for intent in await self._intents()}
        gone = {owner for owner in owners if owner is None or not self._is_alive(int(owner))}
        # Read again, for who is gone now may have settled since.
        leftovers = [intent.file for intent in await self._intents() if intent.owner in gone]
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
