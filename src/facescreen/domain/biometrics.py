"""The statistics of verification, on arrays of distances.

Rates and their names are those of ISO/IEC 19795-1. A distance matches that is at most the threshold.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facescreen.domain.distances import EmbeddingMetric, Metric, from_cosine, unit
from facescreen.domain.evaluation import (
    Accuracy,
    LogisticFit,
    Rate,
    RocPoint,
    Verification,
    VerificationPoint,
)
from facescreen.domain.faces import Vectors

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]

FALSE_ACCEPT_TARGETS: Final = (10, 100, 1_000, 10_000)
"""One pair of two people in so many matches."""

CURVE_POINTS: Final = 200

_BLOCK: Final = 512
"""Rows of a matrix of distances that are computed at a time."""


def rate(count: float, total: int) -> Rate:
    """A share with its 95 % interval by Clopper and Pearson, "The use of confidence or fiducial limits", 1934.

    Raises:
        ValueError: ``total`` is less than one, or ``count`` not in [0, total].
    """
    if not 0 <= count <= total or total < 1:
        raise ValueError("a share is of one or more, and at most all of them")
    # A service never needs it, and it would load for a third of a second at every start.
    from scipy.special import betaincinv  # noqa: PLC0415

    low = float(betaincinv(count, total - count + 1, 0.025)) if count > 0 else 0.0
    high = float(betaincinv(count + 1, total - count, 0.975)) if count < total else 1.0
    return Rate(count, total, count / total, low, high)


def threshold_at(others: Floats, one_in: int) -> float | None:
    """The largest threshold at which at most one in so many matches, ``None`` if so few cannot tell that from none.

    Args:
        others: what should not match, ascending.
        one_in: at least two.
    """
    if len(others) < one_in:
        return None
    return just_below(others[len(others) // one_in])


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Distances of pairs.

    Attributes:
        mated: of one person, ascending.
        others: of two people, ascending; curves and equal errors need at least one.
        mated_missing, others_missing: pairs without a distance, because a photo shows no face.
    """

    mated: Floats
    others: Floats
    mated_missing: int = 0
    others_missing: int = 0

    @classmethod
    def of(cls, values: Floats, same: Flags) -> "Comparisons":
        """From the distance of each pair, NaN without one, and whether it is of one person."""
        found = ~np.isnan(values)
        return cls(
            np.sort(values[found & same]),
            np.sort(values[found & ~same]),
            mated_missing=int((same & ~found).sum()),
            others_missing=int((~same & ~found).sum()),
        )

    def verification(
        self, *, shipped: float | None, accuracy: Accuracy | None = None, logistic: LogisticFit | None = None
    ) -> Verification:
        """All measures.

        Args:
            shipped: the threshold that comes with the model.
        """
        equal_error_rate, equal_error_threshold = self.equal_error()
        return Verification(
            mated=len(self.mated) + self.mated_missing,
            others=len(self.others) + self.others_missing,
            incomplete=self.mated_missing + self.others_missing,
            mated_mean=float(self.mated.mean()) if len(self.mated) else None,
            others_mean=float(self.others.mean()),
            accuracy=accuracy,
            logistic=logistic,
            roc=self.roc(),
            points=tuple(self.at(threshold_at(self.others, n), target=1 / n) for n in FALSE_ACCEPT_TARGETS),
            equal_error_rate=equal_error_rate,
            equal_error_threshold=equal_error_threshold,
            shipped=None if shipped is None else self.at(shipped),
        )

    def tar(self, threshold: float) -> float:
        """Share of the pairs of one person that match; 0 if there are none."""
        return _at_most(self.mated, threshold) / max(len(self.mated) + self.mated_missing, 1)

    def far(self, threshold: float) -> float:
        """Share of the pairs of two people that match."""
        return _at_most(self.others, threshold) / len(self.others)

    def at(self, threshold: float | None, *, target: float | None = None) -> VerificationPoint:
        """The rates at a threshold, where there is one."""
        if threshold is None:
            return VerificationPoint(target, None, None, None)
        mated, others = len(self.mated) + self.mated_missing, len(self.others)
        tar = rate(_at_most(self.mated, threshold), mated) if mated else None
        far = rate(_at_most(self.others, threshold), others) if others else None
        return VerificationPoint(target, threshold, tar, far)

    def roc(self) -> tuple[RocPoint, ...]:
        """From no false match to all, the more points the rarer false matches are."""
        last = max(self.others[-1], self.mated.max(initial=0.0))
        thresholds = [*curve_thresholds(self.others)[:-1], float(last)]
        return tuple(RocPoint(threshold, self.far(threshold), self.tar(threshold)) for threshold in thresholds)

    def equal_error(self) -> tuple[float, float]:
        """The rate where false accepts and false rejects come closest, as the mean of the two, and the threshold."""
        reached = [
            float(values[index])
            for values in (self.mated, self.others)
            if (index := self._first_with_more_false_accepts(values)) < len(values)
        ]
        crossing = min(reached)
        return min(self._errors(crossing), self._errors(just_below(crossing)))[1:]

    def _first_with_more_false_accepts(self, values: Floats) -> int:
        low, high = 0, len(values)
        while low < high:
            middle = (low + high) // 2
            if self.far(values[middle]) >= 1 - self.tar(values[middle]):
                high = middle
            else:
                low = middle + 1
        return low

    def _errors(self, threshold: float) -> tuple[float, float, float]:
        accepted, rejected = self.far(threshold), 1 - self.tar(threshold)
        return abs(accepted - rejected), (accepted + rejected) / 2, threshold


