"""Heads that are turned in the picture: seen as such, and seen upright.

Recognition does not know heads that lie on their side or stand upside down, and most detectors put upright landmarks
into them. CenterFace's landmarks turn with the head, coarsely. Where they look wrong, it looks again from each side.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from facescreen.domain.faces import Pixels
from facescreen.recognition.alignment import ARCFACE_TEMPLATE, apply, similarity, warp
from facescreen.recognition.centerface import CenterFace
from facescreen.recognition.sightings import SAME_FACE, Floats, Sightings

QUARTERS: Final = (0, 1, 2, 3)
"""Quarter turns against the clock, as :func:`numpy.rot90` counts them."""

_LARGEST_TILT: Final = 45.0
"""Degrees to either side within which a head counts as upright: half of a quarter turn."""

_LARGEST_MISFIT: Final = 6.0
_LEAST_EYE_DISTANCE: Final = 0.3
"""What landmarks of upright heads keep to, and those of turned heads hardly ever: root mean square distance from the
112x112 template that they are fitted to, in its pixels, and the distance of the eyes as a share of the box's mean side
(``bench/orientation.py``)."""

_PATCH: Final = 160
"""Side of the square, in pixels, that is looked at from each side."""

_COPY: Final = 480
"""Longest side, in pixels, of turned copies of an image in which nothing was found."""

_SURROUNDINGS: Final = 2.5
"""That square, in units of the longer side of the face's box."""


def is_upright(faces: Sightings, turn: int = 0) -> NDArray[np.bool_]:
    """Whether each face, (n,), looks upright by its five points once the image is turned by ``rot90(image, turn)``."""
    misfits = np.full(len(faces), np.inf)
    for row, points in enumerate(faces.points):
        misplaced = apply(similarity(points, ARCFACE_TEMPLATE), points) - ARCFACE_TEMPLATE
        misfits[row] = np.sqrt(np.square(misplaced).sum(axis=1).mean())
    eyes = np.hypot(*(faces.points[:, 1] - faces.points[:, 0]).T)
    plausible = (misfits <= _LARGEST_MISFIT) & (eyes >= _LEAST_EYE_DISTANCE * np.sqrt(faces.areas))
    upright: NDArray[np.bool_] = plausible & is_level(faces, turn)
    return upright


def is_level(faces: Sightings, turn: int = 0) -> NDArray[np.bool_]:
    """Whether each head, (n,), is tilted by no more than half a quarter turn, by all of its five points, after that."""
    tilts = np.empty(len(faces))
    for row, points in enumerate(faces.points):
        fitted = similarity(points, ARCFACE_TEMPLATE)
        tilts[row] = np.degrees(np.arctan2(fitted[0, 1], fitted[0, 0])) - 90.0 * turn
    return np.abs((tilts + 180.0) % 360.0 - 180.0) <= _LARGEST_TILT


def turned_copies(network: CenterFace, image: Pixels) -> tuple[int, ...]:
    """The quarter turns, without 0, after which a small copy of the image shows a face that looks upright."""
    looks = ((turn, network.look(image, side=_COPY, turn=turn)) for turn in QUARTERS[1:])
    return tuple(turn for turn, seen in looks if is_upright(seen, turn).any())


def turns(network: CenterFace, image: Pixels, faces: Sightings) -> NDArray[np.intp]:
    """For each face how often the image has to be turned against the clock until its head is upright, (n,).

    The surroundings of the face are looked at from each side. The side from which the face looks upright, and surest,
    says; -1 where it does from none.
    """
    needed = np.full(len(faces), -1)
    for row, corners in enumerate(faces.corners):
        patch, middle = _surroundings(image, corners)
        seen = network.see(np.stack([np.rot90(patch, turn) for turn in QUARTERS]))
        confidences = [_confidence(there, middle, turn) for turn, there in enumerate(seen)]
        if any(confidences):
            needed[row] = int(np.argmax(confidences))
    return needed


def _surroundings(image: Pixels, corners: Floats) -> tuple[NDArray[np.uint8], Sightings]:
    """The square around a face, (160, 160, 3), black outside of the image, and where in it the face is."""
    side = _SURROUNDINGS * float((corners[1] - corners[0]).max())
    scale = _PATCH / side
    shift = _PATCH / 2 - scale * corners.mean(axis=0)
    # Pixel centres have whole coordinates, edges do not.
    transform = np.column_stack([scale * np.eye(2), shift + (scale - 1) / 2])
    middle = Sightings(scale * corners[None] + shift, np.ones(1), np.full((1, 5, 2), np.nan))
    return warp(image, transform, (_PATCH, _PATCH)), middle


def _confidence(seen: Sightings, middle: Sightings, turn: int) -> float:
    """How sure it is that the face in the middle is upright in a square that was turned; 0 where it is not."""
    there = seen.turned_back(turn, (_PATCH, _PATCH))
    is_it = (there.overlaps(middle)[:, 0] > SAME_FACE) & is_upright(seen)
    return float(seen.confidences[is_it].max(initial=0.0))
