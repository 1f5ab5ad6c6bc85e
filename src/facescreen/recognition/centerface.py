"""CenterFace: boxes and five points from one pass of a network, and looks at images of every size with it.

Xu et al. 2019, "CenterFace: Joint Face Detection and Alignment Using Face as Point"; the authors' decoding is
``prj-python/centerface.py`` in https://github.com/Star-Clouds/CenterFace.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facescreen.domain.faces import Pixels
from facescreen.recognition.networks import load_network
from facescreen.recognition.sightings import Floats, Sightings

LEAST_CONFIDENCE: Final = 0.5
"""Heat from which a peak is a face, as in the authors' demonstration."""

SIDE: Final = 768
"""Longest side, in pixels, that the network sees at once: it finds no faces of more than some 700 pixels."""

SMALLEST_FACE: Final = 16
"""Shorter side, in pixels that the network sees, from which it finds nineteen of twenty faces, whatever surrounds them
(``bench/detection.py``)."""

LARGE_IMAGE_FACE: Final = 48
"""Shorter side, in pixels of the image, from which faces are looked for in images of up to :data:`LARGE_IMAGE` pixels.

The network sees those at once, so photos of four megapixels cost no more than smaller ones."""

HUGE_IMAGE_FACE: Final = 36
"""The same however large the image is. A face of 50 pixels is then found in front of whatever it is
(``bench/detection.py``)."""

LARGE_IMAGE: Final = SIDE * LARGE_IMAGE_FACE // SMALLEST_FACE
"""Longest side, in pixels, of images that are seen at once."""

_STRIDE: Final = 4
"""Pixels of the input for one cell of the output."""

_MULTIPLE: Final = 32
"""What the sides of the input are multiples of: the network halves them five times."""

_OVERLAP: Final = 96
"""Pixels that tiles share, and longest side of a face that is looked for in one: larger ones are large enough for the
scale after it."""


