"""Nearest neighbours among the embeddings of one model."""

from collections.abc import Sequence
from typing import Protocol

from facescreen.domain.distances import Metric
from facescreen.domain.faces import Candidate, Vectors


class EmbeddingIndex(Protocol):
    """Exact range search over raw embeddings, keyed by reference image id. Safe to call from several threads.

    The index is derived from the database: it can be thrown away and rebuilt at any time.
    """

    @property
    def dimension(self) -> int: ...

    def count(self) -> int:
        """How many embeddings it holds."""
        ...

    def upsert(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Add embeddings (n, dimension), replacing those of the same ids. Ids are unique within one call."""
        ...

    def delete(self, ids: Sequence[int]) -> None:
        """Remove embeddings; unknown ids are ignored."""
        ...

    def search(self, queries: Vectors, metric: Metric, radius: float) -> list[tuple[Candidate, ...]]:
        """For each query row, every embedding whose distance is at most ``radius``, nearest first, ties by id.

        Distances are computed in float64 from the raw embeddings, so they equal ``domain.distances`` to 1e-6.
        """
        ...
