"""Files and rows agree whatever happens in between."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from facescreen.config import Settings
from facescreen.db import files
from facescreen.db.connection import Database
from facescreen.db.files import FileName, StoreName
from facescreen.errors import StorageFullError
from facescreen.images.folder_store import FolderStore
from facescreen.services.files import StoredFiles
from facescreen.services.presence import Presence

PHOTO = FileName(StoreName.PROCESSED, "a/b.jpg")


class FullStore(FolderStore):
    """A store whose disk is full after the first file."""

    async def put(self, name: str, data: bytes) -> None:
        if await self.list():
            raise StorageFullError("the disk is full")
        await super().put(name, data)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    opened = Database(settings.database_url)
    yield opened
    await opened.aclose()


def stored(database: Database, tmp_path: Path, store: type[FolderStore] = FolderStore) -> StoredFiles:
    return StoredFiles(database, {StoreName.PROCESSED: store(tmp_path / "files")}, Presence(database.path))


async def intents(database: Database) -> list[FileName]:
    async with database.read() as connection:
        return [intent.file for intent in await files.intents(connection)]


async def test_a_file_is_announced_before_it_exists_and_settled_with_its_row(
    database: Database, tmp_path: Path
) -> None:
    keeper = stored(database, tmp_path)
    async with keeper.writing({PHOTO: b"x"}):
        assert await intents(database) == [PHOTO]
        assert await keeper.read(PHOTO) == b"x"
        async with database.write() as connection:
            await files.settle(connection, [PHOTO])
    assert await intents(database) == []
    assert await keeper.recover() == 0
    assert await keeper.read(PHOTO) == b"x"


async def test_any_number_of_files_is_settled(database: Database) -> None:
    with closing(sqlite3.connect(":memory:")) as any_database:
        most = any_database.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    # A file needs two of the values that one statement may have.
    gone = [FileName(StoreName.PROCESSED, f"a/{number}.jpg") for number in range(most // 2 + 1)]
    async with database.write() as connection:
        await files.intend(connection, [*gone, PHOTO], owner=None)
        await files.settle(connection, gone)
    assert await intents(database) == [PHOTO]


async def test_files_of_a_failed_transaction_are_gone(database: Database, tmp_path: Path) -> None:
    keeper = stored(database, tmp_path)
    with pytest.raises(RuntimeError):
        async with keeper.writing({PHOTO: b"x"}):
            raise RuntimeError
    assert await intents(database) == []
    with pytest.raises(FileNotFoundError):
        await keeper.read(PHOTO)


async def test_a_full_disk_leaves_no_half_of_a_set(database: Database, tmp_path: Path) -> None:
    keeper = stored(database, tmp_path, FullStore)
    contents = {PHOTO: b"x", FileName(StoreName.PROCESSED, "a/c.jpg"): b"y"}
    with pytest.raises(StorageFullError):
        async with keeper.writing(contents):
            pass
    assert await intents(database) == []
    assert await FolderStore(tmp_path / "files").list() == []


async def test_what_a_dead_process_announced_is_removed_and_a_living_one_keeps_its_own(
    database: Database, tmp_path: Path
) -> None:
    keeper = stored(database, tmp_path)
    dead, removal = FileName(StoreName.PROCESSED, "dead.jpg"), FileName(StoreName.PROCESSED, "removal.jpg")
    store = FolderStore(tmp_path / "files")
    for file in (dead, removal):
        await store.put(file.name, b"x")
    async with database.write() as connection:
        await files.intend(connection, [dead], owner="1")
        await files.intend(connection, [removal], owner=None)
    async with keeper.writing({PHOTO: b"x"}):
        assert await keeper.recover() == 2
        assert await store.list() == [PHOTO.name]
        assert await intents(database) == [PHOTO]
        async with database.write() as connection:
            await files.settle(connection, [PHOTO])
