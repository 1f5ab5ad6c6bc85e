"""How often a face of nobody on the list raises an alert, by threshold and by the size of the list."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from facescreen.domain.distances import EmbeddingMetric, Metric, convert, unit
from facescreen.domain.faces import Vectors
from facescreen.domain.sampling import chance_of_any

MEASURED_METRICS: Final[tuple[EmbeddingMetric, ...]] = (Metric.COSINE, Metric.EUCLIDEAN)
"""One for each geometry; the others convert to the first."""

_DIGITS = 9
"""Decimals that rates are kept to; a rate and a budget that are equal are equal after rounding too."""

_STEP = 1e-7
"""What distances are rounded to: about what float32 embeddings tell apart."""

_POINTS = 128
"""At most so many distances in a curve, and one more: a step between two changes the rate by about a twentieth."""

_MOST = 0.95
"""Curves reach up to where so many of the faces alert."""

_BLOCK = 8_000_000
"""Distances that are held at once, in float64."""


def measured_metric(metric: EmbeddingMetric) -> EmbeddingMetric:
    """The one that a metric converts from."""
    return Metric.COSINE if metric.is_angle_based else Metric.EUCLIDEAN


@dataclass(frozen=True, slots=True)
class AlertBudget:
    """At most one false alert per so many faces of nobody on the list, at the match and at the review threshold."""

    one_in: int
    review_one_in: int


@dataclass(frozen=True, slots=True)
class FalseAlertCurve:
    """The false positive identification rate (FPIR, ISO/IEC 19795-1) of measured searches.

    Attributes:
        metric: what the distances are in.
        faces: how many faces of nobody on the list were searched.
        list_sizes: reference photos in the lists that were searched, ascending from 1.
        distances: ascending.
        rates: for each list size and each distance the share of the faces that have a reference at most that far; it
            never falls with the distance or with the size.
    """

    metric: EmbeddingMetric
    faces: int
    list_sizes: tuple[int, ...]
    distances: tuple[float, ...]
    rates: tuple[tuple[float, ...], ...]

    def rate(self, distance: float, list_size: int) -> float:
        """The share of faces of nobody on such a list that has a reference at most so far.

        It never understates what was measured. Between measured distances it is the rate of the larger one; beyond the
        largest, 1. Between measured list sizes it grows with the list up to the rate of the next one: the rate is
        concave in the size, for a face that has alerted cannot alert again. Beyond the largest list it is the rate of
        lists put together from such ones, ``1 - (1 - rate) ** times``, as if every face were as likely to alert;
        faces differ in how many people they resemble, so that lists have less on average (Jensen's inequality). Where
        nobody alerted in the largest list, one of the faces is taken to have.
        """
        if distance < 0 or list_size <= 0:
            return 0.0
        column = bisect_left(self.distances, distance)
        if column == len(self.distances):
            return 1.0
        row = bisect_right(self.list_sizes, list_size) - 1
        times = list_size / self.list_sizes[row]
        if row + 1 < len(self.list_sizes):
            return min(self.rates[row][column] * times, self.rates[row + 1][column])
        rate = self.rates[row][column]
        if times > 1:
            rate = max(rate, 1 / self.faces)
        return round(-math.expm1(times * math.log1p(-rate)), _DIGITS) if rate < 1 else 1.0

    def threshold(self, one_in: float, list_size: int) -> float | None:
        """The largest measured distance that alerts for at most one in so many faces; if none does, the smallest.

        The latter is what is left to a list that is far longer than those that were measured: :meth:`rate` tells how
        many false alerts are to be expected of it. No fewer alerts than one in :attr:`faces` can be told from none, so
        the result is ``None`` for more.
        """
        if one_in > self.faces:
            return None
        within = bisect_right(
            self.distances, round(1 / one_in, _DIGITS), key=lambda distance: self.rate(distance, max(list_size, 1))
        )
        return self.distances[max(within - 1, 0)]

    def converted(self, metric: EmbeddingMetric) -> "FalseAlertCurve":
        """The same curve in another metric of the same geometry; ``ValueError`` for one of another geometry."""
        distances = tuple(convert(distance, self.metric, metric) for distance in self.distances)
        return replace(self, metric=metric, distances=distances)

    def to_document(self) -> dict[str, Any]:
        """The curve in JSON's types."""
        return {
            "metric": self.metric.value,
            "faces": self.faces,
            "list_sizes": list(self.list_sizes),
            "distances": list(self.distances),
            "rates": [list(rates) for rates in self.rates],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "FalseAlertCurve":
        """The curve that :meth:`to_document` was called of."""
        return cls(
            metric=cast("EmbeddingMetric", Metric(document["metric"])),
            faces=document["faces"],
            list_sizes=tuple(document["list_sizes"]),
            distances=tuple(document["distances"]),
            rates=tuple(tuple(rates) for rates in document["rates"]),
        )


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measured false alerts, and the budget that thresholds are chosen by.

    Attributes:
        id: ``None`` for the one that comes with a model.
        source: what was measured, in words.
        detector: the one that found the faces.
        space: names model, weights and alignment of the embeddings.
        curves: one for ``cosine``, which serves every angle-based metric, and one for ``euclidean``.
        created_at: ``None`` for the one that comes with a model.
    """

    id: int | None
    source: str
    detector: str
    space: str
    budget: AlertBudget
    curves: tuple[FalseAlertCurve, ...]
    created_at: datetime | None

    def curve(self, metric: EmbeddingMetric) -> FalseAlertCurve:
        """The curve in this metric."""
        measured = measured_metric(metric)
        return next(curve for curve in self.curves if curve.metric is measured).converted(metric)


class Nearest(NamedTuple):
    """For each face the distance of the nearest reference, and its row."""

    distances: NDArray[np.float64]
    rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ImpostorSearches:
    """Faces of nobody on the list, each to be searched in the list.

    Attributes:
        faces: their raw embeddings (faces, dimension); at least one.
        references: those of the list (n, dimension); at least one, of somebody else, for each face.
        own: where the faces are of people on the list, the row of each one's reference, shape (faces,). Everybody has
            one, and nobody is compared with their own.
    """

    faces: Vectors
    references: Vectors
    own: NDArray[np.int64] | None = None

    @property
    def list_size(self) -> int:
        """Reference photos that each face is searched in."""
        return len(self.references) - (self.own is not None)

    def nearest(self, metric: EmbeddingMetric) -> Nearest:
        """What each face resembles most."""
        rows, gaps = [], []
        for _, block in self._gaps(metric):
            rows.append(block.argmin(axis=1))
            gaps.append(np.take_along_axis(block, rows[-1][:, None], axis=1)[:, 0])
        return Nearest(_distances(metric, np.concatenate(gaps)), np.concatenate(rows))

    def curve(self, metric: EmbeddingMetric) -> FalseAlertCurve:
        """How many of the faces alert, up to the distance where most of them do."""
        distances = _points(_most(self.nearest(metric).distances))
        widest = distances[-1] + _STEP
        near = np.zeros((len(self.faces), len(distances) + 1), np.int64)
        for start, block in self._gaps(metric):
            faces, references = np.nonzero(block <= (widest if metric is Metric.COSINE else widest**2))
            found = _distances(metric, block[faces, references])
            np.add.at(near, (start + faces, np.searchsorted(distances, found)), 1)
        counts = near[:, :-1].cumsum(axis=1)
        return measure_curve(counts, metric, list_size=self.list_size, distances=distances.tolist())

    def _gaps(self, metric: EmbeddingMetric) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """What :func:`_distances` takes, of successive faces to all references, with the row of the first face.

        One matrix product gives each block, for nothing that is done to every single distance is as quick.
        """
        if metric is Metric.COSINE:
            faces, references = unit(self.faces), -unit(self.references)
            faces, references = _beside(faces, 1.0), _beside(references, 1.0)
        else:
            faces, references = self.faces.astype(np.float64), self.references.astype(np.float64)
            faces, references = (
                _beside(faces, np.square(faces).sum(axis=1), 1.0),
                _beside(-2.0 * references, 1.0, np.square(references).sum(axis=1)),
            )
        rows = max(_BLOCK // len(references), 1)
        for start in range(0, len(faces), rows):
            block = faces[start : start + rows] @ references.T
            if self.own is not None:
                block[np.arange(len(block)), self.own[start : start + rows]] = np.inf
            yield start, block


def _distances(metric: EmbeddingMetric, gaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distances that were computed as they are (cosine) or squared (euclidean)."""
    gaps = np.maximum(gaps, 0.0)
    return gaps if metric is Metric.COSINE else np.sqrt(gaps)


def _beside(vectors: NDArray[np.float64], *columns: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows with further columns."""
    return np.column_stack([vectors, *(np.broadcast_to(column, len(vectors)) for column in columns)])


def measure_curve(
    near: NDArray[np.int64], metric: EmbeddingMetric, *, list_size: int, distances: Sequence[float]
) -> FalseAlertCurve:
    """The curve of searches in one list and in every part of it.

    A part of ``m`` of the list's ``n`` photos holds none of the ``k`` that are near to a face with the probability
    ``C(n - k, m) / C(n, m)``, so the mean over all parts is known without drawing any.

    Args:
        near: for each face of nobody on the list (rows) and each distance (columns) how many reference photos are at
            most that far.
        list_size: reference photos in the list.
        distances: where the rates are wanted, ascending.
    """
    sizes = _parts(list_size)
    rates = []
    for size in sizes:
        touched = chance_of_any(list_size, size, near)
        rates.append(tuple(np.round(touched.mean(axis=0), _DIGITS).tolist()))
    return FalseAlertCurve(metric, len(near), sizes, tuple(distances), tuple(rates))


def _most(nearest: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest ones, ascending."""
    return np.sort(nearest)[: math.ceil(_MOST * len(nearest))]


def _points(ranked: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the rates are worth knowing: just below the smallest of ascending distances, and up to the largest.

    Ranks grow by equal factors, so that the points are dense where few faces alert.
    """
    ranks = np.unique(np.geomspace(1, len(ranked), _POINTS).round().astype(int)) - 1
    reached = np.ceil(ranked[ranks] / _STEP)
    points = np.unique(np.concatenate(([np.floor(ranked[0] / _STEP) - 1], reached)))
    return np.round(points[points >= 0] * _STEP, 7)


def _parts(list_size: int) -> tuple[int, ...]:
    """1, 2, 5, 10, 20, 50, ... and the whole."""
    steps = (step * 10**power for power in range(len(str(list_size))) for step in (1, 2, 5))
    return (*(size for size in steps if size < list_size), list_size)
