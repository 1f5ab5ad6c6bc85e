"""What is measured of the picture of a face, and the bars that faces pass to be indexed and searched one by one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from facescreen.domain.faces import Box, Face, Landmarks, Pixels
from facescreen.domain.quality import FaceQuality

Luma: TypeAlias = NDArray[np.uint8]
"""Luma (ITU-R BT.601) of a picture, shape (rows, columns)."""

_BLUR_SIZE: Final = 11
"""Pixels that the blur of :func:`sharpness` averages over, as in the paper and in scikit-image's ``blur_effect``."""

_SIDE: Final = 96
"""Larger faces are scaled down to this many rows before they are measured: what remains sharp at this size is what
recognition sees, and the measure depends on the size of what it looks at."""

_DARKEST: Final = 25
_BRIGHTEST: Final = 247
"""Luma from which on a pixel is nearly black or nearly white: the ranges of BSI's OFIQ, the reference implementation of
ISO/IEC 29794-5 (``UnderExposurePrevention.cpp``, ``OverExposurePrevention.cpp``)."""

_HEAD: Final = np.array(
    [
        [-3.1511, -2.6246, -3.4657],
        [3.1511, -2.6246, -3.4657],
        [0.0, 1.1269, -7.4756],
        [-2.4562, 4.3426, -4.2839],
        [2.4562, 4.3426, -4.2839],
    ]
)
"""Right eye, left eye, nose tip, right and left mouth corner of a head that looks into the camera, in centimetres: x to
the viewer's right, y down, z away from the viewer.

MediaPipe's ``canonical_face_model.obj``: the middle of vertices 33 and 133 and of 263 and 362, vertices 1, 61 and 291.
"""


_PATCH: Final = 64
_EYE_LEVEL: Final = 23
_EYE_DISTANCE: Final = 23
"""Rows, columns and pixels of the upright patch in which :data:`_FEATURES` lie, the eyes on one row in the middle."""

_FEATURES: Final = (
    (slice(18, 28), slice(13, 26)),
    (slice(18, 28), slice(38, 51)),
    (slice(44, 58), slice(22, 42)),
)
"""Rows and columns around right eye, left eye and mouth: by the eyes alone, as most detectors give no mouth."""

_FACE: Final = (slice(18, 58), slice(13, 51))
"""Rows and columns from the eyes to the mouth."""

_CHEEKS: Final = (slice(27, 36), slice(16, 48))
"""Rows and columns from cheek to cheek, which neither masks nor sunglasses cover."""

_GREY: Final = 5.0
"""Added to the chroma of the cheeks, so that the compression of a grey picture is no colour."""

_FLAT: Final = 1.0
"""Levels per pixel below which a gradient is one of the compression, not of a face."""


class QualityFault(StrEnum):
    """Why the picture of a face is not good enough."""

    SMALL = "small"
    UNCERTAIN = "uncertain"
    DARK = "dark"
    BLURRED = "blurred"


@dataclass(frozen=True, slots=True)
class QualityBar:
    """What the picture of a face needs at least.

    Attributes:
        side, confidence, brightness, sharpness: as in :class:`FaceQuality`.
    """

    side: int = 0
    confidence: float = 0.0
    brightness: float = 0.0
    sharpness: float = 0.0

    def faults(self, quality: FaceQuality) -> tuple[QualityFault, ...]:
        """What the face lacks; nothing for one that is good enough."""
        short = {
            QualityFault.SMALL: quality.side < self.side,
            QualityFault.UNCERTAIN: quality.confidence < self.confidence,
            QualityFault.DARK: quality.brightness < self.brightness,
            QualityFault.BLURRED: quality.sharpness < self.sharpness,
        }
        return tuple(fault for fault, is_short in short.items() if is_short)


class QualityFilter(StrEnum):
    """Which of :data:`BARS` holds."""

    NONE = "NONE"
    AUTO = "AUTO"
    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"


