"""The outer seam: whose face is this?

Every backend finds faces. Beyond that there are two kinds: one that makes embeddings, which the database keeps and an
index of this process searches (:class:`EmbeddingBackend`), and one that keeps and searches the faces in an outside
service (:class:`GalleryBackend`).
"""

from collections.abc import Collection, Sequence
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
    """What is left of an image once its faces are found: each face and the crop of it that the search expects.

    Attributes:
        crops: one per face, RGB uint8 of shape (rows, columns, 3); none where ``vectors`` are there.
        vectors: raw embeddings (faces, dimension) by the model of the search, if they were made already.
    """

    faces: tuple[Face, ...]
    crops: tuple[NDArray[np.uint8], ...]
    vectors: Vectors | None = None


class Backend(Protocol):
    """Finds faces. Safe for concurrent use: answers never depend on what runs beside."""

    async def load(self) -> None:
        """Make the default detector and model ready and prove them with one dry inference.

        Raises:
            NotReadyError: weights or packages are missing.
            AwsError: the outside service cannot be used.
        """
        ...

    async def detect(self, image: Pixels, detector: DetectorName) -> tuple[Face, ...]:
        """Every face in the image, in the detector's order."""
        ...

    def smallest_face(self, width: int, height: int, detector: DetectorName) -> int | None:
        """Side, in pixels, from which :meth:`detect` looks for faces in images of this size; ``None``: unknown."""
        ...

    async def prepare(self, image: Pixels, faces: tuple[Face, ...], model: ModelName) -> Probe:
        """What a search or an enrollment needs of these faces, so that the pixels can be let go."""
        ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class IndexUpdate:
    """What became of reference images since the index was last brought up to date."""

    embedded_ids: Sequence[int]
    vectors: Vectors
    withdrawn_ids: Sequence[int]


class EmbeddingBackend(Backend, Protocol):
    """Makes embeddings, and searches one index per collection and embedding space."""

    async def require(self, detector: DetectorName, model: ModelName) -> None:
        """Load what a request chose, if that has not happened yet.

        Raises:
            NotReadyError: weights or packages are missing.
        """
        ...

    async def embed(self, probes: Sequence[Probe], model: ModelName) -> Vectors:
        """Raw embeddings (faces of all probes, dimension) in order, computed as one batch."""
        ...

    async def search(
        self, collection_id: int, vectors: Vectors, model: ModelName, *, metric: Metric, radius: float
    ) -> list[tuple[Candidate, ...]]:
        """For each embedding every reference image of the collection within the radius, nearest first."""
        ...

    def space(self, model: ModelName) -> EmbeddingSpace:
        """The space that the model's embeddings are comparable in."""
        ...

    async def apply(self, collection_id: int, model: ModelName, update: IndexUpdate) -> None:
        """Bring the collection's index of the model up to date."""
        ...

    async def release(self, collection_ids: Collection[int]) -> None:
        """Let go the indexes of these collections."""
        ...


@dataclass(frozen=True, slots=True)
class GalleryPhoto:
    """A photo to index: our key for it, and the upright RGB pixels. The largest face in it is the person's."""

    key: str
    image: Pixels


@dataclass(frozen=True, slots=True)
class GalleryFace:
    """A face that the service keeps.

    Attributes:
        face_id: the service's id.
        key: what was given as :attr:`GalleryPhoto.key`; ``None`` for faces that somebody indexed without.
        person: the person that it is associated with, ``None`` without.
    """

    face_id: str
    key: str | None
    person: str | None


@dataclass(frozen=True, slots=True)
class GalleryHit:
    """A face that resembles the one that was searched, by the service's similarity in [0, 100]."""

    face_id: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything that the service keeps of one collection."""

    faces: tuple[GalleryFace, ...]
    people: frozenset[str]


class GalleryBackend(Backend, Protocol):
    """An outside service that stores faces and searches them by itself. Collections are named as ours are.

    Every method that calls the service raises :class:`facescreen.errors.AwsError` where it does not do its part.
    """

    @property
    def face_model(self) -> str:
        """The service and the version of its face model, such as ``rekognition-7.0``; known once loaded."""
        ...

    async def create_collection(self, collection: str) -> None:
        """Make the collection; one that is there already is fine.

        Raises:
            InputError: the service cannot have one of this name, and so has none.
        """
        ...

    async def delete_collection(self, collection: str) -> None:
        """Remove the collection with all faces and people in it; one that is not there is fine."""
        ...

    async def enroll(self, collection: str, person: str, photos: Sequence[GalleryPhoto]) -> list[str]:
        """Index the largest face of each photo as this person's, who is created if new; the face ids in order.

        Doing it again with the same photos and keys changes nothing. After an error some of it may be done:
        :meth:`withdraw` takes it back.

        Raises:
            FaceUnusableError, NoFaceError: the service refuses the face of a photo.
        """
        ...

    async def withdraw(self, collection: str, person: str, keys: Collection[str], *, whole: bool) -> None:
        """Remove the faces with these keys, whether or not they were ever associated; what is not there is fine.

        Args:
            whole: remove every face that is associated with the person, and the person, as well.
        """
        ...

    async def search(self, collection: str, crop: Pixels, *, similarity: float) -> list[GalleryHit] | None:
        """Faces at least so similar to the largest face of the crop; ``None`` if the service sees no face in it."""
        ...

    async def inventory(self, collection: str) -> Inventory:
        """What the service keeps of the collection."""
        ...

    async def remove_faces(self, collection: str, face_ids: Collection[str]) -> None:
        """Remove faces by the service's ids, associated or not."""
        ...
