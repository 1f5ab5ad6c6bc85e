"""Thresholds by a budget of false alerts, from faces of people who are not on the list."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from facescreen.backends.base import EmbeddingBackend
from facescreen.config import DetectorName, ModelName
from facescreen.db import blacklist, calibrations
from facescreen.db.connection import Database
from facescreen.domain.distances import EmbeddingMetric, Metric, from_cosine
from facescreen.domain.faces import Face, Pixels, Vectors
from facescreen.domain.false_alerts import (
    MEASURED_METRICS,
    AlertBudget,
    Calibration,
    FalseAlertCurve,
    ImpostorSearches,
    Nearest,
    measured_metric,
)
from facescreen.domain.quality import SCREENING_LIMITS
from facescreen.domain.screening import AppliedCalibration, Policy
from facescreen.domain.trail import Action
from facescreen.errors import (
    CalibrationEvidenceError,
    CalibrationNotFoundError,
    CollectionNotFoundError,
    ImageUndecodableError,
    InputError,
    RejectedFile,
    ThresholdRequiredError,
)
from facescreen.images.survey import photos_below
from facescreen.pool import together
from facescreen.recognition.catalog import ShippedFalseAlerts
from facescreen.services.answering import AnsweringModel
from facescreen.services.collections import CollectionService, present_collection
from facescreen.services.dataset import person_of
from facescreen.services.evaluation import centred_face
from facescreen.services.intake import Intake
from facescreen.services.matching import EmbeddingMatcher
from facescreen.services.quality import assess
from facescreen.services.reindex import Progress, ReindexService
from facescreen.services.thresholds import (
    Plan,
    ScreeningDefaults,
    ScreeningOptions,
    deciding_curve,
    resolve_policy,
)
from facescreen.services.trail import record

Choose = Callable[[Pixels, tuple[Face, ...]], Sequence[Face]]
"""Which of the faces of an image count."""

_SAME_PHOTO: Final = 1e-6
"""Cosine distance of what can only be one photo: what float32 embeddings do not tell apart."""

_SHOWN: Final = 10
"""Faces that a report shows."""


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """What one calibration chooses; ``None`` is the configured default, and of models the one that answers."""

    detector: DetectorName | None = None
    model: ModelName | None = None
    one_in: int | None = None
    review_one_in: int | None = None


@dataclass(frozen=True, slots=True)
class NearestProbe:
    """A face that resembles somebody on the list more than others do.

    Attributes:
        photo: that the face is in, by its path below the folder.
        name: of the person on the list.
        distance: to their nearest reference photo.
    """

    photo: str
    name: str
    distance: float


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """A calibration that was stored, and what it rests on.

    Attributes:
        plan: of requests that choose nothing but the model.
        curve: what thresholds are chosen by; in the plan's metric, as the distances of :attr:`nearest` are.
        list_size: reference photos in the list.
        photos: with a face that was searched.
        unusable: faces whose picture misses the limits of screening.
        skipped: what lies in the folder and could not be read, or is no photo.
        nearest: the faces that are nearest to somebody, nearest first.
    """

    calibration: Calibration
    plan: Plan
    curve: FalseAlertCurve
    list_size: int
    photos: int
    unusable: int
    skipped: tuple[RejectedFile, ...]
    nearest: tuple[NearestProbe, ...]

    def policy(self, list_size: int) -> Policy | None:
        """How this decides on a list of so many reference photos, ``None`` where the evidence chooses no threshold."""
        try:
            return resolve_policy(self.plan, self.calibration, list_size)
        except ThresholdRequiredError:
            return None


@dataclass(frozen=True, slots=True)
class CalibrationInForce:
    """What decides in a collection at this moment, with the model that answers.

    Attributes:
        policy: thresholds that are configured go before those of the calibration.
        applied: what is expected of the policy.
    """

    calibration: Calibration
    policy: Policy
    applied: AppliedCalibration


@dataclass(frozen=True, slots=True)
class Probes:
    """Faces that were found in photos.

    Attributes:
        space: of the embeddings.
        vectors: raw embeddings (n, dimension).
        photos: the one that each face is in, by its path below the folder.
        unusable, skipped: as in :class:`CalibrationReport`.
    """

    space: str
    vectors: Vectors
    photos: tuple[str, ...]
    unusable: int
    skipped: tuple[RejectedFile, ...]


def centred(image: Pixels, faces: tuple[Face, ...]) -> Sequence[Face]:
    """The most prominent face alone."""
    face = centred_face(image, faces)
    return () if face is None else (face,)


class _Read(NamedTuple):
    """What became of one photo."""

    vectors: Vectors = np.empty((0, 0), np.float32)
    unusable: int = 0
    error: InputError | None = None


class ProbeReader:
    """Finds and embeds the faces in a folder of photos, and keeps neither.

    Args:
        at_once: photos that are worked on at the same time.
    """

    def __init__(self, *, backend: EmbeddingBackend, intake: Intake, at_once: int) -> None:
        self._backend = backend
        self._intake = intake
        self._at_once = at_once

    async def read(
        self,
        folder: Path,
        progress: Progress = lambda _done, _total: None,
        *,
        detector: DetectorName,
        model: ModelName,
        choose: Choose = lambda _image, faces: faces,
    ) -> Probes:
        """The faces in all photos in and below the folder that are good enough for screening, photo by photo.

        Raises:
            NotReadyError: weights or packages are missing.
        """
        below = await asyncio.to_thread(photos_below, folder)
        photos = below.files
        await self._backend.require(detector, model)
        room = asyncio.Semaphore(self._at_once)
        done = 0

        async def one(photo: str) -> _Read:
            nonlocal done
            async with room:
                found = await self._embed(folder / photo, detector=detector, model=model, choose=choose)
            done += 1
            progress(done, len(photos))
            return found

        read = dict(zip(photos, await together(map(one, photos)), strict=True))
        vectors = [found.vectors for found in read.values() if len(found.vectors)]
        return Probes(
            space=self._backend.space(model),
            vectors=np.concatenate(vectors) if vectors else np.empty((0, 0), np.float32),
            photos=tuple(photo for photo, found in read.items() for _ in found.vectors),
            unusable=sum(found.unusable for found in read.values()),
            skipped=(
                *below.left_out,
                *(
                    RejectedFile(photo, found.error.code, str(found.error))
                    for photo, found in read.items()
                    if found.error
                ),
            ),
        )

    async def _embed(self, path: Path, *, detector: DetectorName, model: ModelName, choose: Choose) -> _Read:
        try:
            image = await self._intake.decode(await asyncio.to_thread(path.read_bytes))
        except OSError:
            return _Read(error=ImageUndecodableError("the file cannot be read"))
        except InputError as error:
            return _Read(error=error)
        found = choose(image, await self._backend.detect(image, detector))
        usable = await asyncio.to_thread(_usable, image, found)
        unusable = len(found) - len(usable)
        if not usable:
            return _Read(unusable=unusable)
        probe = await self._backend.prepare(image, usable, model)
        return _Read(await self._backend.embed([probe], model), unusable)


class CalibrationService:
    """Measures, stores and tells the false alerts of collections."""

    def __init__(
        self,
        *,
        database: Database,
        backend: EmbeddingBackend,
        collections: CollectionService,
        matcher: EmbeddingMatcher,
        reindex: ReindexService,
        reader: ProbeReader,
        answering: AnsweringModel,
        defaults: ScreeningDefaults,
    ) -> None:
        self._database = database
        self._backend = backend
        self._collections = collections
        self._matcher = matcher
        self._reindex = reindex
        self._reader = reader
        self._answering = answering
        self._defaults = defaults

    async def calibrate(
        self,
        folder: Path,
        options: CalibrationOptions,
        progress: Progress = lambda _done, _total: None,
        *,
        collection: str,
        source: str,
    ) -> CalibrationReport:
        """Search every face of the photos in the list, and choose thresholds by how many alert.

        Every request that begins afterwards is judged by it. Of the photos and faces nothing is kept.

        Args:
            folder: photos of people who are not on the list.
            source: what the photos are, in words.

        Raises:
            CollectionNotFoundError: there is no such collection.
            CalibrationEvidenceError: the list is empty, too few faces are usable for the budget, or some are photos of
                the list.
            InputError: the budget for review is below the one for matches.
            NotReadyError: weights, packages or embeddings of the model are missing.
        """
        within = await self._collections.get(collection)
        model = options.model or await self._answering.of(within.id)
        detector = options.detector or self._defaults.detector
        one_in = options.one_in or self._defaults.budget.one_in
        budget = AlertBudget(one_in, options.review_one_in or min(self._defaults.budget.review_one_in, one_in))
        if budget.review_one_in > budget.one_in:
            raise InputError("the review threshold is the wider one: its budget must allow at least as many alerts")
        await self._backend.require(detector, model)
        await self._reindex.ensure(within.id, model)
        async with self._database.read() as connection:
            ids, references = await blacklist.vectors(connection, within.id, self._backend.space(model))
            owners = await blacklist.owners_of(connection, ids)
        rows = [row for row, id_ in enumerate(ids) if id_ in owners]  # without those of entries that have expired
        ids, references = [ids[row] for row in rows], references[rows]
        if not ids:
            raise CalibrationEvidenceError("the collection has no reference photo to compare faces with")
        probes = await self._reader.read(folder, progress, detector=detector, model=model)
        if (usable := len(probes.vectors)) < budget.one_in:
            raise CalibrationEvidenceError(
                f"one false alert in {budget.one_in} needs at least {budget.one_in} faces, and {usable} are usable: "
                "add photos" + f", or allow more false alerts, as with --one-in {usable}" * (usable > 0)
            )
        searches = ImpostorSearches(probes.vectors, references)
        await asyncio.to_thread(_refuse_listed, searches, probes)
        calibration = Calibration(
            id=None,
            source=f"{source}: {len(probes.vectors)} faces searched among {len(ids)} reference photos",
            detector=detector,
            space=probes.space,
            budget=budget,
            curves=await _curves(searches),
            created_at=None,
        )
        plan = self._matcher.plan(ScreeningOptions(model=model))
        curve = deciding_curve(plan, calibration)
        if curve is None:
            raise AssertionError("every metric of embeddings is measured")
        nearest = await asyncio.to_thread(_nearest, searches, curve.metric)
        shown = np.argsort(nearest.distances, kind="stable")[:_SHOWN].tolist()
        async with self._database.write() as connection:
            if (await present_collection(connection, collection)).id != within.id:
                raise CollectionNotFoundError("the collection was deleted meanwhile")
            stored = await calibrations.insert_calibration(connection, within.id, calibration)
            await record(connection, Action.CALIBRATION_CREATE, collection_id=within.id)
            known = await blacklist.references(connection, [ids[nearest.rows[face]] for face in shown])
        return CalibrationReport(
            calibration=stored,
            plan=plan,
            curve=curve,
            list_size=len(ids),
            photos=len(set(probes.photos)),
            unusable=probes.unusable,
            skipped=probes.skipped,
            nearest=tuple(
                NearestProbe(probes.photos[face], known[id_][0].name, float(nearest.distances[face]))
                for face in shown
                if (id_ := ids[nearest.rows[face]]) in known
            ),
        )

    async def in_force(self, collection: str) -> CalibrationInForce:
        """What requests that choose nothing are judged by, at the list's present size.

        Raises:
            CollectionNotFoundError: there is no such collection.
            CalibrationNotFoundError: false alerts were never measured for the answering model.
            ThresholdRequiredError: too few were measured to choose a threshold by.
        """
        within = await self._collections.get(collection)
        plan = await self._matcher.plan_for(within, ScreeningOptions())
        calibration = await self._matcher.calibration(within, plan)
        if calibration is None:
            raise CalibrationNotFoundError(f"false alerts were never measured for model {plan.model}")
        policy = await self._matcher.policy(within, plan)
        if policy.calibration is None:
            raise AssertionError("a policy that rests on a calibration names it")
        return CalibrationInForce(calibration, policy, policy.calibration)

    async def forget(self, collection: str) -> None:
        """Remove the collection's own calibrations of the answering model, so that the model's own holds again.

        Raises:
            CollectionNotFoundError: there is no such collection.
            CalibrationNotFoundError: it has none.
        """
        space = self._backend.space(await self._answering.of((await self._collections.get(collection)).id))
        async with self._database.write() as connection:
            within = await present_collection(connection, collection)
            if not await calibrations.delete_calibrations(connection, within.id, space):
                raise CalibrationNotFoundError(
                    "the collection has no calibration of its own for the model that answers"
                )
            await record(connection, Action.CALIBRATION_DELETE, collection_id=within.id)


def _refuse_listed(searches: ImpostorSearches, probes: Probes) -> None:
    """One photo of the list among the strangers' would leave no distance without false alerts."""
    listed = np.flatnonzero(searches.nearest(Metric.COSINE).distances <= _SAME_PHOTO)
    if len(listed):
        names = ", ".join(dict.fromkeys(probes.photos[face] for face in listed[:_SHOWN]))
        raise CalibrationEvidenceError(f"photos of people who are on the list cannot tell false alerts: {names}")