_LOW = QualityBar(side=32, confidence=0.5, brightness=5.0, sharpness=20.0)
BARS: Mapping[QualityFilter, QualityBar] = {
    QualityFilter.NONE: QualityBar(),
    QualityFilter.AUTO: _LOW,
    QualityFilter.LOW: _LOW,
    QualityFilter.MEDIUM: QualityBar(side=48, confidence=0.7, brightness=15.0, sharpness=30.0),
    QualityFilter.HIGH: QualityBar(side=64, confidence=0.8, brightness=25.0, sharpness=40.0),
}
"""What Rekognition's clients ask for by name; screening and reference photos have limits in ``domain/quality.py``.

``bench/quality.py`` blurs photos of LFW: at a sharpness of 20 less than half are recognized; 40 is what nearly all of
them have without any blur. A confidence of 0.8 is what 99 in 100 of them have with CenterFace.
"""


def assess(image: Pixels, face: Face) -> FaceQuality:
    """What is measured of a face, from its points and the pixels in its box; a box outside of the image is black."""
    crop = _crop(image, face.box)
    luma = _luma(crop)
    small = _shrunk(luma)
    inside = small[_ellipse(small)]
    yaw, pitch = _direction(face.landmarks)
    upright = _upright(crop, face)
    return FaceQuality(
        side=min(face.box.w, face.box.h),
        confidence=face.confidence,
        brightness=100.0 * float(luma.mean()) / 255.0,
        sharpness=sharpness(small),
        shadows=100.0 * float(np.mean(inside <= _DARKEST)),
        highlights=100.0 * float(np.mean(inside >= _BRIGHTEST)),
        yaw=yaw,
        pitch=pitch,
        roll=_roll(face.landmarks),
        features=None if upright is None else _features(_luma(upright)),
        tint=None if upright is None else _tint(upright),
        is_upright=face.is_upright,
    )


def sharpness(luma: Luma) -> float:
    """100 for a picture that blurring changes most, 0 for one that it does not change; of the blurrier direction.

    100 less the blur metric of Crété-Roffet et al. 2007, "The blur effect: perception and estimation with a new
    no-reference perceptual blur metric". A picture without any gradient has none that could be blurred: 100.
    """
    pixels = _shrunk(luma).astype(np.float64)
    blurs = []
    for axis, size in ((0, (1, _BLUR_SIZE)), (1, (_BLUR_SIZE, 1))):
        blurred = cv2.blur(pixels, size, borderType=cv2.BORDER_REPLICATE)
        before, after = np.abs(np.diff(pixels, axis=axis)), np.abs(np.diff(blurred, axis=axis))
        lost = np.maximum(before - after, 0.0).sum()
        blurs.append(1.0 - lost / before.sum() if before.any() else 0.0)
    return float(100.0 * (1.0 - max(blurs)))


def _crop(image: Pixels, box: Box) -> Pixels:
    """The part of the box that is in the image; one black pixel where there is none."""
    left, top = max(box.x, 0), max(box.y, 0)
    crop = image[top : max(box.y + box.h, 0), left : max(box.x + box.w, 0)]
    return crop if crop.size else np.zeros((1, 1, 3), np.uint8)


def _luma(pixels: Pixels) -> Luma:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY), np.uint8)


