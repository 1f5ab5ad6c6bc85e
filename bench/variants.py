"""What was tried to get more accuracy out of the same weights (mtcnn and Dlib), and what it was worth.

    python -m bench.variants LFW/images LFW/pairs.csv

Prints, for every variant, how many crops of a face it embeds, the accuracy over the listed pairs (each fold by the
threshold that is best on the other), the share of pairs of one person below the distance of false match rates of
10^-3 and 10^-4 over all pairs of photos, and what two lists give with one reference photo each: rank-1, and the share
of people on the list that are missed (FNIR) where one stranger in ten and one in a hundred raises an alert (FPIR).

    several   the people with two photos or more; their other photos, and strangers with one photo
    everyone  all people; their other photos, and every photo against the list without its person

The second line is the difference to the line that the group begins with: the middle 90 % of 200 draws of as many people
with replacement. Whatever is learnt is learnt on one fold and used on the other, within folds only. Nothing is chosen
here: each row is one fixed rule. LFW is a research dataset of public figures and known to be unbalanced; its figures
compare methods and promise nothing.
"""

import argparse
import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import cv2
import dlib
import numpy as np
from numpy.typing import NDArray

from facescreen.domain.biometrics import Flags, Floats, best_threshold, told_right
from facescreen.domain.distances import unit
from facescreen.domain.faces import Face, Landmarks, Pixels, Point
from facescreen.images.decode import decode
from facescreen.recognition.alignment import (
    LandmarkModel,
    Points,
    Transform,
    dlib_template,
    landmark_model,
    similarity,
    warp,
)
from facescreen.recognition.catalog import MODELS
from facescreen.recognition.detectors import Detector, load_detector
from facescreen.recognition.weights import WeightStore
from facescreen.services.dataset import person_of
from facescreen.services.evaluation import centred_face

Indices: TypeAlias = NDArray[np.intp]
Chip: TypeAlias = NDArray[np.uint8]

SIDE: Final = 150
DRAWS: Final = 200
PEOPLE_DRAWS: Final = 60
NEAREST_STRANGERS: Final = 40_000
"""Pairs of different people that are kept: enough for a false match rate of 10^-3 in every draw."""
RATES: Final = (1e-1, 1e-2)
NEIGHBOURS: Final = 5


# Views of a chip


def turned(chip: Chip, degrees: float, scale: float) -> Chip:
    middle = (SIDE - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), degrees, scale).astype(np.float64)
    return warp(chip, turn, (SIDE, SIDE), border=cv2.BORDER_REPLICATE)


def brightened(chip: Chip, exponent: float) -> Chip:
    levels = (255 * (np.arange(256) / 255) ** exponent).round().astype(np.uint8)
    return levels[chip]


def equalized(chip: Chip) -> Chip:
    """Local contrast limited to twice the average (CLAHE), in the luma channel."""
    luma = cv2.cvtColor(chip, cv2.COLOR_RGB2YCrCb)
    luma[..., 0] = cv2.createCLAHE(2.0, (8, 8)).apply(np.ascontiguousarray(luma[..., 0]))
    return np.asarray(cv2.cvtColor(luma, cv2.COLOR_YCrCb2RGB), np.uint8)


def grey_world(chip: Chip) -> Chip:
    """Channels scaled to one mean."""
    means = chip.reshape(-1, 3).mean(axis=0)
    balanced: Chip = np.clip(chip * (means.mean() / np.maximum(means, 1)), 0, 255).round().astype(np.uint8)
    return balanced


