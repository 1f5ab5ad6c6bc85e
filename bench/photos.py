"""Photos of 1, 2 and 4 megapixels, made from the samples, so that everybody can measure the same."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from facescreen.domain.faces import Pixels
from facescreen.images.decode import decode, encode_jpeg

SAMPLES = Path(__file__).parents[1] / "samples"
SIZES = {"1mp": (1152, 864), "2mp": (1632, 1224), "4mp": (2304, 1728)}
"""Width and height."""

_QUALITY = 90
_GRAIN = 2.0
"""Standard deviation of the noise, in grey levels: without any, enlarged pictures compress like no camera's."""

_NO_FACE_BELOW = 0.65
"""Share of the astronaut's photo above what no detector takes for a face, however large it is shown."""


def make_photos(folder: Path, sizes: Sequence[str] = tuple(SIZES)) -> list[Path]:
    """Four photos of each size as JPEG files: each sample alone, and both side by side in either order."""
    astronaut, hopper = portraits()
    paths = []
    for size in sizes:
        width, height = SIZES[size]
        for number, people in enumerate([(astronaut,), (hopper,), (astronaut, hopper), (hopper, astronaut)]):
            path = folder / f"{size}-{number}.jpg"
            path.write_bytes(encode_jpeg(compose(people, width, height), quality=_QUALITY))
            paths.append(path)
    return paths


def make_variants() -> Iterator[bytes]:
    """Small pictures of several sizes with one face, two and none, as JPEG: quick to screen, and all different."""
    astronaut, hopper = portraits()
    for step in range(6):
        height = 240 + 48 * step
        for people in ((astronaut,), (hopper,), (astronaut, hopper), ()):
            yield encode_jpeg(compose(people, height * 3 // 2, height), quality=_QUALITY)


def portraits() -> tuple[Pixels, Pixels]:
    astronaut, hopper = (
        decode((SAMPLES / name).read_bytes(), max_pixels=10**6) for name in ("astronaut.jpg", "grace_hopper.jpg")
    )
    return astronaut, hopper


def compose(people: tuple[Pixels, ...], width: int, height: int) -> Pixels:
    """Portraits side by side before clothes and things."""
    astronaut, _ = portraits()
    things = astronaut[int(_NO_FACE_BELOW * len(astronaut)) :]
    scale = max(width / things.shape[1], height / things.shape[0])
    background = cv2.resize(things, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    canvas = background[:height, :width].astype(np.float32)
    for place, person in enumerate(people):
        room = width // len(people)
        scale = min(0.9 * room / person.shape[1], 0.75 * height / person.shape[0])
        shown = cv2.resize(person, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        rows, columns, _ = shown.shape
        left = place * room + (room - columns) // 2
        canvas[height - rows :, left : left + columns] = shown
    grain = np.random.default_rng(width).normal(0, _GRAIN, canvas.shape)
    return np.clip(canvas + grain, 0, 255).astype(np.uint8)
