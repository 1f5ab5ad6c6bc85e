"""What a request chooses, and the search of a collection that follows from it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from facescreen.backends.base import EmbeddingBackend, GalleryBackend, Probe
from facescreen.config import DetectorName, ModelName
from facescreen.db import blacklist
from facescreen.db.connection import Database
from facescreen.domain.blacklist import Collection
from facescreen.domain.distances import EmbeddingMetric, Metric, convert
from facescreen.domain.faces import Candidate, Pixels
from facescreen.domain.screening import Policy
from facescreen.errors import InvalidThresholdError, OptionNotAvailableError, ThresholdRequiredError
from facescreen.pool import together
from facescreen.recognition.catalog import confidence, default_threshold
from facescreen.services.reindex import ReindexService
from facescreen.services.replica import ListReplica

SIMILARITY_THRESHOLD = 0.2
"""Distance of similarity 80: the default of ``FaceMatchThreshold`` in Rekognition's SearchFacesByImage."""

SEARCHES_AT_ONCE = 8
"""Faces that an outside service is asked for at the same time, for all requests of this process."""


@dataclass(frozen=True, slots=True)
class ScreeningOptions:
    """What one request chooses; ``None`` is the configured default."""

    detector: DetectorName | None = None
    model: ModelName | None = None
    metric: EmbeddingMetric | None = None
    threshold: float | None = None
    all_references: bool = False


@dataclass(frozen=True, slots=True)
class ScreeningDefaults:
    """What holds where a request chooses nothing; ``threshold`` belongs to ``model`` and ``metric``."""

    detector: DetectorName
    model: ModelName
    metric: EmbeddingMetric
    threshold: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """How one request is answered.

    Attributes:
        detector, model: what the backend is asked for.
        detector_name, model_name: what the result names.
    """

    detector: DetectorName
    model: ModelName
    detector_name: str
    model_name: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class Found:
    """Candidates of each face of the probes, in order, and the version of the list that they were sought in.

    Attributes:
        candidates: ``None`` for a face that could not be compared.
    """

    version: int
    candidates: Sequence[tuple[Candidate, ...] | None]


class Matcher(Protocol):
    """Searches collections."""

    def plan(self, options: ScreeningOptions) -> Plan:
        """What the options mean.

        Raises:
            InvalidThresholdError: the threshold is outside of the metric's range.
            ThresholdRequiredError: none was given, configured or measured.
            OptionNotAvailableError: there is nothing to choose.
        """
        ...

    async def ready(self, collection: Collection, plan: Plan) -> None:
        """Make sure that the search can be done and sees every photo of the collection.

        Raises:
            NotReadyError: weights, packages or embeddings of the chosen model are missing.
        """
        ...

    async def find(self, collection: Collection, probes: Sequence[Probe], plan: Plan) -> Found:
        """The reference images within the plan's threshold."""
        ...

    def confidence(self, plan: Plan, distance: float) -> float | None:
        """Calibrated probability in percent that such a distance means one person, ``None`` without calibration."""
        ...


class EmbeddingMatcher:
    """Compares embeddings with this process's index."""

    def __init__(
        self,
        *,
        backend: EmbeddingBackend,
        replica: ListReplica,
        reindex: ReindexService,
        defaults: ScreeningDefaults,
    ) -> None:
        self._backend = backend
        self._replica = replica
        self._reindex = reindex
        self._defaults = defaults

    def plan(self, options: ScreeningOptions) -> Plan:
        detector = options.detector or self._defaults.detector
        model = options.model or self._defaults.model
        return Plan(detector, model, detector, model, resolve_policy(options, self._defaults))

    async def ready(self, collection: Collection, plan: Plan) -> None:
        await self._backend.require(plan.detector, plan.model)
        await self._reindex.ensure(collection.id, plan.model)

    async def find(self, collection: Collection, probes: Sequence[Probe], plan: Plan) -> Found:
        if not any(probe.faces for probe in probes):
            return Found((await self._replica.catch_up(collection.id, plan.model)).version, ())
        vectors = await self._backend.embed(probes, plan.model)
        metric, radius = plan.policy.metric, plan.policy.threshold
        return Found(*await self._replica.search(collection.id, vectors, plan.model, metric=metric, radius=radius))

    def confidence(self, plan: Plan, distance: float) -> float | None:
        return confidence(plan.model, plan.policy.metric, distance)


class GalleryMatcher:
    """Asks an outside service, which knows faces by its own ids, and looks up whose they are."""

    def __init__(self, *, backend: GalleryBackend, database: Database, defaults: ScreeningDefaults) -> None:
        self._backend = backend
        self._database = database
        self._defaults = defaults
        # A call has a deadline, and the wait for a connection counts.
        self._room = asyncio.Semaphore(SEARCHES_AT_ONCE)

    def plan(self, options: ScreeningOptions) -> Plan:
        if options.detector or options.model or options.metric:
            raise OptionNotAvailableError(
                "this service searches with Rekognition, which has one detector and one model"
            )
        threshold = options.threshold if options.threshold is not None else self._defaults.threshold
        policy = Policy(
            Metric.SIMILARITY,
            _checked(SIMILARITY_THRESHOLD if threshold is None else threshold, Metric.SIMILARITY),
            all_references=options.all_references,
        )
        service, _, _ = self._backend.face_model.partition("-")
        return Plan(self._defaults.detector, self._defaults.model, service, self._backend.face_model, policy)

    async def ready(self, collection: Collection, plan: Plan) -> None:
        """Nothing has to be prepared."""

    async def find(self, collection: Collection, probes: Sequence[Probe], plan: Plan) -> Found:
        async with self._database.read() as connection:
            version = await blacklist.version(connection, collection.id)
        similarity = 100.0 - 100.0 * plan.policy.threshold

        async def one(crop: Pixels) -> dict[str, float] | None:
            async with self._room:
                hits = await self._backend.search(collection.name, crop, similarity=similarity)
            if hits is None:
                return None
            # Not 1 - s / 100, which is a hair above 0.3 for 70.
            return {hit.face_id: (100.0 - hit.similarity) / 100.0 for hit in hits}

        found = await together(one(crop) for probe in probes for crop in probe.crops)
        async with self._database.read() as connection:
            known = await blacklist.references_by_face(connection, {id_ for near in found for id_ in near or ()})
        return Found(
            version,
            [
                None
                if near is None
                else tuple(Candidate(known[id_][1].id, distance) for id_, distance in near.items() if id_ in known)
                for near in found
            ],
        )

    def confidence(self, plan: Plan, distance: float) -> float | None:  # noqa: ARG002 - interface
        return None


def resolve_policy(options: ScreeningOptions, defaults: ScreeningDefaults) -> Policy:
    """The metric and threshold that a request is judged by, where embeddings are compared.

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
    return Policy(metric, _checked(threshold, metric), all_references=options.all_references)


def _checked(threshold: float, metric: Metric) -> float:
    if not 0 <= threshold <= metric.maximum:
        raise InvalidThresholdError(f"threshold must be between 0 and {metric.maximum} for metric {metric}")
    return threshold
