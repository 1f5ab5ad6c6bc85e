"""The four distances between embeddings, by DeepFace's definitions, and how thresholds convert between them.

A fifth, ``similarity``, is not computed here: it is what an outside service says.

``cosine``, ``euclidean_l2`` and ``angular`` see only the angle between two embeddings, so a threshold of one is exactly
a threshold of the others. ``euclidean`` sees their lengths too and shares thresholds with none.
"""

import math
from enum import StrEnum
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from facescreen.domain.faces import Vector, Vectors


class Metric(StrEnum):
    """How far two embeddings are apart."""

    COSINE = "cosine"
    """1 - cos(angle), in [0, 2]."""
    EUCLIDEAN = "euclidean"
    """Length of the difference of the raw embeddings, in [0, inf)."""
    EUCLIDEAN_L2 = "euclidean_l2"
    """Length of the difference of the normalised embeddings, in [0, 2]."""
    ANGULAR = "angular"
    """angle / pi, in [0, 1]."""
    SIMILARITY = "similarity"
    """1 - similarity / 100, in [0, 1], by the similarity that an outside service gives two faces."""

    @property
    def is_angle_based(self) -> bool:
        return self in {Metric.COSINE, Metric.EUCLIDEAN_L2, Metric.ANGULAR}

    @property
    def maximum(self) -> float:
        """The largest distance that the metric can give; no threshold lies above it."""
        return _MAXIMUM[self]


EmbeddingMetric: TypeAlias = Literal[Metric.COSINE, Metric.EUCLIDEAN, Metric.EUCLIDEAN_L2, Metric.ANGULAR]
"""What embeddings can be compared by."""

EMBEDDING_METRICS: tuple[EmbeddingMetric, ...] = get_args(EmbeddingMetric)

_MAXIMUM = {
    Metric.COSINE: 2.0,
    Metric.EUCLIDEAN: math.inf,
    Metric.EUCLIDEAN_L2: 2.0,
    Metric.ANGULAR: 1.0,
    Metric.SIMILARITY: 1.0,
}


def unit(vectors: Vectors) -> NDArray[np.float64]:
    """Rows scaled to length 1 in float64; an all-zero row stays zero and is at distance 1 (cosine) from everything."""
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    scaled: NDArray[np.float64] = np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0)
    return scaled


def distances(metric: Metric, query: Vector, vectors: Vectors) -> NDArray[np.float64]:
    """Distance of one embedding (dimension,) to each row of (n, dimension), as float64 of shape (n,)."""
    if metric is Metric.EUCLIDEAN:
        difference = vectors.astype(np.float64) - query.astype(np.float64)
        lengths: NDArray[np.float64] = np.sqrt(np.square(difference).sum(axis=1))
        return lengths
    rows, row = unit(vectors), unit(query)
    # Half the squared difference: exactly 0 for equal embeddings, and the same for a row whatever other rows there are,
    # which a matrix product does not promise. A zero embedding has no direction and stays at 1.
    zeros = 1.0 * ~rows.any(axis=1) + ~row.any()
    return from_cosine(metric, np.minimum((np.square(rows - row).sum(axis=1) + zeros) / 2.0, 2.0))


def from_cosine(metric: Metric, cosine: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same angles in another angle-based metric."""
    match metric:
        case Metric.COSINE:
            return cosine
        case Metric.EUCLIDEAN_L2:
            return np.sqrt(2.0 * cosine)
        case Metric.ANGULAR:
            return np.arccos(1.0 - cosine) / math.pi
        case Metric.EUCLIDEAN | Metric.SIMILARITY:
            raise ValueError(f"{metric} does not follow from the angle between embeddings")


def convert(value: float, source: Metric, target: Metric) -> float:
    """A distance or threshold of one metric in another of the same geometry.

    Raises:
        ValueError: one of the two does not follow from the angle between embeddings.
    """
    if source is target:
        return value
    match source:
        case Metric.COSINE:
            cosine = value
        case Metric.EUCLIDEAN_L2:
            cosine = value**2 / 2.0
        case Metric.ANGULAR:
            cosine = 1.0 - math.cos(math.pi * value)
        case Metric.EUCLIDEAN | Metric.SIMILARITY:
            raise ValueError(f"a threshold of {source} converts to no other metric")
    return float(from_cosine(target, np.asarray(cosine)))
