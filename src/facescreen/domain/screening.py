"""What a screening asks, and what it answers."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from facescreen.domain.distances import Metric
from facescreen.domain.faces import Box, Face
from facescreen.domain.quality import FaceQuality, QualityReason


class Verdict(StrEnum):
    """What a screening says of one face."""

    MATCH = "match"
    """Somebody on the list is within the match threshold."""
    POSSIBLE = "possible"
    """Somebody is within the wider review threshold, and nobody within the match threshold."""
    CLEAR = "clear"
    """Nobody is within the review threshold, and the picture was good enough to tell."""
    NOT_SCREENABLE = "not_screenable"
    """Nobody is within the review threshold, but the picture of the face is too bad to tell."""
    WITHDRAWN = "withdrawn"
    """Every match that the verdict rested on belonged to entries that were deleted since."""


class Outcome(StrEnum):
    """What a screening says of one image: the gravest verdict on its faces, here from the gravest on."""

    MATCH = Verdict.MATCH
    POSSIBLE = Verdict.POSSIBLE
    NOT_SCREENABLE = Verdict.NOT_SCREENABLE
    WITHDRAWN = Verdict.WITHDRAWN
    CLEAR = Verdict.CLEAR
    NO_FACE = "no_face"
    """No face was found, so nobody was compared."""


class Grade(StrEnum):
    """How near a match is."""

    MATCH = Verdict.MATCH
    """Within the match threshold."""
    POSSIBLE = Verdict.POSSIBLE
    """Within the review threshold only."""


@dataclass(frozen=True, slots=True)
class AppliedCalibration:
    """What the thresholds of a result rest on.

    Attributes:
        id: of the collection's own calibration, ``None`` for the one that comes with the model.
        source: what was measured, in words.
        faces: how many were searched for it.
        list_size: reference photos in the list when it was searched.
        false_alert_rate, review_false_alert_rate: the share of faces of nobody on the list that such a list is expected
            to alert for, at the match and at the review threshold.
    """

    id: int | None
    source: str
    faces: int
    list_size: int
    false_alert_rate: float
    review_false_alert_rate: float


@dataclass(frozen=True, slots=True)
class Policy:
    """How candidates become matches.

    Attributes:
        threshold: the largest distance that matches.
        review_threshold: the largest distance that somebody should look at; at least ``threshold``.
        all_references: one match per reference photo instead of one per person.
        calibration: what is known of false alerts, ``None`` where nobody measured any.
    """

    metric: Metric
    threshold: float
    review_threshold: float
    all_references: bool = False
    calibration: AppliedCalibration | None = None

    def grade(self, distance: float) -> Grade | None:
        """What it means that the nearest reference of a person is so far, ``None`` for nothing."""
        if distance <= self.threshold:
            return Grade.MATCH
        return Grade.POSSIBLE if distance <= self.review_threshold else None


@dataclass(frozen=True, slots=True)
class Clearance:
    """A reviewer's word that one face of one result is not the person of one entry.

    Attributes:
        screening_id: the result, ``None`` once it was deleted.
        expired_at: when it stopped to hold, because the entry's photos changed or the result was deleted; ``None``
            while it holds.
    """

    id: int
    entry_id: int
    screening_id: int | None
    face_index: int
    note: str
    created_at: datetime
    expired_at: datetime | None


@dataclass(frozen=True, slots=True)
class Match:
    """One person, or one reference of a person, that the face resembles, and what that rests on.

    Attributes:
        identity: the reference photo, as ``<folder>/<file>`` below the blacklist folder.
        target: the face in the reference photo.
        distance: raw, in ``metric``, to this reference.
        supporting: how many of the person's references are within the review threshold.
        margin: how much farther the nearest reference of the next person within the review threshold is than the
            nearest of this one; ``None`` without one.
        confidence: calibrated probability in percent that both are one person, ``None`` without calibration.
        false_alert_probability: that a face of nobody on the list comes so near to somebody on it, ``None`` where
            nobody measured it.
        clearance: why this match does not count, ``None`` where it does.
    """

    entry_id: int
    name: str
    reason: str
    reference_image_id: int
    identity: str
    target: Box
    grade: Grade
    distance: float
    threshold: float
    review_threshold: float
    supporting: int
    confidence: float | None
    false_alert_probability: float | None
    model_name: str
    metric: Metric
    margin: float | None = None
    clearance: Clearance | None = None

    @property
    def limit(self) -> float:
        """The threshold that the person's nearest reference is within."""
        return self.threshold if self.grade is Grade.MATCH else self.review_threshold

    @property
    def similarity(self) -> float | None:
        """What an outside service said, in [0, 100]; ``None`` where the distance is one of embeddings."""
        return 100.0 * (1.0 - self.distance) if self.metric is Metric.SIMILARITY else None


