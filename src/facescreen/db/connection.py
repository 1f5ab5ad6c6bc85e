"""Engine, transactions and what every SQLite connection must be."""

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from contextvars import Context
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from facescreen import metrics
from facescreen.db.in_place import InPlace
from facescreen.domain.names import folded
from facescreen.domain.sealing import DataKeys
from facescreen.errors import DatabaseBusyError, StartupError, StorageFullError, UnavailableError
from facescreen.lifeline import require_wanted, uninterrupted

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_SECONDS = 5.0
_TURN_SECONDS = 30.0
"""How long a write waits for earlier ones of this process: as long as SQLAlchemy's pool lets wait for a connection."""
_TRUNCATE_AGAIN_SECONDS = 0.5
"""How long to wait between two looks whether readers have gone."""
RESTORED = "-restored"
"""How the name of a database ends that is to replace the one without it, with all that belongs to it."""
_FILES = ("", "-wal", "-shm", "-retention", "-upgrade", RESTORED)
"""How the names of files end that hold a database, or belong to one."""
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
        keys: what embeddings are encrypted with, ``None`` where they are not.

    Attributes:
        path: the database file.
    """

    def __init__(self, url: str, keys: DataKeys | None = None) -> None:
        self._url = make_url(url)
        self.path = path_of(url)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(self.path)
        self._turn = asyncio.Lock()
        self._head: str | None = None
        self._in_place = InPlace(
            self.path, "the database cannot be used: its file was moved or removed; start the service again"
        )
        self._truncation: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        # Only a migration makes a database; who looks where none is leaves none behind.
        there = self._url.set(database=self.path.absolute().as_uri()).update_query_dict({"uri": "true", "mode": "rw"})
        self._engine = create_async_engine(
            there, pool_size=8, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, hide_parameters=True
        )
        event.listen(self._engine.sync_engine, "connect", _on_connect)
        event.listen(self._engine.sync_engine, "connect", lambda _, record: record.info.update(keys=keys))
        event.listen(self._engine.sync_engine, "begin", _on_begin)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A snapshot: everything read in it is of one moment."""
        async with self._transaction(immediate=False) as connection:
            yield connection
        require_wanted()

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
            with ExitStack() as section:
                async with self._engine.connect() as connection:
                    # Also of a read: a cancelled one leaves its statement open, and the log could not be truncated. It
                    # lasts until the connection is given back: what was committed is to be finished and answered.
                    section.enter_context(uninterrupted())
                    self._in_place.require()
                    await connection.execution_options(immediate=immediate)
                    async with AsyncExitStack() as transaction:
                        try:
                            await transaction.enter_async_context(connection.begin())
                        except OperationalError as error:
                            if _code(error) != sqlite3.SQLITE_READONLY:
                                raise
                            # SQLite opens for reading what it may not write just then, and would stay at that.
                            await self._engine.dispose()
                            await connection.invalidate()
                            await transaction.enter_async_context(connection.begin())
                        yield connection
        except (OperationalError, PoolTimeoutError) as error:
            translated = _busy() if isinstance(error, PoolTimeoutError) else _translated(error)
            if isinstance(translated, UnavailableError):
                metrics.database_failures.labels(translated.code).inc()
            raise translated from error
        if immediate:
            metrics.database_writes.inc()

    async def require_head(self) -> None:
        """Refuse a schema that this code does not know.

        Raises:
            StartupError: there is no database, its schema is older or newer than the code, or a restore was
                interrupted; the message names the command.
        """
        if self._exists(RESTORED):
            raise StartupError("the restore of a backup was interrupted; it is finished by: facescreen audit")
        if not self._exists():
            raise StartupError("there is no database at DATABASE_URL yet; make it: facescreen migrate")
        current = await self._revision()
        scripts = ScriptDirectory.from_config(self._alembic())
        if current == scripts.get_current_head():
            self._head = current
            return
        known = {script.revision for script in scripts.walk_revisions()}
        if current is None or current in known:
            raise StartupError("the database schema is older than this version of facescreen; run: facescreen migrate")
        raise StartupError(
            f"the database schema ({current}) is newer than this version of facescreen; upgrade facescreen"
        )

    async def is_at_head(self) -> bool:
        """Whether the schema is still the one that :meth:`require_head` found to be ours."""
        return self._head is not None and await self._revision() == self._head

    async def require_writable(self) -> None:
        """Write something that changes nothing, for how long that takes and whether it can be done at all.

        It does not wait for writes of this process that have not begun.

        Raises:
            DatabaseBusyError, StorageFullError: as :meth:`write` does.
        """
        async with self._transaction(immediate=True) as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = version_num"))

    def _exists(self, ending: str = "") -> bool:
        return Path(f"{self.path}{ending}").exists()

    async def _revision(self) -> str | None:
        async with self.read() as connection:
            return await connection.run_sync(_current_revision)

    async def migrate(self) -> None:
        """Bring the schema to the newest revision.

        Raises:
            StartupError: the database cannot be opened or written, or another process holds it.
        """
        try:
            await asyncio.to_thread(command.upgrade, self._alembic(), "head")
        except OperationalError as error:
            translated = _translated(error)
            if not isinstance(translated, UnavailableError):
                raise
            raise StartupError(str(translated)) from None

    async def truncate_wal(self) -> None:
        """Move the write-ahead log into the database and empty it, so that nothing deleted stays readable there.

        Waits for readers as long as for a lock. Where one takes longer, or the disk is full, it is done as soon as that
        is over, as long as this process lives; the next one begins with it.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + BUSY_TIMEOUT_SECONDS
        with uninterrupted():
            while not (is_empty := await self._try_to_truncate_wal()) and loop.time() < deadline:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        if not is_empty and (self._truncation is None or self._truncation.done()):
            logger.warning("wal_not_truncated")
            # Of no context: it does not end with the request that it comes of.
            self._truncation = asyncio.create_task(self._truncate_wal_one_day(), context=Context())

    async def _truncate_wal_one_day(self) -> None:
        while not (self._closing.is_set() or await self._try_to_truncate_wal()):
            with suppress(TimeoutError):
                async with asyncio.timeout(_TRUNCATE_AGAIN_SECONDS):
                    await self._closing.wait()

    async def _try_to_truncate_wal(self) -> bool:
        try:
            async with self._in_turn(), self._engine.connect() as connection:
                return await connection.run_sync(_truncate_wal)
        except (sqlite3.OperationalError, OperationalError, PoolTimeoutError, UnavailableError):  # as on a full disk
            return False

    async def aclose(self) -> None:
        self._closing.set()
        if self._truncation is not None:
            await self._truncation
        await self._engine.dispose()

    def _alembic(self) -> Config:
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.set_main_option("sqlalchemy.url", self._url.render_as_string(hide_password=False).replace("%", "%%"))
        return config


def path_of(url: str) -> Path:
    """The file of a database.

    Raises:
        StartupError: it has none.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise StartupError("DATABASE_URL: must be sqlite+aiosqlite:///<file>")
    return Path(parsed.database)


