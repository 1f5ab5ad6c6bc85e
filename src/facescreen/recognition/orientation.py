"""Heads that are turned in the picture: seen as such, and seen upright.

Recognition does not know heads that lie on their side or stand upside down, and most detectors put upright landmarks
into them. CenterFace's landmarks turn with the head, coarsely. Where they look wrong, it looks again from each side.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from facescreen.domain.faces import Pixels
from facescreen.recognition.alignment import ARCFACE_TEMPLATE, warp
from facescreen.recognition.centerface import LARGE_IMAGE, CenterFace, shrunk, smallest_face
from facescreen.recognition.sightings import Floats, Sightings

QUARTERS: Final = (0, 1, 2, 3)
"""Quarter turns against the clock, as :func:`numpy.rot90` counts them."""

_LARGEST_TILT: Final = 45.0
"""Degrees to either side within which a head counts as upright: half of a quarter turn."""

LARGEST_MISFIT: Final = 6.0
LEAST_EYE_DISTANCE: Final = 0.3
"""What landmarks of upright heads keep to, and those of turned heads hardly ever, by :func:`misfits` and
:func:`eye_distances` (``bench/orientation.py``)."""

SURE: Final = 0.75
"""Confidence below which upright landmarks are no proof: 99 % of upright heads in the middle of a photo have more, and
invented landmarks have less."""

_IMPLAUSIBLE: Final = 0.2
"""What landmarks that are level but fit no upright head cost in confidence, where sides are weighed."""

_PATCH: Final = 96
"""Side of the square, in pixels, that is looked at from each side."""

_SURROUNDINGS: Final = 2.0
"""That square, in units of the longer side of the face's box."""

_COPY: Final = 480
"""Longest side, in pixels, of turned copies of an image in which nothing was found. Those of large images are larger,
as :meth:`CenterFace.look` says, but each is seen at once."""


def is_upright(faces: Sightings, turn: int = 0) -> NDArray[np.bool_]:
    """Whether each face, (n,), looks upright by its five points once the image is turned by ``rot90(image, turn)``."""
    plausible = (misfits(faces) <= LARGEST_MISFIT) & (eye_distances(faces) >= LEAST_EYE_DISTANCE)
    upright: NDArray[np.bool_] = plausible & is_level(faces, turn)
    return upright


def misfits(faces: Sightings) -> Floats:
    """Root mean square distance of the points of each face, (n,), from the template that they are fitted to.

    In pixels of the 112x112 template.
    """
    points, fitted = _fitted(faces)
    distances: Floats = np.sqrt(np.square(np.abs(fitted[:, None] * points - _TEMPLATE)).mean(axis=1))
    return distances


def eye_distances(faces: Sightings) -> Floats:
    """Distance of the eyes as a share of the box's mean side, (n,)."""
    distances: Floats = np.linalg.norm(faces.points[:, 1] - faces.points[:, 0], axis=1) / np.sqrt(faces.areas)
    return distances


def is_level(faces: Sightings, turn: int = 0) -> NDArray[np.bool_]:
    """Whether each head, (n,), is tilted by no more than half a quarter turn, by all of its five points, after that."""
    _, fitted = _fitted(faces)
    tilts = -np.degrees(np.angle(fitted)) - 90.0 * turn
    return np.abs((tilts + 180.0) % 360.0 - 180.0) <= _LARGEST_TILT


def _fitted(faces: Sightings) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """The points of each face around their mean, (n, 5), and the factor that brings them closest to the template, (n,).

    Positions are complex numbers, so that a factor turns and scales: least squares as in ``alignment.similarity``.
    """
    points = _centred(faces.points)
    lengths = np.maximum(np.square(np.abs(points)).sum(axis=1), np.finfo(np.float64).tiny)
    return points, (points.conj() * _TEMPLATE).sum(axis=1) / lengths


def _centred(points: Floats) -> NDArray[np.complex128]:
    """Positions (…, 5, 2) around their mean as complex numbers (…, 5)."""
    positions = points[..., 0] + 1j * points[..., 1]
    centred: NDArray[np.complex128] = positions - positions.mean(axis=-1, keepdims=True)
    return centred


_TEMPLATE: Final = _centred(ARCFACE_TEMPLATE)


