"""Open-set identification: is this face one of a list, and whose?

Rates and their names are those of ISO/IEC 19795-1. An alert names the person with the smallest distance, if that is at
most the threshold.
"""

import math
import sys
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from facescreen.domain.biometrics import Counts, Flags, Floats, curve_thresholds, just_below, pairwise, rate
from facescreen.domain.distances import EmbeddingMetric
from facescreen.domain.evaluation import IdentificationCurvePoint, IdentificationPoint, ListSize
from facescreen.domain.faces import Vectors
from facescreen.domain.sampling import chance_of_any

FALSE_POSITIVE_TARGETS: Final = (10, 100, 1_000)
"""One face of a stranger in so many raises an alert."""

_BLOCK: Final = 512
"""Probes that are compared with the list at a time."""

_WHATEVER_THE_DISTANCE: Final = sys.float_info.max
"""Below infinity, which stands for a search that cannot name anybody."""


class Searches(ABC):
    """What searches in lists of one length come to.

    Attributes:
        references: people on each list, one photo each.
    """

    __slots__ = ()

    references: int

    @property
    @abstractmethod
    def probes(self) -> tuple[int, int]:
        """How many of people on the list, and how many of strangers."""

    @abstractmethod
    def found(self, threshold: float) -> float:
        """Probes of people on the list that raise an alert and name them."""

    @abstractmethod
    def alerts(self, threshold: float) -> float:
        """Probes of strangers that raise an alert."""

    @abstractmethod
    def levels(self) -> Floats:
        """Where :meth:`alerts` may change, ascending."""

    def measure(self) -> ListSize:
        """Rank-1, and the rates at every target."""
        mated, _ = self.probes
        return ListSize(
            self.references,
            rank_one=rate(self.found(_WHATEVER_THE_DISTANCE), mated),
            points=tuple(self.at(self.threshold(one_in), target=1 / one_in) for one_in in FALSE_POSITIVE_TARGETS),
        )

    def at(self, threshold: float | None, *, target: float | None = None) -> IdentificationPoint:
        """The rates at a threshold, where there is one."""
        if threshold is None:
            return IdentificationPoint(target, None, None, None)
        mated, strangers = self.probes
        fpir = rate(self.alerts(threshold), strangers) if strangers else None
        fnir = rate(mated - self.found(threshold), mated) if mated else None
        return IdentificationPoint(target, threshold, fpir, fnir)

    def threshold(self, one_in: int) -> float | None:
        """The largest that alerts for at most one stranger in so many; ``None`` if the strangers are fewer."""
        _, strangers = self.probes
        levels = self.levels()
        if strangers < one_in or not len(levels):
            return None
        allowed = strangers / one_in + 1e-9  # sums of probabilities are not exact
        place = bisect_right(levels, allowed, key=self.alerts)
        return just_below(levels[place]) if place < len(levels) else float(levels[-1])


@dataclass(frozen=True, slots=True)
class Outcomes(Searches):
    """Searches that were made in one list.

    Attributes:
        mated: for each probe of somebody on the list the smallest distance, infinite where it is another person's.
        strangers: for each probe of nobody on the list the smallest distance.
    """

    references: int
    mated: Floats
    strangers: Floats

    @property
    def probes(self) -> tuple[int, int]:
        return len(self.mated), len(self.strangers)

    def found(self, threshold: float) -> float:
        return float(np.count_nonzero(self.mated <= threshold))

    def alerts(self, threshold: float) -> float:
        return float(np.count_nonzero(self.strangers <= threshold))

    def levels(self) -> Floats:
        return np.unique(self.strangers[np.isfinite(self.strangers)])

    def curve(self) -> tuple[IdentificationCurvePoint, ...]:
        """From no false alert to all, the more points the rarer false alerts are."""
        nearest = np.sort(self.strangers[np.isfinite(self.strangers)])
        mated, strangers = self.probes
        if not len(nearest) or not mated:
            return ()
        return tuple(
            IdentificationCurvePoint(threshold, self.alerts(threshold) / strangers, 1 - self.found(threshold) / mated)
            for threshold in curve_thresholds(nearest)
        )

    def among(self, mated: Flags, strangers: Flags) -> "Outcomes":
        """Of some of the probes."""
        return Outcomes(self.references, self.mated[mated], self.strangers[strangers])