def grey(chip: Chip) -> Chip:
    return np.repeat(cv2.cvtColor(chip, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.uint8)


VIEWS: Final[Mapping[str, Callable[[Chip], Chip]]] = {
    "chip": lambda chip: chip,
    "turned left": partial(turned, degrees=3, scale=1),
    "turned right": partial(turned, degrees=-3, scale=1),
    "larger": partial(turned, degrees=0, scale=1.06),
    "smaller": partial(turned, degrees=0, scale=0.94),
    "brighter": partial(brightened, exponent=0.7),
    "darker": partial(brightened, exponent=1.45),
    "equalized": equalized,
    "grey world": grey_world,
    "grey": grey,
}


# Cuts: where the chip comes from


@dataclass(frozen=True, slots=True)
class Cutter:
    """Ways from a photo to the chip of the person in it."""

    detector: Detector
    landmarks: LandmarkModel

    def cuts(self, image: Pixels) -> Iterator[tuple[str, Chip]]:
        """The chip by every way that finds a face."""
        face = centred_face(image, self.detector.detect(image))
        if face is not None:
            points = self.landmarks.locate(image, face)
            yield "shipped", chip(image, points)
            yield "second look", chip(image, self.landmarks.locate(image, with_eyes(face, points)))
            yield "mirrored look", chip(image, (points + self._mirrored(image, face)) / 2)
        large = np.asarray(cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), np.uint8)
        face = centred_face(large, self.detector.detect(large))
        if face is not None:
            yield "twice the size", chip(large, self.landmarks.locate(large, face))

    def _mirrored(self, image: Pixels, face: Face) -> Points:
        """Landmarks found in the mirror image, where they are in the image."""
        last = image.shape[1] - 1
        eyes = face.landmarks
        flipped = replace(
            face,
            box=replace(face.box, x=last + 1 - face.box.x - face.box.w),
            landmarks=Landmarks(left_eye=across(eyes.right_eye, last), right_eye=across(eyes.left_eye, last)),
        )
        points = self.landmarks.locate(np.ascontiguousarray(image[:, ::-1]), flipped)
        points[:, 0] = last - points[:, 0]
        return points[[2, 3, 0, 1, 4]]


def across(point: Point | None, last: int) -> Point | None:
    return None if point is None else Point(last - point.x, point.y)


def with_eyes(face: Face, points: Points) -> Face:
    """The face with its eyes between the corners that the landmark model found."""
    left, right = points[0:2].mean(axis=0), points[2:4].mean(axis=0)
    return replace(face, landmarks=Landmarks(left_eye=Point(*left), right_eye=Point(*right)))


def chip(image: Pixels, points: Points) -> Chip:
    transform: Transform = similarity(points, dlib_template(SIDE))
    return warp(image, transform, (SIDE, SIDE))


CUTS: Final = ("shipped", "second look", "mirrored look", "twice the size")

Bank: TypeAlias = dict[str, NDArray[np.float32]]
"""By cut or view: embeddings of a chip and its mirror image, shape (photos, 2, dimension); NaN without a face."""


def embed(paths: Sequence[Path], cutter: Cutter, network: dlib.face_recognition_model_v1) -> Bank:
    """Every view of the shipped cut, and the chip itself of the other cuts."""
    shape = (len(paths), 2, MODELS["Dlib"].dimension)
    bank = {name: np.full(shape, np.nan, np.float32) for name in (*CUTS[1:], *VIEWS)}
    for row, path in enumerate(paths):
        for cut, whole in cutter.cuts(decode(path.read_bytes(), max_pixels=50_000_000)):
            views = {name: view(whole) for name, view in VIEWS.items()} if cut == "shipped" else {cut: whole}
            for name, view in views.items():
                bank[name][row] = [
                    network.compute_face_descriptor(np.ascontiguousarray(side)) for side in (view, view[:, ::-1])
                ]
    return bank


# Photos and what is compared


class Album(NamedTuple):
    """LFW's photos by number.

    Attributes:
        people: number of the person in each photo.
        folds: the fold of the person in each photo.
        first, second, same: the listed pairs.
    """

    people: Indices
    folds: Indices
    first: Indices
    second: Indices
    same: Flags

    @property
    def size(self) -> int:
        """How many people there are."""
        return int(self.people.max()) + 1


def read_album(names: Sequence[str], pairs: Path, folds: int) -> Album:
    place = {name: number for number, name in enumerate(names)}
    with pairs.open(newline="") as file:
        rows = list(csv.DictReader(file))
    people = np.unique([person_of(name) for name in names], return_inverse=True)[1]
    first, second = (np.array([place[row[key]] for row in rows]) for key in ("file_a", "file_b"))
    fold_of_person = np.zeros(int(people.max()) + 1, np.intp)
    for ends in (first, second):
        fold_of_person[people[ends]] = np.arange(len(rows)) * folds // len(rows)
    return Album(people, fold_of_person[people], first, second, np.array([row["same"] == "1" for row in rows]))


