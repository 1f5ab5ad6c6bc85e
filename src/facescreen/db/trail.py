"""The audit trail."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Column, ColumnElement, Integer, LargeBinary, cast, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db.schema import audit_chain, audit_events
from facescreen.domain.trail import Event, Head, Link, stamp

_AT = func.json_extract(audit_events.c.event, "$.at")


@dataclass(frozen=True, slots=True)
class Extent:
    """From where to where the chain is kept: the place before its first link, and its last one."""

    before: Head
    last: Head


async def append(connection: AsyncConnection, event: Event) -> Link:
    """Add the next link."""
    last = (await extent(connection)).last
    link = Link.of(event, id=last.id + 1, previous=last.hash)
    await connection.execute(insert(audit_events).values(id=link.id, event=link.text, hash=link.hash))
    await connection.execute(update(audit_chain).values(last_id=link.id, last_hash=link.hash))
    return link


async def extent(connection: AsyncConnection) -> Extent:
    """Where the chain begins and ends."""
    ids = (cast(audit_chain.c.first_id, Integer), cast(audit_chain.c.last_id, Integer))
    hashes = (_raw(audit_chain.c.before_first), _raw(audit_chain.c.last_hash))
    row = (await connection.execute(select(*ids, *hashes).order_by(audit_chain.c.id).limit(1))).one_or_none()
    first, last, before_first, last_hash = row or (1, 0, b"", b"")
    return Extent(Head(first - 1, _text(before_first)), Head(last, _text(last_hash)))


async def page(
    connection: AsyncConnection, *, after: int | None, until: int | None = None, limit: int
) -> Sequence[Link]:
    """Links after one id, up to another where given, in order."""
    wanted = select(audit_events.c.id, _raw(audit_events.c.event), _raw(audit_events.c.hash))
    if after is not None:
        wanted = wanted.where(audit_events.c.id > after)
    if until is not None:
        wanted = wanted.where(audit_events.c.id <= until)
    rows = await connection.execute(wanted.order_by(audit_events.c.id).limit(limit))
    return [Link(id_, _text(event), _text(hash_)) for id_, event, hash_ in rows]


async def first_since(connection: AsyncConnection, moment: datetime) -> int:
    """Id of the first event then or later, or the id after the last."""
    found = select(audit_events.c.id).where(stamp(moment) <= _AT).order_by(audit_events.c.id).limit(1)
    first: int | None = (await connection.execute(found)).scalar_one_or_none()
    return first if first is not None else (await extent(connection)).last.id + 1


async def cut(connection: AsyncConnection, first: int) -> int:
    """Remove the links before this one, which there is; how many that were."""
    before = select(audit_events.c.hash).where(audit_events.c.id == first - 1)
    before_first: str | None = (await connection.execute(before)).scalar_one_or_none()
    if before_first is None:
        return 0
    await connection.execute(update(audit_chain).values(first_id=first, before_first=before_first))
    return (await connection.execute(delete(audit_events).where(audit_events.c.id < first))).rowcount


def _raw(column: Column[str]) -> ColumnElement[bytes]:
    """What is stored, whatever it is: SQLite keeps what it is given, also bytes that are no text."""
    return cast(column, LargeBinary)


def _text(stored: bytes | None) -> str:
    return (stored or b"").decode(errors="replace")
