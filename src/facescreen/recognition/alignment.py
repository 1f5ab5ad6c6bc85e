"""From an image and a detected face to the crop that a recognition model was trained on.

Everything is a function of pixels and points; a crop is RGB uint8. Pixel centres have whole coordinates.
"""

import math
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from facescreen.domain.faces import Box, Face, Pixels
from facescreen.recognition.catalog import Crop

Points: TypeAlias = NDArray[np.float64]
"""Positions in pixels, shape (n, 2), x before y."""

Transform: TypeAlias = NDArray[np.float64]
"""Affine map of positions, shape (2, 3): ``target = transform @ (x, y, 1)``."""

ARCFACE_TEMPLATE: Final[Points] = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Right eye, left eye, nose tip, right and left mouth corner (the person's own sides) in a 112x112 crop.

``arcface_dst`` of insightface (``python-package/insightface/utils/face_align.py``); ``FaceRecognizerSF::alignCrop`` of
OpenCV has the same points.
"""

DLIB_TEMPLATE: Final[Points] = np.array(
    [
        [0.8595674595992, 0.2134981538014],
        [0.6460604764104, 0.2289674387677],
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.4901123135679, 0.6277975316475],
    ]
)
"""Left eye's outer and inner corner, right eye's outer and inner corner, base of the nose; a chip is 1 wide.

``get_face_chip_details`` in ``dlib/image_transforms/interpolation.h``.
"""

DLIB_PADDING: Final = 0.25
"""Border of the chips that dlib's network was trained on (``examples/dnn_face_recognition_ex.cpp``)."""

OPENFACE_TEMPLATE: Final[Points] = np.array(
    [[0.782865376271, 0.321305281656], [0.252418718401, 0.331052263829], [0.520712933176, 0.634268222208]]
)
"""Left eye's outer corner, right eye's outer corner, base of the nose.

``OUTER_EYES_AND_NOSE`` of ``openface/align_dlib.py``.
"""

OPENFACE_EXTENT: Final[Points] = np.array([[0.0792396913815, 0.182360984545], [0.971193274221, 1.06080371126]])
"""Smallest and largest coordinates of OpenFace's 68 template points, where its crop ends (``MINMAX_TEMPLATE``)."""

FACENET_MARGIN: Final = 160 / (160 - 32) - 1
"""What a crop of 160 pixels with a margin of 32 adds to the face's box, as a share of the box."""

SQUARE_EXTENT: Final = 0.1
"""``extend`` of VGG-Face's ``faceCrop.m``; also half of YouTube Faces' 2.2 (Wolf et al. 2011), less 1."""

TRAINING_BOX: Final = (2.55, 0.53)
"""The boxes that the landmark model was trained on: their side, and how far their centre lies below the middle of the
eyes, in units of the distance between the eyes (``bench/landmark_box.py``)."""

_PATCH = 200
"""Side of that box, in pixels, where the landmark model looks at it: large enough for its whole-pixel answers."""

_SHIFT = 0.04
_BOXES = ((0.0, 0.0), (_SHIFT, 0.0), (-_SHIFT, 0.0), (0.0, _SHIFT), (0.0, -_SHIFT))
"""Shifts of the box, as shares of its side, over which landmarks are averaged: a forest jumps, its mean does less."""


class LandmarkModel:
    """dlib's 5-point shape predictor, looking at every face upright, at one scale, in a box like its training boxes.

    Safe for concurrent use: the predictor is read and never written. It is loaded when it is first asked, which no crop
    does whose points the detector gives.

    Args:
        path: ``shape_predictor_5_face_landmarks.dat``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _dlib(self) -> Any:  # noqa: ANN401 - dlib has no types
        import dlib  # noqa: PLC0415

        return dlib

    @cached_property
    def _predictor(self) -> Any:  # noqa: ANN401 - dlib has no types
        return self._dlib.shape_predictor(str(self._path))

    def locate(self, image: Pixels, face: Face) -> Points:
        """The points of :data:`DLIB_TEMPLATE`, in pixels of the image, shape (5, 2).

        Starts from the detector's eyes. Where it gives none, a first look into the detector's box finds them.
        """
        eyes = _eyes(face)
        if eyes is None:
            eyes = _eye_centres(self._look(image, _square(face.box)))
        return self._look(image, _training_box(eyes))

    def _look(self, image: Pixels, square: "_Square") -> Points:
        """Landmarks found in this square, mapped back to the image."""
        patch, box = 2 * _PATCH, _PATCH
        transform = _to_crop(square.enlarged(2), (patch, patch))
        pixels = warp(image, transform, (patch, patch), border=cv2.BORDER_REPLICATE)
        middle = (patch - 1) / 2
        found = []
        for x, y in _BOXES:
            left, top = round(middle - box / 2 + x * box), round(middle - box / 2 + y * box)
            shape = self._predictor(pixels, self._dlib.rectangle(left, top, left + box - 1, top + box - 1))
            found.append([(part.x, part.y) for part in shape.parts()])
        return apply(_inverse(transform), np.mean(found, axis=0))


@lru_cache(maxsize=4)
def landmark_model(path: Path) -> LandmarkModel:
    """One model per file for the whole process."""
    return LandmarkModel(path)


def crop_face(
    crop: Crop, image: Pixels, face: Face, *, size: tuple[int, int], landmarks: LandmarkModel
) -> NDArray[np.uint8]:
    """A face cut out as a model expects it: RGB, shape (rows, columns, 3), black outside of the image.

    ``size`` is (rows, columns); ``landmarks`` gives the points that the crop needs and the detector does not give.
    """
    rows, columns = size
    match crop:
        case Crop.DLIB:
            transform = similarity(landmarks.locate(image, face), dlib_template(rows))
        case Crop.ARCFACE:
            points = _five_points(face)
            if points is None:
                eyes = _eyes(face)
                points = _eye_centres(landmarks.locate(image, face)) if eyes is None else eyes
            transform = similarity(points, ARCFACE_TEMPLATE[: len(points)])
        case Crop.OPENFACE:
            first, last = OPENFACE_EXTENT
            template = (OPENFACE_TEMPLATE - first) / (last - first) * [columns, rows]
            transform = affine(landmarks.locate(image, face)[[0, 2, 4]], template)
        case Crop.FACENET:
            transform = _stretched(face, 1 + FACENET_MARGIN, size)
        case Crop.VGG_FACE:
            upright = _square(face.box)._replace(angle=face.turn * math.pi / 2)
            transform = _to_crop(upright.enlarged(1 + SQUARE_EXTENT), size)
        case Crop.UPRIGHT:
            eyes = _eyes(face)
            eyes = _eye_centres(landmarks.locate(image, face)) if eyes is None else eyes
            transform = _to_crop(_square(face.box).enlarged(1 + SQUARE_EXTENT)._replace(angle=_tilt(eyes)), size)
    return warp(image, transform, size)


def dlib_template(size: int) -> Points:
    """:data:`DLIB_TEMPLATE` in a chip of this many pixels, with the padding of its training."""
    # dlib counts the chip's coordinates from its edge, cv2.warpAffine from the centre of its first pixel.
    return (DLIB_TEMPLATE + DLIB_PADDING) / (1 + 2 * DLIB_PADDING) * size - 0.5


def similarity(source: Points, target: Points) -> Transform:
    """Rotation, scale and shift that bring ``source`` closest to ``target`` by least squares; never a mirroring.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991.
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    centred, goal = source - source_mean, target - target_mean
    u, singular, v = np.linalg.svd(goal.T @ centred)
    sign = np.array([1.0, np.sign(np.linalg.det(u @ v))])
    rotation = (u * sign) @ v * (singular @ sign / (centred**2).sum())
    return np.column_stack([rotation, target_mean - rotation @ source_mean])


def affine(source: Points, target: Points) -> Transform:
    """The affine map of three points to three others."""
    return cv2.getAffineTransform(source.astype(np.float32), target.astype(np.float32)).astype(np.float64)


def apply(transform: Transform, points: Points) -> Points:
    """Positions (n, 2) after the transform."""
    return points @ transform[:, :2].T + transform[:, 2]


def _inverse(transform: Transform) -> Transform:
    return cv2.invertAffineTransform(transform).astype(np.float64)


def warp(
    image: Pixels, transform: Transform, size: tuple[int, int], *, border: int = cv2.BORDER_CONSTANT
) -> NDArray[np.uint8]:
    """The image under an affine map, shape (rows, columns, 3), without aliasing where it shrinks.

    A map that shrinks by two or more first averages the part of the image that it needs over blocks, as dlib's chips
    come from a pyramid; bilinear interpolation alone would look at a few of the pixels.
    """
    rows, columns = size
    factor = int(1 / math.sqrt(abs(np.linalg.det(transform[:, :2]))))
    if factor >= 2:
        corners = np.array([[0, 0], [columns, 0], [0, rows], [columns, rows]], np.float64)
        needed = apply(_inverse(transform), corners)
        bounds = [image.shape[1], image.shape[0]]
        left, top = np.clip(np.floor(needed.min(axis=0)) - factor, 0, bounds).astype(int).tolist()
        right, bottom = np.clip(np.ceil(needed.max(axis=0)) + factor, 0, bounds).astype(int).tolist()
        part = image[top:bottom, left:right]
        if part.size:
            shrunk = (max(1, round(part.shape[1] / factor)), max(1, round(part.shape[0] / factor)))
            step = np.array([part.shape[1] / shrunk[0], part.shape[0] / shrunk[1]])
            image = cv2.resize(part, shrunk, interpolation=cv2.INTER_AREA).astype(np.uint8)
            # A pixel of the part is at left + (pixel + 0.5) * step - 0.5 in the image.
            linear = transform[:, :2] * step
            transform = np.column_stack([linear, apply(transform, np.array([[left, top]]) + step / 2 - 0.5)[0]])
    return cv2.warpAffine(image, transform, (columns, rows), flags=cv2.INTER_LINEAR, borderMode=border).astype(np.uint8)


class _Square(NamedTuple):
    """A square in the image; ``angle`` in radians, clockwise on the screen."""

    centre: Points
    side: float
    angle: float

    def enlarged(self, factor: float) -> "_Square":
        return self._replace(side=self.side * factor)


def _eyes(face: Face) -> Points | None:
    """Right and left eye, (2, 2); none where the detector gives none, or puts both in one place for want of a view."""
    right, left = face.landmarks.right_eye, face.landmarks.left_eye
    if right is None or left is None or math.dist(right, left) < 0.05 * face.box.w:
        return None
    return np.array([right, left])


def _five_points(face: Face) -> Points | None:
    eyes, found = _eyes(face), face.landmarks
    if eyes is None or found.nose is None or found.mouth_right is None or found.mouth_left is None:
        return None
    return np.array([*eyes, found.nose, found.mouth_right, found.mouth_left])


def _eye_centres(points: Points) -> Points:
    """Right and left eye from the corners that dlib's model gives."""
    return np.array([points[2:4].mean(axis=0), points[0:2].mean(axis=0)])


def _tilt(eyes: Points) -> float:
    """Angle of the line from the right eye to the left one, in radians, clockwise on the screen."""
    x, y = eyes[1] - eyes[0]
    return math.atan2(y, x)


def _training_box(eyes: Points) -> _Square:
    """The landmark model's box for these eyes."""
    distance, angle = math.dist(*eyes), _tilt(eyes)
    down = np.array([-math.sin(angle), math.cos(angle)])
    side, below = TRAINING_BOX
    return _Square(eyes.mean(axis=0) + below * distance * down, side * distance, angle)


def _square(box: Box) -> _Square:
    """The upright square of the same centre and mean side."""
    return _Square(np.array([box.x + box.w / 2 - 0.5, box.y + box.h / 2 - 0.5]), (box.w + box.h) / 2, 0.0)


def _to_crop(square: _Square, size: tuple[int, int]) -> Transform:
    """Map of the square to the whole crop."""
    return _centred(square.centre, square.angle, (square.side, square.side), size=size)


def _stretched(face: Face, factor: float, size: tuple[int, int]) -> Transform:
    """Map of the face's box, enlarged around its centre, to the whole upright crop."""
    extent = (face.box.w * factor, face.box.h * factor)
    return _centred(
        _square(face.box).centre, face.turn * math.pi / 2, extent[::-1] if face.turn % 2 else extent, size=size
    )


def _centred(centre: Points, angle: float, extent: tuple[float, float], *, size: tuple[int, int]) -> Transform:
    """Map of a rectangle of this (width, height), which is turned clockwise by an angle in radians, to the crop."""
    rows, columns = size
    cosine, sine = math.cos(angle), math.sin(angle)
    linear = np.array([[columns / extent[0]], [rows / extent[1]]]) * np.array([[cosine, sine], [-sine, cosine]])
    return np.column_stack([linear, np.array([(columns - 1) / 2, (rows - 1) / 2]) - linear @ centre])
