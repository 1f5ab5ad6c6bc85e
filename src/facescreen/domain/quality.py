"""How good the picture of a face is: what is measured of it, and what a comparison and a reference photo need.

The shipped limits come from ``bench/quality.py``; ``docs/accuracy.md`` has its tables.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class QualityIssue(StrEnum):
    """What is wrong with the picture of a face."""

    TOO_SMALL = "too_small"
    BLURRED = "blurred"
    EXTREME_POSE = "extreme_pose"
    OCCLUDED = "occluded"
    UNDEREXPOSED = "underexposed"
    OVEREXPOSED = "overexposed"
    DETECTOR_UNSURE = "detector_unsure"
    TURNED = "turned"
    """The head lies on its side or upside down in the picture, and could not be seen upright; no measure says it."""
    NOT_COMPARED = "not_compared"
    """The outside service that compares faces did not see this one again; nothing that was measured of it."""

    @property
    def advice(self) -> str:
        """What is wrong, and how to take a better picture."""
        return _ADVICE[self]


_ADVICE: Final = {
    QualityIssue.TOO_SMALL: "the face is too small: go nearer, or use a larger original of the photo",
    QualityIssue.BLURRED: "the face is blurred: focus on it, hold the camera still and use more light",
    QualityIssue.EXTREME_POSE: "the face is turned too far away: let the person look into the camera",
    QualityIssue.OCCLUDED: "something hides a part of the face: take off mask, scarf or sunglasses",
    QualityIssue.UNDEREXPOSED: "the face is too dark: light it from the front, or expose longer",
    QualityIssue.OVEREXPOSED: "the face is too bright: keep direct light and flash off it, or expose shorter",
    QualityIssue.DETECTOR_UNSURE: "this may be no face: take a picture that shows the whole face clearly",
    QualityIssue.TURNED: "the head is turned in the picture and could not be seen upright: turn the picture upright",
    QualityIssue.NOT_COMPARED: "the service that compares faces did not see this one: take a clearer picture of it",
}


@dataclass(frozen=True, slots=True)
class FaceQuality:
    """What was measured of a face; ``None`` where it takes landmarks that the detector does not give.

    Attributes:
        side: pixels of the box's shorter side.
        confidence: the detector's own, in [0, 1].
        brightness: mean luma (ITU-R BT.601), 0 is black, 100 is white; no limit, for dark skin has less of it.
        sharpness: how much of its gradients the picture would lose by blurring, in [0, 100].
        shadows: percentage of the face that is nearly black.
        highlights: percentage of the face that is nearly white.
        yaw: degrees that the head is turned to the person's own left.
        pitch: degrees that the head is raised.
        roll: degrees that the head is tilted, clockwise as the viewer sees it; no limit, faces are compared upright.
        features: gradient at eyes or mouth, wherever it is least, in percent of that of the face between them: little
            behind plain masks and glasses.
        tint: how far the colour around the mouth is from that of the cheeks, in percent of the latter.
        is_upright: ``False`` for a head that is turned in the picture and could not be seen upright.
    """

    side: int
    confidence: float
    brightness: float
    sharpness: float
    shadows: float
    highlights: float
    yaw: float | None = None
    pitch: float | None = None
    roll: float | None = None
    features: float | None = None
    tint: float | None = None
    is_upright: bool = True


@dataclass(frozen=True, slots=True)
class QualityReason:
    """A limit that a face misses.

    Attributes:
        measure: the attribute of :class:`FaceQuality` that misses it; empty where nothing was measured.
        value: what was measured, ``None`` where nothing was.
        limit: the least or the largest value that passes; for angles the largest to either side.
    """

    issue: QualityIssue
    measure: str = ""
    value: float | None = None
    limit: float | None = None

    @property
    def detail(self) -> str:
        """What is wrong, the value and the limit, and how to take a better picture, as one sentence."""
        if self.value is None or self.limit is None:
            return self.issue.advice
        wanted = "most" if abs(self.value) > self.limit else "least"
        what, _, remedy = self.issue.advice.partition(": ")
        return f"{what} ({self.measure} {self.value:.4g}, at {wanted} {self.limit:.4g}): {remedy}"


@dataclass(frozen=True, slots=True)
class QualityLimits:
    """What a face needs: at least this ``side``, ``confidence``, ``sharpness`` and ``features``, at most the others.

    Attributes are those of :class:`FaceQuality`; ``yaw`` and ``pitch`` are limits to either side.
    """

    side: int
    confidence: float
    sharpness: float
    shadows: float
    highlights: float
    yaw: float
    pitch: float
    features: float
    tint: float

    def reasons(self, quality: FaceQuality) -> tuple[QualityReason, ...]:
        """Every limit that the face misses; nothing for one that is good enough.

        What is exactly at a limit passes, and so does what could not be measured.
        """
        missed = []
        for measure, issue in _ISSUES.items():
            value: float | None = getattr(quality, measure)
            limit: float = getattr(self, measure)
            if value is not None and (value < limit if measure in _LEAST else abs(value) > limit):
                missed.append(QualityReason(issue, measure, value, limit))
        if not quality.is_upright:
            missed.append(QualityReason(QualityIssue.TURNED))
        return tuple(missed)


_ISSUES: Final = {
    "side": QualityIssue.TOO_SMALL,
    "confidence": QualityIssue.DETECTOR_UNSURE,
    "sharpness": QualityIssue.BLURRED,
    "shadows": QualityIssue.UNDEREXPOSED,
    "highlights": QualityIssue.OVEREXPOSED,
    "yaw": QualityIssue.EXTREME_POSE,
    "pitch": QualityIssue.EXTREME_POSE,
    "features": QualityIssue.OCCLUDED,
    "tint": QualityIssue.OCCLUDED,
}
"""What it means to miss the limit of a measure."""

_LEAST: Final = frozenset({"side", "confidence", "sharpness", "features"})
"""Measures whose limit is the least that passes."""

SCREENING_LIMITS: Final = QualityLimits(
    side=16,
    confidence=0.2,
    sharpness=22.0,
    shadows=99.0,
    highlights=80.0,
    yaw=60.0,
    pitch=15.0,
    features=35.0,
    tint=70.0,
)
"""Beyond these a comparison means little: that a face matches nobody does not clear it.

``side``, ``sharpness`` and ``highlights``: half of the faces that are found are recognized. ``shadows``: all of the
face is nearly black, where detectors begin to miss it; recognition lasts longer than they do. ``yaw`` and ``pitch``:
the largest that LFW shows, rounded up to the next five; recognition does not fall up to there, and nothing was measured
beyond. ``features``: what half a percent of LFW's photos miss, rounded down to the next five. ``tint``: the largest
that beards and coloured light give. ``confidence``: what detectors whose scores reach low, as dlib's, hardly take for
a face; recognition does not depend on it.
"""

ENROLLMENT_LIMITS: Final = QualityLimits(
    side=48,
    confidence=0.5,
    sharpness=30.0,
    shadows=70.0,
    highlights=40.0,
    yaw=45.0,
    pitch=15.0,
    features=40.0,
    tint=70.0,
)
"""What a reference photo needs, with which everybody is compared for years.

``sharpness`` and ``highlights``: nine in ten are recognized, rounded up and down to a five. ``shadows``: up to where
recognition loses nothing, rounded. ``side``: from about 40 pixels on recognition loses nothing, and detectors differ in
how tightly they frame a face. ``yaw`` and ``pitch``: within which 99 % of LFW's photos are, rounded up to the next
five; ``features``: what 1 % of them miss, rounded down.
"""
