"""Encryption at rest: how much of the data is sealed, sealing the rest, and new master keys."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db import blacklist, files, screenings, seals
from facescreen.db.connection import Database
from facescreen.db.files import FileName, StoreName
from facescreen.db.key_ring import KeyRing, Masters
from facescreen.db.seals import BrokenEmbedding, Sealed
from facescreen.domain.sealing import SealBrokenError
from facescreen.domain.trail import Action
from facescreen.errors import StartupError, StorageFullError
from facescreen.images.sealed_store import SealedStore
from facescreen.services.files import StoredFiles
from facescreen.services.reindex import Progress
from facescreen.services.trail import record

_SAMPLE = 10
"""Of how many photos it is judged whether the keys are of this list, spread over all."""
_ROWS_AT_ONCE = 200
"""In one transaction; whoever else writes gets a turn between two of them."""


@dataclass(frozen=True, slots=True)
class EncryptionStatus:
    """How much is sealed.

    Attributes:
        files: of each store, those that rows name.
    """

    masters: Masters
    embeddings: Sealed
    clearances: Sealed
    files: Mapping[StoreName, Sealed]


@dataclass(frozen=True, slots=True)
class BrokenFile:
    """A stored file that cannot be opened.

    Attributes:
        is_erased: its key is gone, and not only some of its bytes.
    """

    file: FileName
    is_erased: bool


class EncryptionService:
    """Works on the data while services do; an interrupted run goes on where it was.

    Args:
        stores: the stores that ``stored`` has.
    """

    def __init__(
        self, *, database: Database, keys: KeyRing, stored: StoredFiles, stores: Mapping[StoreName, SealedStore]
    ) -> None:
        self._database = database
        self._keys = keys
        self._stored = stored
        self._stores = stores

    async def status(self) -> EncryptionStatus:
        """Every stored file is read for this."""
        async with self._database.read() as connection:
            embeddings = await seals.embeddings_sealed(connection)
            clearances = await seals.clearances_sealed(connection)
        counts = {}
        for store, sealed in self._stores.items():
            found = [await _is_sealed(sealed, name) for name in await self._named(store)]
            counts[store] = Sealed(sum(found), len(found))
        return EncryptionStatus(await asyncio.to_thread(self._keys.masters), embeddings, clearances, counts)

    async def rotate(self, progress: Progress = lambda _done, _total: None) -> Masters:
        """Wrap every key with a new master key and remove the one before it."""
        masters = await asyncio.to_thread(self._keys.rotate, progress)
        async with self._database.write() as connection:
            await record(connection, Action.ENCRYPTION_ROTATE)
        return masters

    async def apply(self, progress: Progress = lambda _done, _total: None) -> EncryptionStatus:
        """Seal what is not sealed yet; nothing of it is readable in any file of the data afterwards."""
        before = await self.status()
        counts = [before.embeddings, before.clearances, *before.files.values()]
        done, total = 0, sum(each.total - each.count for each in counts)

        def advance(by: int) -> None:
            nonlocal done
            done += by
            progress(done, max(done, total))

        for store, sealed in self._stores.items():
            for name in await self._named(store):
                if not await _is_sealed(sealed, name):
                    await self._seal(FileName(store, name))
                    advance(1)
        for seal in (seals.seal_embeddings, seals.seal_clearances):
            await self._in_portions(seal, advance)
        async with self._database.write() as connection:
            await record(connection, Action.ENCRYPTION_APPLY)
        await self._database.truncate_wal()
        return await self.status()

    async def broken_files(self) -> AsyncIterator[BrokenFile]:
        """Files of rows that cannot be opened; every stored file is read for this."""
        for store, sealed in self._stores.items():
            for name in await self._named(store):
                try:
                    await sealed.get(name)
                except SealBrokenError:
                    file = FileName(store, name)
                    yield BrokenFile(file, await self._is_erased(file))
                except FileNotFoundError:
                    continue

    async def broken_embeddings(self) -> Sequence[BrokenEmbedding]:
        """Embeddings that cannot be decrypted."""
        async with self._database.read() as connection:
            return await seals.broken_embeddings(connection)

    async def broken_clearances(self) -> Sequence[int]:
        """Ids of clearances that cannot be decrypted."""
        async with self._database.read() as connection:
            return await seals.broken_clearances(connection)

    async def forget(self, broken: BrokenEmbedding) -> None:
        """Remove an embedding, so that it is made anew."""
        async with self._database.write() as connection:
            await seals.forget_embedding(connection, broken)

    async def keys_left_over(self) -> Sequence[str]:
        """Names of keys of files that no row knows and nobody has announced."""
        # Keys first: whatever has one was announced before, so that rows or intents know it then.
        names = await asyncio.to_thread(self._keys.names)
        known: set[str] = set()
        async with self._database.read() as connection:
            for store, sealed in self._stores.items():
                known.update(map(sealed.key_of, await _named(connection, store)))
            known.update(f"{file.store}/{file.name}" for file, _ in await files.intents(connection))
        for sealed in self._stores.values():
            known.update(map(sealed.key_of, await sealed.list()))
        ours = {str(store) for store in self._stores}
        return sorted(name for name in names - known if name.partition("/")[0] in ours)

    async def drop(self, key: str) -> None:
        """Forget a key for good."""
        await asyncio.to_thread(self._keys.drop, [key])

    async def fits(self) -> bool:
        """Whether the keys are of this list: they open something, and not less of a sample than they lack keys of."""
        opened, erased = await self._sample()
        return 0 < opened >= erased

    async def require_fit(self) -> None:
        """Refuse keys that are another list's, or new ones: what is missing is more likely lost than all dropped.

        Raises:
            StartupError: most of a sample of the photos, or of the copies if no photo is sealed, have no key.
        """
        opened, erased = await self._sample()
        if erased > opened:
            raise StartupError(
                f"ENCRYPTION_KEY_DIR: {erased} of {opened + erased} encrypted files have no key in this folder; it is "
                "another one, or was not mounted"
            )

    async def _sample(self) -> tuple[int, int]:
        """How many sealed photos can be opened, and how many have no key; copies where no photo is sealed.

        Copies are deleted by age, so that a restored backup may have many without a key.
        """
        for stores in ((StoreName.BLACKLIST, StoreName.BUCKET), (StoreName.PROCESSED,)):
            opened = erased = 0
            for store in self._stores.keys() & stores:
                async with self._database.read() as connection:
                    names = sorted(await _named(connection, store))
                for name in names[:: len(names) // _SAMPLE + 1]:
                    is_erased = await self._is_erased(FileName(store, name))
                    try:
                        await self._stores[store].get(name)
                        opened += not is_erased  # what is not sealed has no key
                    except SealBrokenError:
                        erased += is_erased
                    except (FileNotFoundError, StorageFullError):
                        continue
            if opened or erased:
                return opened, erased
        return 0, 0

    async def _is_erased(self, file: FileName) -> bool:
        """Whether there is no key of it."""
        return not await asyncio.to_thread(self._keys.find, [self._stores[file.store].key_of(file.name)])

    async def _seal(self, file: FileName) -> None:
        """Encrypt a file that a row names. If the row goes meanwhile, the file does."""
        if file.store is StoreName.BUCKET:
            # Too slow for a transaction. Without it, the file may be written after somebody has deleted it.
            await self._seal_present(file)
            async with self._database.write() as connection:
                if is_gone := file.name not in await _named(connection, file.store):
                    await files.intend(connection, [file], owner=None)
            if is_gone:
                await self._stored.remove([file])
            return
        began = time.monotonic()
        async with self._database.write() as connection:
            # In the transaction: a photo that came back after its deletion would be enrolled as somebody new.
            if file.name in await _named(connection, file.store, only=file.name):
                await self._seal_present(file)
        await asyncio.sleep(time.monotonic() - began)  # others write, too

    async def _seal_present(self, file: FileName) -> None:
        try:
            await self._stores[file.store].seal(file.name)
        except FileNotFoundError:
            return

    async def _in_portions(self, seal: Callable[..., Awaitable[int]], advance: Callable[[int], None]) -> None:
        while True:
            began = time.monotonic()
            async with self._database.write() as connection:
                sealed = await seal(connection, most=_ROWS_AT_ONCE)
            if not sealed:
                return
            advance(sealed)
            await asyncio.sleep(time.monotonic() - began)

    async def _named(self, store: StoreName) -> list[str]:
        """The files of a store that rows name."""
        listed = await self._stores[store].list()
        async with self._database.read() as connection:
            named = await _named(connection, store)
        return [name for name in listed if name in named]


async def require_unsealed(database: Database, stores: Mapping[StoreName, SealedStore]) -> None:
    """Refuse to go on without keys if there are sealed data.

    Raises:
        StartupError: an embedding, a clearance, the newest photo or the newest copy is sealed.
    """
    async with database.read() as connection:
        is_sealed = bool(
            (await seals.embeddings_sealed(connection)).count or (await seals.clearances_sealed(connection)).count
        )
        photo, copy = await seals.newest_files(connection)
    newest = ((StoreName.BLACKLIST, photo), (StoreName.BUCKET, photo), (StoreName.PROCESSED, copy))
    for store, name in newest:
        if not is_sealed and name is not None and store in stores:
            with suppress(StorageFullError):  # what is encrypted and cannot be read is as safe as what is missing
                is_sealed = await _is_sealed(stores[store], name)
    if is_sealed:
        raise StartupError("ENCRYPTION_KEY_DIR: must be set, for there are encrypted data")


async def _named(connection: AsyncConnection, store: StoreName, *, only: str | None = None) -> set[str]:
    """What rows name in a store; with ``only`` at most this."""
    if store is StoreName.PROCESSED:
        return await screenings.copies(connection)
    if only is not None:
        return await blacklist.kept_photos(connection, [only])
    return await blacklist.named_photos(connection)


async def _is_sealed(store: SealedStore, name: str) -> bool:
    try:
        return await store.is_sealed(name)
    except FileNotFoundError:
        return False
