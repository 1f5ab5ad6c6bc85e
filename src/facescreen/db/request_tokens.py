"""What was answered to requests that may come twice: a client that got no answer repeats its request with its token."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db.schema import request_tokens

KEPT = timedelta(minutes=10)
"""How long an answer is kept: longer than any client goes on repeating a request."""


class Answered(NamedTuple):
    """An answer, and the SHA-256 of the parameters that it was given to."""

    sha256: str
    answer: Any


async def answered(connection: AsyncConnection, operation: str, token: str) -> Answered | None:
    """What was answered to the request with this token, ``None`` if it is new or was forgotten."""
    row = (
        await connection.execute(
            select(request_tokens.c.sha256, request_tokens.c.answer).where(
                request_tokens.c.operation == operation, request_tokens.c.token == token
            )
        )
    ).one_or_none()
    return Answered(*row) if row else None


async def remember(
    connection: AsyncConnection, collection_id: int, *, operation: str, token: str, answered: Answered
) -> None:
    """Keep an answer, which is of JSON's types."""
    named = {"operation": operation, "token": token, "collection_id": collection_id}
    await connection.execute(insert(request_tokens).values(**named, **answered._asdict(), at=datetime.now(UTC)))


async def count_expired(connection: AsyncConnection) -> int:
    """How many answers are kept no longer."""
    counted = select(func.count()).select_from(request_tokens).where(_has_expired())
    count: int = (await connection.execute(counted)).scalar_one()
    return count


async def forget_expired(connection: AsyncConnection) -> int:
    """Forget the answers that are kept no longer, which name people and faces that may be gone; how many they were."""
    return (await connection.execute(delete(request_tokens).where(_has_expired()))).rowcount


def _has_expired() -> ColumnElement[bool]:
    return request_tokens.c.at <= datetime.now(UTC) - KEPT