def best_threshold(values: Floats, same: Flags) -> float:
    """The median of the thresholds that tell most pairs right; 0 without two different distances.

    Where these thresholds form several ranges it may lie between two, where it tells hardly fewer pairs right.
    """
    edges = np.unique(values)
    candidates = (edges[1:] + edges[:-1]) / 2
    if not len(candidates):
        return 0.0
    mated, others = np.sort(values[same]), np.sort(values[~same])
    right = np.searchsorted(mated, candidates, side="right") - np.searchsorted(others, candidates, side="right")
    return float(np.median(candidates[right == right.max()]))


def told_right(values: Floats, same: Flags, threshold: float) -> Flags:
    """Which pairs the threshold tells right. NaN is a pair without a face, and told wrong."""
    right: Flags = ((values <= threshold) == same) & ~np.isnan(values)
    return right


def accuracy(values: Floats, same: Flags, folds: Counts, *, shipped: float | None) -> Accuracy:
    """How many of labelled pairs are told right, NaN as above; each fold by the threshold that is best on all others.

    Args:
        folds: the fold of each pair, counted from 0.
        shipped: the threshold that comes with the model.
    """
    found = ~np.isnan(values)

    def right(threshold: float, among: Flags) -> Rate:
        return rate(int(told_right(values, same, threshold)[among].sum()), int(among.sum()))

    everything = np.ones_like(found)
    best = best_threshold(values[found], same[found])
    measured = [
        right(best_threshold(values[found & (folds != fold)], same[found & (folds != fold)]), folds == fold)
        for fold in np.unique(folds)
    ]
    return Accuracy(
        folds=tuple(measured) if len(measured) > 1 else (),
        across_folds=rate(sum(fold.count for fold in measured), len(values)) if len(measured) > 1 else None,
        best_threshold=best,
        best=right(best, everything),
        shipped=None if shipped is None else right(shipped, everything),
    )


def logistic_fit(values: Floats, same: Flags) -> LogisticFit | None:
    """The fit of largest likelihood; ``None`` if a threshold tells all pairs right, since then a steeper one is better.

    Args:
        values: of pairs of both kinds.
    """
    if values[same].max() <= values[~same].min() or values[~same].max() <= values[same].min():
        return None
    scale = values.std()
    design = np.column_stack([np.ones_like(values), (values - values.mean()) / scale])
    weights = np.zeros(2)
    for _ in range(50):  # Newton's method; it settles within ten steps
        probability = 1 / (1 + np.exp(-design @ weights))
        curvature = design.T * (probability * (1 - probability)) @ design
        weights += np.linalg.solve(curvature, design.T @ (same - probability))
    slope = weights[1] / scale
    return LogisticFit(float(weights[0] - slope * values.mean()), float(slope))


