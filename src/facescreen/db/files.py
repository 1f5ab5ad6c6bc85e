"""Intents: which files must not exist unless a row names them."""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db.schema import file_intents


class StoreName(StrEnum):
    """Where a file is."""

    BLACKLIST = "blacklist"
    PROCESSED = "processed"
    BUCKET = "bucket"


class FileName(NamedTuple):
    """A file, by its store and its name there."""

    store: StoreName
    name: str


class Intent(NamedTuple):
    """A file that is about to be named by a row (``owner`` may still commit it) or to be removed (no owner)."""

    file: FileName
    owner: str | None


async def intend(connection: AsyncConnection, files: Iterable[FileName], *, owner: str | None) -> None:
    """Record that these files are to be written by ``owner``, or to be removed where there is none."""
    rows = [{"store": file.store, "name": file.name, "owner": owner} for file in files]
    if rows:
        statement = upsert(file_intents)
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["store", "name"], set_={"owner": statement.excluded.owner}),
            rows,
        )


async def settle(connection: AsyncConnection, files: Iterable[FileName]) -> None:
    """Forget the intents: rows name the files now, or the files are gone."""
    rows = [file._asdict() for file in files]
    if rows:
        await connection.execute(
            delete(file_intents).where(
                file_intents.c.store == bindparam("store"), file_intents.c.name == bindparam("name")
            ),
            rows,
        )


async def is_intended(connection: AsyncConnection, file: FileName) -> bool:
    """Whether somebody is about to write or to remove this file."""
    found = select(file_intents.c.name).where(file_intents.c.store == file.store, file_intents.c.name == file.name)
    return (await connection.execute(found)).first() is not None


async def intents(connection: AsyncConnection) -> list[Intent]:
    """Every unsettled intent."""
    rows = await connection.execute(select(file_intents).order_by(file_intents.c.store, file_intents.c.name))
    return [Intent(FileName(StoreName(row.store), row.name), row.owner) for row in rows]
