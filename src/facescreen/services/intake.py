"""From bytes to faces: what detection, screening and enrollment all begin with."""

from dataclasses import dataclass

from facescreen import metrics
from facescreen.backends.base import Backend
from facescreen.config import DetectorName
from facescreen.domain.faces import Face, Pixels
from facescreen.errors import ImageTooLargeError
from facescreen.images.decode import decode, encode_jpeg, format_of
from facescreen.pool import WorkPool


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
        with metrics.image_seconds.labels("decode").time():
            return await self._pool.run(decode, data, max_pixels=self._max_pixels)

    async def shown(self, data: bytes) -> bytes:
        """The image as every browser shows it: HEIC, AVIF and TIFF as JPEG; raises what ``decode`` raises."""
        if format_of(data) not in {"HEIF", "AVIF", "TIFF"}:
            return data
        return await self._pool.run(encode_jpeg, await self.decode(data))

    async def detect(self, data: bytes, detector: DetectorName) -> Detected:
        """Decode and find every face."""
        image = await self.decode(data)
        return Detected(image, await self._backend.detect(image, detector))