class Trials(NamedTuple):
    """Probes of one list, as scores and people: infinite where another person is nearer, or no face was found."""

    mated: Floats
    mated_people: Indices
    strangers: Floats
    stranger_people: Indices

    @property
    def is_hit(self) -> Flags:
        """Which probes are nearest to their own person."""
        return np.isfinite(self.mated)

    def missed(self, rate: float, weights: Floats) -> float:
        """FNIR where this share of strangers raises an alert; ``weights`` count each person's probes."""
        order = self.strangers.argsort()
        limit = weighted_quantile(self.strangers[order], weights[self.stranger_people[order]], rate)
        return 1 - float(np.average(self.mated < limit, weights=weights[self.mated_people]))


def weighted_quantile(ascending: Floats, weights: Floats, rate: float, *, total: float | None = None) -> float:
    """The first value with more than this share of the weight below or at it."""
    heaped = weights.cumsum()
    place = heaped.searchsorted(rate * (heaped[-1] if total is None else total), side="right")
    return float(ascending[min(int(place), len(ascending) - 1)])


Scoring: TypeAlias = Callable[[Floats], Floats]
"""From distances (probes, people on the list) to scores; infinite where nothing is compared."""


def plain(distances: Floats) -> Floats:
    return distances


def relative(distances: Floats) -> Floats:
    """Less half of the mean distance to the nearest other people: ``domain/crowding.py`` but for who resembles whom."""
    nearest = np.sort(distances, axis=1)[:, : NEIGHBOURS + 1]
    own = np.minimum(distances, nearest[:, -1:])
    mean: Floats = (nearest.sum(axis=1, keepdims=True) - own) / NEIGHBOURS
    return distances - mean / 2


def trials(distances: Floats, album: Album, *, everyone: bool, scoring: Scoring) -> Trials:
    """The list of the first photo of everybody, or of everybody with two photos or more."""
    people = album.people
    photos = np.bincount(people)
    _, first = np.unique(people, return_index=True)
    listed = np.arange(album.size) if everyone else np.flatnonzero(photos > 1)
    column = np.full(album.size, -1)
    column[listed] = np.arange(len(listed))
    compared = np.where(np.isnan(distances), np.inf, distances)[:, first[listed]]
    mated = np.setdiff1d(np.flatnonzero(photos[people] > 1), first)
    scores = scored(compared[mated], scoring)
    is_hit = (listed[scores.argmin(axis=1)] == people[mated]) & np.isfinite(scores.min(axis=1))
    if everyone:
        strangers = np.arange(len(people))
        compared = compared.copy()
        compared[strangers, people] = np.inf
    else:
        strangers = np.flatnonzero(photos[people] == 1)
    nearest = scored(compared[strangers], scoring).min(axis=1)
    return Trials(
        np.where(is_hit, scores.min(axis=1), np.inf), people[mated], nearest.astype(np.float64), people[strangers]
    )