def verdict_of(matches: Iterable[Match], *, is_legible: bool) -> Verdict:
    """What the matches that count say of a face; without any, whether its picture was good enough to clear it."""
    grades = {match.grade for match in matches if match.clearance is None}
    if grades:
        return Verdict.MATCH if Grade.MATCH in grades else Verdict.POSSIBLE
    return Verdict.CLEAR if is_legible else Verdict.NOT_SCREENABLE


def with_margins(matches: Iterable[Match]) -> tuple[Match, ...]:
    """The matches of a face in their order, each with how much farther the next person is who counts."""
    found = tuple(matches)
    nearest = _nearest(found)
    counting = _nearest(match for match in found if match.clearance is None)

    def margin(match: Match) -> float | None:
        own = nearest[match.entry_id]
        farther = [other for person, other in counting.items() if person != match.entry_id and other >= own]
        return min(farther) - own if farther else None

    return tuple(replace(match, margin=margin(match)) for match in found)


def _nearest(matches: Iterable[Match]) -> dict[int, float]:
    """The distance of each person's nearest reference."""
    nearest: dict[int, float] = {}
    for match in matches:
        nearest[match.entry_id] = min(match.distance, nearest.get(match.entry_id, match.distance))
    return nearest


@dataclass(frozen=True, slots=True)
class ScreenedFace:
    """A face of the input and the verdict on it.

    Attributes:
        matches: nearest first; those with a clearance do not count.
        quality: of the picture of the face, ``None`` in results from before it was measured.
        reasons: what the picture lacks.
    """

    face: Face
    verdict: Verdict
    matches: tuple[Match, ...]
    quality: FaceQuality | None = None
    reasons: tuple[QualityReason, ...] = ()

    @property
    def alerts(self) -> tuple[Match, ...]:
        """The matches that count, nearest first; the first is the one that the verdict rests on."""
        counting = (match for match in self.matches if match.clearance is None)
        # Results from before version 0006 of the schema may have a possible match that is nearer than a match.
        return tuple(sorted(counting, key=lambda match: match.grade is not Grade.MATCH))


@dataclass(frozen=True, slots=True)
class ImageError:
    """Why one image of a batch has no answer: the stable code and the reason."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Screening:
    """The answer for one image.

    Attributes:
        id: 0 while it is not stored.
        collection: name of the collection that the faces were compared with.
        image_identifier: what the caller can recognize the image by; never the image itself.
        copy: name of the upright, re-encoded copy in the output store, ``None`` where there is an error.
        list_version: the version of the list that the faces were compared with.
        smallest_face: side, in pixels of the image, from which faces were looked for; ``None`` where that is unknown.
    """

    id: int
    collection: str
    image_identifier: str
    detector: str
    model_name: str
    policy: Policy
    list_version: int
    created_at: datetime
    faces: tuple[ScreenedFace, ...]
    copy: str | None = None
    error: ImageError | None = None
    smallest_face: int | None = None

    @property
    def outcome(self) -> Outcome | None:
        """``None`` where the image was refused."""
        if self.error is not None:
            return None
        found = {Outcome(face.verdict) for face in self.faces}
        return next((outcome for outcome in Outcome if outcome in found), Outcome.NO_FACE)

    @property
    def is_stored(self) -> bool:
        return self.id != 0
