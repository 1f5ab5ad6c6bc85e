"""What a measurement on photos of known people found; ``dataclasses.asdict`` of an evaluation is its JSON document.

Verification asks whether two photos show one person, identification whether a face is one of a list. The names of the
rates are those of ISO/IEC 19795-1 and NIST's FRTE. Photos are named by their path below the measured folder.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from facescreen.domain.distances import EmbeddingMetric


@dataclass(frozen=True, slots=True)
class Rate:
    """A share, and the 95 % interval by Clopper and Pearson that holds the true one.

    Attributes:
        count: of how many it is true; a mean over several lists need not be whole.
        total: of how many; at least one.
        value: ``count / total``.
    """

    count: float
    total: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FailedPhoto:
    """A photo without an embedding: why, as one of our error codes; ``no_face`` for one without a face."""

    photo: str
    code: str


@dataclass(frozen=True, slots=True)
class Acquisition:
    """Photos that give no embedding; they are errors wherever they occur.

    Attributes:
        failed: sorted by name.
        unreadable: share of all photos that cannot be decoded (failure to acquire).
        without_face: share of all photos that were decoded and show no face (failure to enroll).
    """

    failed: tuple[FailedPhoto, ...]
    unreadable: Rate
    without_face: Rate


@dataclass(frozen=True, slots=True)
class Timing:
    """Medians over the photos, in milliseconds, on the machine that measured and with several photos at once.

    Attributes:
        detect: find all faces of a decoded photo.
        embed: align and embed one face.
    """

    detect: float
    embed: float


@dataclass(frozen=True, slots=True)
class VerificationPoint:
    """What happens to pairs if those match that are at most ``threshold`` apart.

    Attributes:
        target: false accept rate that the threshold was chosen for: the largest threshold that does not exceed it;
            ``None`` for a threshold that was given.
        threshold: ``None`` if the pairs are too few for the target; then there are no rates either.
        tar: pairs of one person that match (true accept rate; the rest is the false non-match rate). Pairs with a photo
            without a face do not. ``None`` if there are no pairs of one person.
        far: pairs of two people that match (false accept rate), of those with two faces; ``None`` if there are none.
    """

    target: float | None
    threshold: float | None
    tar: Rate | None
    far: Rate | None


@dataclass(frozen=True, slots=True)
class RocPoint:
    """A point of the receiver operating characteristic, in order of the threshold."""

    threshold: float
    far: float
    tar: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of labelled pairs that a threshold tells right; a pair with a photo without a face is told wrong.

    Attributes:
        folds: each fold by the threshold that is best on all others; empty with fewer than two folds.
        across_folds: all of them together; ``None`` with fewer than two folds.
        best_threshold: the median of the thresholds that tell most of all pairs right.
        best: accuracy at ``best_threshold``, which has seen the pairs and so flatters.
        shipped: accuracy at the threshold that comes with the model; ``None`` if there is none.
    """

    folds: tuple[Rate, ...]
    across_folds: Rate | None
    best_threshold: float
    best: Rate
    shipped: Rate | None


@dataclass(frozen=True, slots=True)
class LogisticFit:
    """``P(one person) = 1 / (1 + exp(-(intercept + slope * distance)))``, among as many pairs of one kind as of two."""

    intercept: float
    slope: float


@dataclass(frozen=True, slots=True)
class Verification:
    """How well a distance tells pairs of one person from pairs of two.

    Attributes:
        mated: pairs of one person.
        others: pairs of two people.
        incomplete: of both, pairs with a photo without a face.
        mated_mean, others_mean: mean distance of pairs of one person, ``None`` if there are none, and of two people.
        accuracy, logistic: only of listed pairs, which are about as many of one kind as of the other; ``logistic`` is
            ``None`` too where a threshold tells every pair right, since then no fit is best.
        roc: at most 200 points.
        points: at a false accept rate of 1e-1, 1e-2, 1e-3 and 1e-4.
        equal_error_rate: where as large a share of mated pairs is missed as of others matches.
        equal_error_threshold: the threshold there.
        shipped: at the threshold that comes with the model; ``None`` if there is none.
    """

    mated: int
    others: int
    incomplete: int
    mated_mean: float | None
    others_mean: float
    accuracy: Accuracy | None
    logistic: LogisticFit | None
    roc: tuple[RocPoint, ...]
    points: tuple[VerificationPoint, ...]
    equal_error_rate: float
    equal_error_threshold: float
    shipped: VerificationPoint | None


@dataclass(frozen=True, slots=True)
class IdentificationPoint:
    """What happens to searches if an alert is raised for the smallest distance, if at most ``threshold``.

    Attributes:
        target: false positive identification rate that the threshold was chosen for: the largest threshold that does
            not exceed it; ``None`` for a threshold that was given.
        threshold: ``None`` if there are too few probes of strangers for the target; then there are no rates either.
        fpir: probes of strangers with a face that raise an alert (false positive identification rate); ``None`` if
            there are none.
        fnir: probes of people on the list that raise none, or name somebody else (false negative identification rate);
            ``None`` if there are none.
    """

    target: float | None
    threshold: float | None
    fpir: Rate | None
    fnir: Rate | None


