"""What bad pictures do to recognition: the source of the limits in domain/quality.py and services/quality.py.

    python bench/quality.py LFW/images LFW/pairs.csv

Photos are made smaller, blurred, darkened, overexposed and partly covered, encoded as JPEG, and the face is sought
again. Of the faces that are found, those count as recognized that are within the distance of one false match in a
thousand comparisons of another, unchanged photo of the person. What is chosen rests on the people of the first half of
the list of pairs; those of the second half, which has nobody in common with the first, check it.

LFW is a research dataset of public figures and known to be unbalanced; its figures compare methods and promise nothing.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facescreen.config import DetectorName, ModelName, Settings
from facescreen.domain.distances import Metric, distances
from facescreen.domain.faces import Face, Pixels, Vector
from facescreen.domain.quality import ENROLLMENT_LIMITS, SCREENING_LIMITS, FaceQuality, QualityIssue, QualityLimits
from facescreen.images.decode import decode, encode_jpeg
from facescreen.recognition.catalog import distance_of
from facescreen.recognition.detectors import Detector, load_detector
from facescreen.recognition.embedders import Embedder, load_embedder
from facescreen.recognition.weights import WeightStore
from facescreen.services.dataset import person_of
from facescreen.services.evaluation import centred_face
from facescreen.services.quality import assess

DETECTOR: Final[DetectorName] = Settings.model_fields["detector_backend"].default
MODEL: Final[ModelName] = Settings.model_fields["model_name"].default

PEOPLE: Final = 50
"""Of each half: one photo of each is degraded, another is the reference."""

NOISE: Final = 4.0
"""Standard deviation of the noise of a picture in the dark, in levels of 255."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Photo:
    """An unchanged photo with a face."""

    name: str
    half: int
    image: Pixels
    face: Face
    quality: FaceQuality


@dataclass(frozen=True, slots=True)
class Probe:
    """What became of a degraded photo: nothing where no face was found."""

    half: int
    quality: FaceQuality | None
    is_recognized: bool = False


class Recognizer:
    """Finds and compares faces as the service does by default."""

    def __init__(self, detector: Detector, embedder: Embedder) -> None:
        self._detector = detector
        self._embedder = embedder
        self._radius = distance_of(MODEL, 80.0)

    def find(self, image: Pixels) -> Face | None:
        return centred_face(image, self._detector.detect(image))

    def embed(self, image: Pixels, face: Face) -> Vector:
        (vector,) = self._embedder.embed([self._embedder.align(image, face)])
        return np.asarray(vector)

    def is_same(self, one: Vector, others: Sequence[Vector]) -> NDArray[np.bool_]:
        return np.asarray(distances(Metric.COSINE, one, np.stack(others)) <= self._radius)

    def probe(self, image: Pixels, half: int, reference: Vector) -> Probe:
        """The photo as it comes out of a camera, compared with the reference."""
        image = decode(encode_jpeg(image, quality=90), max_pixels=50_000_000)
        face = self.find(image)
        if face is None:
            return Probe(half, None)
        return Probe(half, assess(image, face), bool(self.is_same(self.embed(image, face), [reference])[0]))


def smaller(image: Pixels, factor: float) -> Pixels:
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def blurred(image: Pixels, deviation: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), deviation), np.uint8)


def exposed(image: Pixels, stops: float, *, noise: float = 0.0) -> Pixels:
    """The picture with the light multiplied by ``2 ** stops``, clipped to what sRGB (IEC 61966-2-1) can show."""
    encoded = image / 255.0
    light = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4) * 2.0**stops
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)
    levels = 255.0 * encoded + np.random.default_rng(11).normal(0.0, noise, image.shape)
    return np.asarray(np.clip(np.rint(levels), 0, 255), np.uint8)


