"""Faces that resemble many people on a list have to come nearer to one of them than other faces.

Test normalisation (Auckenthaler, Carey and Lloyd-Thomas 2000, "Score normalization for text-independent speaker
verification systems") with the list itself as the cohort. ``bench/variants.py`` measures what it is worth.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facescreen.domain.distances import unit
from facescreen.domain.faces import Vectors

NEIGHBOURS: Final = 64
"""References that are looked at for one face, if enough people have them (:func:`is_crowd`). Whoever is farther has so
many nearer people beside them that their score is beyond every threshold."""

SHORTEST_LIST: Final = 200
"""People from which on scores are worth more than distances: on a shorter list the next people are too far to
tell a crowd by. It is the first length where scores lose on neither half of ``bench/false_alerts.py``."""

_COHORT: Final = 5
_WEIGHT: Final = 0.5
_ENOUGH_TO_DOUBT: Final = 3
"""References of one person among which one that differs is the exception; of two nobody knows which is wrong."""


def is_crowd(people: Iterable[int | None]) -> bool:
    """Whether so many different people are among the owners of references that whoever is farther does not count."""
    return len(set(people)) > 2 * _COHORT


class Scored(NamedTuple):
    """A person near a face: the cosine distance of the nearest reference, and the score that follows."""

    person: int
    distance: float
    score: float


@dataclass(frozen=True, slots=True)
class Crowding:
    """The score of a person: a cosine distance, and half of how much nearer than usual the next people are.

    The distance is that of the nearest reference, or where there are three or more the mean of the nearest two, so that
    a photo of somebody else among them hardly counts. The next people are the five nearest others, without those who
    look like the person themselves, so that somebody who is on the list twice is found as well as somebody who is there
    once. Where there are fewer, ``typical`` stands for those that lack.

    Scores are never below the distance of the nearest reference, and a further reference that is nearer than all others
    of the person never raises the score.

    Attributes:
        typical: mean cosine distance of photos of two people.
        alike: cosine distance up to which two references may show one person.
    """

    typical: float
    alike: float

    def scores(
        self,
        people: Sequence[int],
        distances: NDArray[np.float64],
        vectors: Vectors,
        *,
        counts: Mapping[int, int] | None = None,
    ) -> list[Scored]:
        """Everybody among the nearest references of a face, nearest first.

        Args:
            people: whose each reference is.
            distances: cosine distances of the references from the face, ascending.
            vectors: embeddings of the references (n, dimension).
            counts: how many references people have in all; those that are not here, and all without it, have one.
        """
        places = {person: place for place, person in enumerate(dict.fromkeys(people))}
        owners = np.array([places[person] for person in people], np.intp)
        near = distances[np.unique(owners, return_index=True)[1]]
        others = ~self._resemble(owners, vectors)
        rank = others.cumsum(axis=1)
        rows, next_people = np.nonzero(others & (rank <= _COHORT))
        nearer = np.zeros((len(near), _COHORT))
        nearer[rows, rank[rows, next_people] - 1] = np.maximum(self.typical - near, 0.0)[next_people]
        own = near.copy()
        for person, place in places.items():
            if counts is not None and counts.get(person, 1) >= _ENOUGH_TO_DOUBT:
                theirs = np.flatnonzero(owners == place)
                # A second one that is not here is at least as far as all that are.
                own[place] = (near[place] + distances[theirs[1] if len(theirs) > 1 else -1]) / 2
        scores = own + _WEIGHT * nearer.sum(axis=1) / _COHORT
        return [Scored(*found) for found in zip(places, near.tolist(), scores.tolist(), strict=True)]

    def _resemble(self, owners: NDArray[np.intp], vectors: Vectors) -> NDArray[np.bool_]:
        """Which people have two references that may show one person, (people, people); all resemble themselves."""
        directions = unit(vectors)
        alike = 1.0 - directions @ directions.T <= self.alike
        everybody = np.eye(owners.max(initial=-1) + 1)
        of = everybody[owners]
        resemble: NDArray[np.bool_] = of.T @ alike @ of + everybody > 0
        return resemble
