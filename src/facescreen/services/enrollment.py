"""From a reference photo to what is stored of it."""

from dataclasses import dataclass
from enum import StrEnum

from facescreen.backends.base import Backend
from facescreen.config import DetectorName, ModelName
from facescreen.db.blacklist import NewImage
from facescreen.domain.faces import Face, Pixels
from facescreen.errors import NoFaceError, SeveralFacesError
from facescreen.services.intake import Intake

_MINIMUM_SIDE = 32
"""Pixels of a face's shorter side below which a reference photo shows too little to recognize somebody by."""


class FaceSelection(StrEnum):
    """Which face of a reference photo is the person's."""

    SINGLE = "single"
    """The photo must hold exactly one usable face."""
    LARGEST = "largest"
    """The largest usable face of a group photo."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A decoded reference photo, and what its row will say of it."""

    pixels: Pixels
    row: NewImage


class Enroller:
    """Makes embeddings of reference photos with one detector and model."""

    def __init__(self, *, backend: Backend, intake: Intake, detector: DetectorName, model: ModelName) -> None:
        self._backend = backend
        self._intake = intake
        self._detector = detector
        self._model = model

    async def enroll(self, data: bytes, selection: FaceSelection) -> Enrolled:
        """The photo's face and embedding.

        Raises:
            InputError: the photo cannot be decoded, or has no usable face, or several and one was asked for.
        """
        detected = await self._intake.detect(data, self._detector)
        face = select_face(detected.faces, selection)
        probe = await self._backend.prepare(detected.image, (face,), self._model)
        vectors = await self._backend.embed([probe], self._model)
        height, width, _ = detected.image.shape
        row = NewImage(
            width=width,
            height=height,
            face=face,
            detector=self._detector,
            space=self._backend.space(self._model),
            vector=vectors[0],
        )
        return Enrolled(detected.image, row)


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