def _shrunk(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture, or its luma, with a shorter side of at most :data:`_SIDE` pixels."""
    scale = _SIDE / min(picture.shape[:2])
    if scale >= 1:
        return picture
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def _ellipse(luma: Luma) -> NDArray[np.bool_]:
    """Which pixels the largest ellipse covers: the corners of a face's box show hair and background."""
    rows, columns = (np.linspace(-1, 1, 2 * size + 1)[1::2] for size in luma.shape)
    covered: NDArray[np.bool_] = rows[:, None] ** 2 + columns**2 <= 1
    return covered


def _direction(points: Landmarks) -> tuple[float, float] | tuple[None, None]:
    """Yaw and pitch of a head that looks like the five points from far away, in degrees, before it was tilted.

    The rotation that is nearest to the affine map from :data:`_HEAD` to the points by least squares.
    """
    named = (points.right_eye, points.left_eye, points.nose, points.mouth_right, points.mouth_left)
    found = np.array([point for point in named if point is not None])
    if len(found) < len(named):
        return None, None
    model = _HEAD - _HEAD.mean(axis=0)
    affine, *_ = np.linalg.lstsq(model, found - found.mean(axis=0))
    u, _, v = np.linalg.svd(affine.T, full_matrices=False)
    right, down = u @ v
    away = np.cross(right, down)
    tilt = math.atan2(down[0], right[0])
    right, down = math.cos(tilt) * right + math.sin(tilt) * down, math.cos(tilt) * down - math.sin(tilt) * right
    # Where the nose points to is the opposite of the model's third axis.
    return math.degrees(math.atan2(-right[2], away[2])), math.degrees(math.asin(np.clip(down[2], -1.0, 1.0)))


def _roll(points: Landmarks) -> float | None:
    """How far the line between the eyes is turned clockwise, in degrees."""
    if points.right_eye is None or points.left_eye is None:
        return None
    return math.degrees(math.atan2(points.left_eye.y - points.right_eye.y, points.left_eye.x - points.right_eye.x))


def _upright(crop: Pixels, face: Face) -> Pixels | None:
    """The face with its eyes where :data:`_FEATURES` expects them, smoothed; ``None`` without two eyes.

    Args:
        crop: the part of the face's box that is in the image.
    """
    right, left = face.landmarks.right_eye, face.landmarks.left_eye
    if right is None or left is None:
        return None
    small = _shrunk(crop)
    corner = (max(face.box.x, 0), max(face.box.y, 0))
    eyes = (np.array([right, left]) - corner + 0.5) * (small.shape[0] / crop.shape[0]) - 0.5
    x, y = eyes[1] - eyes[0]
    if (squared := x * x + y * y) < 1e-6:  # within a thousandth of a pixel: one point
        return None
    cosine, sine = np.array([x, y]) * _EYE_DISTANCE / squared
    turn = np.array([[cosine, sine], [-sine, cosine]])
    shift = ((_PATCH - 1) / 2, _EYE_LEVEL) - turn @ eyes.mean(axis=0)
    smooth = cv2.GaussianBlur(small, (0, 0), 1.0)
    patch = cv2.warpAffine(smooth, np.column_stack([turn, shift]), (_PATCH, _PATCH), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(patch, np.uint8)


def _features(luma: Luma) -> float | None:
    """Typical gradient where the flattest of eyes and mouth is, in percent of the mean one of an upright face.

    ``None`` for a face without any: it may be dark, or one colour, but that is not what a cover does.
    """
    x, y = (cv2.Sobel(luma, cv2.CV_32F, dx, 1 - dx, scale=1 / 8) for dx in (1, 0))
    gradient = np.hypot(x, y)
    whole = float(gradient[_FACE].mean())
    if whole < _FLAT:
        return None
    return 100.0 * min(float(np.median(gradient[feature])) for feature in _FEATURES) / whole


def _tint(upright: Pixels) -> float:
    """How far the colour around the mouth of an upright face is from that of the cheeks, in percent of the latter.

    Colour is chroma (ITU-R BT.601). It grows with the light on the skin, and so does the difference.
    """
    chroma = cv2.cvtColor(upright, cv2.COLOR_RGB2YCrCb)[..., 1:].astype(np.float64) - 128.0
    cheeks, mouth = (np.median(chroma[part].reshape(-1, 2), axis=0) for part in (_CHEEKS, _FEATURES[2]))
    return 100.0 * float(np.hypot(*(mouth - cheeks))) / (float(np.hypot(*cheeks)) + _GREY)