def scored(compared: Floats, scoring: Scoring) -> Floats:
    """Scores, infinite where nothing is compared: in whole rows of photos without a face too."""
    with np.errstate(invalid="ignore"):
        scores = scoring(compared)
    return np.where(np.isfinite(compared), scores, np.inf)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a variant's distances say, ready to be counted again with other weights of people.

    Attributes:
        right: which listed pairs are told right.
        mated, mated_people: distances of all pairs of one person.
        others, other_people: the smallest distances of pairs of two, ascending, and both people of each, (2, n).
        apart: whether the folds are not compared with each other.
        several, everyone: the two lists.
    """

    album: Album
    right: Flags
    mated: Floats
    mated_people: Indices
    others: Floats
    other_people: Indices
    apart: bool
    several: Trials
    everyone: Trials

    def figures(self, weights: Floats) -> Floats:
        """The columns of the table, in percent."""
        album = self.album
        first, second = weights[album.people[album.first]], weights[album.people[album.second]]
        accuracy = np.average(self.right, weights=np.where(album.same, first, first * second))
        mass = np.bincount(album.people) * weights
        blocks = album.folds if self.apart else np.zeros_like(album.folds)
        block_of_person = np.zeros(album.size, np.intp)
        block_of_person[album.people] = blocks
        total = sum((mass[block_of_person == block].sum() ** 2 - np.square(mass[block_of_person == block]).sum()) / 2
                    for block in np.unique(blocks))  # fmt: skip
        pair_weights = weights[self.other_people].prod(axis=0)
        limits = [weighted_quantile(self.others, pair_weights, rate, total=total) for rate in (1e-3, 1e-4)]
        found = [np.average(self.mated < limit, weights=weights[self.mated_people]) for limit in limits]
        lists = [
            value
            for trial in (self.several, self.everyone)
            for value in (
                np.average(trial.is_hit, weights=weights[trial.mated_people]),
                *(trial.missed(rate, weights) for rate in RATES),
            )
        ]
        return 100 * np.array([accuracy, *found, *lists])


def measure(distances: Floats, album: Album, *, scoring: Scoring = plain) -> Measured:
    """Judge distances between every two photos, NaN where a photo has no face or the two are not compared."""
    values, folds = distances[album.first, album.second], album.folds[album.first]
    found = ~np.isnan(values)
    right = np.zeros(len(values), np.bool_)
    for fold in np.unique(folds):
        held_out = folds == fold
        threshold = best_threshold(values[~held_out & found], album.same[~held_out & found])
        right[held_out] = told_right(values, album.same, threshold)[held_out]
    first, second = np.triu_indices(len(distances), 1)
    compared = ~np.isnan(distances[first, second])
    first, second = first[compared], second[compared]
    same = album.people[first] == album.people[second]
    others = distances[first[~same], second[~same]]
    nearest = others.argpartition(NEAREST_STRANGERS)[:NEAREST_STRANGERS]
    nearest = nearest[others[nearest].argsort()]
    apart = not np.isfinite(distances[np.ix_(album.folds == folds.min(), album.folds == folds.max())]).any()
    lists = (trials(distances, album, everyone=everyone, scoring=scoring) for everyone in (False, True))
    return Measured(
        album,
        right,
        distances[first[same], second[same]],
        album.people[first[same]],
        others[nearest],
        album.people[np.stack([first[~same][nearest], second[~same][nearest]])],
        apart,
        *lists,
    )


# Variants


def normalised(vectors: Floats) -> Floats:
    """Unit vectors; NaN stays NaN."""
    return np.where(np.isnan(vectors), np.nan, unit(vectors.astype(np.float32)))


def cosine(vectors: Floats) -> Floats:
    """Distances of every two rows."""
    units = normalised(vectors)
    distances: Floats = 1 - units @ units.T
    return distances


def euclidean(vectors: Floats) -> Floats:
    lengths = np.square(vectors).sum(axis=1)
    distances: Floats = np.sqrt(np.maximum(lengths[:, None] + lengths - 2 * vectors @ vectors.T, 0))
    return distances


def mean_of(bank: Bank, names: Sequence[str]) -> Floats:
    """Mean embedding of the views and their mirror images, (photos, dimension)."""
    mean: Floats = np.concatenate([bank[name] for name in names], axis=1).astype(np.float64).mean(axis=1)
    return mean


Learn: TypeAlias = Callable[[Floats, Indices], Callable[[Floats], Floats]]
"""From unit embeddings and their people to what becomes of unit embeddings of others."""


def within_folds(vectors: Floats, album: Album, learn: Learn) -> Floats:
    """Cosine distances within each fold, after what was learnt on the others; NaN between folds."""
    distances = np.full((len(vectors), len(vectors)), np.nan)
    found = ~np.isnan(vectors).any(axis=1)
    units = normalised(vectors)
    for fold in np.unique(album.folds):
        rows, others = np.flatnonzero(album.folds == fold), found & (album.folds != fold)
        change = learn(units[others], album.people[others])
        distances[np.ix_(rows, rows)] = cosine(change(units[rows]))
    return distances


def nothing(_units: Floats, _people: Indices) -> Callable[[Floats], Floats]:
    return lambda units: units


def centring(share: float) -> Learn:
    """Subtract this share of the mean."""
    return lambda known, _: lambda units: units - share * known.mean(axis=0)


def whitening(*, within: bool, centred: bool) -> Learn:
    """Make the variance of all photos, or within people, half way equal in every direction."""

    def learn(known: Floats, people: Indices) -> Callable[[Floats], Floats]:
        _, number, photos = np.unique(people, return_inverse=True, return_counts=True)
        means = np.stack([np.bincount(number, column) for column in known.T], axis=1) / photos[:, None]
        spread = (known - means[number])[photos[number] > 1] if within else known - known.mean(axis=0)
        values, directions = np.linalg.eigh(np.cov(spread.T))
        scale = directions / np.sqrt(0.5 * values + 0.5 * values.mean())
        return lambda units: (units - centred * known.mean(axis=0)) @ scale

    return learn


def against_cohort(vectors: Floats, album: Album, *, nearest: int, deviations: bool) -> Floats:
    """Distances within folds by what the other fold's people are like.

    Less a quarter of the sum of both photos' mean distances to their nearest ones; or, with ``deviations``, the mean of
    how many standard deviations it lies above either (s-norm).
    """
    all_distances = cosine(vectors)
    distances = np.full_like(all_distances, np.nan)
    _, first = np.unique(album.people, return_index=True)
    for fold in np.unique(album.folds):
        rows = np.flatnonzero(album.folds == fold)
        cohort = [photo for photo in first if album.folds[photo] != fold and np.isfinite(all_distances[photo, photo])]
        near = np.sort(all_distances[np.ix_(rows, np.array(cohort))], axis=1)[:, :nearest]
        mean, deviation = near.mean(axis=1), near.std(axis=1)
        own = all_distances[np.ix_(rows, rows)]
        if deviations:
            own = ((own - mean) / deviation + (own - mean[:, None]) / deviation[:, None]) / 2
        else:
            own -= (mean + mean[:, None]) / 4
        distances[np.ix_(rows, rows)] = own
    return distances


Row: TypeAlias = tuple[str, int, Callable[[], Measured]]
"""Name, crops of each face, and how it is measured; the first row of a group is what the others are compared with."""


def groups(bank: Bank, album: Album) -> Iterator[list[Row]]:
    def views(name: str, *names: str) -> Row:
        return name, 2 * len(names), lambda: measure(cosine(mean_of(bank, names)), album)

    single = mean_of(bank, ["chip"])
    pair = bank["chip"].astype(np.float64)
    yield [
        views("chip and mirror image", "chip"),
        ("  without mirror image", 1, lambda: measure(cosine(pair[:, 0]), album)),
        ("  mean of unit vectors", 2, lambda: measure(cosine(normalised(pair).mean(axis=1)), album)),
        ("  euclidean distance", 2, lambda: measure(euclidean(single), album)),
        views("turned", "chip", "turned left", "turned right"),
        views("larger and smaller", "chip", "larger", "smaller"),
        views("all of these", *list(VIEWS)[: list(VIEWS).index("smaller") + 1]),
        views("landmarks: second look", "second look"),
        views("landmarks: mirrored look", "mirrored look"),
        views("detected at twice the size", "twice the size"),
        views("gamma 0.7", "brighter"),
        views("gamma 1.45", "darker"),
        views("mean over gammas", "chip", "brighter", "darker"),
        views("CLAHE", "equalized"),
        views("grey world", "grey world"),
        views("grey", "grey"),
        views("mean of colour and grey", "chip", "grey"),
        ("less half of the next five", 2, lambda: measure(cosine(single), album, scoring=relative)),
    ]
    learnt: dict[str, Learn] = {
        "within folds": nothing,
        "less half of the mean": centring(0.5),
        "less the mean": centring(1),
        "whitened": whitening(within=False, centred=True),
        "whitened within people": whitening(within=True, centred=True),
        "  not centred": whitening(within=True, centred=False),
    }
    rows: list[Row] = [
        (name, 2, lambda learn=learn: measure(within_folds(single, album, learn), album))  # type: ignore[misc]
        for name, learn in learnt.items()
    ]
    for name, nearest, deviations in (
        ("s-norm, whole cohort", len(single), True),
        ("s-norm, nearest 100", 100, True),
        ("s-norm, nearest 30", 30, True),
        ("mean of nearest 30", 30, False),
        ("mean of nearest 10", 10, False),
    ):
        compare = partial(against_cohort, single, album, nearest=nearest, deviations=deviations)
        rows.append((name, 2, lambda compare=compare: measure(compare(), album)))  # type: ignore[misc]
    yield rows


COLUMNS: Final = ("accuracy", "TAR -3", "TAR -4") + 2 * ("rank-1", "FNIR -1", "FNIR -2")


def report(rows: Sequence[Row], draws: Sequence[Floats]) -> None:
    """The table of one group."""
    print(f"\n{'':36}{'all photos':>45}{'several':>45}{'everyone':>45}\n{'':30}{'crops':>6}", end="")
    print("".join(f"{column:>15}" for column in COLUMNS))
    start: Floats | None = None
    for name, crops, variant in rows:
        measured = variant()
        print(f"{name:30}{crops:6}" + "".join(f"{value:15.2f}" for value in measured.figures(np.ones_like(draws[0]))))
        drawn = np.stack([measured.figures(weights) for weights in draws])
        if start is None:
            start = drawn
            continue
        low, high = np.quantile(drawn - start, (0.05, 0.95), axis=0)
        intervals = (f"[{a:+.1f}, {b:+.1f}]" for a, b in zip(low, high, strict=True))
        print(f"{'':36}" + "".join(f"{interval:>15}" for interval in intervals), flush=True)


# People with several reference photos

PersonScore: TypeAlias = Callable[[Floats, Floats], Floats]
"""From the ascending distances to a person's photos (..., n) and that to their mean to the distance of the person."""

