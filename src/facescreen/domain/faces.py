"""Faces as detectors give them, and what a search finds for them."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]
"""An upright RGB image, shape (height, width, 3), dtype uint8."""

Vector: TypeAlias = NDArray[np.float32]
"""One raw (not normalised) embedding, shape (dimension,), dtype float32."""

Vectors: TypeAlias = NDArray[np.float32]
"""Raw embeddings, shape (n, dimension), dtype float32."""


class Point(NamedTuple):
    """A position in pixels of the upright image; x to the right, y down."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned rectangle in whole pixels of the upright image: top left corner, width and height."""

    x: int
    y: int
    w: int
    h: int

    @property
    def area(self) -> int:
        return self.w * self.h

    def intersection_over_union(self, other: "Box") -> float:
        """Overlap of the two boxes in [0, 1]."""
        width = min(self.x + self.w, other.x + other.w) - max(self.x, other.x)
        height = min(self.y + self.h, other.y + other.h) - max(self.y, other.y)
        if width <= 0 or height <= 0:
            return 0.0
        shared = width * height
        return shared / (self.area + other.area - shared)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """The five usual points; left and right are the person's own. ``None`` where the detector gives no such point."""

    left_eye: Point | None = None
    right_eye: Point | None = None
    nose: Point | None = None
    mouth_left: Point | None = None
    mouth_right: Point | None = None

    def turned(self, width: int) -> "Landmarks":
        """The points after a quarter turn against the clock of an image so wide; pixel centres are whole numbers."""
        points = ((name, getattr(self, name)) for name in self.__slots__)
        return Landmarks(**{name: Point(point.y, width - 1 - point.x) for name, point in points if point is not None})


@dataclass(frozen=True, slots=True)
class Face:
    """A detected face.

    Attributes:
        landmarks: of the head as it is seen upright, wherever that is in the image.
        confidence: the detector's own score in [0, 1]; detectors do not share its meaning.
        is_upright: ``False`` if the head is turned in the image by more than 45 degrees and could not be seen upright;
            then its landmarks mean nothing.
    """

    box: Box
    landmarks: Landmarks
    confidence: float
    is_upright: bool = True

    @property
    def turn(self) -> int:
        """Quarter turns, as :func:`numpy.rot90` counts them, that bring the head upright.

        0 where nothing tells: without two eyes, or where the landmarks mean nothing.
        """
        right, left = self.landmarks.right_eye, self.landmarks.left_eye
        if right is None or left is None or not self.is_upright:
            return 0
        return round(math.atan2(left.y - right.y, left.x - right.x) / (math.pi / 2)) % 4

    def turned(self, turn: int, *, width: int, height: int) -> "Face":
        """The face in ``numpy.rot90(image, turn)`` of an image of this size, in pixels."""
        box, landmarks = self.box, self.landmarks
        for _ in range(turn % 4):
            box = Box(box.y, width - box.x - box.w, box.h, box.w)
            landmarks = landmarks.turned(width)
            width, height = height, width
        return replace(self, box=box, landmarks=landmarks)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A reference image near a face, by raw distance; whether it is a match is decided elsewhere."""

    reference_image_id: int
    distance: float
