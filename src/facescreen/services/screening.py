"""Screen images against the list, and keep what was found."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen import metrics
from facescreen.backends.base import Backend, Probe
from facescreen.db import files, screenings
from facescreen.db.connection import Database
from facescreen.db.files import FileName, StoreName
from facescreen.db.retention import Due
from facescreen.db.screenings import ResultFilter
from facescreen.domain.blacklist import DEFAULT_COLLECTION, Collection
from facescreen.domain.quality import FaceQuality
from facescreen.domain.screening import ImageError, ScreenedFace, Screening
from facescreen.domain.trail import Action
from facescreen.errors import InputError, ResultNotFoundError, StorageFullError, TooManyImagesError
from facescreen.images.annotate import annotate
from facescreen.images.decode import encode_jpeg
from facescreen.images.sources import ImageSources, SourceImage, describe
from facescreen.pool import WorkPool, together
from facescreen.services.collections import CollectionService
from facescreen.services.decision import Decision, Near, decide
from facescreen.services.files import StoredFiles
from facescreen.services.intake import Intake
from facescreen.services.matching import Matcher
from facescreen.services.quality import assess
from facescreen.services.thresholds import Plan, ScreeningOptions
from facescreen.services.trail import record

logger = logging.getLogger(__name__)

_IMAGES_AT_ONCE = 4
"""Images of one request whose pixels are in memory at the same time."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    identifier: str
    probe: Probe
    qualities: Sequence[FaceQuality]
    smallest_face: int | None
    copy: bytes


@dataclass(frozen=True, slots=True)
class _Refused:
    identifier: str
    error: ImageError


class ScreeningService:
    """Screens images, and keeps, shows and deletes what was found.

    Args:
        max_images: images in one request.
    """

    def __init__(
        self,
        *,
        database: Database,
        backend: Backend,
        matcher: Matcher,
        collections: CollectionService,
        stored: StoredFiles,
        sources: ImageSources,
        intake: Intake,
        pool: WorkPool,
        max_images: int,
    ) -> None:
        self._database = database
        self._backend = backend
        self._matcher = matcher
        self._collections = collections
        self._stored = stored
        self._sources = sources
        self._intake = intake
        self._pool = pool
        self._max_images = max_images

    async def screen(
        self,
        images: Sequence[str | SourceImage],
        options: ScreeningOptions,
        *,
        collection: str = DEFAULT_COLLECTION,
    ) -> list[Screening]:
        """One result per image, in order; a bad image has its error in its own result.

        They are stored, unless the disk takes nothing: whoever asks who is at the door needs the answer all the more.

        Args:
            images: each a path, URL, data URL or base64 as text, or bytes that are at hand.

        Raises:
            TooManyImagesError, InvalidThresholdError, ThresholdRequiredError, OptionNotAvailableError,
            CollectionNotFoundError: nothing can be answered.
            NotReadyError: weights, packages or embeddings of the chosen model are missing.
            AwsError: the outside service did not do its part.
        """
        if len(images) > self._max_images:
            raise TooManyImagesError(f"{len(images)} images in one request; at most {self._max_images} are allowed")
        within = await self._collections.get(collection)
        plan = await self._matcher.plan_for(within, options)
        await self._matcher.ready(within, plan)
        prepared = await self._prepare_all(images, plan)
        with metrics.image_seconds.labels("compare").time():
            found = await self._matcher.find(
                within, [item.probe for item in prepared if isinstance(item, _Prepared)], plan
            )
        blank = Screening(
            id=0,
            collection=within.name,
            image_identifier="",
            detector=plan.detector_name,
            model_name=plan.model_name,
            policy=found.policy,
            list_version=found.version,
            created_at=datetime.now(UTC),
            faces=(),
        )
        judge = partial(
            decide,
            references=found.references,
            policy=found.policy,
            model_name=plan.model_name,
            confidence=partial(self._matcher.confidence, plan),
            false_alert_probability=found.false_alert_probability,
        )
        near = iter(found.faces)
        judged = [_judged(item, near, blank=blank, judge=judge) for item in prepared]
        for screening, _ in judged:
            metrics.images.labels(screening.outcome or "refused").inc()
        return await self._store(judged, within, version=found.version)

    async def get(self, screening_id: int) -> Screening:
        """The stored result, or :class:`ResultNotFoundError`."""
        async with self._database.read() as connection:
            return await present_screening(connection, screening_id)

    async def page(self, wanted: ResultFilter, offset: int, limit: int) -> tuple[int, Sequence[Screening]]:
        """How many results pass the filter, and a page of them, newest first."""
        async with self._database.read() as connection:
            return await screenings.list_screenings(connection, wanted, offset=offset, limit=limit)

    async def picture(self, screening_id: int, *, annotated: bool) -> bytes:
        """The stored copy as JPEG, with boxes, names, distances and verdicts drawn on it where asked for.

        Raises:
            ResultNotFoundError: there is no such result, or it has no copy: its image could not be decoded, or the copy
                is kept no longer.
        """
        screening = await self.get(screening_id)
        if screening.copy is None:
            why = "its image was refused" if screening.error else "it is kept no longer"
            raise ResultNotFoundError(f"result {screening_id} has no picture: {why}")
        try:
            data = await self._stored.read(FileName(StoreName.PROCESSED, screening.copy))
        except FileNotFoundError:
            raise ResultNotFoundError(f"the picture of result {screening_id} is gone") from None
        if not annotated:
            return data
        image = await self._intake.decode(data)
        return await self._pool.run(lambda: encode_jpeg(annotate(image, screening.faces)))

    async def delete(self, screening_id: int) -> None:
        """Remove the result and its copy, or raise :class:`ResultNotFoundError`."""
        async with self._database.write() as connection:
            screening = await present_screening(connection, screening_id)
            copies = await delete_results(connection, [Due(screening_id, screening.copy)])
            await record(connection, Action.RESULT_DELETE, result_ids=[screening_id])
        fault = await self._stored.remove(copies)
        await self._database.truncate_wal()
        if fault is not None:
            raise fault

    async def _prepare_all(self, images: Sequence[str | SourceImage], plan: Plan) -> list[_Prepared | _Refused]:
        room = asyncio.Semaphore(_IMAGES_AT_ONCE)
        return await together(self._prepare(image, plan, room) for image in images)

    async def _prepare(self, image: str | SourceImage, plan: Plan, room: asyncio.Semaphore) -> _Prepared | _Refused:
        try:
            async with room:
                source = await self._sources.read(image) if isinstance(image, str) else image
                pixels = await self._intake.decode(source.data)

                async def find() -> tuple[Probe, Sequence[FaceQuality]]:
                    with metrics.image_seconds.labels("detect").time():
                        faces = await self._backend.detect(pixels, plan.detector)
                    probe = await self._backend.prepare(pixels, faces, plan.model)
                    return probe, await self._pool.run(lambda: [assess(pixels, face) for face in faces])

                (probe, qualities), copy = await asyncio.gather(find(), self._pool.run(encode_jpeg, pixels))
                height, width, _ = pixels.shape
                smallest = self._backend.smallest_face(width, height, plan.detector)
                return _Prepared(source.identifier, probe, qualities, smallest, copy)
        except InputError as error:
            identifier = await self._pool.run(describe, image) if isinstance(image, str) else image.identifier
            return _Refused(identifier, ImageError(error.code, str(error)))

    async def _store(
        self, judged: Sequence[tuple[Screening, bytes | None]], within: Collection, *, version: int
    ) -> list[Screening]:
        copies = {
            FileName(StoreName.PROCESSED, screening.copy): data
            for screening, data in judged
            if screening.copy is not None and data is not None
        }
        try:
            async with self._stored.writing(copies), self._database.write() as connection:
                stored = [await screenings.insert_screening(connection, screening) for screening, _ in judged]
                await files.settle(connection, copies)
                await record(
                    connection,
                    Action.SCREENING,
                    collection_id=within.id,
                    list_version=version,
                    result_ids=[screening.id for screening in stored],
                    entry_ids={
                        match.entry_id for screening in stored for face in screening.faces for match in face.alerts
                    },
                )
        except StorageFullError:
            logger.warning("results_not_stored", extra={"results": len(judged)})
            async with self._database.read() as connection:
                return [await screenings.as_it_stands(connection, replace(found, copy=None)) for found, _ in judged]
        return stored


