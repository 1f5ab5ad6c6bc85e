"""Transactions and what every connection must be."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import Pool

from facescreen.config import Settings
from facescreen.db import blacklist, collections, connection
from facescreen.db.blacklist import NewEntry
from facescreen.db.connection import Database
from facescreen.domain.blacklist import DEFAULT_COLLECTION, Status
from facescreen.errors import DatabaseBusyError, DeadlineExceededError, StartupError, StorageFullError
from facescreen.lifeline import Lifeline

HANGING = 60.0


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    opened = Database(settings.database_url)
    yield opened
    await opened.aclose()


async def default_collection(transaction: AsyncConnection) -> int:
    found = await collections.get_collection(transaction, DEFAULT_COLLECTION)
    assert found is not None
    return found.id


async def insert(transaction: AsyncConnection, name: str, reason: str = "") -> int:
    new = NewEntry(name, reason, name.lower(), None)
    return await blacklist.insert_entry(transaction, await default_collection(transaction), new, status=Status.ACTIVE)


async def count(transaction: AsyncConnection) -> int:
    return (await collections.size(transaction, await default_collection(transaction))).entries


async def add(database: Database) -> int:
    async with database.write() as transaction:
        return await insert(transaction, "Ada")


async def entries(database: Database) -> int:
    async with database.read() as transaction:
        return await count(transaction)


async def test_every_pooled_connection_has_the_required_pragmas(database: Database) -> None:
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1, "busy_timeout": 5000}

    async def pragmas() -> dict[str, object]:
        async with database.read() as transaction:
            await asyncio.sleep(0.01)
            return {name: (await transaction.execute(text(f"PRAGMA {name}"))).scalar_one() for name in wanted}

    assert await asyncio.gather(*(pragmas() for _ in range(6))) == [wanted] * 6


async def test_a_failed_write_leaves_nothing(database: Database) -> None:

    async def fail() -> None:
        async with database.write() as transaction:
            await insert(transaction, "Ada")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await entries(database) == 0


async def test_a_read_is_one_moment(database: Database) -> None:
    async with database.read() as transaction:
        assert await count(transaction) == 0
        await add(database)
        assert await count(transaction) == 0
    assert await entries(database) == 1


async def test_a_locked_database_is_waited_for_and_then_said_to_be_busy(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setitem(connection._PRAGMAS, "busy_timeout", ("200", 200))
    database = Database(settings.database_url)
    assert await entries(database) == 0
    with sqlite3.connect(settings.database_url.removeprefix("sqlite+aiosqlite:///"), isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusyError):
            await add(database)
        assert await entries(database) == 0
        other.execute("COMMIT")
    other.close()
    await add(database)
    assert await entries(database) == 1
    await database.aclose()


async def test_a_full_database_refuses_writes_and_goes_on_reading(database: Database) -> None:
    await add(database)
    async with database.read() as transaction:
        pages = (await transaction.execute(text("PRAGMA page_count"))).scalar_one()
        await transaction.execute(text(f"PRAGMA max_page_count={pages}"))
    with pytest.raises(StorageFullError):
        async with database.write() as transaction:
            await insert(transaction, "A" * 200, "x" * 100_000)
    assert await entries(database) == 1


async def test_nothing_deleted_stays_readable_in_any_file(
    database: Database, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(settings.database_url.removeprefix("sqlite+aiosqlite:///")).parent

    def readable() -> bool:
        return any(b"Zebedee" in file.read_bytes() for file in folder.iterdir())

    async with database.write() as transaction:
        entry_id = await insert(transaction, "Zebedee")
    assert readable()
    async with database.write() as transaction:
        await blacklist.delete_entry(transaction, entry_id)
    await database.truncate_wal()
    assert not readable()
    assert not caplog.records
    async with database.write() as transaction:
        assert (await transaction.execute(text("PRAGMA journal_mode"))).scalar_one() == "wal"


@pytest.mark.parametrize("url", ["sqlite+aiosqlite:///:memory:", "postgresql+asyncpg://localhost/x"])
def test_a_database_that_cannot_be_durable_is_refused(url: str) -> None:
    with pytest.raises(StartupError, match="DATABASE_URL"):
        Database(url)


async def test_older_and_newer_schemas_are_refused_with_what_to_do(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'new.db'}")
    with pytest.raises(StartupError, match="there is no database at DATABASE_URL yet; make it: facescreen migrate"):
        await database.require_head()
    assert not database.path.exists()
    database.path.touch()
    with pytest.raises(StartupError, match="older than this version of facescreen; run: facescreen migrate"):
        await database.require_head()
    await database.migrate()
    await database.require_head()
    async with database.write() as transaction:
        await transaction.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StartupError, match="newer"):
        await database.require_head()
    await database.aclose()


async def test_a_request_that_ends_while_its_connection_is_given_back_has_been_done(database: Database) -> None:
    lifeline = Lifeline()
    event.listen(Pool, "checkin", end := lambda *_: lifeline.end(DeadlineExceededError("late")))
    try:
        with lifeline.holding():
            await add(database)
            is_told = True
    finally:
        event.remove(Pool, "checkin", end)
    assert is_told
    with pytest.raises(DeadlineExceededError), lifeline.holding():
        await entries(database)
    assert await entries(database) == 1


async def test_a_database_that_was_moved_is_not_used(database: Database) -> None:
    await add(database)
    before = database.path.with_name("before.db")
    database.path.rename(before)
    for use in (add, entries, Database.require_writable):
        with pytest.raises(StorageFullError, match="moved or removed"):
            await use(database)
    shutil.copy(before, database.path)
    with pytest.raises(StorageFullError, match="moved or removed"):
        await entries(database)
    before.replace(database.path)
    await database.require_writable()
    assert await entries(database) == 1


async def test_what_a_reader_keeps_in_the_log_goes_when_it_has_gone(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(connection, "_TRUNCATE_AGAIN_SECONDS", 0.01)
    log = database.path.with_name(f"{database.path.name}-wal")
    other = Database(settings.database_url)
    async with database.write() as transaction:
        entry_id = await insert(transaction, "Zebedee")
    async with other.read() as reading:
        assert await count(reading) == 1
        async with database.write() as transaction:
            await blacklist.delete_entry(transaction, entry_id)
        await database.truncate_wal()
        assert b"Zebedee" in log.read_bytes()
        await add(database)  # nobody is kept from writing meanwhile
    async with asyncio.timeout(HANGING):
        while b"Zebedee" in log.read_bytes():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
    await other.aclose()


async def test_only_this_user_may_read_a_database(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/data/facescreen.db"

    async def modes(mode: int = 0) -> dict[str, int]:
        """Of all files of a database in use, after those that are there were given this one."""
        for path in (tmp_path / "data").glob("*"):
            path.chmod(path.stat().st_mode | mode)
        opened = Database(url)
        await opened.migrate()
        await opened.require_writable()
        found = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "data").iterdir()}
        await opened.aclose()
        return found

    private = dict.fromkeys(("facescreen.db", "facescreen.db-wal", "facescreen.db-shm"), 0o600)
    assert await modes() == private
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert "database_made_private" not in caplog.messages
    assert await modes(0o044) == private
    assert "database_made_private" in caplog.messages
