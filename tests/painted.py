"""A small, quick backend whose faces are squares of one bright colour on grey: who it is, is the colour."""

import base64
from collections.abc import Collection, Sequence

import cv2
import numpy as np
from PIL import Image

from facescreen.backends.base import EmbeddingSpace, IndexUpdate, Probe
from facescreen.config import DetectorName, ModelName
from facescreen.domain.distances import Metric
from facescreen.domain.faces import Box, Candidate, Face, Landmarks, Pixels, Point, Vectors
from facescreen.errors import WeightsMissingError
from facescreen.indexes.exact import ExactIndex
from tests.images.crafted import saved

RED, GREEN, BLUE, YELLOW = (230, 20, 20), (20, 200, 20), (20, 20, 230), (230, 230, 20)
Colour = tuple[int, int, int]

UNMEASURED: ModelName = "GhostFaceNet"
"""A model without thresholds, similarities or false alerts."""

_DIMENSIONS: dict[ModelName, int] = {"SFace": 3, "Dlib": 4, UNMEASURED: 5}


class PaintedBackend:
    """Implements ``EmbeddingBackend``.

    Its models see the colours in different spaces: ``SFace``, ``Dlib`` and :data:`UNMEASURED`. No other is there.
    """

    def __init__(self) -> None:
        self._indexes: dict[tuple[int, ModelName], ExactIndex] = {}

    async def load(self) -> None:
        pass

    async def require(self, detector: DetectorName, model: ModelName) -> None:
        if detector not in {"centerface", "dlib"} or model not in _DIMENSIONS:
            raise WeightsMissingError(f"run: facescreen weights pull {detector if model == 'SFace' else model}")

    async def detect(self, image: Pixels, detector: DetectorName) -> tuple[Face, ...]:
        await self.require(detector, "SFace")
        colourful = (image.max(axis=2).astype(int) - image.min(axis=2) > 100).astype(np.uint8)
        _, _, boxes, _ = cv2.connectedComponentsWithStats(colourful)
        found = sorted((int(x), int(y), int(w), int(h)) for x, y, w, h, area in boxes[1:] if area > 64)
        return tuple(
            Face(Box(x, y, w, h), Landmarks(Point(x + 0.7 * w, y + 0.3 * h), Point(x + 0.3 * w, y + 0.3 * h)), 0.99)
            for x, y, w, h in found
        )

    def smallest_face(self, width: int, height: int, detector: DetectorName) -> int | None:
        return 8

    async def prepare(self, image: Pixels, faces: tuple[Face, ...], model: ModelName) -> Probe:
        await self.require("centerface", model)
        boxes = (face.box for face in faces)
        return Probe(faces, tuple(image[b.y : b.y + b.h, b.x : b.x + b.w].copy() for b in boxes))

    async def embed(self, probes: Sequence[Probe], model: ModelName) -> Vectors:
        colours = [np.median(crop, axis=(0, 1)) / 255 - 0.5 for probe in probes for crop in probe.crops]
        vectors = np.array(colours, np.float32).reshape(-1, 3)
        return np.pad(vectors, ((0, 0), (_DIMENSIONS[model] - 3, 0)), constant_values=0.1)

    async def search(
        self, collection_id: int, vectors: Vectors, model: ModelName, *, metric: Metric, radius: float
    ) -> list[tuple[Candidate, ...]]:
        return self._index(collection_id, model).search(vectors, metric, radius)

    def space(self, model: ModelName) -> EmbeddingSpace:
        return EmbeddingSpace(f"{model}/painted")

    async def apply(self, collection_id: int, model: ModelName, update: IndexUpdate) -> None:
        self._index(collection_id, model).delete(update.withdrawn_ids)
        self._index(collection_id, model).upsert(update.embedded_ids, update.vectors)

    async def release(self, collection_ids: Collection[int]) -> None:
        self._indexes = {key: index for key, index in self._indexes.items() if key[0] not in collection_ids}

    async def aclose(self) -> None:
        self._indexes.clear()

    def _index(self, collection_id: int, model: ModelName) -> ExactIndex:
        return self._indexes.setdefault((collection_id, model), ExactIndex(_DIMENSIONS[model]))


def photo(*colours: Colour, side: int = 64, image_format: str = "PNG") -> bytes:
    """An encoded picture with one face of each colour, from left to right."""
    canvas = np.full((side * 2, side * 2 * max(1, len(colours)), 3), 128, np.uint8)
    for index, colour in enumerate(colours):
        left = side // 2 + index * side * 2
        canvas[side // 2 : side // 2 + side, left : left + side] = colour
    return saved(Image.fromarray(canvas), image_format, quality=95)


def inline(data: bytes) -> str:
    """The bytes as bare base64."""
    return base64.b64encode(data).decode()