class CenterFace:
    """Finds faces in arrays of pixels. Safe for concurrent use.

    Args:
        path: ``centerface.onnx``.
        threads: processors that one look may use.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        self._network = load_network(path, threads=threads)

    def see(self, patches: NDArray[np.uint8]) -> list[Sightings]:
        """The distinct faces in each of some images of one size, (n, rows, columns, 3), RGB."""
        count, rows, columns, _ = patches.shape
        padded = np.zeros((count, 3, _padded(rows), _padded(columns)), np.float32)
        padded[:, :, :rows, :columns] = patches.transpose(0, 3, 1, 2)
        heat, size, offset, points = self._network.run(["537", "538", "539", "540"], {"input.1": padded})
        return [
            _decoded(heat[row, 0], size=size[row], offset=offset[row], points=points[row]).distinct()
            for row in range(count)
        ]

    def look(self, image: Pixels, *, side: int, turn: int = 0) -> Sightings:
        """The distinct faces of an image, seen as ``numpy.rot90(image, turn)``; positions are those in ``image``.

        Args:
            side: longest side, in pixels, to which the image is scaled down. A large image is scaled down less where
                faces of :data:`LARGE_IMAGE_FACE` or :data:`HUGE_IMAGE_FACE` pixels would be lost otherwise.
        """
        return Sightings.together(self._seen(view, turn) for view in _views(image, side)).distinct()

    def _seen(self, view: "_View", turn: int) -> Sightings:
        rows, columns, _ = view.pixels.shape
        (turned,) = self.see(np.ascontiguousarray(np.rot90(view.pixels, turn))[None])
        found = turned.turned_back(turn, (columns, rows))
        first, last = found.corners[:, 0], found.corners[:, 1]
        is_cut = (view.goes_on_before & (first < 1)) | (view.goes_on_after & (last > (columns - 1, rows - 1)))
        # Parts of a large face look like faces, too; it is left to a coarser scale.
        is_large = view.is_part & (last - first > _OVERLAP)
        return found.chosen(~np.any(is_cut | is_large, axis=1)).moved(view.step, view.origin)


@dataclass(frozen=True, slots=True)
class _View:
    """A part of a scaled image.

    Attributes:
        origin: where it begins in the scaled image, x before y.
        step: pixels of the image for one of the scaled image, x before y.
        goes_on_before, goes_on_after: whether the image goes on beyond the left and top, the right and bottom edge; a
            face that reaches there is whole in another view.
    """

    pixels: Pixels
    origin: tuple[float, float]
    step: Floats
    goes_on_before: NDArray[np.bool_]
    goes_on_after: NDArray[np.bool_]

    @property
    def is_part(self) -> bool:
        """Whether the image goes on beyond any edge."""
        return bool(np.any(self.goes_on_before | self.goes_on_after))


def shrunk(image: Pixels, side: int) -> Pixels:
    """The image with a longest side of at most so many pixels."""
    height, width, _ = image.shape
    scale = side / max(width, height)
    return image if scale >= 1 else _resized(image, max(1, round(width * scale)), max(1, round(height * scale)))


def smallest_face(width: int, height: int, side: int) -> int:
    """Side, in pixels of an image of this size, from which :meth:`CenterFace.look` looks for faces."""
    return math.ceil(SMALLEST_FACE / _finest(width, height, side))


def _finest(width: int, height: int, side: int) -> float:
    longest = max(width, height)
    face = LARGE_IMAGE_FACE if longest <= LARGE_IMAGE else HUGE_IMAGE_FACE
    return min(1.0, max(side / longest, SMALLEST_FACE / face))


def _views(image: Pixels, side: int) -> Iterator[_View]:
    """Parts of the image at all scales that are looked at, the finest first.

    A scale is a quarter of the one before it: a face that is too large for the parts of one is large enough for the
    parts of the next.
    """
    height, width, _ = image.shape
    scale = _finest(width, height, side)
    while True:
        columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
        if min(columns, rows) >= SMALLEST_FACE:
            yield from _tiles(image, columns, rows)
        if max(columns, rows) <= SIDE:
            return
        scale = max(scale / 4, SIDE / max(width, height))


def _tiles(image: Pixels, columns: int, rows: int) -> Iterator[_View]:
    """Overlapping parts of the image scaled to this size."""
    height, width, _ = image.shape
    scaled = image if (columns, rows) == (width, height) else _resized(image, columns, rows)
    step = np.array([width / columns, height / rows])
    for top, bottom in _spans(rows):
        for left, right in _spans(columns):
            yield _View(
                scaled[top:bottom, left:right],
                (left, top),
                step,
                np.array([left > 0, top > 0]),
                np.array([right < columns, bottom < rows]),
            )


def _resized(image: Pixels, columns: int, rows: int) -> Pixels:
    return np.asarray(cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


def _spans(length: int) -> list[tuple[int, int]]:
    """Begin and end of as few equal parts as cover the length, each at most :data:`SIDE` long."""
    count = max(1, math.ceil((length - _OVERLAP) / (SIDE - _OVERLAP)))
    part = math.ceil((length + (count - 1) * _OVERLAP) / count)
    begins = [round(number * (length - part) / max(count - 1, 1)) for number in range(count)]
    return [(begin, begin + part) for begin in begins]


def _padded(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE


def _decoded(heat: Floats, *, size: Floats, offset: Floats, points: Floats) -> Sightings:
    """What the maps of one image say; all of the same (rows, columns) but for the first axis, rows before columns.

    Args:
        heat: confidence that a face has its centre in a cell, (rows, columns).
        size: logarithm of height and width in cells, (2, …).
        offset: of the centre within its cell, (2, …).
        points: five positions from the box's top left corner, as shares of height and width, (10, …).
    """
    rows, columns = np.nonzero(heat > LEAST_CONFIDENCE)
    confidences = heat[rows, columns].astype(np.float64)
    extent = _STRIDE * np.exp(size[:, rows, columns].astype(np.float64).T[:, ::-1])
    cells = np.stack([columns, rows], axis=1) + offset[:, rows, columns].astype(np.float64).T[:, ::-1]
    corner = _STRIDE * (cells + 0.5) - extent / 2
    shares = points[:, rows, columns].astype(np.float64).T.reshape(-1, 5, 2)[..., ::-1]
    return Sightings(
        np.stack([corner, corner + extent], axis=1), confidences, corner[:, None] + shares * extent[:, None]
    )
