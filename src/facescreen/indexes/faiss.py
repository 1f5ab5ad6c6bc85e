"""FAISS flat indexes: exact, embedded, per process."""

import threading
from collections.abc import Iterable, Sequence
from itertools import pairwise

import faiss
import numpy as np

from facescreen.domain.distances import Metric, convert, distances, unit
from facescreen.domain.faces import Candidate, Vectors

_SLACK = 1e-4
"""FAISS compares in float32; what it may have put on the wrong side of the radius is fetched and judged in float64."""


class FaissIndex:
    """Raw embeddings for ``euclidean``, and the same embeddings at length 1 for the angle-based metrics.

    The normalised half is built when an angle-based search first needs it, and kept current from then on.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._lock = threading.Lock()
        self._ids: set[int] = set()
        self._raw = faiss.IndexIDMap2(faiss.IndexFlatL2(dimension))
        self._unit: faiss.IndexIDMap2 | None = None

    def count(self) -> int:
        return len(self._ids)

    def upsert(self, ids: Sequence[int], vectors: Vectors) -> None:
        with self._lock:
            self._remove(ids)
            keys = np.asarray(ids, np.int64)
            self._raw.add_with_ids(np.ascontiguousarray(vectors, np.float32), keys)
            if self._unit is not None:
                self._unit.add_with_ids(unit(vectors).astype(np.float32), keys)
            self._ids.update(ids)

    def delete(self, ids: Sequence[int]) -> None:
        with self._lock:
            self._remove(ids)

    def search(self, queries: Vectors, metric: Metric, radius: float) -> list[tuple[Candidate, ...]]:
        with self._lock:
            if not self._ids or not len(queries):
                return [() for _ in queries]
            limits, keys = self._range(queries, metric, radius)
            near = [keys[start:end] for start, end in pairwise(limits)]
            raw = [self._raw.reconstruct_batch(row) if len(row) else row for row in near]
        return [
            _within(radius, row, distances(metric, query, vectors)) if len(row) else ()
            for query, row, vectors in zip(queries, near, raw, strict=True)
        ]

    def _range(self, queries: Vectors, metric: Metric, radius: float) -> tuple[np.ndarray, np.ndarray]:
        if not metric.is_angle_based:
            generous = (radius * (1 + _SLACK) + _SLACK) ** 2
            limits, _, keys = self._raw.range_search(queries, min(generous, float(np.finfo(np.float32).max)))
        else:
            cosine = convert(radius, metric, Metric.COSINE)
            limits, _, keys = self._normalised().range_search(unit(queries).astype(np.float32), 1 - cosine - _SLACK)
        return limits.astype(np.int64), keys

    def _normalised(self) -> faiss.IndexIDMap2:
        if self._unit is None:
            self._unit = faiss.IndexIDMap2(faiss.IndexFlatIP(self.dimension))
            keys = np.fromiter(self._ids, np.int64, len(self._ids))
            if len(keys):
                self._unit.add_with_ids(unit(self._raw.reconstruct_batch(keys)).astype(np.float32), keys)
        return self._unit

    def _remove(self, ids: Iterable[int]) -> None:
        known = [id_ for id_ in ids if id_ in self._ids]
        if not known:
            return
        selector = faiss.IDSelectorBatch(np.asarray(known, np.int64))
        self._raw.remove_ids(selector)
        if self._unit is not None:
            self._unit.remove_ids(selector)
        self._ids.difference_update(known)


def _within(radius: float, ids: np.ndarray, found: np.ndarray) -> tuple[Candidate, ...]:
    near = sorted((float(distance), int(id_)) for id_, distance in zip(ids, found, strict=True) if distance <= radius)
    return tuple(Candidate(id_, distance) for distance, id_ in near)
