"""Files and rows that agree whatever happens: every file is announced before it is written and before it is removed.

A file is written in three steps: a transaction that records the intent, the write, and the transaction that names the
file and settles the intent. A file is removed in three steps too: the transaction that removes the row records the
intent, the file goes, the intent is settled. Whatever a crash leaves in between, :meth:`StoredFiles.recover` finds by
the intents and removes.
"""

import logging
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import psutil

from facescreen.db import files
from facescreen.db.connection import Database
from facescreen.db.files import FileName, StoreName
from facescreen.errors import StorageFullError
from facescreen.images.store import ImageStore

logger = logging.getLogger(__name__)


class StoredFiles:
    """The image stores, kept in step with the database."""

    def __init__(self, database: Database, stores: Mapping[StoreName, ImageStore]) -> None:
        self._database = database
        self._stores = stores
        self._owner = _process_name(psutil.Process())

    async def read(self, file: FileName) -> bytes:
        """The file's bytes.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return await self._stores[file.store].get(file.name)

    @asynccontextmanager
    async def writing(self, contents: Mapping[FileName, bytes]) -> AsyncIterator[None]:
        """Write files for rows that the block commits; the block settles them in its transaction.

        If the block fails, the files are gone again.
        """
        async with self._database.write() as connection:
            await files.intend(connection, contents, owner=self._owner)
        try:
            for file, data in contents.items():
                await self._stores[file.store].put(file.name, data)
            yield
        except BaseException:
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
        async with self._database.read() as connection:
            pending = await files.intents(connection)
        leftovers = [intent.file for intent in pending if intent.owner is None or not _is_alive(intent.owner)]
        if leftovers:
            await self.remove(leftovers)
        return len(leftovers)


def _process_name(process: psutil.Process) -> str:
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


def _is_alive(owner: str) -> bool:
    """Whether the process may still be at work; one on another host is taken to be gone: a database has one host."""
    host, pid, _ = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        return _process_name(psutil.Process(int(pid))) == owner
    except psutil.NoSuchProcess:
        return False
