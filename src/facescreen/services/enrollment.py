"""From a reference photo to what is stored of it."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from facescreen.backends.base import Backend, EmbeddingBackend
from facescreen.config import DetectorName, ModelName
from facescreen.db.blacklist import Embedded
from facescreen.domain.faces import Face, Pixels
from facescreen.domain.quality import ENROLLMENT_LIMITS, FaceQuality
from facescreen.errors import NoFaceError, PhotoQualityError, SeveralFacesError
from facescreen.pool import WorkPool
from facescreen.services.intake import Intake
from facescreen.services.quality import assess

_MINIMUM_SIDE = 32
"""Pixels of a face's shorter side below which it counts as background: nobody's, and none of several.

What the person's own face needs is more, and says :data:`facescreen.domain.quality.ENROLLMENT_LIMITS`.
"""


class FaceSelection(StrEnum):
    """Which face of a reference photo is the person's."""

    SINGLE = "single"
    """The photo must hold exactly one usable face."""
    LARGEST = "largest"
    """The largest usable face of a group photo."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A decoded reference photo, the face in it, and its embedding unless an outside service keeps the face.

    Attributes:
        turned: degrees that the head was turned clockwise in the photo before that was turned upright.
        quality_override: why the photo was taken though the picture of the face is not good enough; ``None`` where it
            is, or where nobody asked.
    """

    pixels: Pixels
    face: Face
    quality: FaceQuality
    embedded: Embedded | None = None
    quality_override: str | None = None
    turned: int = 0


class Enroller:
    """Finds, chooses, assesses and embeds the faces of reference photos with one detector and model.

    Args:
        embeddings: makes them; ``None`` where an outside service keeps the faces.
    """

    def __init__(
        self,
        *,
        backend: Backend,
        embeddings: EmbeddingBackend | None,
        intake: Intake,
        pool: WorkPool,
        detector: DetectorName,
        model: ModelName,
    ) -> None:
        self._backend = backend
        self._embeddings = embeddings
        self._intake = intake
        self._pool = pool
        self._detector = detector
        self._model = model

    async def enroll(
        self,
        data: bytes,
        selection: FaceSelection,
        *,
        quality_override: str | None = None,
        turns_upright: bool = True,
    ) -> Enrolled:
        """The photo's face and embedding.

        Args:
            turns_upright: whether a photo of a head on its side or upside down is turned. One that is not is compared
                upright all the same.
            quality_override: why the photo is to be taken even if the picture of the face is not good enough.

        Raises:
            PhotoQualityError: it is not good enough, and nobody said why it is to be taken.
            InputError: the photo cannot be decoded, or has no usable face, or several and one was asked for.
        """
        detected = await self._intake.detect(data, self._detector)
        image, face = detected.image, select_face(detected.faces, selection)
        turned = 0
        if turns_upright and (turn := face.turn):
            height, width, _ = image.shape
            image, face = np.ascontiguousarray(np.rot90(image, turn)), face.turned(turn, width=width, height=height)
            turned = 90 * turn
        quality = await self._pool.run(assess, image, face)
        reasons = ENROLLMENT_LIMITS.reasons(quality)
        if reasons and quality_override is None:
            raise PhotoQualityError("; ".join(reason.detail for reason in reasons))
        return Enrolled(
            image,
            face,
            quality,
            await self._embed(image, face),
            quality_override if reasons else None,
            turned,
        )

    async def _embed(self, image: Pixels, face: Face) -> Embedded | None:
        if self._embeddings is None:
            return None
        probe = await self._backend.prepare(image, (face,), self._model)
        (vector,) = await self._embeddings.embed([probe], self._model)
        return Embedded(self._embeddings.space(self._model), vector)


def select_face(faces: tuple[Face, ...], selection: FaceSelection) -> Face:
    """The face that a reference photo is of.

    Raises:
        NoFaceError: none is large enough.
        SeveralFacesError: there are several and exactly one was asked for.
    """
    usable = [face for face in faces if min(face.box.w, face.box.h) >= _MINIMUM_SIDE]
    if not usable:
        raise NoFaceError(f"no face of at least {_MINIMUM_SIDE} pixels found")
    if len(usable) > 1 and selection is FaceSelection.SINGLE:
        raise SeveralFacesError(
            f"{len(usable)} faces found and exactly one is needed; crop the photo, or choose face_selection=largest"
        )
    return max(usable, key=lambda face: face.box.area)
