"""What was answered to requests that may come twice: a client that got no answer repeats its request with its token."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db.schema import request_tokens

KEPT = timedelta(minutes=10)
"""How long an answer is kept: longer than any client goes on repeating a request."""


class Answered(NamedTuple):
    """An answer, and the SHA-256 of the parameters that it was given to."""

    sha256: str
    answer: Any


async def answered(connection: AsyncConnection, operation: str, token: str) -> Answered | None:
    """What was answered to the request with this token, ``None`` if it is new."""
    row = (
        await connection.execute(
            select(request_tokens.c.sha256, request_tokens.c.answer).where(
                request_tokens.c.operation == operation,
                request_tokens.c.token == token,
                request_tokens.c.at > datetime.now(UTC) - KEPT,
            )
        )
    ).one_or_none()
    return Answered(*row) if row else None


async def remember(
    connection: AsyncConnection, collection_id: int, *, operation: str, token: str, answered: Answered
) -> None:
    """Keep an answer, which is of JSON's types, and forget those that are kept no longer."""
    now = datetime.now(UTC)
    await connection.execute(delete(request_tokens).where(request_tokens.c.at <= now - KEPT))
    row = {"operation": operation, "token": token, "collection_id": collection_id, "at": now, **answered._asdict()}
    await connection.execute(insert(request_tokens).values(row))