@dataclass(frozen=True, slots=True)
class ListSize:
    """Searches in lists of one length.

    Attributes:
        references: people on the list, one photo each. Below the whole list's length, rates are means over lists that
            are drawn from the whole, and the threshold is chosen for that mean.
        rank_one: probes of people on the list whose own distance is the smallest.
        points: at a false positive identification rate of 1e-1, 1e-2 and 1e-3.
    """

    references: int
    rank_one: Rate
    points: tuple[IdentificationPoint, ...]


@dataclass(frozen=True, slots=True)
class IdentificationCurvePoint:
    """A point of the whole list's curve, in order of the threshold."""

    threshold: float
    fpir: float
    fnir: float


class Strangers(StrEnum):
    """Whose faces should raise no alert."""

    SINGLE = "single"
    """People with a single photo, who are not on the list."""
    HELD_OUT = "held_out"
    """Everybody has two or more photos: a third of the people, chosen by a hash of the name, is not on the list."""
    IN_TURN = "in_turn"
    """Everybody, each searched in the list without themselves."""


@dataclass(frozen=True, slots=True)
class Identification:
    """Open-set identification, ISO/IEC 19795-1: is this face one of these people, and whose?

    The reference of everybody on the list is their first photo, by name; all their other photos are mated probes.

    Attributes:
        people: people on the list, also those whose reference shows no face: all their probes are missed.
        mated_probes: other photos of people on the list.
        strangers: who they are.
        stranger_probes: photos of strangers that show a face.
        sizes: parts of the list, ascending, if they were measured, and the whole as the last. Parts are means over all
            that can be drawn from the list.
        curve: of the whole list, at most 200 points; empty without strangers.
        shipped: at the threshold that comes with the model, on the whole list; ``None`` if there is none.
    """

    people: int
    mated_probes: int
    strangers: Strangers
    stranger_probes: int
    sizes: tuple[ListSize, ...]
    curve: tuple[IdentificationCurvePoint, ...]
    shipped: IdentificationPoint | None

    @property
    def whole(self) -> ListSize:
        """The whole list."""
        return self.sizes[-1]


Point = TypeVar("Point", VerificationPoint, IdentificationPoint)


def measured_at(points: Iterable[Point], target: float | None) -> Point | None:
    """The point with this target, if it could be measured."""
    return next((point for point in points if point.target == target and point.threshold is not None), None)


@dataclass(frozen=True, slots=True)
class GroupMeasures:
    """One group of people at the thresholds of everybody, as ISO/IEC 19795-10 compares groups.

    Attributes:
        failed: photos of the group without an embedding.
        verification: over all pairs of photos of the group.
        identification: probes of the group in the whole list.
    """

    group: str
    people: int
    photos: int
    failed: Rate
    verification: tuple[VerificationPoint, ...]
    identification: tuple[IdentificationPoint, ...]


@dataclass(frozen=True, slots=True)
class HardPair:
    """Two photos, and how far apart they seem."""

    first: str
    second: str
    distance: float


@dataclass(frozen=True, slots=True)
class HardExamples:
    """Photos to look at, of all pairs of photos; at most 20 of a kind.

    Attributes:
        lookalikes: pairs of two people, the smallest distance first.
        strangers_to_themselves: pairs of one person, the largest distance first.
    """

    lookalikes: tuple[HardPair, ...]
    strangers_to_themselves: tuple[HardPair, ...]


@dataclass(frozen=True, slots=True)
class Combination:
    """One detector with one model.

    Attributes:
        space: names model, weights and alignment.
        shipped_threshold: what comes with the model for the evaluation's metric, if anything does.
        listed_pairs: the pairs of the list; ``None`` without one.
        all_pairs: every two photos.
        identification: everybody with two or more photos is on the list.
        everybody_listed: everybody is.
    """

    detector: str
    model: str
    space: str
    shipped_threshold: float | None
    acquisition: Acquisition
    timing: Timing
    listed_pairs: Verification | None
    all_pairs: Verification
    identification: Identification
    everybody_listed: Identification
    groups: tuple[GroupMeasures, ...]
    hard: HardExamples

    @property
    def name(self) -> str:
        """Such as ``mtcnn + Dlib``."""
        return f"{self.detector} + {self.model}"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Every combination on the same photos.

    Attributes:
        title: name of the folder of photos.
        version: facescreen's.
        measured_at: ISO 8601, UTC.
        metric: what every distance and threshold is in.
        folds: in the list of pairs; 0 without one.
        combinations: in the order that they were asked for.
    """

    title: str
    version: str
    measured_at: str
    metric: EmbeddingMetric
    photos: int
    people: int
    folds: int
    combinations: tuple[Combination, ...]
