"""Pixels as Rekognition takes them, and where its ratios lie in them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from facescreen.domain.faces import Box, Face, Pixels, Point
from facescreen.images.decode import encode_jpeg

# https://docs.aws.amazon.com/rekognition/latest/dg/limits.html
MAX_BYTES = 5 * 1024 * 1024
MIN_SIDE = 80
MIN_FACE = 40
MAX_SIDE = 10_000
"""Said of other operations than those with faces, which may well have a limit of the same kind."""

SMALL_SIDE = 4 * MIN_FACE
"""An image with a shorter longest side is enlarged, else a face of a quarter of it would not be seen."""

_PNG_PIXELS = 2 * MAX_BYTES // 3
"""A photo is hardly ever compressed to less than half without loss: above it, an attempt is wasted time."""

_JPEG_QUALITIES = (95, 85)
_GREY = (127, 127, 127)

_WHOLE_PIXELS = 1_000_000
"""Up to here an image is sent whole for each face. Detectors find in a crop what they saw in the image only almost, or
not at all; larger images would cost more to send than that is worth."""

_RIVAL_IN_CROP, _RIVAL_IN_IMAGE = 0.5, 0.95
"""A face from this part of the wanted one's area up might be taken for the largest. Where the service sees the same
pixels as before it gives the same sizes, all but for rounding."""


@dataclass(frozen=True, slots=True)
class SentImage:
    """An encoded image within the limits, which may be scaled, and padded to the right and below.

    Attributes:
        size: width and height of our image.
        extent: width and height of what is sent, in pixels of ours: what a ratio of 1 means.
    """

    data: bytes
    size: tuple[int, int]
    extent: tuple[float, float]

    def box(self, ratios: Mapping[str, float]) -> Box:
        """Rekognition's ``BoundingBox``, which may reach beyond the image, in whole pixels inside of ours."""
        x, w = _span(ratios["Left"] * self.extent[0], ratios["Width"] * self.extent[0], self.size[0])
        y, h = _span(ratios["Top"] * self.extent[1], ratios["Height"] * self.extent[1], self.size[1])
        return Box(x, y, w, h)

    def point(self, ratios: Mapping[str, float]) -> Point:
        """A ``Landmark`` in pixels of our image."""
        return Point(ratios["X"] * self.extent[0], ratios["Y"] * self.extent[1])


def fitted(image: Pixels) -> SentImage:
    """The image without loss if it fits the limits like that, else as little changed as they allow."""
    height, width = image.shape[:2]
    longest = max(height, width)
    scale: float = math.ceil(SMALL_SIDE / longest) if longest < SMALL_SIDE else min(1, MAX_SIDE / longest)
    while True:
        scaled = _scaled(image, scale)
        sent = _padded(scaled)
        data = _encoded(sent)
        if len(data) <= MAX_BYTES:
            extent = (width * sent.shape[1] / scaled.shape[1], height * sent.shape[0] / scaled.shape[0])
            return SentImage(data, (width, height), extent)
        scale *= 0.95 * math.sqrt(MAX_BYTES / len(data))


def crops(image: Pixels, faces: tuple[Face, ...]) -> tuple[Pixels, ...]:
    """For each face its surroundings, in which it is the largest, for only the largest is searched.

    The largest face of all is given in the untouched image, and the others of a small image in the whole of it, so that
    they are found again as they were. Where another face might be taken for the largest it is painted over, in a copy.
    """
    boxes = [face.box for face in faces]
    largest = max(range(len(boxes)), key=lambda number: boxes[number].area, default=None)
    height, width = image.shape[:2]
    is_small = width * height <= _WHOLE_PIXELS
    return tuple(
        image
        if number == largest
        else _cropped(
            image,
            Box(0, 0, width, height) if is_small else _surroundings(box, width, height),
            [box, *boxes[:number], *boxes[number + 1 :]],
            rival=_RIVAL_IN_IMAGE if is_small else _RIVAL_IN_CROP,
        )
        for number, box in enumerate(boxes)
    )


def _span(start: float, length: float, size: int) -> tuple[int, int]:
    first = min(max(0, round(start)), size - 1)
    return first, max(1, min(round(start + length), size) - first)


def _scaled(image: Pixels, scale: float) -> Pixels:
    if scale == 1:
        return image
    size = [max(1, round(side * scale)) for side in (image.shape[1], image.shape[0])]
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    return np.asarray(scaled, np.uint8)


def _padded(image: Pixels) -> Pixels:
    below, right = (max(0, MIN_SIDE - side) for side in image.shape[:2])
    if not below and not right:
        return image
    padded = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=_GREY)
    return np.asarray(padded, np.uint8)


def _encoded(image: Pixels) -> bytes:
    """The best encoding within the limit, or the smallest if there is none."""
    data = b""
    if image.shape[0] * image.shape[1] <= _PNG_PIXELS:
        _, png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        data = png.tobytes()
    for quality in _JPEG_QUALITIES:
        if 0 < len(data) <= MAX_BYTES:
            break
        data = encode_jpeg(image, quality=quality)
    return data


def _surroundings(box: Box, width: int, height: int) -> Box:
    """The box with a face more on each side, as far as the image goes."""
    left, top = max(0, box.x - box.w), max(0, box.y - box.h)
    right, bottom = min(width, box.x + 2 * box.w), min(height, box.y + 2 * box.h)
    return Box(left, top, right - left, bottom - top)


def _cropped(image: Pixels, region: Box, boxes: list[Box], *, rival: float) -> Pixels:
    """The region, with all but the first of the boxes painted over if they rival it."""
    wanted, *others = boxes
    shown = image[region.y : region.y + region.h, region.x : region.x + region.w]
    rivals = [seen for seen in (_seen(other, region) for other in others) if seen.area > rival * wanted.area]
    crop = shown.copy()
    brightness = round(float(shown.mean())) if rivals else 0
    for seen in rivals:
        crop[seen.y : seen.y + seen.h, seen.x : seen.x + seen.w] = brightness
    face = _seen(wanted, region)
    crop[face.y : face.y + face.h, face.x : face.x + face.w] = image[
        wanted.y : wanted.y + wanted.h, wanted.x : wanted.x + wanted.w
    ]
    return crop


def _seen(box: Box, region: Box) -> Box:
    """What the region shows of the box, from the region's corner."""
    left, top = max(box.x, region.x), max(box.y, region.y)
    right, bottom = min(box.x + box.w, region.x + region.w), min(box.y + box.h, region.y + region.h)
    return Box(left - region.x, top - region.y, max(0, right - left), max(0, bottom - top))
