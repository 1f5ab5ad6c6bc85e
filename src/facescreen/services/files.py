"""Files and rows that agree whatever happens: every file is announced before it is written and before it is removed.

A file is written in three steps: a transaction that records the intent, the write, and the transaction that names the
file and settles the intent. A file is removed in three steps too: the transaction that removes the row records the
intent, the file goes, the intent is settled. Whatever a crash leaves in between, :meth:`StoredFiles.recover` finds by
the intents and removes.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db import files
from facescreen.db.connection import Database
from facescreen.db.files import FileName, Intent, StoreName
from facescreen.domain.blacklist import ReferenceImage
from facescreen.errors import AwsError, StorageFullError, UnavailableError
from facescreen.images.store import ImageStore
from facescreen.lifeline import uninterrupted
from facescreen.services.presence import Presence

logger = logging.getLogger(__name__)


def watched_by(images: Iterable[ReferenceImage]) -> set[FileName]:
    """The files of the blacklist folder that these images stand and fall with."""
    return {FileName(StoreName.BLACKLIST, image.watched) for image in images if image.watched}


class StoredFiles:
    """The image stores, kept in step with the database. There is one of these in a process.

    Args:
        presence: by which other processes see whether this one may still do what it announced.
    """

    def __init__(self, database: Database, stores: Mapping[StoreName, ImageStore], presence: Presence) -> None:
        self._database = database
        self._stores = stores
        self._left: set[FileName] = set()
        self._presence = presence

    @property
    def stores_of_photos(self) -> Sequence[StoreName]:
        """Where a reference photo may be, the nearest first."""
        return [store for store in (StoreName.BLACKLIST, StoreName.BUCKET) if store in self._stores]

    @property
    def stores(self) -> Sequence[StoreName]:
        """All that there are."""
        return list(self._stores)

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

        If the block fails, the files are gone again. If it is cancelled, the next start removes them; the end of a
        request does not cancel it.
        """
        with ExitStack() as begun:
            async with self._database.write() as connection:
                begun.enter_context(uninterrupted())
                await self.announce(connection, contents)
            await self._remove_left()
            try:
                await self.write(contents)
                yield
            except Exception:  # not a cancellation: what was cancelled may still be writing, or be committed
                await self.remove(list(contents))
                raise

    async def announce(self, connection: AsyncConnection, names: Iterable[FileName]) -> None:
        """Record in the caller's transaction that this process is about to write these files."""
        names = list(names)
        self._left.difference_update(names)
        await files.intend(connection, names, owner=self._presence.owner)

    async def write(self, contents: Mapping[FileName, bytes]) -> None:
        """Write files that were announced."""
        for file, data in contents.items():
            await self._stores[file.store].put(file.name, data)

    async def remove(self, names: Sequence[FileName]) -> UnavailableError | None:
        """Remove files that no row needs and settle their intents.

        What cannot be removed or settled now stays intended. It is tried again once the database takes writes.

        Returns:
            Why some files are still there, ``None`` if none is.
        """
        with uninterrupted():
            return await self._remove(names)

    async def _remove(self, names: Sequence[FileName]) -> UnavailableError | None:
        removed = []
        fault: UnavailableError | None = None
        for file in names:
            if isinstance(fault, AwsError) and file.store is StoreName.BUCKET:
                continue  # whoever waits should not wait for every photo to fail
            try:
                await self._stores[file.store].delete(file.name)
                removed.append(file)
            except (OSError, UnavailableError) as error:
                logger.exception("file_not_removed", extra={"store": file.store.value})
                fault = StorageFullError("a file could not be removed") if isinstance(error, OSError) else error
        self._left.update(set(names).difference(removed))
        try:
            async with self._database.write() as connection:
                await files.settle(connection, removed)
        except UnavailableError:
            logger.warning("intents_not_settled", extra={"files": len(removed)})
            self._left.update(removed)
        else:
            self._left.difference_update(removed)
        return fault

    async def _remove_left(self) -> None:
        """Remove what this process could not remove before."""
        if self._left:
            await self.remove(list(self._left))

    async def are_being_written(self, names: Iterable[FileName]) -> bool:
        """Whether a process that is alive has announced one of these files and not settled it yet."""
        wanted = set(names)
        owners = {intent.owner for intent in await self._intents() if intent.file in wanted}
        return any(owner is not None and self._presence.is_alive(owner) for owner in owners)

    async def recover(self) -> int:
        """Remove what interrupted writes and removals left behind; how many files that were."""
        await self._remove_left()
        owners = {intent.owner for intent in await self._intents()}
        gone = {owner for owner in owners if owner is None or not self._presence.is_alive(owner)}
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