PERSON_SCORES: Final[Mapping[str, PersonScore]] = {
    "best": lambda photos, _: photos[..., 0],
    "mean of best two": lambda photos, _: photos[..., :2].mean(axis=-1),
    "median": lambda photos, _: np.median(photos, axis=-1),
    "(best + median) / 2": lambda photos, _: (photos[..., 0] + np.median(photos, axis=-1)) / 2,
    "mean": lambda photos, _: photos.mean(axis=-1),
    "mean embedding": lambda _, template: template,
    "(best + mean embedding) / 2": lambda photos, template: (photos[..., 0] + template) / 2,
    "min(best, mean embedding)": lambda photos, template: np.minimum(photos[..., 0], template),
}


def report_people(vectors: Floats, album: Album, references: int) -> None:
    """Compare the scores of people, with photos that are all theirs and with one that is not."""
    rng = np.random.default_rng(references)
    drawn = {name: list[Floats]() for name in PERSON_SCORES}
    for _ in range(PEOPLE_DRAWS):
        for name, values in draw_people(normalised(vectors), album, references, rng=rng).items():
            drawn[name].append(values)
    print(f"\n{references} reference photos each, FNIR and alerts where one stranger in a hundred raises one; in the")
    print("last four columns one photo of everybody on the list shows somebody else")
    columns = ("FNIR -1", "FNIR -2", "FNIR", "strangers", "that one", "FNIR, new limit")
    print(f"{'':30}" + "".join(f"{column:>16}" for column in columns))
    for name, rows in drawn.items():
        print(f"{name:30}" + "".join(f"{value:16.1f}" for value in np.mean(rows, axis=0)))
        if name != "best":
            low, high = np.quantile(np.array(rows) - np.array(drawn["best"]), (0.05, 0.95), axis=0)
            intervals = (f"[{a:+.1f}, {b:+.1f}]" for a, b in zip(low, high, strict=True))
            print(f"{'':30}" + "".join(f"{interval:>16}" for interval in intervals))


