"""A small, quick backend whose faces are squares of one bright colour on grey: who it is, is the colour."""

import base64
import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from facescreen.backends.base import EmbeddingSpace, IndexUpdate, Probe
from facescreen.config import DetectorName, ModelName
from facescreen.domain.distances import Metric
from facescreen.domain.faces import Box, Candidate, Face, Landmarks, Pixels, Point, Vectors
from facescreen.errors import WeightsMissingError
from facescreen.indexes.exact import ExactIndex

RED, GREEN, BLUE, YELLOW = (230, 20, 20), (20, 200, 20), (20, 20, 230), (230, 230, 20)
Colour = tuple[int, int, int]


class PaintedBackend:
    """Implements ``Backend``; models ``Dlib`` and ``SFace`` see the colours in different spaces, no other is there."""

    def __init__(self) -> None:
        self._indexes = {"Dlib": ExactIndex(3), "SFace": ExactIndex(4)}

    async def load(self) -> None:
        pass

    async def require(self, detector: DetectorName, model: ModelName) -> None:
        if detector not in {"mtcnn", "dlib"} or model not in self._indexes:
            raise WeightsMissingError(f"run: facescreen weights pull {detector if model == 'Dlib' else model}")

    async def detect(self, image: Pixels, detector: DetectorName) -> tuple[Face, ...]:
        await self.require(detector, "Dlib")
        colourful = (image.max(axis=2).astype(int) - image.min(axis=2) > 100).astype(np.uint8)
        _, _, boxes, _ = cv2.connectedComponentsWithStats(colourful)
        found = sorted((int(x), int(y), int(w), int(h)) for x, y, w, h, area in boxes[1:] if area > 64)
        return tuple(
            Face(Box(x, y, w, h), Landmarks(Point(x + 0.7 * w, y + 0.3 * h), Point(x + 0.3 * w, y + 0.3 * h)), 0.99)
            for x, y, w, h in found
        )

    async def prepare(self, image: Pixels, faces: tuple[Face, ...], model: ModelName) -> Probe:
        await self.require("mtcnn", model)
        boxes = (face.box for face in faces)
        return Probe(faces, tuple(image[b.y : b.y + b.h, b.x : b.x + b.w].copy() for b in boxes))

    async def embed(self, probes: Sequence[Probe], model: ModelName) -> Vectors:
        colours = [np.median(crop, axis=(0, 1)) / 255 - 0.5 for probe in probes for crop in probe.crops]
        vectors = np.array(colours, np.float32).reshape(-1, 3)
        return vectors if model == "Dlib" else np.pad(vectors, ((0, 0), (1, 0)), constant_values=0.1)

    async def search(
        self, vectors: Vectors, model: ModelName, *, metric: Metric, radius: float
    ) -> list[tuple[Candidate, ...]]:
        return self._indexes[model].search(vectors, metric, radius)

    def space(self, model: ModelName) -> EmbeddingSpace:
        return EmbeddingSpace(f"{model}/painted")

    async def apply(self, model: ModelName, update: IndexUpdate) -> None:
        self._indexes[model].delete(update.withdrawn_ids)
        self._indexes[model].upsert(update.embedded_ids, update.vectors)

    async def aclose(self) -> None:
        self._indexes.clear()


def photo(*colours: Colour, side: int = 64, image_format: str = "PNG") -> bytes:
    """An encoded picture with one face of each colour, from left to right."""
    canvas = np.full((side * 2, side * 2 * max(1, len(colours)), 3), 128, np.uint8)
    for index, colour in enumerate(colours):
        left = side // 2 + index * side * 2
        canvas[side // 2 : side // 2 + side, left : left + side] = colour
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, image_format, quality=95)
    return buffer.getvalue()


def inline(data: bytes) -> str:
    """The bytes as bare base64."""
    return base64.b64encode(data).decode()
