"""Requests with an idempotency key: which were asked, who works on them, and what was answered."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Update, delete, func, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen import acting
from facescreen.acting import Claim
from facescreen.db.schema import idempotency_keys
from facescreen.errors import IdempotencyInProgressError

_NOT_TO_BE_KEPT = b""
"""Instead of an answer that is not there yet."""


class Known(NamedTuple):
    """A request that was asked before.

    Attributes:
        fingerprint: of its payload, in hexadecimal.
        owner: the process that works on it, ``None`` once that is over.
        answer: encrypted; nothing where none was given, or none that is kept.
    """

    fingerprint: str
    owner: str | None
    has_effect: bool
    answer: bytes | None


async def known(connection: AsyncConnection, request_id: str) -> Known | None:
    """What is known of a request, ``None`` if it is new."""
    columns = (idempotency_keys.c[name] for name in Known._fields)
    row = (await connection.execute(select(*columns).where(idempotency_keys.c.id == request_id))).one_or_none()
    return Known(*row) if row else None


async def claim(connection: AsyncConnection, claimed: Claim, *, fingerprint: str) -> None:
    """Begin a request that is new."""
    row = {"id": claimed.id, "fingerprint": fingerprint, "owner": claimed.owner, "has_effect": False}
    await connection.execute(insert(idempotency_keys).values(**row, created_at=datetime.now(UTC)))


async def mark_effect(connection: AsyncConnection) -> None:
    """Say, in the transaction of what the present request does, that it does it.

    Raises:
        IdempotencyInProgressError: the request was given up, or began anew elsewhere, and may do nothing any more.
    """
    claimed = acting.claim.get()
    if claimed is None:
        return
    marked = await connection.execute(_claimed(claimed).values(has_effect=True))
    if not marked.rowcount:
        raise IdempotencyInProgressError("this request was given up meanwhile; send it again")


async def retract_effect(connection: AsyncConnection) -> None:
    """Say, in the transaction that takes back what the present request did, that it did nothing."""
    claimed = acting.claim.get()
    if claimed is not None:
        await connection.execute(_claimed(claimed).values(has_effect=False))


async def keep(connection: AsyncConnection, claimed: Claim, answer: bytes) -> None:
    """Keep the encrypted answer unless it is to be forgotten already; nobody works on the request any more."""
    may_keep = idempotency_keys.c.answer.is_(None)
    kept = await connection.execute(_claimed(claimed).where(may_keep).values(owner=None, answer=answer))
    if not kept.rowcount:
        await give_up(connection, claimed)


async def give_up(connection: AsyncConnection, claimed: Claim) -> None:
    """Nobody works on the request any more: forget it, unless it had an effect."""
    table = idempotency_keys
    await connection.execute(
        delete(table).where(table.c.id == claimed.id, table.c.owner == claimed.owner, ~table.c.has_effect)
    )
    await connection.execute(_claimed(claimed).values(owner=None, answer=None))


async def forget_answers(connection: AsyncConnection) -> None:
    """Forget, in the transaction that takes somebody off the list, every answer: any of them may name who it was.

    What had an effect is still not done again. Requests that others work on will keep none, for theirs may be made.
    """
    table = idempotency_keys
    is_over = table.c.owner.is_(None)
    await connection.execute(delete(table).where(is_over, ~table.c.has_effect))
    await connection.execute(update(table).where(is_over).values(answer=None))
    claimed = acting.claim.get()
    others = table.c.id != claimed.id if claimed else true()
    await connection.execute(update(table).where(~is_over, others).values(answer=_NOT_TO_BE_KEPT))


async def count_older(connection: AsyncConnection, age: timedelta) -> int:
    """How many requests were begun so long ago."""
    counted = select(func.count()).select_from(idempotency_keys).where(_is_older(age))
    count: int = (await connection.execute(counted)).scalar_one()
    return count


async def forget(connection: AsyncConnection, request_id: str) -> None:
    """As if the request had never come."""
    await connection.execute(delete(idempotency_keys).where(idempotency_keys.c.id == request_id))


async def forget_older(connection: AsyncConnection, age: timedelta) -> int:
    """Forget requests that were begun so long ago; how many that were."""
    return (await connection.execute(delete(idempotency_keys).where(_is_older(age)))).rowcount


def _is_older(age: timedelta) -> ColumnElement[bool]:
    return idempotency_keys.c.created_at <= datetime.now(UTC) - age


def _claimed(claimed: Claim) -> Update:
    of_claim = (idempotency_keys.c.id == claimed.id, idempotency_keys.c.owner == claimed.owner)
    return update(idempotency_keys).where(*of_claim)
