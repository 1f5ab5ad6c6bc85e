"""What a screening asks, and what it answers."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from facescreen.domain.distances import Metric
from facescreen.domain.faces import Box, Face


class Verdict(StrEnum):
    """What a screening says of one face."""

    MATCH = "match"
    """At least one reference is within the threshold."""
    CLEAR = "clear"
    """No reference is within the threshold."""
    NOT_SCREENABLE = "not_screenable"
    """The face could not be compared: the outside service that found it did not see it again."""
    WITHDRAWN = "withdrawn"
    """Every match that the verdict rested on belonged to entries that were deleted since."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How candidates become matches: the metric, the largest distance that still matches, one or all references."""

    metric: Metric
    threshold: float
    all_references: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """One reference that the face matches, and what that rests on.

    Attributes:
        identity: the reference photo, as ``<folder>/<file>`` below the blacklist folder.
        target: the face in the reference photo.
        distance: raw, in ``metric``.
        confidence: calibrated probability in percent that both are one person, ``None`` without calibration.
    """

    entry_id: int
    name: str
    reason: str
    reference_image_id: int
    identity: str
    target: Box
    distance: float
    threshold: float
    confidence: float | None
    model_name: str
    metric: Metric

    @property
    def similarity(self) -> float | None:
        """What an outside service said, in [0, 100]; ``None`` where the distance is one of embeddings."""
        return 100.0 * (1.0 - self.distance) if self.metric is Metric.SIMILARITY else None


@dataclass(frozen=True, slots=True)
class ScreenedFace:
    """A face of the input and the verdict on it; ``matches`` nearest first."""

    face: Face
    verdict: Verdict
    matches: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class ImageError:
    """Why one image of a batch has no answer: the stable code and the reason."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Screening:
    """The stored answer for one image.

    Attributes:
        collection: name of the collection that the faces were compared with.
        image_identifier: what the caller can recognize the image by; never the image itself.
        copy: name of the upright, re-encoded copy in the output store, ``None`` where there is an error.
        list_version: the version of the list that the faces were compared with.
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
