"""This machine: detectors and models of the recognition package, and one FAISS index per collection and model."""

import asyncio
import ctypes
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress

import numpy as np

from facescreen.backends.base import EmbeddingSpace, IndexUpdate, Probe
from facescreen.config import DetectorName, ModelName
from facescreen.domain.distances import Metric
from facescreen.domain.faces import Candidate, Face, Pixels, Vectors
from facescreen.indexes.base import EmbeddingIndex
from facescreen.indexes.faiss import FaissIndex
from facescreen.lifeline import to_the_end
from facescreen.pool import WorkPool
from facescreen.recognition.catalog import MODELS
from facescreen.recognition.detectors import Detector, load_detector
from facescreen.recognition.embedders import Embedder, load_embedder
from facescreen.recognition.weights import WeightStore

_M_MMAP_THRESHOLD = -3
"""``malloc.h`` of glibc."""


class LocalBackend:
    """Loads each detector and model once, when it is first asked for, and runs them in the pool.

    Args:
        detector, model: what :meth:`load` makes ready.
        detector_max_side: longest side, in pixels, of what detectors see; ``None`` for the bound of each.
    """

    def __init__(
        self,
        *,
        detector: DetectorName,
        model: ModelName,
        detector_max_side: int | None,
        weights: WeightStore,
        pool: WorkPool,
    ) -> None:
        self._default_detector = detector
        self._default_model = model
        self._detector_max_side = detector_max_side
        self._weights = weights
        self._pool = pool
        self._detectors: dict[DetectorName, Detector] = {}
        self._embedders: dict[ModelName, Embedder] = {}
        self._indexes: dict[tuple[int, ModelName], EmbeddingIndex] = {}
        self._loading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def load(self) -> None:
        _return_large_blocks()
        blank = np.zeros((160, 160, 3), np.uint8)
        await self.detect(blank, self._default_detector)
        embedder = await self._embedder(self._default_model)
        rows, columns = MODELS[self._default_model].input_size
        await self._pool.run(embedder.embed, [np.zeros((rows, columns, 3), np.uint8)])

    async def require(self, detector: DetectorName, model: ModelName) -> None:
        await self._detector(detector)
        await self._embedder(model)

    async def detect(self, image: Pixels, detector: DetectorName) -> tuple[Face, ...]:
        return await self._pool.run((await self._detector(detector)).detect, image)

    def smallest_face(self, width: int, height: int, detector: DetectorName) -> int | None:
        return self._detectors[detector].smallest_face(width, height)

    async def prepare(self, image: Pixels, faces: tuple[Face, ...], model: ModelName) -> Probe:
        embedder = await self._embedder(model)
        crops = await self._pool.run(lambda: tuple(embedder.align(image, face) for face in faces))
        return Probe(faces, crops)

    async def embed(self, probes: Sequence[Probe], model: ModelName) -> Vectors:
        embedder = await self._embedder(model)
        # One by one, so that a large batch lets others through and ends with its request.
        vectors = [await self._pool.run(embedder.embed, [crop]) for probe in probes for crop in probe.crops]
        return np.concatenate(vectors) if vectors else np.empty((0, embedder.dimension), np.float32)

    async def search(
        self, collection_id: int, vectors: Vectors, model: ModelName, *, metric: Metric, radius: float
    ) -> list[tuple[Candidate, ...]]:
        return await self._pool.run(self._index(collection_id, model).search, vectors, metric, radius)

    def space(self, model: ModelName) -> EmbeddingSpace:
        return EmbeddingSpace(MODELS[model].space)

    async def apply(self, collection_id: int, model: ModelName, update: IndexUpdate) -> None:
        index = self._index(collection_id, model)
        await self._pool.run(index.delete, update.withdrawn_ids)
        if update.embedded_ids:
            await self._pool.run(index.upsert, update.embedded_ids, update.vectors)

    async def release(self, collection_ids: Collection[int]) -> None:
        self._indexes = {key: index for key, index in self._indexes.items() if key[0] not in collection_ids}

    async def aclose(self) -> None:
        self._detectors.clear()
        self._embedders.clear()
        self._indexes.clear()

    async def _detector(self, name: DetectorName) -> Detector:
        if name not in self._detectors:
            await to_the_end(self._load_detector(name))
        return self._detectors[name]

    async def _embedder(self, name: ModelName) -> Embedder:
        if name not in self._embedders:
            await to_the_end(self._load_embedder(name))
        return self._embedders[name]

    async def _load_detector(self, name: DetectorName) -> None:
        async with self._loading[name]:
            if name not in self._detectors:
                self._detectors[name] = await self._pool.run(
                    load_detector, name, weights=self._weights, max_side=self._detector_max_side
                )

    async def _load_embedder(self, name: ModelName) -> None:
        async with self._loading[name]:
            if name not in self._embedders:
                self._embedders[name] = await self._pool.run(load_embedder, name, weights=self._weights)

    def _index(self, collection_id: int, model: ModelName) -> EmbeddingIndex:
        key = (collection_id, model)
        if key not in self._indexes:
            self._indexes[key] = FaissIndex(MODELS[model].dimension)
        return self._indexes[key]


def _return_large_blocks() -> None:
    """Let glibc give images and activations back to the system as soon as they are free.

    It would raise the size from which it does so with each large block, up to 32 MiB, and keep a tenth of the process.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)
