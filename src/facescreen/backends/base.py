"""The outer seam: whose face is this?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

import numpy as np
from numpy.typing import NDArray

from facescreen.config import DetectorName, ModelName
from facescreen.domain.distances import Metric
from facescreen.domain.faces import Candidate, Face, Pixels, Vectors

EmbeddingSpace = NewType("EmbeddingSpace", str)
"""Names model, weights and alignment: embeddings of two spaces are never compared."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What is left of an image once its faces are found: each face and the crop of it that the model expects.

    Attributes:
        crops: one per face, RGB uint8 of shape (rows, columns, 3).
    """

    faces: tuple[Face, ...]
    crops: tuple[NDArray[np.uint8], ...]


@dataclass(frozen=True, slots=True)
class IndexUpdate:
    """What became of reference images since the index was last brought up to date."""

    embedded_ids: Sequence[int]
    vectors: Vectors
    withdrawn_ids: Sequence[int]


class Backend(Protocol):
    """Finds faces and searches the list for them. Safe for concurrent use: answers never depend on what runs beside."""

    async def load(self) -> None:
        """Make the default detector and model ready and prove them with one dry inference.

        Raises:
            NotReadyError: weights or packages are missing.
        """
        ...

    async def require(self, detector: DetectorName, model: ModelName) -> None:
        """Load what a request chose, if that has not happened yet.

        Raises:
            NotReadyError: weights or packages are missing.
        """
        ...

    async def detect(self, image: Pixels, detector: DetectorName) -> tuple[Face, ...]:
        """Every face in the image, in the detector's order."""
        ...

    async def prepare(self, image: Pixels, faces: tuple[Face, ...], model: ModelName) -> Probe:
        """What a search or an enrollment needs of these faces, so that the pixels can be let go."""
        ...

    async def embed(self, probes: Sequence[Probe], model: ModelName) -> Vectors:
        """Raw embeddings (faces of all probes, dimension) in order, computed as one batch."""
        ...

    async def search(
        self, vectors: Vectors, model: ModelName, *, metric: Metric, radius: float
    ) -> list[tuple[Candidate, ...]]:
        """For each embedding every reference image within the radius, nearest first."""
        ...

    def space(self, model: ModelName) -> EmbeddingSpace:
        """The space that the model's embeddings are comparable in."""
        ...

    async def apply(self, model: ModelName, update: IndexUpdate) -> None:
        """Bring the model's index up to date."""
        ...

    async def aclose(self) -> None: ...