def draw_people(units: Floats, album: Album, references: int, *, rng: np.random.Generator) -> dict[str, Floats]:
    """One choice of photos, with people drawn with replacement; figures in percent, by score."""
    photos = [
        rng.permutation(np.flatnonzero((album.people == number) & ~np.isnan(units[:, 0])))
        for number in range(album.size)
    ]
    enrolled = [number for number, own in enumerate(photos) if len(own) > references]
    others = [number for number, own in enumerate(photos) if 0 < len(own) <= references]
    pairs = [number for number in others if len(photos[number]) > 1]
    donors = rng.permutation(pairs)[: len(enrolled)]
    listed = np.array([photos[number][:references] for number in enrolled])
    wrong = listed.copy()
    wrong[: len(donors), 0] = [photos[number][0] for number in donors]
    probes = np.concatenate([photos[number][references:] for number in enrolled])
    places = np.repeat(np.arange(len(enrolled)), [len(photos[number]) - references for number in enrolled])
    strangers = np.concatenate([photos[number] for number in others if number not in set(donors.tolist())])
    returning = np.array([photos[number][1] for number in donors])
    weights = np.bincount(rng.integers(album.size, size=album.size), minlength=album.size).astype(np.float64)

    def compare(photo: Indices, gallery: Indices) -> tuple[Floats, Floats]:
        single = np.sort(1 - np.einsum("pd,lnd->pln", units[photo], units[gallery]), axis=-1)
        return single, 1 - units[photo] @ normalised(units[gallery].mean(axis=1)).T

    def weight(photo: Indices) -> Floats:
        return weights[album.people[photo]]

    clean = [compare(photo, listed) for photo in (probes, strangers)]
    soiled = [compare(photo, wrong) for photo in (probes, strangers, returning)]
    figures = {}
    for name, score in PERSON_SCORES.items():
        mated, unknown = (score(*values) for values in clean)
        mated_soiled, unknown_soiled, returned = (score(*values) for values in soiled)
        loose, strict = (limit_of(unknown.min(axis=1), weight(strangers), rate) for rate in RATES)
        new = limit_of(unknown_soiled.min(axis=1), weight(strangers), RATES[1])

        def missed(scores: Floats, limit: float) -> float:
            hits = (scores.argmin(axis=1) == places) & (scores.min(axis=1) < limit)
            return 1 - float(np.average(hits, weights=weight(probes)))

        alerts = np.average(unknown_soiled.min(axis=1) < strict, weights=weight(strangers))
        recalled = np.average(returned.min(axis=1) < strict, weights=weight(returning))
        figures[name] = 100 * np.array(
            [
                missed(mated, loose),
                missed(mated, strict),
                missed(mated_soiled, strict),
                alerts,
                recalled,
                missed(mated_soiled, new),
            ]
        )
    return figures


