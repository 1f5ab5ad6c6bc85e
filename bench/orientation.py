"""What becomes of heads that are turned in the picture: the source of the limits in recognition/orientation.py.

    python bench/orientation.py LFW/images [--every N]

Every photo is screened in all four orientations, as ``numpy.rot90`` turns it. The face in the middle of the upright
photo is the one that is sought. Everybody with two photos or more is on the list with the first of them, upright; the
other photos are probes. Thresholds are those that are shipped for a list of this length.

LFW is a research dataset of public figures and known to be unbalanced; its figures compare methods and promise nothing.
"""

import argparse
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import numpy as np

from facescreen.config import DetectorName, ModelName, Settings
from facescreen.domain.distances import Metric, distances
from facescreen.domain.faces import Box, Face, Pixels, Vector
from facescreen.domain.false_alerts import AlertBudget
from facescreen.domain.quality import SCREENING_LIMITS
from facescreen.images.decode import decode
from facescreen.recognition.catalog import DETECTORS
from facescreen.recognition.centerface import SIDE, CenterFace
from facescreen.recognition.detectors import Detector, load_detector
from facescreen.recognition.embedders import Embedder, load_embedder
from facescreen.recognition.orientation import (
    LARGEST_MISFIT,
    LEAST_EYE_DISTANCE,
    QUARTERS,
    SURE,
    UprightCenterFace,
    eye_distances,
    is_level,
    is_upright,
    misfits,
)
from facescreen.recognition.sightings import SAME_FACE, Floats, Sightings
from facescreen.recognition.weights import WeightStore
from facescreen.services.dataset import person_of
from facescreen.services.evaluation import centred_face
from facescreen.services.quality import assess
from facescreen.services.thresholds import shipped_calibration

DETECTOR: Final[DetectorName] = Settings.model_fields["detector_backend"].default
MODEL: Final[ModelName] = Settings.model_fields["model_name"].default
BUDGET: Final = AlertBudget(
    Settings.model_fields["false_alert_budget"].default, Settings.model_fields["review_false_alert_budget"].default
)

PERCENTILES: Final = (0, 0.5, 1, 5, 50, 95, 99, 99.5, 100)


class Fate(StrEnum):
    """What becomes of a face in a turned photo."""

    UPRIGHT = "compared upright"
    WRONG = "compared askew"
    UNSEEN = "not seen upright"
    LOST = "nothing found"


class Outcome(StrEnum):
    """What a screening would say of a probe."""

    MATCH = "match"
    POSSIBLE = "possible"
    NOT_SCREENABLE = "not_screenable"
    CLEAR = "clear"
    OTHERS = "other faces"
    """Faces are found, but none where the person's is."""
    NO_FACE = "no face"


@dataclass(frozen=True, slots=True)
class Sought:
    """The face of a photo in one orientation; ``face`` and ``vector`` are missing where it was not found."""

    face: Face | None
    vector: Vector | None
    is_screenable: bool
    has_others: bool

    def fate(self, turn: int) -> Fate:
        if self.face is None:
            return Fate.LOST
        if not self.face.is_upright:
            return Fate.UNSEEN
        return Fate.UPRIGHT if self.face.turn == -turn % 4 else Fate.WRONG

    def outcome(self, reference: "Sought", *, threshold: float, review_threshold: float) -> Outcome:
        if self.vector is None or reference.vector is None:
            return Outcome.OTHERS if self.has_others else Outcome.NO_FACE
        (distance,) = distances(Metric.COSINE, reference.vector, self.vector[None])
        if distance <= review_threshold:
            return Outcome.MATCH if distance <= threshold else Outcome.POSSIBLE
        return Outcome.CLEAR if self.is_screenable else Outcome.NOT_SCREENABLE


