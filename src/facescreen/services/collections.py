"""Collections: lists of people that are searched apart from each other."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.backends.base import GalleryBackend
from facescreen.db import blacklist, collections, files, idempotency, screenings
from facescreen.db.collections import Size
from facescreen.db.connection import Database
from facescreen.db.files import FileName, StoreName
from facescreen.domain.blacklist import DEFAULT_COLLECTION, Collection, Status
from facescreen.domain.trail import Action
from facescreen.errors import (
    AwsError,
    CollectionExistsError,
    CollectionNotFoundError,
    DefaultCollectionError,
    EntryPendingError,
    InputError,
)
from facescreen.lifeline import uninterrupted
from facescreen.services.files import StoredFiles, watched_by
from facescreen.services.replica import ListReplica
from facescreen.services.trail import record


@dataclass(frozen=True, slots=True)
class DescribedCollection:
    """A collection, how much it holds, and its version."""

    collection: Collection
    size: Size
    version: int


class CollectionService:
    """Creates, lists, describes and deletes collections.

    Args:
        replica: this process's indexes, ``None`` where an outside service searches.
        gallery: the outside service that keeps the faces, ``None`` where embeddings are kept here.
    """

    def __init__(
        self,
        *,
        database: Database,
        stored: StoredFiles,
        replica: ListReplica | None,
        gallery: GalleryBackend | None,
    ) -> None:
        self._database = database
        self._stored = stored
        self._replica = replica
        self._gallery = gallery

    async def get(self, name: str) -> Collection:
        """The collection, or :class:`CollectionNotFoundError`."""
        async with self._database.read() as connection:
            return await present_collection(connection, name)

    async def create(self, name: str) -> DescribedCollection:
        """A new, empty collection.

        Raises:
            CollectionExistsError: there is one of this name.
            InputError: the name is a step of a path, or the outside service cannot have it.
            AwsError: the outside service did not make it.
        """
        if name in {".", ".."}:
            raise InputError("a collection cannot be called . or .., which clients take out of addresses")
        async with self._database.write() as connection:
            if await collections.get_collection(connection, name) is not None:
                raise CollectionExistsError("there is a collection of this name already")
            created = await collections.insert_collection(connection, name)
            await record(connection, Action.COLLECTION_CREATE, collection_id=created.id)
            described = await _described(connection, created)
        if self._gallery is not None:
            with uninterrupted():
                try:
                    await self._gallery.create_collection(name)
                except (AwsError, InputError):
                    await self._take_back(self._gallery, created)
                    raise
        return described

    async def all(self) -> Sequence[Collection]:
        """Every collection, by name."""
        async with self._database.read() as connection:
            return await collections.list_collections(connection)

    async def describe_all(self) -> Sequence[DescribedCollection]:
        """Every collection with its size and version, by name."""
        async with self._database.read() as connection:
            return [await _described(connection, found) for found in await collections.list_collections(connection)]

    async def describe(self, name: str) -> DescribedCollection:
        """The collection with its size and version, or :class:`CollectionNotFoundError`."""
        async with self._database.read() as connection:
            return await _described(connection, await present_collection(connection, name))

    async def delete(self, name: str) -> Collection:
        """The collection that was; its people, photos, embeddings and matches are gone when this returns.

        Raises:
            CollectionNotFoundError: there is none of this name.
            DefaultCollectionError: it is the default one.
            EntryPendingError: somebody was enrolled meanwhile; doing it again goes on.
            AwsError: the outside service did not do its part; its people match nobody, and doing it again goes on.
            StorageFullError: either nothing was done, or photos are still on the disk, to go as soon as it lets them.
        """
        found = await self.get(name)
        if name == DEFAULT_COLLECTION:
            raise DefaultCollectionError("the default collection cannot be deleted; delete its entries instead")
        async with self._database.read() as connection:
            _, entries = await blacklist.list_entries(connection, found.id, limit=None)
        dropped = [await self._stored.within(StoreName.BLACKLIST, entry.folder) for entry in entries]
        async with self._database.write() as connection:
            _, entries = await blacklist.list_entries(connection, found.id, limit=None)
            images = [image for entry in entries for image in entry.images]
            names = self._stored.photos_of(images) | watched_by(images) | {*chain.from_iterable(dropped)}
            if self._gallery is None:
                await _delete(connection, found)
            else:
                for entry in entries:
                    ids = [image.id for image in entry.images]
                    await blacklist.begin_withdrawal(connection, entry.id, ids, whole=True)
            await files.intend(connection, names, owner=None)
            await idempotency.forget_answers(connection)
        fault = None
        with uninterrupted():
            if self._gallery is None:
                fault = await self._stored.remove(list(names))
            else:
                await self._delete_outside(self._gallery, found, gone=list(names))
            await self._database.truncate_wal()
            if self._replica is not None:
                await self._replica.release()
        if fault is not None:
            raise fault
        return found

    async def _take_back(self, gallery: GalleryBackend, created: Collection) -> None:
        """Remove a collection that may not have been made outside, if nobody was enrolled into it meanwhile."""
        with suppress(AwsError):  # empty and unknown, it harms nobody there
            await gallery.delete_collection(created.name)
        async with self._database.write() as connection:
            enrolled, _ = await blacklist.list_entries(connection, created.id, limit=1)
            if not enrolled:
                await _delete(connection, created)
                await idempotency.retract_effect(connection)

    async def _delete_outside(self, gallery: GalleryBackend, found: Collection, *, gone: Sequence[FileName]) -> None:
        """Remove what the service has, the files that were announced to go, and the rows last."""
        await gallery.delete_collection(found.name)
        fault = await self._stored.remove(gone)
        if fault is not None:
            raise fault
        async with self._database.write() as connection:
            _, entries = await blacklist.list_entries(connection, found.id, limit=None)
            if any(entry.status is not Status.WITHDRAWING for entry in entries):
                raise EntryPendingError("somebody was enrolled into the collection meanwhile; delete it again")
            await _delete(connection, found)


async def present_collection(connection: AsyncConnection, name: str) -> Collection:
    """The collection, or :class:`CollectionNotFoundError`."""
    found = await collections.get_collection(connection, name)
    if found is None:
        raise CollectionNotFoundError("there is no collection of this name")
    return found


async def _described(connection: AsyncConnection, collection: Collection) -> DescribedCollection:
    size = await collections.size(connection, collection.id)
    return DescribedCollection(collection, size, await blacklist.version(connection, collection.id))


async def _delete(connection: AsyncConnection, collection: Collection) -> None:
    await record(connection, Action.COLLECTION_DELETE, collection_id=collection.id)
    await screenings.withdraw_collection(connection, collection.id)
    await collections.delete_collection(connection, collection.id)
