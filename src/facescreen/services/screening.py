"""Screen images against the list, and keep what was found."""

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from facescreen.backends.base import Backend, Probe
from facescreen.config import DetectorName, ModelName
from facescreen.db import blacklist, files, screenings
from facescreen.db.connection import Database
from facescreen.db.files import FileName, StoreName
from facescreen.db.screenings import ResultFilter
from facescreen.domain.distances import Metric, convert
from facescreen.domain.faces import Candidate
from facescreen.domain.screening import ImageError, Match, Policy, ScreenedFace, Screening, Verdict
from facescreen.errors import (
    InputError,
    InvalidThresholdError,
    ResultNotFoundError,
    ThresholdRequiredError,
    TooManyImagesError,
)
from facescreen.images.annotate import annotate
from facescreen.images.decode import encode_jpeg
from facescreen.images.sources import ImageSources, SourceImage, describe
from facescreen.pool import WorkPool
from facescreen.recognition.catalog import confidence, default_threshold
from facescreen.services.decision import decide
from facescreen.services.files import StoredFiles
from facescreen.services.intake import Intake
from facescreen.services.reindex import ReindexService
from facescreen.services.replica import ListReplica

_IMAGES_AT_ONCE = 4
"""Images of one request whose pixels are in memory at the same time."""


@dataclass(frozen=True, slots=True)
class ScreeningOptions:
    """What one request chooses; ``None`` is the configured default."""

    detector: DetectorName | None = None
    model: ModelName | None = None
    metric: Metric | None = None
    threshold: float | None = None
    all_references: bool = False


@dataclass(frozen=True, slots=True)
class ScreeningDefaults:
    """What holds where a request chooses nothing; ``threshold`` belongs to ``model`` and ``metric``."""

    detector: DetectorName
    model: ModelName
    metric: Metric
    threshold: float | None


@dataclass(frozen=True, slots=True)
class _Prepared:
    identifier: str
    probe: Probe
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
        replica: ListReplica,
        reindex: ReindexService,
        stored: StoredFiles,
        sources: ImageSources,
        intake: Intake,
        pool: WorkPool,
        defaults: ScreeningDefaults,
        max_images: int,
    ) -> None:
        self._database = database
        self._backend = backend
        self._replica = replica
        self._reindex = reindex
        self._stored = stored
        self._sources = sources
        self._intake = intake
        self._pool = pool
        self._defaults = defaults
        self._max_images = max_images

    async def screen(self, images: Sequence[str | SourceImage], options: ScreeningOptions) -> list[Screening]:
        """One stored result per image, in order; a bad image has its error in its own result.

        Args:
            images: each a path, URL, data URL or base64 as text, or bytes that are at hand.

        Raises:
            TooManyImagesError, InvalidThresholdError, ThresholdRequiredError: nothing can be answered.
            NotReadyError: weights, packages or embeddings of the chosen model are missing.
            OverloadedError: too much is waiting; nothing was begun.
        """
        if len(images) > self._max_images:
            raise TooManyImagesError(f"{len(images)} images in one request; at most {self._max_images} are allowed")
        detector = options.detector or self._defaults.detector
        model = options.model or self._defaults.model
        policy = resolve_policy(options, self._defaults)
        with self._pool.admit(len(images)):
            await self._backend.require(detector, model)
            await self._reindex.ensure(model)
            room = asyncio.Semaphore(_IMAGES_AT_ONCE)
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(self._prepare(image, detector=detector, model=model, room=room))
                    for image in images
                ]
            prepared = [task.result() for task in running]
            version, candidates = await self._search(prepared, model, policy)
            async with self._database.read() as connection:
                near = {candidate.reference_image_id for found in candidates for candidate in found}
                references = await blacklist.references(connection, near)
        blank = Screening(
            id=0,
            image_identifier="",
            detector=detector,
            model_name=model,
            policy=policy,
            list_version=version,
            created_at=datetime.now(UTC),
            faces=(),
        )
        judge = partial(
            decide,
            references=references,
            policy=policy,
            model_name=model,
            confidence=partial(confidence, model, policy.metric),
        )
        verdicts = map(judge, candidates)
        return await self._store([_judged(item, verdicts, blank) for item in prepared])

    async def get(self, screening_id: int) -> Screening:
        """The stored result, or :class:`ResultNotFoundError`."""
        async with self._database.read() as connection:
            screening = await screenings.get_screening(connection, screening_id)
        if screening is None:
            raise ResultNotFoundError(f"there is no stored result {screening_id}")
        return screening

    async def page(self, wanted: ResultFilter, offset: int, limit: int) -> tuple[int, Sequence[Screening]]:
        """How many results pass the filter, and a page of them, newest first."""
        async with self._database.read() as connection:
            return await screenings.list_screenings(connection, wanted, offset=offset, limit=limit)

    async def picture(self, screening_id: int, *, annotated: bool) -> bytes:
        """The stored copy as JPEG, with boxes, names, distances and verdicts drawn on it where asked for.

        Raises:
            ResultNotFoundError: there is no such result, or its image could not be decoded, so that it has no copy.
        """
        screening = await self.get(screening_id)
        if screening.copy is None:
            raise ResultNotFoundError(f"result {screening_id} has no picture: its image was refused")
        try:
            data = await self._stored.read(FileName(StoreName.PROCESSED, screening.copy))
        except FileNotFoundError:
            raise ResultNotFoundError(f"the picture of result {screening_id} is gone") from None
        if not annotated:
            return data
        with self._pool.admit(1):
            image = await self._intake.decode(data)
            return await self._pool.run(lambda: encode_jpeg(annotate(image, screening.faces)))

    async def delete(self, screening_id: int) -> None:
        """Remove the result and its copy, or raise :class:`ResultNotFoundError`."""
        copies = []
        async with self._database.write() as connection:
            screening = await screenings.get_screening(connection, screening_id)
            if screening is None:
                raise ResultNotFoundError(f"there is no stored result {screening_id}")
            await screenings.delete_screening(connection, screening_id)
            if screening.copy:
                copies.append(FileName(StoreName.PROCESSED, screening.copy))
                await files.intend(connection, copies, owner=None)
        await self._stored.remove(copies)

    async def _prepare(
        self, image: str | SourceImage, *, detector: DetectorName, model: ModelName, room: asyncio.Semaphore
    ) -> _Prepared | _Refused:
        try:
            async with room:
                source = await self._sources.read(image) if isinstance(image, str) else image
                pixels = await self._intake.decode(source.data)

                async def find() -> Probe:
                    return await self._backend.prepare(pixels, await self._backend.detect(pixels, detector), model)

                probe, copy = await asyncio.gather(find(), self._pool.run(encode_jpeg, pixels))
                return _Prepared(source.identifier, probe, copy)
        except InputError as error:
            identifier = await self._pool.run(describe, image) if isinstance(image, str) else image.identifier
            return _Refused(identifier, ImageError(error.code, str(error)))

    async def _search(
        self, prepared: Sequence[_Prepared | _Refused], model: ModelName, policy: Policy
    ) -> tuple[int, list[tuple[Candidate, ...]]]:
        """The version of the list, and the candidates of every face of the request, in order."""
        probes = [item.probe for item in prepared if isinstance(item, _Prepared) and item.probe.faces]
        if not probes:
            return (await self._replica.catch_up(model)).version, []
        vectors = await self._backend.embed(probes, model)
        return await self._replica.search(vectors, model, metric=policy.metric, radius=policy.threshold)

    async def _store(self, judged: Sequence[tuple[Screening, bytes | None]]) -> list[Screening]:
        copies = {
            FileName(StoreName.PROCESSED, screening.copy): data
            for screening, data in judged
            if screening.copy is not None and data is not None
        }
        async with self._stored.writing(copies), self._database.write() as connection:
            stored = [await screenings.insert_screening(connection, screening) for screening, _ in judged]
            await files.settle(connection, copies)
        return stored


