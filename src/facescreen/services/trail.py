"""The audit trail: recorded with what is done, read, verified, and cut at its beginning."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Unpack

from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen import acting
from facescreen.db import blacklist, idempotency, trail
from facescreen.db.connection import Database
from facescreen.domain.trail import Action, Chain, Details, Event, Head, Link, Verification
from facescreen.errors import FacescreenError
from facescreen.lifeline import to_the_end

logger = logging.getLogger(__name__)

_PAGE = 1000
"""Links in memory at a time."""
_FAILURE_SECONDS = 1.0
"""How long a refusal is held back for its event."""


async def record(connection: AsyncConnection, action: Action, **details: Unpack[Details]) -> None:
    """Record who does this, in the transaction that does it: neither is ever there without the other.

    Without a ``list_version``, it is that of the collection now.
    """
    if action is not Action.REINDEX:  # upkeep, which no request asks for and any may find done
        await idempotency.mark_effect(connection)
    await _append(connection, action, details)


async def _append(connection: AsyncConnection, action: Action, details: Details) -> None:
    collection_id = details.get("collection_id")
    if collection_id is not None and details.get("list_version") is None:
        details["list_version"] = await blacklist.version(connection, collection_id)
    event = Event(datetime.now(UTC), acting.actor.get(), acting.request_id.get(), action, details)
    await trail.append(connection, event)


async def cut(connection: AsyncConnection, before: datetime) -> int:
    """Remove the events before this moment, all but the last one, and record that; how many that were."""
    first = await _first_kept(connection, before)
    removed = await trail.cut(connection, first)
    if removed:
        await record(connection, Action.AUDIT_CUT, subject=str(first))
    return removed


async def count_cut(connection: AsyncConnection, before: datetime) -> int:
    """How many events :func:`cut` would remove."""
    return max(0, await _first_kept(connection, before) - (await trail.extent(connection)).before.id - 1)


async def _first_kept(connection: AsyncConnection, before: datetime) -> int:
    return min(await trail.first_since(connection, before), (await trail.extent(connection)).last.id)


class TrailService:
    """Records what changes nothing, and reads the trail."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._running: set[asyncio.Task[Any]] = set()

    async def aclose(self) -> None:
        """Wait for what is recorded after whoever asked was told."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def note(self, action: Action, **details: Unpack[Details]) -> None:
        """Record what has no transaction of its own, and does not fail where that cannot be recorded."""
        try:
            async with self._database.write() as connection:
                await _append(connection, action, details)
        except FacescreenError as error:
            logger.warning("event_not_recorded", extra={"code": error.code})
        except Exception:
            logger.exception("event_not_recorded")

    async def note_failure(self, action: Action, **details: Unpack[Details]) -> None:
        """As :meth:`note`; where that takes longer than a second, it is recorded after whoever asked was told."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAILURE_SECONDS):
                await to_the_end(self.note(action, **details), self._running)

    async def export(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        after_id: int = 0,
        limit: int | None = None,
    ) -> AsyncIterator[str]:
        """The trail as it is now, as JSON Lines in pieces of whole lines; that it was read is recorded.

        Args:
            since: from the first event then or later on.
            until: up to the event before the first one then or later.
            after_id: only events after this one.
            limit: events at most.
        """
        async with self._database.read() as connection:
            kept = await trail.extent(connection)
            first = await trail.first_since(connection, since) if since else 0
            last = await trail.first_since(connection, until) - 1 if until else kept.last.id
        await self.note(Action.AUDIT_EXPORT)
        after = max(kept.before.id, first - 1, after_id)
        return self._lines(after, last if limit is None else min(last, after + limit))

    async def _lines(self, after: int, last: int) -> AsyncIterator[str]:
        while after < last:
            async with self._database.read() as connection:
                page = await trail.page(connection, after=after, until=last, limit=_PAGE)
            if not page or page[0].id != after + 1:
                return  # cut meanwhile
            yield "".join(f"{link.line}\n" for link in page)
            after = page[-1].id

    async def verify(self, expected: Head | None = None) -> Verification:
        """Follow the chain from its beginning to its end.

        Args:
            expected: a place that was noted elsewhere.

        Raises:
            NotFoundError: the expected place was cut off with what was before it.
        """
        async with self._database.read() as connection:
            kept = await trail.extent(connection)
            chain = Chain(kept.before, expected)
            after = None
            while page := await trail.page(connection, after=after, limit=_PAGE):
                if not all(map(chain.follow, page)):
                    break
                after = page[-1].id
        return chain.verification(end=kept.last)


def verify_lines(lines: Iterable[str], expected: Head | None = None) -> Verification:
    """As :meth:`TrailService.verify`, of exported lines, which may begin and end anywhere."""
    chain = Chain(None, expected)
    all(map(chain.follow, map(Link.of_line, lines)))
    return chain.verification()