def limit_of(values: Floats, weights: Floats, rate: float) -> float:
    """The distance below which this share of the strangers is."""
    order = values.argsort()
    return weighted_quantile(values[order], weights[order], rate)


def main() -> None:
    """Embed every view, and print the tables."""
    parser = argparse.ArgumentParser(
        "python -m bench.variants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="folder of photos")
    parser.add_argument("pairs", type=Path, help="csv file of labelled pairs")
    parser.add_argument("--folds", type=int, default=2, help="number of folds in the list of pairs")
    parser.add_argument("--deepface-home", type=Path, default=Path.home())
    args = parser.parse_args()

    weights = WeightStore(args.deepface_home)
    network, landmarks = weights.require(MODELS["Dlib"])
    cutter = Cutter(load_detector("mtcnn", weights=weights, max_side=1024), landmark_model(landmarks))
    paths = sorted(args.images.iterdir())
    bank = embed(paths, cutter, dlib.face_recognition_model_v1(str(network)))
    judge(bank, read_album([path.name for path in paths], args.pairs, args.folds))


def judge(bank: Bank, album: Album) -> None:
    """Print every table."""
    missing = int(np.isnan(bank["chip"][:, 0, 0]).sum())
    print(f"{len(album.people)} photos of {album.size} people, {missing} without a face")
    rng = np.random.default_rng(0)
    draws = [
        np.bincount(rng.integers(album.size, size=album.size), minlength=album.size).astype(np.float64)
        for _ in range(DRAWS)
    ]
    for rows in groups(bank, album):
        report(rows, draws)
    for references in (2, 3, 5):
        report_people(mean_of(bank, ["chip"]), album, references)


if __name__ == "__main__":
    main()