DEGRADATIONS: Final[Mapping[str, tuple[Callable[[Pixels, float], Pixels], Sequence[float]]]] = {
    "side": (smaller, (0.45, 0.35, 0.28, 0.22, 0.17, 0.15)),
    "sharpness": (blurred, (1.0, 2.0, 2.5, 3.0, 4.0, 5.0)),
    "shadows": (partial(exposed, noise=NOISE), (-3.0, -4.0, -5.0, -6.0, -7.0)),
    "highlights": (exposed, (1.0, 1.5, 2.0, 3.0, 4.0)),
}
"""What each measure is of, and how much of it."""


@dataclass(frozen=True, slots=True)
class Cover:
    """A thing before a face: outlines, in distances between the eyes to the side and from eyes to mouth downwards."""

    outlines: Sequence[Sequence[tuple[float, float]]]
    colour: tuple[int, int, int] | None
    """``None`` is the colour of the skin."""
    pattern: float = 0.0
    """Standard deviation of colourful spots."""
    pleats: float = 0.0
    """Amplitude of horizontal folds."""

    def paint(self, image: Pixels, face: Face) -> Pixels:
        """The image with it before the face."""
        points = face.landmarks
        right, left, nose, one, other = (
            np.array(point)
            for point in (points.right_eye, points.left_eye, points.nose, points.mouth_right, points.mouth_left)
        )
        middle, across = (right + left) / 2, left - right
        down, unit = (one + other) / 2 - middle, float(np.hypot(*across))
        rows, columns = image.shape[:2]
        x, y = np.rint(nose).astype(int)
        skin = np.median(image[max(y - 4, 0) : y + 5, max(x - 10, 0) : x + 11].reshape(-1, 3), axis=0)
        rng = np.random.default_rng(11)
        height = (np.arange(rows)[:, None, None] - middle[1]) / unit
        surface = np.array(skin if self.colour is None else self.colour) + 12.0 * np.sin(5.0 * height)
        surface = surface + self.pleats * np.sin(20.0 * height) + rng.normal(0.0, 3.0, (rows, columns, 1))
        spots = rng.normal(0.0, self.pattern, (rows // 5, columns // 5, 3))
        surface = surface + cv2.resize(spots, (columns, rows), interpolation=cv2.INTER_CUBIC)
        mask = np.zeros((rows, columns), np.uint8)
        for outline in self.outlines:
            polygon = np.array([middle + side * across + depth * down for side, depth in outline])
            cv2.fillPoly(mask, [np.rint(polygon).astype(np.int32)], 255, cv2.LINE_AA)
        share = mask[..., None] / 255.0
        return np.asarray(np.clip(image * (1 - share) + surface * share, 0, 255), np.uint8)


def _ellipse(side: float, depth: float, *, width: float, height: float) -> list[tuple[float, float]]:
    angles = np.linspace(0, 2 * np.pi, 24)
    return [(side + width * float(np.cos(a)), depth + height * float(np.sin(a))) for a in angles]


_JAW = [(-0.85, 0.45), (-0.4, 0.5), (0.0, 0.35), (0.4, 0.5), (0.85, 0.45)]
_MASK = [[*_JAW, (0.8, 1.1), (0.45, 1.6), (0.0, 1.75), (-0.45, 1.6), (-0.8, 1.1)]]
_SCARF = [[(-1.2, 0.6), (0.0, 0.7), (1.2, 0.6), (1.2, 2.2), (-1.2, 2.2)]]
_GLASSES = [_ellipse(side, 0.06, width=0.42, height=0.3) for side in (-0.5, 0.5)]
_FINGERS = [[(-0.8, 0.62), (0.55, 0.62), (0.65, 0.95), (0.55, 1.48), (-0.8, 1.48)]]
_PALM = [[(0.05, -0.5), (1.2, -0.5), (1.2, 1.4), (0.1, 1.3)]]
COVERS: Final = {
    "mask, blue": Cover(_MASK, (120, 170, 200)),
    "mask, white": Cover(_MASK, (225, 225, 225)),
    "mask, black": Cover(_MASK, (25, 25, 28)),
    "mask, like skin": Cover(_MASK, None),
    "mask, blue, pleated": Cover(_MASK, (120, 170, 200), pleats=20.0),
    "mask, white, pleated": Cover(_MASK, (225, 225, 225), pleats=20.0),
    "mask, patterned": Cover(_MASK, (150, 110, 100), pattern=50.0),
    "scarf, plain": Cover(_SCARF, (110, 60, 70)),
    "sunglasses, black": Cover(_GLASSES, (15, 15, 18)),
    "sunglasses, reflecting": Cover(_GLASSES, (150, 120, 90), pattern=50.0),
    "hand before the mouth": Cover(_FINGERS, None),
    "hand before one eye": Cover(_PALM, None),
}

MEASURES: Final = tuple(field.name for field in fields(FaceQuality))


def halves(pairs: Path) -> dict[str, int]:
    """0 or 1 for everybody in the first or second half of the list."""
    with pairs.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        person_of(row[key]): 2 * index // len(rows) for index, row in enumerate(rows) for key in ("file_a", "file_b")
    }


def report_degradation(measure: str, probes: Mapping[float, Sequence[Probe]]) -> None:
    """The table of one measure, and where the limits are."""
    print(f"\n{measure:12}{'found':>8}{'median':>9}{'recognized':>12}")
    for degree, found in probes.items():
        value, recognized = _summary(measure, found)
        detected = np.mean([probe.quality is not None for probe in found])
        print(f"  {degree:<10g}{detected:>8.0%}{value:>9.1f}{recognized:>12.1%}")
    for share in (0.5, 0.9):
        limits = []
        for half in (0, 1):
            of_half = ([probe for probe in found if probe.half == half] for found in probes.values())
            limits.append(_value_at(share, [_summary(measure, found) for found in of_half]))
        print(f"  {share:.0%} recognized at {limits[0]:.1f}, on the second half at {limits[1]:.1f}")


def _value_at(share: float, degrees: Sequence[tuple[float, float]]) -> float:
    """The measure where the share that is recognized falls to this one, between two degrees; NaN if it never does."""
    for (value, before), (next_value, after) in pairwise(degrees):
        if after < share <= before:
            return value + (before - share) / (before - after) * (next_value - value)
    return float("nan")


def _summary(measure: str, probes: Iterable[Probe]) -> tuple[float, float]:
    """Median of the measure, and the share that is recognized, of the faces that are found."""
    found = [probe for probe in probes if probe.quality is not None]
    values = [value for probe in found if (value := getattr(probe.quality, measure)) is not None]
    return float(np.median(values)), float(np.mean([probe.is_recognized for probe in found]))


def report_covers(covered: Mapping[str, Sequence[Probe]]) -> None:
    """Which covers the limits see."""
    heads = f"{'features':>10}{'tint':>6}{'screening':>11}{'enrollment':>12}"
    print(f"\n{'covered by':26}{'found':>6}{'recognized':>12}{heads}")
    for name, probes in covered.items():
        found = [probe.quality for probe in probes if probe.quality is not None]
        seen = [
            np.mean([any(reason.issue is QualityIssue.OCCLUDED for reason in limits.reasons(each)) for each in found])
            for limits in (SCREENING_LIMITS, ENROLLMENT_LIMITS)
        ]
        features, _ = _summary("features", probes)
        tint, recognized = _summary("tint", probes)
        print(
            f"  {name:24}{len(found) / len(probes):>6.0%}{recognized:>12.0%}{features:>10.0f}{tint:>6.0f}"
            f"{seen[0]:>11.0%}{seen[1]:>12.0%}"
        )


def report_pose(photos: Sequence[Photo], vectors: Mapping[str, Vector], recognizer: Recognizer) -> None:
    """How the angles that the photos happen to show change recognition by all others of the person."""
    of_person = defaultdict(list)
    for name in vectors:
        of_person[person_of(name)].append(name)
    shares = {}
    for name, vector in vectors.items():
        others = [vectors[other] for other in of_person[person_of(name)] if other != name]
        if others:
            shares[name] = float(recognizer.is_same(vector, others).mean())
    print(f"\n{'degrees':10}" + "".join(f"{measure:>16}" for measure in ("yaw", "pitch", "roll")))
    for low, high in pairwise((0, 10, 20, 25, 30, 35, 40, 60)):
        line = f"  {low:>2} to {high:<4}"
        for measure in ("yaw", "pitch", "roll"):
            within = [
                shares[photo.name]
                for photo in photos
                if photo.name in shares and low <= abs(getattr(photo.quality, measure) or 0.0) < high
            ]
            line += f"{np.mean(within):>9.0%} of {len(within):<3}" if within else f"{'':16}"
        print(line)


def report_unchanged(photos: Sequence[Photo]) -> None:
    """What unchanged photos are like, and how many the limits refuse."""
    marks = (0, 0.5, 1, 50, 99, 99.5, 100)
    first = [photo.quality for photo in photos if photo.half == 0]
    print(
        f"{len(photos)} unchanged photos; percentiles of the {len(first)} of the first half, of angles to either side"
    )
    print(" " * 12 + "".join(f"{mark:>8}%" for mark in marks))
    for measure in MEASURES:
        values = [abs(value) for quality in first if (value := getattr(quality, measure)) is not None]
        print(f"  {measure:10}" + "".join(f"{value:>9.2f}" for value in np.percentile(values, marks)))
    for name, limits in (("screening", SCREENING_LIMITS), ("enrollment", ENROLLMENT_LIMITS)):
        print(f"\nrefused by the limits of {name}: first half, second half")
        for measure in (field.name for field in fields(QualityLimits)):
            shares = (_refused(photos, limits, half=half, measure=measure) for half in (0, 1))
            print(f"  {measure:10}{getattr(limits, measure):>6g}" + "".join(f"{share:>8.2%}" for share in shares))
        print("  any             " + "".join(f"{_refused(photos, limits, half=half):>8.2%}" for half in (0, 1)))


def _refused(photos: Sequence[Photo], limits: QualityLimits, *, half: int, measure: str | None = None) -> float:
    reasons = [limits.reasons(photo.quality) for photo in photos if photo.half == half]
    return float(np.mean([any(measure in {None, reason.measure} for reason in missed) for missed in reasons]))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of photos")
    parser.add_argument("pairs", type=Path, help="csv file of labelled pairs")
    args = parser.parse_args()

    half_of = halves(args.pairs)
    with TemporaryDirectory() as home:
        weights = WeightStore(Path(home))
        recognizer = Recognizer(load_detector(DETECTOR, weights=weights), load_embedder(MODEL, weights=weights))
    photos, of_person = [], defaultdict(list)
    for path in sorted(args.images.glob("*.jpg")):
        image = decode(path.read_bytes(), max_pixels=50_000_000)
        face = recognizer.find(image)
        if face is not None and person_of(path.name) in half_of:
            photos.append(Photo(path.name, half_of[person_of(path.name)], image, face, assess(image, face)))
            of_person[person_of(path.name)].append(photos[-1])
    several = [group for group in of_person.values() if len(group) > 1]
    vectors = {photo.name: recognizer.embed(photo.image, photo.face) for group in several for photo in group}

    report_unchanged(photos)
    report_pose(photos, vectors, recognizer)
    chosen = [pair for half in (0, 1) for pair in [group for group in several if group[0].half == half][:PEOPLE]]
    for measure, (degrade, degrees) in DEGRADATIONS.items():
        probes: dict[float, list[Probe]] = {0.0: []}
        for reference, photo, *_ in chosen:
            known = vectors[reference.name]
            unchanged = bool(recognizer.is_same(known, [vectors[photo.name]])[0])
            probes[0.0].append(Probe(photo.half, photo.quality, unchanged))
            for degree in degrees:
                image = degrade(photo.image, degree)
                probes.setdefault(degree, []).append(recognizer.probe(image, photo.half, known))
        report_degradation(measure, probes)
    report_covers(
        {
            name: [
                recognizer.probe(cover.paint(photo.image, photo.face), photo.half, vectors[reference.name])
                for reference, photo, *_ in chosen
            ]
            for name, cover in COVERS.items()
        }
    )


if __name__ == "__main__":
    main()
