"""A copy of the database as it is at one moment, without what belongs to running processes alone."""

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from alembic.script import ScriptDirectory
from sqlalchemy import Column, Table

from facescreen.db.connection import BUSY_TIMEOUT_SECONDS
from facescreen.db.schema import (
    audit_chain,
    file_intents,
    idempotency_keys,
    reference_images,
    request_tokens,
    screenings,
)
from facescreen.errors import BackupError

_MIGRATIONS = Path(__file__).parent / "migrations"
_OF_RUNNING_PROCESSES: tuple[Table, ...] = (file_intents, idempotency_keys, request_tokens)
_DIGESTS = "SELECT coalesce(watched, photo), sha256 FROM reference_images"
"""Of a photo that was dropped, the digest is the dropped file's."""


class Snapshot(NamedTuple):
    """What a copy of the database says.

    Attributes:
        schema: revision of its tables.
        photos: names of reference photos.
        watched: names of files of the blacklist folder that reference photos stand and fall with.
        copies: names of the pictures of results.
        digests: SHA-256 of the photos of which it is known, unencrypted.
    """

    schema: str
    photos: Collection[str]
    watched: Collection[str]
    copies: Collection[str]
    digests: Mapping[str, str]


def take(database: Path, into: Path) -> Snapshot:
    """Copy the database to a new file, while others read and write it.

    What was deleted is not in the copy: it is built anew from what there is.

    Raises:
        BackupError: the database cannot be read, or the copy not be written.
    """
    into.touch(mode=0o600, exist_ok=False)
    with _opened(database) as connection:
        connection.execute("VACUUM INTO ?", (str(into),))
    with _opened(into) as connection:
        # Before anything is deleted, so that nothing of it stays in unused pages.
        connection.execute("PRAGMA secure_delete=ON")
        for table in _OF_RUNNING_PROCESSES:
            connection.execute(f"DELETE FROM {table.name}")  # noqa: S608 - our own table
        connection.commit()
    return read(into)


def read(copy: Path) -> Snapshot:
    """What a copy says.

    Raises:
        BackupError: it is no database of this service.
    """
    with _opened(copy) as connection:
        ((schema,),) = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        return Snapshot(
            schema,
            _distinct(connection, reference_images.c.photo),
            _distinct(connection, reference_images.c.watched),
            _distinct(connection, screenings.c.copy),
            dict(connection.execute(_DIGESTS)),
        )


def has_tables(database: Path) -> bool:
    """Whether there is anything in a database.

    Raises:
        BackupError: it cannot be read.
    """
    with _opened(database) as connection:
        return bool(connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall())


def trail_end(database: Path) -> str | None:
    """The last event of the audit trail as ``<id>:<hash>``, ``None`` where there is none, or it cannot be read."""
    with suppress(BackupError), _opened(database) as connection:
        wanted = f"SELECT last_id || ':' || last_hash FROM {audit_chain.name}"  # noqa: S608 - our own table
        ((end,),) = connection.execute(wanted).fetchall()
        return str(end)
    return None


def known_schemas() -> Collection[str]:
    """Revisions that this code can migrate from, and its own."""
    return {script.revision for script in ScriptDirectory(str(_MIGRATIONS)).walk_revisions()}


def _distinct(connection: sqlite3.Connection, column: Column[str]) -> Collection[str]:
    wanted = f"SELECT DISTINCT {column.name} FROM {column.table.name}"  # noqa: S608 - our own column
    return {value for (value,) in connection.execute(wanted) if value is not None}


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        there = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(there, uri=True, timeout=BUSY_TIMEOUT_SECONDS)) as connection:
            yield connection
    except (sqlite3.Error, ValueError) as error:
        raise BackupError(f"the database cannot be copied or read: {error}") from error
