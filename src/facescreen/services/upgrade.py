"""Embeds lists for the configured model while another model answers for them."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from facescreen import metrics
from facescreen.db.connection import Database
from facescreen.errors import FacescreenError
from facescreen.services.answering import AnsweringModel
from facescreen.services.cleared import ClearedFaces
from facescreen.services.presence import one_at_a_time, pause
from facescreen.services.reindex import ReindexService

logger = logging.getLogger(__name__)

_PROGRESS_SECONDS = 10.0
"""Between two lines of the log that say how far it is."""

_REST_SECONDS = 2.0
"""Between two runs. What one run leaves, such as photos that cannot be read, is not worth running without a break."""

_RETRY_SECONDS = 60.0
"""After a run that failed."""


class UpgradeService:
    """Embeds photo by photo, one piece of work for the pool at a time, so that requests hardly wait for it.

    Each photo is one transaction. A run can end anywhere, and the next one, in whatever process, goes on.
    """

    def __init__(
        self,
        *,
        database: Database,
        answering: AnsweringModel,
        reindex: ReindexService,
        cleared: ClearedFaces,
        inline_limit: int,
    ) -> None:
        self._database = database
        self._answering = answering
        self._reindex = reindex
        self._cleared = cleared
        self._inline_limit = inline_limit
        self._stopping = asyncio.Event()

    async def prepare(self, collection_id: int) -> None:
        """Make sure that a model can answer in the collection; a few photos are embedded at once.

        Raises:
            EmbeddingsMissingError: too many photos lack an embedding of the configured model, and no other can answer.
        """
        configured = self._answering.configured
        if await self._reindex.missing(collection_id, configured) > self._inline_limit:
            answering = await self._answering.of(collection_id)
            if answering != configured:
                logger.warning("list_answered_by_another_model", extra={"model": answering})
                return
        await self._reindex.ensure(collection_id, configured)

    @asynccontextmanager
    async def upgrading(self) -> AsyncIterator[None]:
        """Upgrade in the background, whenever there is something to do, while the block runs; a photo is finished."""
        self._answering.is_behind.set()  # an upgrade may have been stopped before its clearances were embedded
        task = asyncio.create_task(self._upgrade_when_behind())
        try:
            yield
        finally:
            self._stopping.set()
            self._answering.is_behind.set()
            await task

    async def _upgrade_when_behind(self) -> None:
        while True:
            await self._answering.is_behind.wait()
            if self._stopping.is_set():
                return
            self._answering.is_behind.clear()
            rest = _REST_SECONDS
            try:
                async with one_at_a_time(Path(f"{self._database.path}-upgrade"), self._stopping):
                    await self._upgrade()
            except Exception as error:
                if isinstance(error, FacescreenError):
                    logger.warning("upgrade_failed", extra={"code": error.code})
                else:
                    logger.exception("upgrade_failed")
                self._answering.is_behind.set()
                rest = _RETRY_SECONDS
            await pause(rest, self._stopping)

    async def _upgrade(self) -> None:
        """Embed every photo that the configured model lacks, then the faces that were cleared.

        Photos that were found unreadable before are not tried again.
        """
        model = self._answering.configured
        left = {}
        for collection_id in await self._answering.incomplete():
            if missing := await self._reindex.missing(collection_id, model):
                left[collection_id] = missing
        total, done, unreadable, said = sum(left.values()), 0, 0, 0.0

        def progress(done_here: int, _total: int) -> None:
            nonlocal said
            metrics.photos_to_embed.set(total - done - done_here)
            if time.monotonic() - said > _PROGRESS_SECONDS:
                said = time.monotonic()
                logger.info("list_upgrading", extra={"model": model, "done": done + done_here, "total": total})

        for collection_id, missing in left.items():
            report = await self._reindex.reindex(
                model, progress, collection_id=collection_id, until=self._stopping.is_set
            )
            done += missing
            unreadable += len(report.unreadable)
        if self._stopping.is_set():
            return
        if await self._answering.upgrade() is None:
            await self._cleared.keep_for(model, until=self._stopping.is_set)
        if unreadable:
            logger.warning("list_not_upgraded", extra={"model": model, "skipped": unreadable, "total": total})
        elif left:
            logger.info("list_upgraded", extra={"model": model, "total": total})