def pairwise(metric: EmbeddingMetric, first: Vectors, second: Vectors) -> Floats:
    """Distances of each embedding from each: :func:`facescreen.domain.distances.distances` by a matrix product.

    That is faster by far, and rounds where the other is exact: equal embeddings may come out 1e-16 apart (cosine), or
    1e-8 of their length (all others).
    """
    if metric is Metric.EUCLIDEAN:
        left, right = first.astype(np.float64), second.astype(np.float64)
        squares = np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1) - 2 * left @ right.T
        return np.asarray(np.sqrt(np.maximum(squares, 0.0)))
    return from_cosine(metric, np.clip(1.0 - unit(first) @ unit(second).T, 0.0, 2.0))


@dataclass(frozen=True, slots=True)
class AllPairs:
    """Distances of every two photos.

    Attributes:
        mated, others: as in :class:`Comparisons`.
        nearest_others, farthest_mated: positions of the two photos and their distance, the hardest first.
    """

    mated: Floats
    others: Floats
    nearest_others: tuple[tuple[int, int, float], ...]
    farthest_mated: tuple[tuple[int, int, float], ...]


def all_pairs(metric: EmbeddingMetric, vectors: Vectors, people: NDArray[np.str_], *, hardest: int = 20) -> AllPairs:
    """Compare every two photos, eight bytes for each.

    Args:
        people: whose each photo is.
        hardest: how many of the hardest pairs to name.
    """
    _, person = np.unique(people, return_inverse=True)
    mated, others = [np.empty(0)], [np.empty(0)]
    near = far = np.empty((0, 3))
    for start in range(0, len(vectors), _BLOCK):
        values = pairwise(metric, vectors[start : start + _BLOCK], vectors[start:])
        rows, columns = np.triu_indices(len(values), 1, values.shape[1])
        values = values[rows, columns]
        same = person[rows + start] == person[columns + start]
        pairs = np.column_stack([rows + start, columns + start, values])
        near = _hardest(np.concatenate([near, pairs[~same]]), hardest, sign=1)
        far = _hardest(np.concatenate([far, pairs[same]]), hardest, sign=-1)
        mated.append(values[same])
        others.append(values[~same])
    return AllPairs(
        np.sort(np.concatenate(mated)),
        np.sort(np.concatenate(others)),
        nearest_others=tuple((int(a), int(b), float(distance)) for a, b, distance in near),
        farthest_mated=tuple((int(a), int(b), float(distance)) for a, b, distance in far),
    )


def _hardest(pairs: Floats, count: int, *, sign: int) -> Floats:
    """The rows of (first, second, distance) with the smallest ``sign * distance``, the earlier photos first."""
    keys = sign * pairs[:, 2]
    if len(pairs) > count:
        kept = keys <= np.partition(keys, count - 1)[count - 1]
        pairs, keys = pairs[kept], keys[kept]
    chosen: Floats = pairs[np.lexsort((pairs[:, 1], pairs[:, 0], keys))[:count]]
    return chosen


def _at_most(ascending: Floats, threshold: float) -> int:
    return int(np.searchsorted(ascending, threshold, side="right"))


def just_below(value: float) -> float:
    """The largest threshold that this distance exceeds."""
    return float(np.nextafter(value, -math.inf))


def curve_thresholds(others: Floats) -> list[float]:
    """Just below the smallest of ascending distances, and where their count grows by the same factor up to all."""
    counts = np.unique(np.geomspace(1, len(others), CURVE_POINTS - 1).round().astype(np.int64))
    return [just_below(others[0]), *np.unique(others[counts - 1]).tolist()]