class Screener:
    """Finds and embeds faces as the service does by default."""

    def __init__(self, detector: Detector, embedder: Embedder) -> None:
        self._detector = detector
        self._embedder = embedder

    def detect(self, image: Pixels) -> tuple[Face, ...]:
        return self._detector.detect(image)

    def seek(self, image: Pixels, place: Box, *, faces: Sequence[Face]) -> Sought:
        """The face that lies here."""
        face = max(faces, key=lambda face: face.box.intersection_over_union(place), default=None)
        if face is None or face.box.intersection_over_union(place) <= SAME_FACE:
            return Sought(None, None, is_screenable=False, has_others=bool(faces))
        (vector,) = self._embedder.embed([self._embedder.align(image, face)])
        is_screenable = not SCREENING_LIMITS.reasons(assess(image, face))
        return Sought(face, np.asarray(vector), is_screenable, has_others=len(faces) > 1)


@dataclass(slots=True)
class Landmarks:
    """What CenterFace's landmarks are like where the face lies, in one orientation."""

    misfits: list[float] = field(default_factory=list)
    eyes: list[float] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    is_believed: list[bool] = field(default_factory=list)
    """Whether they look upright and are sure, so that nothing looks again."""
    is_level: list[bool] = field(default_factory=list)

    def add(self, seen: Sightings, place: Box) -> None:
        """Remember the face that lies here, if it was seen."""
        corners = np.array([[[place.x, place.y], [place.x + place.w, place.y + place.h]]], float)
        overlaps = seen.overlaps(Sightings(corners, np.ones(1), np.full((1, 5, 2), np.nan)))[:, 0]
        if overlaps.max(initial=0.0) <= SAME_FACE:
            return
        face = seen.chosen(np.array([overlaps.argmax()]))
        self.misfits.append(float(misfits(face)[0]))
        self.eyes.append(float(eye_distances(face)[0]))
        self.confidences.append(float(face.confidences[0]))
        self.is_believed.append(bool(is_upright(face)[0] and face.confidences[0] >= SURE))
        self.is_level.append(bool(is_level(face)[0]))


def turned_box(box: Box, turn: int, size: tuple[int, int]) -> Box:
    """Where the box is in ``numpy.rot90(image, turn)`` of an image of this (width, height)."""
    x, y, w, h = box.x, box.y, box.w, box.h
    width, height = size
    for _ in range(turn):
        x, y, w, h = y, width - x - w, h, w
        width, height = height, width
    return Box(x, y, w, h)


def report_fates(sought: Mapping[str, Sequence[Sought]]) -> None:
    """What becomes of the faces that are found upright."""
    print(f"\n{'faces by turn':16}" + "".join(f"{fate:>18}" for fate in Fate))
    for turn in QUARTERS:
        fates = Counter(photo[turn].fate(turn) for photo in sought.values())
        print(f"  {90 * turn:>3} degrees   " + _counts([fates[fate] for fate in Fate], len(sought), width=18))


def report_outcomes(sought: Mapping[str, Sequence[Sought]]) -> None:
    """What screening says of the probes that match upright."""
    photos = defaultdict(list)
    for name in sought:
        photos[person_of(name)].append(name)
    listed = {person: names for person, names in photos.items() if len(names) > 1}
    calibration = shipped_calibration(MODEL, BUDGET)
    if calibration is None:
        raise SystemExit(f"no thresholds are shipped with {MODEL}")
    curve = calibration.curve(Metric.COSINE)
    threshold = curve.threshold(BUDGET.one_in, len(listed))
    review_threshold = curve.threshold(BUDGET.review_one_in, len(listed))
    if threshold is None or review_threshold is None:
        raise SystemExit(f"{curve.faces} faces are no evidence for the default budget")
    print(f"\n{len(listed)} people on the list: threshold {threshold:.4f}, review threshold {review_threshold:.4f}")
    outcomes = [
        [
            photo.outcome(sought[reference][0], threshold=threshold, review_threshold=review_threshold)
            for photo in sought[probe]
        ]
        for reference, *probes in listed.values()
        for probe in probes
    ]
    alike = [outcome for outcome in outcomes if outcome[0] in {Outcome.MATCH, Outcome.POSSIBLE}]
    print(f"{len(alike)} of {len(outcomes)} probes match upright; of these, by turn")
    print(" " * 16 + "".join(f"{outcome:>16}" for outcome in Outcome))
    for turn in QUARTERS:
        found = Counter(outcome[turn] for outcome in alike)
        print(f"  {90 * turn:>3} degrees   " + _counts([found[each] for each in Outcome], len(alike), width=16))