@dataclass(frozen=True, slots=True)
class EveryPart(Searches):
    """Searches in every list of ``references`` people that can be drawn from the whole, as means over all of them.

    None is drawn: a part of ``m`` of ``n`` references holds none of ``k`` certain ones with the probability
    ``C(n - k, m) / C(n, m)``.

    Attributes:
        whole: how many references there are.
        own: for each probe of somebody on the list the distance of their reference; infinite where one of the two shows
            no face.
        nearer: for each of them how many other references are at most as far away.
        strangers: distances of all references from each probe of nobody on the list, shape (probes, whole).
    """

    references: int
    whole: int
    own: Floats
    nearer: Counts
    strangers: Floats

    @property
    def probes(self) -> tuple[int, int]:
        return len(self.own), len(self.strangers)

    def found(self, threshold: float) -> float:
        """As a mean over the parts that hold the person."""
        counted = self.own <= threshold
        return float((1.0 - chance_of_any(self.whole - 1, self.references - 1, self.nearer[counted])).sum())

    def alerts(self, threshold: float) -> float:
        near = np.count_nonzero(self.strangers <= threshold, axis=1)
        return float(chance_of_any(self.whole, self.references, near).sum())

    def levels(self) -> Floats:
        return np.unique(self.strangers)


@dataclass(frozen=True, slots=True)
class Probes:
    """Faces to search for.

    Attributes:
        vectors: raw embeddings (n, dimension).
        own: for each the number of the same person's reference; -1 if there is none, or the photo shows no face.
    """

    vectors: Vectors
    own: Counts


@dataclass(frozen=True, slots=True)
class OpenSet:
    """A list with one reference for each person, and faces to search for.

    Attributes:
        metric: what distances are in.
        references: raw embeddings (n, dimension).
        mated: of people on the list; those without a reference or a face are missed.
        strangers: all with a face. Whoever is on the list is searched in the list without them.
    """

    metric: EmbeddingMetric
    references: Vectors
    mated: Probes
    strangers: Probes

    def lengths(self) -> tuple[int, ...]:
        """Of parts that are measured: 10, 30, 100, ... up to two thirds of the whole."""
        steps = (step * 10**power for power in range(1, 9) for step in (1, 3))
        return tuple(length for length in steps if 3 * length <= 2 * len(self.references))

    def whole(self) -> Outcomes:
        """In the whole list."""
        return Outcomes(
            len(self.references),
            np.array([_named(own, others) for own, others in self._compared(self.mated)]),
            np.array([others.min(initial=math.inf) for _, others in self._compared(self.strangers)]),
        )

    def parts(self) -> tuple[EveryPart, ...]:
        """In lists of all :meth:`lengths`; the strangers must be on none."""
        mated = [(own, np.count_nonzero(others <= own)) for own, others in self._compared(self.mated)]
        own, nearer = np.array([own for own, _ in mated]), np.array([nearer for _, nearer in mated], np.int64)
        strangers = pairwise(self.metric, self.strangers.vectors, self.references)
        return tuple(EveryPart(length, len(self.references), own, nearer, strangers) for length in self.lengths())

    def _compared(self, probes: Probes) -> Iterator[tuple[float, Floats]]:
        """The distance of each probe from its own reference, infinite without one, and from all others."""
        for start in range(0, len(probes.own), _BLOCK):
            block = slice(start, start + _BLOCK)
            rows = pairwise(self.metric, probes.vectors[block], self.references)
            for own, row in zip(probes.own[block].tolist(), rows, strict=True):
                yield (math.inf, row) if own < 0 else (float(row[own]), np.delete(row, own))


def _named(own: float, others: Floats) -> float:
    """The right person's distance, infinite unless it is the smallest."""
    return own if own < others.min(initial=math.inf) else math.inf
