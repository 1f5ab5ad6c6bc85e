"""The search of a collection for faces, by embeddings or in an outside service."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from facescreen import metrics
from facescreen.backends.base import EmbeddingBackend, GalleryBackend, Probe
from facescreen.db import blacklist, calibrations
from facescreen.db.connection import Database
from facescreen.domain.blacklist import DEFAULT_COLLECTION, Collection, Entry, ReferenceImage
from facescreen.domain.distances import Metric, distances
from facescreen.domain.faces import Candidate, Pixels, Vector, Vectors
from facescreen.domain.false_alerts import Calibration, FalseAlertCurve
from facescreen.domain.screening import Clearance, Policy
from facescreen.errors import OptionNotAvailableError
from facescreen.pool import together
from facescreen.recognition.catalog import confidence, default_threshold
from facescreen.services.answering import AnsweringModel
from facescreen.services.cleared import ClearedFaces
from facescreen.services.decision import Cleared, Near
from facescreen.services.reindex import ReindexService
from facescreen.services.replica import ListReplica, ListState
from facescreen.services.thresholds import (
    Plan,
    ScreeningDefaults,
    ScreeningOptions,
    asked_thresholds,
    deciding_curve,
    resolve_policy,
    shipped_calibration,
    similarity_thresholds,
)

SEARCHES_AT_ONCE = 8
"""Faces that an outside service is asked for at the same time, for all requests of this process."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found for each face of the probes, in order.

    Attributes:
        version: of the list that was searched.
        faces: ``None`` for a face that could not be compared.
        references: every reference image among the candidates, with its entry.
        curve: false alerts by distance, ``None`` where nobody measured them.
    """

    version: int
    policy: Policy
    faces: Sequence[Near | None]
    references: Mapping[int, tuple[Entry, ReferenceImage]]
    curve: FalseAlertCurve | None = None

    def false_alert_probability(self, distance: float) -> float | None:
        """That a face of nobody on the list comes so near to somebody on it."""
        if self.curve is None or self.policy.calibration is None:
            return None
        return self.curve.rate(distance, self.policy.calibration.list_size)


class Matcher(Protocol):
    """Searches collections."""

    def plan(self, options: ScreeningOptions) -> Plan:
        """What the options mean; the configured model where they name none.

        Raises:
            InvalidThresholdError: a threshold is outside of the metric's range, or the two are in the wrong order.
            OptionNotAvailableError: there is nothing to choose.
        """
        ...

    async def plan_for(self, collection: Collection, options: ScreeningOptions) -> Plan:
        """What the options mean in this collection; the model that answers there where they name none.

        Raises:
            InvalidThresholdError, OptionNotAvailableError: as :meth:`plan` does.
        """
        ...

    async def policy(self, collection: Collection, plan: Plan) -> Policy:
        """How candidates of the collection, as it stands, become matches.

        Raises:
            ThresholdRequiredError: no threshold was given or configured, and false alerts were never measured.
        """
        ...

    async def ready(self, collection: Collection, plan: Plan) -> None:
        """Make sure that the search can be done and sees every photo of the collection.

        Raises:
            NotReadyError: weights, packages or embeddings of the chosen model are missing.
            ThresholdRequiredError: as :meth:`policy` does.
        """
        ...

    async def find(self, collection: Collection, probes: Sequence[Probe], plan: Plan) -> Found:
        """The reference images within the review threshold, which is chosen for the list as it is searched."""
        ...

    def confidence(self, plan: Plan, distance: float) -> float | None:
        """Calibrated probability in percent that such a distance means one person, ``None`` without calibration."""
        ...


class EmbeddingMatcher:
    """Compares embeddings with this process's index."""

    def __init__(
        self,
        *,
        database: Database,
        backend: EmbeddingBackend,
        replica: ListReplica,
        reindex: ReindexService,
        answering: AnsweringModel,
        cleared: ClearedFaces,
        defaults: ScreeningDefaults,
    ) -> None:
        self._database = database
        self._backend = backend
        self._replica = replica
        self._reindex = reindex
        self._answering = answering
        self._cleared = cleared
        self._defaults = defaults

    def plan(self, options: ScreeningOptions) -> Plan:
        detector = options.detector or self._defaults.detector
        model = options.model or self._defaults.model
        metric = options.metric or self._defaults.metric
        threshold, review_threshold = asked_thresholds(options, self._defaults)
        return Plan(
            detector=detector,
            model=model,
            detector_name=detector,
            model_name=model,
            metric=metric,
            threshold=threshold,
            review_threshold=review_threshold,
            all_references=options.all_references,
        )

    async def plan_for(self, collection: Collection, options: ScreeningOptions) -> Plan:
        return self.plan(replace(options, model=options.model or await self._answering.of(collection.id)))

    async def policy(self, collection: Collection, plan: Plan) -> Policy:
        calibration = await self.calibration(collection, plan)
        if calibration is None:  # what has no weights either is told that it needs a threshold
            return resolve_policy(plan, None, 0)
        state = await self._replica.catch_up(collection.id, plan.model)
        if collection.name == DEFAULT_COLLECTION:
            metrics.list_version.set(state.version)
            metrics.list_images.set(state.size)
        return resolve_policy(plan, calibration, state.size)

    async def ready(self, collection: Collection, plan: Plan) -> None:
        await self.policy(collection, plan)
        await self._backend.require(plan.detector, plan.model)
        await self._reindex.ensure(collection.id, plan.model)

    async def find(self, collection: Collection, probes: Sequence[Probe], plan: Plan) -> Found:
        calibration = await self.calibration(collection, plan)
        policy_for = partial(resolve_policy, plan, calibration)
        made = [probe.vectors for probe in probes if probe.vectors is not None]
        has_all = made and len(made) == len(probes)
        vectors = np.concatenate(made) if has_all else await self._backend.embed(probes, plan.model)
        state, near = await self._search(collection, vectors, plan, policy_for=policy_for)
        async with self._database.read() as connection:
            references = await blacklist.references(
                connection, {candidate.reference_image_id for candidates in near for candidate in candidates}
            )
        cleared = await self._cleared.of({entry.id for entry, _ in references.values()}, plan.model)
        return Found(
            state.version,
            policy_for(state.size),
            [
                Near(candidates, nearest_cleared(plan, vector, cleared))
                for candidates, vector in zip(near, vectors, strict=True)
            ],
            references,
            deciding_curve(plan, calibration),
        )

    async def _search(
        self, collection: Collection, vectors: Vectors, plan: Plan, *, policy_for: Callable[[int], Policy]
    ) -> tuple[ListState, list[tuple[Candidate, ...]]]:
        """Candidates in an index that lacks no photo which can be embedded, and the state that they were sought in.

        A process that another model answers in may enroll a photo after this request found its own list complete.
        """
        while True:
            state, near = await self._replica.search(
                collection.id,
                vectors,
                plan.model,
                metric=plan.metric,
                radius=lambda size: policy_for(size).review_threshold,
            )
            if state.missing <= 0:
                return state, near
            await self._reindex.ensure(collection.id, plan.model)
            if (await self._replica.catch_up(collection.id, plan.model)).missing >= state.missing:
                return state, near

    def confidence(self, plan: Plan, distance: float) -> float | None:
        return confidence(plan.model, plan.metric, distance)

    async def calibration(self, collection: Collection, plan: Plan) -> Calibration | None:
        """The collection's own, else the one that comes with the model."""
        async with self._database.read() as connection:
            own = await calibrations.latest_calibration(connection, collection.id, self._backend.space(plan.model))
        return own or shipped_calibration(plan.model, self._defaults.budget)


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
        threshold, review_threshold = similarity_thresholds(options, self._defaults)
        service, _, _ = self._backend.face_model.partition("-")
        return Plan(
            detector=self._defaults.detector,
            model=self._defaults.model,
            detector_name=service,
            model_name=self._backend.face_model,
            metric=Metric.SIMILARITY,
            threshold=threshold,
            review_threshold=review_threshold,
            all_references=options.all_references,
        )

    async def plan_for(self, collection: Collection, options: ScreeningOptions) -> Plan:  # noqa: ARG002 - interface
        return self.plan(options)

    async def policy(self, collection: Collection, plan: Plan) -> Policy:  # noqa: ARG002 - interface
        return resolve_policy(plan, None, 0)

    async def ready(self, collection: Collection, plan: Plan) -> None:
        """Nothing has to be prepared."""

    async def find(self, collection: Collection, probes: Sequence[Probe], plan: Plan) -> Found:
        policy = await self.policy(collection, plan)
        async with self._database.read() as connection:
            version = await blacklist.version(connection, collection.id)
        similarity = 100.0 - 100.0 * policy.review_threshold

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
            policy,
            [
                None
                if near is None
                else Near([Candidate(known[id_][1].id, distance) for id_, distance in near.items() if id_ in known])
                for near in found
            ],
            {image.id: (entry, image) for entry, image in known.values()},
        )

    def confidence(self, plan: Plan, distance: float) -> float | None:  # noqa: ARG002 - interface
        return None


def nearest_cleared(
    plan: Plan, vector: Vector, cleared: Mapping[int, Sequence[tuple[Clearance, Vector]]]
) -> dict[int, Cleared]:
    """For each entry the face that was cleared of being it and is nearest to this embedding.

    Only faces that are as near as two photos of one person; that does not depend on the request or on the list.
    """
    largest = default_threshold(plan.model, plan.metric)
    nearest = {}
    for entry_id, faces in cleared.items():
        found = distances(plan.metric, vector, np.stack([other for _, other in faces]))
        index = int(found.argmin())
        if largest is None or found[index] <= largest:
            nearest[entry_id] = Cleared(faces[index][0], float(found[index]))
    return nearest