def _make_private(database: Path) -> None:
    """Let nobody else read what is there already; SQLite makes its other files like the database."""
    for ending in _FILES:
        with suppress(OSError):  # it is not there, or on a disk that takes nothing
            file = Path(f"{database}{ending}")
            status = file.stat()
            if status.st_uid == os.geteuid() and status.st_mode & 0o077:
                file.chmod(0o600)
                logger.warning("database_made_private")


def _on_connect(connection: Any, _record: object) -> None:  # noqa: ANN401 - DBAPI adapter without a public type
    connection.create_function("folded", 1, lambda text: text and folded(text), deterministic=True)
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
    if not connection.get_execution_options().get("immediate", False):
        connection.exec_driver_sql("BEGIN")
        return
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    # SQLite takes that for a mere BEGIN where it could open the file for reading only.
    connection.exec_driver_sql("DELETE FROM alembic_version WHERE false")


def _truncate_wal(connection: Connection) -> bool:
    # Past SQLAlchemy, which would begin a transaction first. It keeps others from writing while it waits for readers.
    cursor = connection.connection.cursor()
    cursor.execute("PRAGMA busy_timeout=0")
    try:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (busy, *_), *_ = cursor.fetchall()
        return not busy
    finally:
        cursor.execute(f"PRAGMA busy_timeout={_PRAGMAS['busy_timeout'][0]}")
        cursor.close()


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _translated(error: OperationalError) -> Exception:
    code = _code(error)
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return _busy()
    if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}:
        return StorageFullError("the database cannot be opened or written: the disk is full, read-only or failing")
    return error


def _code(error: OperationalError) -> int:
    code: int = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    return code


def _busy() -> DatabaseBusyError:
    return DatabaseBusyError("the database is held by another process; try again shortly")