def _judged(
    item: _Prepared | _Refused, verdicts: Iterator[tuple[Verdict, tuple[Match, ...]]], blank: Screening
) -> tuple[Screening, bytes | None]:
    """The result of one image and its copy; takes as many verdicts as the image has faces."""
    if isinstance(item, _Refused):
        return replace(blank, image_identifier=item.identifier, error=item.error), None
    faces = tuple(ScreenedFace(face, *next(verdicts)) for face in item.probe.faces)
    name = f"{blank.created_at:%Y-%m-%d}/{secrets.token_hex(16)}.jpg"
    return replace(blank, image_identifier=item.identifier, faces=faces, copy=name), item.copy


def resolve_policy(options: ScreeningOptions, defaults: ScreeningDefaults) -> Policy:
    """The metric and threshold that a request is judged by.

    A configured threshold belongs to the configured model and metric and is converted for metrics of the same geometry;
    every other model and metric has the threshold that was measured for it, or the request must give one.

    Raises:
        InvalidThresholdError: the threshold is outside of the metric's range.
        ThresholdRequiredError: none was given, configured or measured.
    """
    model = options.model or defaults.model
    metric = options.metric or defaults.metric
    threshold = options.threshold
    same_geometry = metric is defaults.metric or (metric.is_angle_based and defaults.metric.is_angle_based)
    if threshold is None and defaults.threshold is not None and model == defaults.model and same_geometry:
        threshold = convert(defaults.threshold, defaults.metric, metric)
    if threshold is None:
        threshold = default_threshold(model, metric)
    if threshold is None:
        raise ThresholdRequiredError(
            f"no threshold was measured for model {model} with metric {metric}; give one as `threshold`"
        )
    if not 0 <= threshold <= metric.maximum:
        raise InvalidThresholdError(f"threshold must be between 0 and {metric.maximum} for metric {metric}")
    return Policy(metric, threshold, all_references=options.all_references)