def _counts(counts: Iterable[int], total: int, *, width: int) -> str:
    return "".join(f"{f'{count} {count / total:6.2%}':>{width}}" for count in counts)


def report_landmarks(landmarks: Sequence[Landmarks]) -> None:
    """What the limits rest on."""
    limits = {
        "misfits": f"misfit, at most {LARGEST_MISFIT:g}",
        "eyes": f"eye distance, at least {LEAST_EYE_DISTANCE:g}",
        "confidences": f"confidence, sure from {SURE:g}",
    }
    for measure, title in limits.items():
        print(f"\n{title:32}" + "".join(f"{mark:>7g}%" for mark in PERCENTILES) + f"{'misses it':>12}")
        for turn, of_turn in enumerate(landmarks):
            values = np.array(getattr(of_turn, measure))
            misses = {
                "misfits": values > LARGEST_MISFIT,
                "eyes": values < LEAST_EYE_DISTANCE,
                "confidences": values < SURE,
            }[measure]
            marks = "".join(f"{value:>8.2f}" for value in np.percentile(values, PERCENTILES))
            print(f"  turned by {90 * turn:>3} degrees, {len(values):>5}    {marks}{misses.mean():>12.2%}")
    print("\nseen as they lie, by turn: landmarks are level; they are believed without a second look")
    for turn, of_turn in enumerate(landmarks):
        print(f"  {90 * turn:>3} degrees{np.mean(of_turn.is_level):>10.2%}{np.mean(of_turn.is_believed):>10.2%}")


def report_cost(looks: Floats, finds: Floats) -> None:
    """What second looks at upright photos cost."""
    print(
        f"\nupright photos: one look {1000 * np.median(looks):.1f} ms in the median; with second looks "
        f"{finds.sum() / looks.sum() - 1:+.1%} in all, {np.median(finds / looks) - 1:+.1%} in the median, "
        f"{np.percentile(finds / looks, 95) - 1:+.1%} for the 95th percentile"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of photos")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="photos of each Nth person only")
    args = parser.parse_args()

    with TemporaryDirectory() as home:
        weights = WeightStore(Path(home))
        screener = Screener(load_detector(DETECTOR, weights=weights), load_embedder(MODEL, weights=weights))
        network = CenterFace(weights.require(DETECTORS["centerface"])[0], threads=min(2, os.cpu_count() or 1))
    compass = UprightCenterFace(network, side=SIDE)
    sought: dict[str, list[Sought]] = {}
    landmarks = [Landmarks() for _ in QUARTERS]
    seconds: list[tuple[float, float]] = []
    paths = sorted(args.images.glob("*.jpg"))
    chosen = set(sorted({person_of(path.name) for path in paths})[:: args.every])
    paths = [path for path in paths if person_of(path.name) in chosen]
    for path in paths:
        image = decode(path.read_bytes(), max_pixels=50_000_000)
        start = perf_counter()
        network.look(image, side=SIDE)
        middle = perf_counter()
        compass.find(image)
        seconds.append((middle - start, perf_counter() - middle))
        upright = centred_face(image, screener.detect(image))
        if upright is None:
            continue
        sought[path.name] = []
        for turn in QUARTERS:
            turned = np.ascontiguousarray(np.rot90(image, turn))
            place = turned_box(upright.box, turn, (image.shape[1], image.shape[0]))
            sought[path.name].append(screener.seek(turned, place, faces=screener.detect(turned)))
            landmarks[turn].add(network.look(turned, side=SIDE), place)
    print(f"{len(sought)} of {len(paths)} photos show a face upright")
    report_fates(sought)
    report_outcomes(sought)
    report_landmarks(landmarks)
    looks, finds = np.array(seconds).T
    report_cost(looks, finds)


if __name__ == "__main__":
    main()
