"""What detectors see in an image, as arrays, and how it moves with the image."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SAME_FACE: Final = 0.3
"""Intersection over union from which two boxes are taken for one face."""

MOST: Final = 1_000
"""Sightings that are compared with each other, the surest first; a crowd of more faces would not fit any photo."""


@dataclass(frozen=True, slots=True)
class Sightings:
    """Faces in an image whose left edge is x = 0 and whose top edge is y = 0.

    Attributes:
        corners: top left and bottom right corner of each box, (n, 2, 2), x before y.
        confidences: the detector's own, (n,).
        points: right eye, left eye, nose, right and left mouth corner, the person's own sides, (n, 5, 2); NaN where the
            detector gives none.
    """

    corners: Floats
    confidences: Floats
    points: Floats

    def __len__(self) -> int:
        return len(self.confidences)

    @classmethod
    def none(cls) -> "Sightings":
        return cls(np.empty((0, 2, 2)), np.empty(0), np.empty((0, 5, 2)))

    @classmethod
    def together(cls, parts: Iterable["Sightings"]) -> "Sightings":
        every = [cls.none(), *parts]
        return cls(
            np.concatenate([part.corners for part in every]),
            np.concatenate([part.confidences for part in every]),
            np.concatenate([part.points for part in every]),
        )

    def chosen(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "Sightings":
        return Sightings(self.corners[rows], self.confidences[rows], self.points[rows])

    def moved(self, step: Floats, origin: tuple[float, float] = (0.0, 0.0)) -> "Sightings":
        """In an image whose pixels are ``1 / step`` as large, where this image begins at ``origin`` before that."""
        return Sightings((self.corners + origin) * step, self.confidences, (self.points + origin) * step)

    def turned_back(self, turn: int, size: tuple[int, int]) -> "Sightings":
        """In an image of this (width, height) that was turned by ``numpy.rot90(image, turn)`` before it was seen."""
        corners = _turned_back(self.corners, turn, size)
        return Sightings(np.sort(corners, axis=1), self.confidences, _turned_back(self.points, turn, size))

    def overlaps(self, others: "Sightings") -> Floats:
        """Intersection over union of the boxes, (n, others)."""
        first, last = self.corners[:, None, 0], self.corners[:, None, 1]
        shared = np.clip(np.minimum(last, others.corners[:, 1]) - np.maximum(first, others.corners[:, 0]), 0, None)
        inside = shared.prod(axis=2)
        both = self.areas[:, None] + others.areas - inside
        shares: Floats = np.divide(inside, both, out=np.zeros_like(inside), where=both > 0)
        return shares

    @property
    def areas(self) -> Floats:
        areas: Floats = np.clip(self.corners[:, 1] - self.corners[:, 0], 0, None).prod(axis=1)
        return areas

    def are_among(self, others: "Sightings") -> NDArray[np.bool_]:
        """Whether each is one of the others, (n,)."""
        among: NDArray[np.bool_] = self.overlaps(others).max(axis=1, initial=0.0) > SAME_FACE
        return among

    def distinct(self) -> "Sightings":
        """The surest sighting of each face, surest first (greedy non-maximum suppression)."""
        left = self.chosen(np.argsort(-self.confidences, kind="stable")[:MOST])
        kept = []
        while len(left):
            kept.append(left.chosen(np.arange(1)))
            left = left.chosen(kept[-1].overlaps(left)[0] <= SAME_FACE)
        return Sightings.together(kept)


def _turned_back(positions: Floats, turn: int, size: tuple[int, int]) -> Floats:
    width, height = size
    x, y = positions[..., 0], positions[..., 1]
    match turn % 4:
        case 1:
            x, y = width - y, x
        case 2:
            x, y = width - x, height - y
        case 3:
            x, y = y, height - x
    return np.stack([x, y], axis=-1)
