"""NumPy brute force: the reference answer that other indexes are compared with."""

import threading
from collections.abc import Sequence

import numpy as np

from facescreen.domain.distances import Metric, distances
from facescreen.domain.faces import Candidate, Vectors


class ExactIndex:
    """Keeps embeddings in a dictionary and compares each query with all of them."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._lock = threading.Lock()
        self._vectors: dict[int, Vectors] = {}

    def count(self) -> int:
        return len(self._vectors)

    def upsert(self, ids: Sequence[int], vectors: Vectors) -> None:
        with self._lock:
            self._vectors.update(zip(ids, vectors, strict=True))

    def delete(self, ids: Sequence[int]) -> None:
        with self._lock:
            for id_ in ids:
                self._vectors.pop(id_, None)

    def search(self, queries: Vectors, metric: Metric, radius: float) -> list[tuple[Candidate, ...]]:
        with self._lock:
            ids = list(self._vectors)
            vectors = np.stack(list(self._vectors.values())) if ids else np.empty((0, self.dimension), np.float32)
        found = []
        for query in queries:
            candidates = zip(ids, distances(metric, query, vectors).tolist(), strict=True)
            near = sorted((distance, id_) for id_, distance in candidates if distance <= radius)
            found.append(tuple(Candidate(id_, distance) for distance, id_ in near))
        return found
