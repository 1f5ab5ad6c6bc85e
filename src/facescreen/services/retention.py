"""Deletes what has been kept for long enough, and who was on the list until now."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from facescreen.config import Settings
from facescreen.db import blacklist, idempotency, request_tokens, retention, screenings
from facescreen.db.connection import Database
from facescreen.db.retention import Kept
from facescreen.domain.trail import Action
from facescreen.errors import EntryNotFoundError, FacescreenError
from facescreen.services.files import StoredFiles
from facescreen.services.presence import one_at_a_time, pause
from facescreen.services.register import Register
from facescreen.services.reindex import Progress
from facescreen.services.screening import delete_results, intend_removal
from facescreen.services.trail import count_cut, cut, record

logger = logging.getLogger(__name__)

_AT_ONCE = 200
"""Results in one transaction; whoever else writes gets a turn between two of them."""


class Kind(StrEnum):
    """What a sweep deletes, in its order."""

    ENTRIES = "entries"
    COPIES = "copies"
    RESULTS = "results"
    HITS = "hits"
    ANSWERS = "answers"
    AUDIT = "audit"


class RetentionService:
    """Sweeps when it is told to, and now and then in the background.

    What is due goes in small portions, each as if it were deleted by hand: rows and intents to remove files in one
    transaction, the files after it. So a sweep may end anywhere, and the next one goes on.
    """

    def __init__(self, *, database: Database, stored: StoredFiles, register: Register, settings: Settings) -> None:
        self._database = database
        self._stored = stored
        self._register = register
        self._sweep_seconds = settings.retention_sweep_seconds
        self._days = {
            Kept.RESULTS: settings.retention_results_days,
            Kept.HITS: settings.retention_hits_days,
            Kept.COPIES: settings.retention_copies_days,
        }
        self._audit_days = settings.retention_audit_days
        self._answers = timedelta(hours=settings.idempotency_hours)
        self._stopping = asyncio.Event()

    async def due(self) -> Counter[Kind]:
        """How much of each kind a sweep would delete now."""
        due = Counter(dict.fromkeys(Kind, 0))
        async with self._database.read() as connection:
            due[Kind.ENTRIES] = len(await blacklist.expired_entries(connection))
            for kept in Kept:
                if (before := _days_ago(self._days[kept])) is not None:
                    due[Kind(kept)] = await retention.count_due(connection, kept, before)
            due[Kind.ANSWERS] = await idempotency.count_older(connection, self._answers)
            due[Kind.ANSWERS] += await request_tokens.count_expired(connection)
            if (before := _days_ago(self._audit_days)) is not None:
                due[Kind.AUDIT] = await count_cut(connection, before)
        return due

    async def sweep(self, progress: Progress = lambda _done, _total: None) -> Counter[Kind]:
        """Delete what is due, and how much of each kind that was. One process at a time does this; others wait.

        Raises:
            StorageFullError, DatabaseBusyError: the rest is left to the next sweep.
        """
        async with one_at_a_time(Path(f"{self._database.path}-retention"), self._stopping):
            due = await self.due()
            done = Counter(dict.fromkeys(Kind, 0))

            def count(kind: Kind, more: int) -> None:
                done[kind] += more
                progress(done.total(), max(done.total(), due.total()))

            try:
                await self._sweep(due, count)
            finally:
                await self._database.truncate_wal()  # also of what was deleted by a process that has gone since
            return done

    @asynccontextmanager
    async def sweeping(self) -> AsyncIterator[None]:
        """Sweep at once and every ``retention_sweep_seconds`` while the block runs; the last portion is finished."""
        task = asyncio.create_task(self._sweep_now_and_then())
        try:
            yield
        finally:
            self._stopping.set()
            await task

    async def _sweep_now_and_then(self) -> None:
        while not self._stopping.is_set():
            try:
                done = await self.sweep()
            except FacescreenError as error:
                logger.warning("sweep_failed", extra={"code": error.code})
            except Exception:
                logger.exception("sweep_failed")
            else:
                if done.total():
                    logger.info("swept", extra={"done": done.total()})
            await pause(self._sweep_seconds, self._stopping)

    async def _sweep(self, due: Mapping[Kind, int], count: Callable[[Kind, int], None]) -> None:
        if due[Kind.ENTRIES]:
            await self._withdraw_expired(count)
        for kept in Kept:
            before = _days_ago(self._days[kept])
            if before is not None and due[Kind(kept)]:
                await self._delete(kept, before, count)
        if self._stopping.is_set() or not (due[Kind.ANSWERS] or due[Kind.AUDIT]):
            return
        async with self._database.write() as connection:
            if due[Kind.ANSWERS]:
                count(Kind.ANSWERS, await idempotency.forget_older(connection, self._answers))
                count(Kind.ANSWERS, await request_tokens.forget_expired(connection))
            if due[Kind.AUDIT] and (before := _days_ago(self._audit_days)) is not None:
                count(Kind.AUDIT, await cut(connection, before))

    async def _withdraw_expired(self, count: Callable[[Kind, int], None]) -> None:
        async with self._database.read() as connection:
            expired = await blacklist.expired_entries(connection)
        for entry in expired:
            if self._stopping.is_set():
                return
            try:
                await self._register.withdraw(entry, if_expired=True)
            except EntryNotFoundError:  # somebody was faster
                continue
            except FacescreenError as error:
                # It matches nobody. The others need not wait for what keeps this one.
                logger.warning("entry_not_withdrawn", extra={"code": error.code})
            else:
                count(Kind.ENTRIES, 1)

    async def _delete(self, kept: Kept, before: datetime, count: Callable[[Kind, int], None]) -> None:
        last = 0
        while not self._stopping.is_set():
            async with self._database.write() as connection:
                found = await retention.due(connection, kept, before, after=last, limit=_AT_ONCE)
                if not found:
                    return
                if kept is Kept.COPIES:
                    await screenings.forget_copies(connection, [result.id for result in found])
                    files = await intend_removal(connection, found)
                else:
                    files = await delete_results(connection, found)
                await record(connection, Action.RETENTION, result_ids=[result.id for result in found], subject=kept)
            fault = await self._stored.remove(files)
            count(Kind(kept), len(found))
            if fault is not None:
                raise fault
            last = found[-1].id


def _days_ago(days: float | None) -> datetime | None:
    """``None`` for what is kept for ever."""
    return None if days is None else datetime.now(UTC) - timedelta(days=days)
