"""Whom new photos resemble: other people on the list, and each other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from facescreen.backends.base import Backend, EmbeddingBackend, Probe
from facescreen.db import blacklist
from facescreen.db.connection import Database
from facescreen.domain.blacklist import Collection, Entry, Status
from facescreen.domain.distances import Metric, distances
from facescreen.domain.faces import Vectors
from facescreen.domain.screening import Grade
from facescreen.errors import DuplicateEntryError, RejectedFile, ThresholdRequiredError
from facescreen.recognition.catalog import default_threshold
from facescreen.services.decision import decide
from facescreen.services.enrollment import Enrolled
from facescreen.services.matching import Matcher
from facescreen.services.thresholds import Plan, ScreeningOptions


class PhotoName(NamedTuple):
    """What a caller knows a photo by.

    Attributes:
        name: of the uploaded file, or ``<folder>/<file>`` of one that is in the blacklist folder or stored.
    """

    name: str
    is_stored: bool


class NamedPhoto(NamedTuple):
    """A photo that is about to be stored, and its name."""

    name: PhotoName
    enrolled: Enrolled


@dataclass(frozen=True, slots=True)
class LooksLikeEntry:
    """A new photo matches another entry, as screening has it: one person twice, or two people who look alike.

    Attributes:
        name: of the entry.
        distance: of its nearest reference photo.
        threshold: the largest distance that matches.
    """

    code: ClassVar = "looks_like_existing_entry"

    photo: PhotoName
    entry_id: int
    name: str
    distance: float
    threshold: float
    metric: Metric

    @property
    def detail(self) -> str:
        """The warning in words, without the name of the person."""
        return (
            f"looks like entry {self.entry_id} ({self.metric} distance {self.distance:.4g}, "
            f"at most {self.threshold:.4g} is a match)"
        )


@dataclass(frozen=True, slots=True)
class PhotosDisagree:
    """Two photos of one entry, at least one of them new, that do not look like one person.

    Attributes:
        photo: a new one.
        other: a new one, or one that is stored.
        threshold: the largest distance of two photos that are taken for one person's.
        outliers: those of the two that are farther than that from most of the entry's other photos; where it has no
            others, both.
    """

    code: ClassVar = "photos_disagree"

    photo: PhotoName
    other: PhotoName
    distance: float
    threshold: float
    metric: Metric
    outliers: tuple[PhotoName, ...]

    @property
    def detail(self) -> str:
        """The warning in words."""
        return (
            f"does not look like {self.other.name} ({self.metric} distance {self.distance:.4g}, "
            f"at most {self.threshold:.4g} is taken for one person)"
        )


@dataclass(frozen=True, slots=True)
class PhotoTurned:
    """A photo of a head that lies on its side or stands upside down in it.

    Attributes:
        degrees: that the head is turned clockwise in the photo as it came.
        is_stored_upright: whether the stored photo was turned. One in the blacklist folder stays as it is.
    """

    code: ClassVar = "photo_turned"

    photo: PhotoName
    degrees: int
    is_stored_upright: bool

    @property
    def detail(self) -> str:
        """The warning in words."""
        what = "the photo is stored upright" if self.is_stored_upright else "the file is left as it is"
        return f"the head is turned by {self.degrees} degrees; it is compared upright, and {what}"


EnrollmentWarning: TypeAlias = LooksLikeEntry | PhotosDisagree | PhotoTurned
"""What somebody should look at, though the photos are good."""


class Disagreement(NamedTuple):
    """Rows of two embeddings that are too far apart, and those of the two that are so from most of the others."""

    one: int
    other: int
    distance: float
    outliers: tuple[int, ...]


class Resemblance:
    """Compares photos that are about to be stored, by the answering model and the configured detector and metric.

    Args:
        embeddings: makes them; ``None`` where an outside service keeps the faces.
    """

    def __init__(
        self, *, database: Database, backend: Backend, embeddings: EmbeddingBackend | None, matcher: Matcher
    ) -> None:
        self._database = database
        self._backend = backend
        self._embeddings = embeddings
        self._matcher = matcher

    async def warnings(
        self,
        collection: Collection,
        photos: Sequence[NamedPhoto],
        *,
        entry: Entry | None,
        reject_duplicates: bool = False,
    ) -> list[EnrollmentWarning]:
        """What is suspicious about the photos: for each the other entries that it looks like, and what it contradicts.

        The list is searched as it stands at this moment. Where two requests enroll one person at the same time, both
        may find that nobody looks like it.

        Args:
            entry: the one that the photos are of, ``None`` for a new one.
            reject_duplicates: whether looking like another entry is an error.

        Raises:
            DuplicateEntryError: one of the photos looks like another entry, and that is an error.
            ThresholdRequiredError: the same, and nobody set or measured how near that is.
            AwsError: the outside service did not do its part.
        """
        plan = await self._matcher.plan_for(collection, ScreeningOptions())
        probes = [await self._probe(photo.enrolled, plan) for photo in photos]
        alike: list[LooksLikeEntry] = []
        try:
            alike = await self._look_alikes(photos, probes, plan, collection=collection, entry=entry)
        except ThresholdRequiredError:
            if reject_duplicates:
                raise
        if alike and reject_duplicates:
            raise DuplicateEntryError(
                [RejectedFile(each.photo.name, DuplicateEntryError.code, each.detail) for each in alike]
            )
        disagreements = await self._disagreements(photos, probes, plan, collection=collection, entry=entry)
        return [*_turned(photos), *alike, *disagreements]

    async def _look_alikes(
        self,
        photos: Sequence[NamedPhoto],
        probes: Sequence[Probe],
        plan: Plan,
        *,
        collection: Collection,
        entry: Entry | None,
    ) -> list[LooksLikeEntry]:
        """By photo, each entry once, the nearest first: whoever the photo would match if it were screened."""
        found = await self._matcher.find(collection, probes, plan)
        return [
            LooksLikeEntry(
                photo.name,
                match.entry_id,
                match.name,
                distance=match.distance,
                threshold=match.threshold,
                metric=match.metric,
            )
            for photo, near in zip(photos, found.faces, strict=True)
            for match in decide(
                near,
                quality=photo.enrolled.quality,
                references=found.references,
                policy=found.policy,
                model_name=plan.model_name,
                confidence=partial(self._matcher.confidence, plan),
                false_alert_probability=found.false_alert_probability,
            ).matches
            if match.grade is Grade.MATCH and (entry is None or match.entry_id != entry.id)
        ]

    async def _probe(self, photo: Enrolled, plan: Plan) -> Probe:
        """The photo's face, embedded by the plan's model where embeddings are kept."""
        embedded = photo.embedded
        if self._embeddings is not None and embedded is not None:
            if embedded.space == self._embeddings.space(plan.model):
                return Probe((photo.face,), (), embedded.vector[None])
            probe = await self._embeddings.prepare(photo.pixels, (photo.face,), plan.model)
            return replace(probe, vectors=await self._embeddings.embed([probe], plan.model))
        return await self._backend.prepare(photo.pixels, (photo.face,), plan.model)

    async def _disagreements(
        self,
        photos: Sequence[NamedPhoto],
        probes: Sequence[Probe],
        plan: Plan,
        *,
        collection: Collection,
        entry: Entry | None,
    ) -> list[PhotosDisagree]:
        """Nothing where no embeddings are kept, or where nobody measured how far one person's photos are apart."""
        known = [probe.vectors for probe in probes if probe.vectors is not None]
        threshold = default_threshold(plan.model, plan.metric) if known else None
        if self._embeddings is None or threshold is None:
            return []
        names = [photo.name for photo in photos]
        vectors = np.concatenate(known)
        if entry is not None:
            stored = {image.id: image.photo for image in entry.images if image.status is Status.ACTIVE}
            space = self._embeddings.space(plan.model)
            async with self._database.read() as connection:
                ids, theirs = await blacklist.vectors(connection, collection.id, space, ids=list(stored))
            names += [PhotoName(stored[id_], is_stored=True) for id_ in ids]
            vectors = np.concatenate([vectors, theirs]) if ids else vectors
        return [
            PhotosDisagree(
                names[found.one],
                names[found.other],
                found.distance,
                threshold,
                plan.metric,
                tuple(names[index] for index in found.outliers),
            )
            for found in disagreeing(vectors, plan.metric, new=len(known), threshold=threshold)
        ]


