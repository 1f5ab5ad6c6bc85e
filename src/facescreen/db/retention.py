"""What has been kept for long enough."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db.schema import clearances, screenings


class Kept(StrEnum):
    """What of results is kept for a time of its own."""

    COPIES = "copies"
    """Pictures of results."""
    RESULTS = "results"
    """Results in which nobody ever was taken for somebody on the list."""
    HITS = "hits"
    """Results with a match or possible match, also one that was cleared or whose person is not on the list any more."""


class Due(NamedTuple):
    """A result that is to go, or that is to lose its copy; ``None`` if it has none."""

    id: int
    copy: str | None


async def count_due(connection: AsyncConnection, kept: Kept, before: datetime) -> int:
    """How many results from before this moment are due."""
    statement = select(func.count()).select_from(screenings).where(*_conditions(kept, before))
    count: int = (await connection.execute(statement)).scalar_one()
    return count


async def due(connection: AsyncConnection, kept: Kept, before: datetime, *, after: int, limit: int) -> list[Due]:
    """Results from before this moment that are due, from the one after the row ``after`` on, oldest first."""
    page = (
        select(screenings.c.id, screenings.c.copy)
        .where(*_conditions(kept, before), screenings.c.id > after)
        .order_by(screenings.c.id)
        .limit(limit)
    )
    return [Due(*row) for row in await connection.execute(page)]


def _conditions(kept: Kept, before: datetime) -> list[ColumnElement[bool]]:
    conditions = [screenings.c.created_at < before]
    if kept is Kept.COPIES:
        return [*conditions, screenings.c.copy.is_not(None)]
    # A clearance ends with the result that it was given on, and what it keeps quiet would alert again.
    holds = exists().where(clearances.c.screening_id == screenings.c.id, clearances.c.expired_at.is_(None))
    return [*conditions, screenings.c.is_hit.is_(kept is Kept.HITS), ~holds]
