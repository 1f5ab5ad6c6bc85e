"""Engine, transactions and what every SQLite connection must be."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from facescreen.errors import DatabaseBusyError, StartupError, StorageFullError

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_SECONDS = 5.0
_TURN_SECONDS = 30.0
"""How long a write waits for earlier ones of this process: as long as SQLAlchemy's pool lets wait for a connection."""
_MIGRATIONS = Path(__file__).parent / "migrations"

_PRAGMAS = {
    "journal_mode": ("WAL", "wal"),
    "synchronous": ("FULL", 2),
    "foreign_keys": ("ON", 1),
    "secure_delete": ("ON", 1),
    "busy_timeout": (str(int(BUSY_TIMEOUT_SECONDS * 1000)), int(BUSY_TIMEOUT_SECONDS * 1000)),
}
"""Pragma: the value that is set, and what SQLite answers when it took it."""


class Database:
    """Read and write transactions on one database.

    Args:
        url: SQLAlchemy URL with an async driver, such as ``sqlite+aiosqlite:///data/facescreen.db``.

    Attributes:
        path: the database file.
    """

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        if self._url.get_backend_name() != "sqlite" or not self._url.database or self._url.database == ":memory:":
            raise StartupError("DATABASE_URL: must be sqlite+aiosqlite:///<file>")
        self.path = Path(self._url.database)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._turn = asyncio.Lock()
        self._engine = create_async_engine(self._url, pool_size=8, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})
        event.listen(self._engine.sync_engine, "connect", _on_connect)
        event.listen(self._engine.sync_engine, "begin", _on_begin)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A snapshot: everything read in it is of one moment."""
        async with self._transaction(immediate=False) as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that holds the write lock from its first moment and is durable once this block is left.

        Raises:
            DatabaseBusyError: another process kept the lock for longer than the busy timeout.
            StorageFullError: the disk is full or read-only; nothing was written.
        """
        async with self._in_turn(), self._transaction(immediate=True) as connection:
            yield connection

    @asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        # SQLite lets any waiter go first, and one that is unlucky for five seconds is refused; a lock of ours is fair.
        try:
            async with asyncio.timeout(_TURN_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            raise _busy() from None
        try:
            yield
        finally:
            self._turn.release()

    @asynccontextmanager
    async def _transaction(self, *, immediate: bool) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.connect() as connection:
                await connection.execution_options(immediate=immediate)
                async with connection.begin():
                    yield connection
        except OperationalError as error:
            raise _translated(error) from error
        except PoolTimeoutError as error:
            raise _busy() from error

    async def require_head(self) -> None:
        """Refuse a schema that this code does not know.

        Raises:
            StartupError: the schema is older or newer than the code; the message names the command.
        """
        async with self.read() as connection:
            current = await connection.run_sync(_current_revision)
        scripts = ScriptDirectory.from_config(self._alembic())
        if current == scripts.get_current_head():
            return
        known = {script.revision for script in scripts.walk_revisions()}
        if current is None or current in known:
            raise StartupError("the database schema is older than this version of facescreen; run: facescreen migrate")
        raise StartupError(
            f"the database schema ({current}) is newer than this version of facescreen; upgrade facescreen"
        )

    async def migrate(self) -> None:
        """Bring the schema to the newest revision."""
        await asyncio.to_thread(command.upgrade, self._alembic(), "head")

    async def truncate_wal(self) -> None:
        """Move the write-ahead log into the database and empty it, so that nothing deleted stays readable there.

        Waits for readers as long as for a lock; one that takes longer, or a full disk, leaves it to the next time.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + BUSY_TIMEOUT_SECONDS
        async with self._in_turn(), self._engine.connect() as connection:
            try:
                is_empty = await connection.run_sync(_truncate_wal)
                # Processes that truncate do not wait for each other: the second is refused at once.
                while not is_empty and loop.time() < deadline:
                    await asyncio.sleep(0.01)
                    is_empty = await connection.run_sync(_truncate_wal)
            except sqlite3.OperationalError:  # the disk is full or read-only
                is_empty = False
        if not is_empty:
            logger.warning("wal_not_truncated")

    async def aclose(self) -> None:
        await self._engine.dispose()

    def _alembic(self) -> Config:
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.set_main_option("sqlalchemy.url", self._url.render_as_string(hide_password=False).replace("%", "%%"))
        return config


def _on_connect(connection: Any, _record: object) -> None:  # noqa: ANN401 - DBAPI adapter without a public type
    connection.isolation_level = None  # transactions are begun by _on_begin alone
    cursor = connection.cursor()
    for pragma, (value, answer) in _PRAGMAS.items():
        cursor.execute(f"PRAGMA {pragma}={value}")
        cursor.execute(f"PRAGMA {pragma}")
        got = cursor.fetchone()[0]
        if got != answer:
            raise StartupError(f"the database refuses PRAGMA {pragma}={value}: it answers {got}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _truncate_wal(connection: Connection) -> bool:
    # Past SQLAlchemy, which would begin a transaction first.
    cursor = connection.connection.cursor()
    cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (busy, *_), *_ = cursor.fetchall()
    cursor.close()
    return not busy


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _translated(error: OperationalError) -> Exception:
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return _busy()
    if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR}:
        return StorageFullError("the database cannot be written: the disk is full or read-only")
    return error


def _busy() -> DatabaseBusyError:
    return DatabaseBusyError("the database is held by another process; try again shortly")