async def measure_each_other(
    reader: ProbeReader,
    folder: Path,
    progress: Progress = lambda _done, _total: None,
    *,
    detector: DetectorName,
    model: ModelName,
    source: str,
) -> ShippedFalseAlerts:
    """The false alerts of photos of many people, each searched among one photo of everybody else.

    Args:
        folder: photos; whose each is, :func:`facescreen.services.dataset.person_of` tells, and the most prominent face
            is the person's.
        source: what the photos are, in words.

    Raises:
        EvaluationDataError: the name of a photo does not tell whose it is.
        CalibrationEvidenceError: there are no two people.
        NotReadyError: weights or packages are missing.
    """
    below = await asyncio.to_thread(photos_below, folder)
    people = {photo: person_of(photo) for photo in below.files}

    probes = await reader.read(folder, progress, detector=detector, model=model, choose=centred)
    names, first, owners = np.unique([people[photo] for photo in probes.photos], return_index=True, return_inverse=True)
    if len(names) < 2:
        raise CalibrationEvidenceError("there must be usable faces of two or more people")
    searches = ImpostorSearches(probes.vectors, probes.vectors[first], owners)
    return ShippedFalseAlerts(
        source=f"{source}: {len(owners)} faces of {len(names)} people, each searched among one of everybody else",
        detector=detector,
        space=probes.space,
        curves=await _curves(searches),
    )


async def _curves(searches: ImpostorSearches) -> tuple[FalseAlertCurve, ...]:
    return tuple([await asyncio.to_thread(searches.curve, metric) for metric in MEASURED_METRICS])


def _nearest(searches: ImpostorSearches, metric: EmbeddingMetric) -> Nearest:
    """What each face resembles most, in any metric."""
    measured = measured_metric(metric)
    nearest = searches.nearest(measured)
    return nearest if measured is metric else nearest._replace(distances=from_cosine(metric, nearest.distances))


def _usable(image: Pixels, faces: Sequence[Face]) -> tuple[Face, ...]:
    return tuple(face for face in faces if not SCREENING_LIMITS.reasons(assess(image, face)))
