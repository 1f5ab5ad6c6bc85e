"""How good the picture of a face is: what can be measured of its pixels, and the bars that it has to pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np

from facescreen.domain.faces import Box, Face, Pixels

_BLUR_SIZE = 11
"""Pixels that the blur of :func:`sharpness` averages over, as in the paper and in scikit-image's ``blur_effect``."""

_SIDE = 96
"""Larger faces are scaled down to this many rows before their sharpness is measured: what remains sharp at this size
is what recognition sees, and the measure depends on the size of what it looks at."""


class QualityFault(StrEnum):
    """Why the picture of a face is not good enough."""

    SMALL = "small"
    UNCERTAIN = "uncertain"
    DARK = "dark"
    BLURRED = "blurred"


@dataclass(frozen=True, slots=True)
class Quality:
    """Measures of the pixels within a face's box.

    Attributes:
        brightness: mean luma (ITU-R BT.601), 0 is black, 100 is white.
        sharpness: see :func:`sharpness`.
    """

    brightness: float
    sharpness: float


@dataclass(frozen=True, slots=True)
class QualityBar:
    """What the picture of a face needs at least.

    Attributes:
        side: pixels of the box's shorter side.
        confidence: the detector's own, in [0, 1].
        brightness, sharpness: as in :class:`Quality`.
    """

    side: int = 0
    confidence: float = 0.0
    brightness: float = 0.0
    sharpness: float = 0.0

    def faults(self, face: Face, quality: Quality) -> tuple[QualityFault, ...]:
        """What the face lacks; nothing for one that is good enough."""
        short = {
            QualityFault.SMALL: min(face.box.w, face.box.h) < self.side,
            QualityFault.UNCERTAIN: face.confidence < self.confidence,
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
    QualityFilter.MEDIUM: QualityBar(side=48, confidence=0.8, brightness=15.0, sharpness=30.0),
    QualityFilter.HIGH: QualityBar(side=64, confidence=0.95, brightness=25.0, sharpness=40.0),
}
"""The side of the low bar is what every reference photo needs. ``bench/sharpness.py`` blurs photos of LFW: at a
sharpness of 20 about half of them are no longer recognized; 40 is what nearly all of them have without any blur.
"""


def measure(image: Pixels, box: Box) -> Quality:
    """Brightness and sharpness of what the box shows of the image."""
    left, top = max(box.x, 0), max(box.y, 0)
    crop = image[top : max(box.y + box.h, 0), left : max(box.x + box.w, 0)]
    if not crop.size:
        return Quality(0.0, 0.0)
    luma = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
    return Quality(100.0 * float(luma.mean()) / 255.0, sharpness(luma))


def sharpness(luma: np.ndarray) -> float:
    """100 for a picture that blurring changes most, 0 for one that it does not change; of the blurrier direction.

    100 less the blur metric of Crété-Roffet et al. 2007, "The blur effect: perception and estimation with a new
    no-reference perceptual blur metric". A picture without any gradient has none that could be blurred: 100.

    Args:
        luma: uint8 of shape (rows, columns).
    """
    scale = _SIDE / min(luma.shape)
    if scale < 1:
        luma = cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    pixels = luma.astype(np.float64)
    blurs = []
    for axis, size in ((0, (1, _BLUR_SIZE)), (1, (_BLUR_SIZE, 1))):
        blurred = cv2.blur(pixels, size, borderType=cv2.BORDER_REPLICATE)
        before, after = np.abs(np.diff(pixels, axis=axis)), np.abs(np.diff(blurred, axis=axis))
        lost = np.maximum(before - after, 0.0).sum()
        blurs.append(1.0 - lost / before.sum() if before.any() else 0.0)
    return float(100.0 * (1.0 - max(blurs)))
