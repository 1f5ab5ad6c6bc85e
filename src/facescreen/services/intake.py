"""From bytes to faces: what detection, screening and enrollment all begin with."""

from dataclasses import dataclass
from enum import StrEnum

from facescreen.backends.base import Backend
from facescreen.config import DetectorName
from facescreen.domain.faces import Face, Pixels
from facescreen.errors import ImageTooLargeError, NoFaceError, SeveralFacesError
from facescreen.images.decode import decode
from facescreen.pool import WorkPool

_MINIMUM_SIDE = 32
"""Pixels of a face's shorter side below which a reference photo shows too little to recognize somebody by."""


class FaceSelection(StrEnum):
    """Which face of a reference photo is the person's."""

    SINGLE = "single"
    """The photo must hold exactly one usable face."""
    LARGEST = "largest"
    """The largest usable face of a group photo."""


@dataclass(frozen=True, slots=True)
class Detected:
    """An image and its faces."""

    image: Pixels
    faces: tuple[Face, ...]


class Intake:
    """Decodes and detects in the pool.

    Args:
        max_bytes: largest encoded image.
        max_pixels: largest width times height.
    """

    def __init__(self, *, backend: Backend, pool: WorkPool, max_bytes: int, max_pixels: int) -> None:
        self._backend = backend
        self._pool = pool
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels

    async def decode(self, data: bytes) -> Pixels:
        """Pixels of an encoded image; raises what :func:`facescreen.images.decode.decode` raises."""
        if len(data) > self._max_bytes:
            raise ImageTooLargeError(f"the image has more than {self._max_bytes} bytes")
        return await self._pool.run(decode, data, max_pixels=self._max_pixels)

    async def detect(self, data: bytes, detector: DetectorName) -> Detected:
        """Decode and find every face."""
        image = await self.decode(data)
        return Detected(image, await self._backend.detect(image, detector))


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