def disagreeing(vectors: Vectors, metric: Metric, *, new: int, threshold: float) -> list[Disagreement]:
    """Each new photo of an entry that is too far from another one, with the one that it is farthest from.

    Two new photos that are farthest from each other are named once. The order of the others does not matter, except
    between two that are equally far.

    Args:
        vectors: embeddings of the entry's photos, shape (n, dimension), the new ones first.
        new: how many of them are.
        threshold: the largest distance that is not too far.
    """
    apart: dict[int, NDArray[np.float64]] = {}

    def of(row: int) -> NDArray[np.float64]:
        if row not in apart:
            apart[row] = distances(metric, vectors[row], vectors)
            apart[row][row] = 0.0  # a zero embedding is far from itself, too
        return apart[row]

    farthest = [(row, int(of(row).argmax())) for row in range(new)]
    pairs = dict.fromkeys((min(pair), max(pair)) for pair in farthest if of(pair[0])[pair[1]] > threshold)
    return [
        Disagreement(
            one,
            other,
            float(of(one)[other]),
            tuple(row for row in (one, other) if 2 * np.count_nonzero(of(row) > threshold) > len(vectors) - 1),
        )
        for one, other in pairs
    ]


def _turned(photos: Sequence[NamedPhoto]) -> list[PhotoTurned]:
    return [
        PhotoTurned(name, degrees, is_stored_upright=bool(enrolled.turned))
        for name, enrolled in photos
        if (degrees := enrolled.turned or 90 * enrolled.face.turn)
    ]