class UprightCenterFace:
    """CenterFace, for heads whichever way up they are. Safe for concurrent use.

    Args:
        side: longest side, in pixels, to which images are scaled down.
    """

    def __init__(self, network: CenterFace, *, side: int) -> None:
        self._network = network
        self._side = side

    def find(self, image: Pixels) -> tuple[Sightings, NDArray[np.intp]]:
        """The faces of an image with the landmarks that they have upright, and their turns, (n,).

        A turn says how often the image has to be turned against the clock until the head is upright. It is -1 for a
        head that is turned by the look of it, and could not be seen upright.
        """
        found = self._network.look(image, side=self._side)
        needed, is_sure = self._turns(image, found)
        known, turns = found.chosen(needed == 0), np.zeros(int((needed == 0).sum()), np.intp)
        for turn in np.unique(needed[needed > 0]).tolist() if is_sure.any() else self._turned_copies(image):
            there = self._network.look(image, side=self._side, turn=turn)
            there = there.chosen((self._turns(image, there, turn)[0] == turn) & ~there.are_among(known))
            known, turns = Sightings.together([known, there]), np.append(turns, np.full(len(there), turn))
        rest = found.chosen((needed != 0) & ~found.are_among(known))
        return Sightings.together([known, rest]), np.append(turns, np.full(len(rest), -1))

    def smallest_face(self, width: int, height: int) -> int:
        """Side, in pixels, from which faces are looked for in images of this size."""
        return smallest_face(width, height, self._side)

    def vote(self, image: Pixels, faces: Sightings) -> NDArray[np.intp]:
        """The turn of each face, (n,), -1 where nothing tells.

        The surroundings of the face are looked at from each side. The side from which it looks upright, and surest,
        tells.
        """
        votes = np.full(len(faces), -1)
        for row, corners in enumerate(faces.corners):
            patch, middle = _surroundings(image, corners)
            seen = self._network.see(np.stack([np.rot90(patch, turn) for turn in QUARTERS]))
            evidence = [
                _evidence(there.chosen(there.turned_back(turn, (_PATCH, _PATCH)).are_among(middle))).max(initial=0.0)
                for turn, there in enumerate(seen)
            ]
            if any(evidence):
                votes[row] = int(np.argmax(evidence))
        return votes

    def _turns(self, image: Pixels, faces: Sightings, looked_at: int = 0) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """The turn of each face, (n,), and whether its landmarks or its surroundings tell it.

        Where they do not, it is as it was looked at if the head is level then, and -1 otherwise.
        """
        turns = np.full(len(faces), looked_at)
        doubtful = ~is_upright(faces, looked_at) | (faces.confidences < SURE)
        turns[doubtful] = self.vote(image, faces.chosen(doubtful))
        is_sure = turns >= 0
        turns[~is_sure & is_level(faces, looked_at)] = looked_at
        return turns, is_sure

    def _turned_copies(self, image: Pixels) -> list[int]:
        """The turn after which a copy of the image shows the surest head that looks upright, if one does."""
        reduced = shrunk(image, LARGE_IMAGE)
        looks = {turn: self._network.look(reduced, side=_COPY, turn=turn) for turn in QUARTERS[1:]}
        evidence = {turn: _evidence(seen, turn).max(initial=0.0) for turn, seen in looks.items()}
        surest = max(evidence, key=lambda turn: evidence[turn])
        return [surest] if evidence[surest] > 0 else []


def _surroundings(image: Pixels, corners: Floats) -> tuple[NDArray[np.uint8], Sightings]:
    """The square around a face, (96, 96, 3), black outside of the image, and where in it the face is."""
    side = _SURROUNDINGS * float((corners[1] - corners[0]).max())
    scale = _PATCH / side
    shift = _PATCH / 2 - scale * corners.mean(axis=0)
    # Pixel centres have whole coordinates, edges do not.
    transform = np.column_stack([scale * np.eye(2), shift + (scale - 1) / 2])
    middle = Sightings(scale * corners[None] + shift, np.ones(1), np.full((1, 5, 2), np.nan))
    return warp(image, transform, (_PATCH, _PATCH)), middle


def _evidence(faces: Sightings, turn: int = 0) -> Floats:
    """How much each face, (n,), speaks for the head being upright after that turn; 0 where its landmarks deny it.

    Heads that look to the side have landmarks like no upright head's and are upright all the same.
    """
    evidence = np.where(is_upright(faces, turn), faces.confidences, faces.confidences - _IMPLAUSIBLE)
    return np.where(is_level(faces, turn), np.maximum(evidence, 0.0), 0.0)
