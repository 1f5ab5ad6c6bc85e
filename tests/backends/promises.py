"""What both kinds of backends promise."""

from facescreen.backends.base import Backend
from facescreen.domain.faces import Pixels


async def check_detection(backend: Backend, *, one: Pixels, nobody: Pixels) -> None:
    """The one face lies inside of its image, the person's own left on the right; nobody has none."""
    (face,) = await backend.detect(one, "centerface")
    height, width, _ = one.shape
    assert 0 <= face.box.x < face.box.x + face.box.w <= width
    assert 0 <= face.box.y < face.box.y + face.box.h <= height
    assert 0 < face.confidence <= 1
    assert face.landmarks.left_eye is not None
    assert face.landmarks.right_eye is not None
    assert face.landmarks.left_eye.x > face.landmarks.right_eye.x
    assert await backend.detect(nobody, "centerface") == ()