async def delete_results(connection: AsyncConnection, results: Sequence[Due]) -> list[FileName]:
    """Delete results in the caller's transaction; it has to remove their copies after it."""
    await screenings.delete_screenings(connection, [result.id for result in results])
    return await intend_removal(connection, results)


async def intend_removal(connection: AsyncConnection, results: Iterable[Due]) -> list[FileName]:
    """The copies of results, once the caller's transaction announces that they go; it has to remove them after it."""
    copies = [FileName(StoreName.PROCESSED, result.copy) for result in results if result.copy is not None]
    await files.intend(connection, copies, owner=None)
    return copies


async def present_screening(connection: AsyncConnection, screening_id: int) -> Screening:
    """The stored result, or :class:`ResultNotFoundError`."""
    screening = await screenings.get_screening(connection, screening_id)
    if screening is None:
        raise ResultNotFoundError(f"there is no stored result {screening_id}")
    return screening


def _judged(
    item: _Prepared | _Refused, near: Iterator[Near | None], *, blank: Screening, judge: Callable[..., Decision]
) -> tuple[Screening, bytes | None]:
    """The result of one image and its copy; takes as much of what was found as the image has faces."""
    if isinstance(item, _Refused):
        return replace(blank, image_identifier=item.identifier, error=item.error), None
    faces = []
    for face, quality in zip(item.probe.faces, item.qualities, strict=True):
        verdict, matches, reasons = judge(next(near), quality=quality)
        faces.append(ScreenedFace(face, verdict, matches, quality, reasons))
        metrics.faces.labels(verdict.value).inc()
    name = f"{blank.created_at:%Y-%m-%d}/{secrets.token_hex(16)}.jpg"
    judged = replace(
        blank, image_identifier=item.identifier, faces=tuple(faces), copy=name, smallest_face=item.smallest_face
    )
    return judged, item.copy
