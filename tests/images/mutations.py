"""Valid pictures in every accepted format, and ways to damage them that can be repeated.

``python -m tests.images.mutations SEED FIRST COUNT`` decodes so many and writes the number of each before it does, so
that whoever reads knows which one killed the process.
"""

import faulthandler
import struct
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from random import Random

import cv2
import numpy as np
from PIL import Image

from facescreen.errors import ImageTooLargeError, ImageUndecodableError, UnsupportedFormatError
from facescreen.images.decode import decode
from tests.images.crafted import encoded, photo

MAX_PIXELS = 100_000
INTERESTING = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)


def seeds() -> Iterator[bytes]:
    """One picture of each kind."""
    yield encoded("JPEG")
    yield encoded("JPEG", progressive=True)
    yield encoded("JPEG", "L")
    yield encoded("JPEG", "CMYK")
    yield encoded("JPEG", subsampling=0, restart_marker_blocks=4)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield encoded("JPEG", exif=exif)
    yield encoded("PNG", exif=exif)
    yield encoded("WEBP", exif=exif)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield encoded("PNG", mode)
    yield cv2.imencode(".png", np.arange(48 * 48 * 3, dtype=np.uint16).reshape(48, 48, 3) * 9)[1].tobytes()
    yield _interlaced()
    yield encoded("PNG", save_all=True, append_images=_others())
    yield encoded("PNG", "P", transparency=3)
    yield encoded("WEBP", lossless=True)
    yield encoded("WEBP", quality=50)
    yield encoded("WEBP", "RGBA")
    yield encoded("WEBP", save_all=True, append_images=_others())
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield encoded("BMP", mode)
    for mode in ("1", "L", "P", "RGBA"):
        yield encoded("GIF", mode)
    yield encoded("GIF", save_all=True, append_images=_others())
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"):
        yield encoded("TIFF", mode)
    for compression in ("tiff_lzw", "jpeg", "tiff_deflate", "packbits"):
        yield encoded("TIFF", compression=compression, exif=exif)
    yield encoded("TIFF", save_all=True, append_images=_others())
    for mode in ("L", "RGB", "RGBA"):
        yield encoded("HEIF", mode)
        yield encoded("AVIF", mode)
    yield encoded("HEIF", exif=exif.tobytes())
    yield encoded("HEIF", tile_size=32)
    yield encoded("AVIF", exif=exif)
    yield encoded("AVIF", save_all=True, append_images=_others())


def mutated(random: Random) -> bytes:
    """A picture with one to six wounds."""
    data = bytearray(random.choice(_seeds()))
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        random.choice(_WOUNDS)(data, random)
    if random.random() < 0.3:
        _mend_checksums(data)
    return bytes(data)


def of_number(seed: str, number: int) -> bytes:
    """The mutation with this number."""
    return mutated(Random(f"{seed}/{number}"))  # noqa: S311 - can be repeated


def check(data: bytes) -> None:
    """It decodes to a picture within the limits, or to one of the documented errors."""
    try:
        pixels = decode(data, max_pixels=MAX_PIXELS)
    except (UnsupportedFormatError, ImageTooLargeError, ImageUndecodableError):
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert 0 < pixels.size <= 3 * MAX_PIXELS
    assert pixels.flags.c_contiguous


@cache
def _seeds() -> tuple[bytes, ...]:
    return tuple(seeds())


def _others() -> list[Image.Image]:
    return [photo().rotate(90), photo().rotate(180)]


def _interlaced() -> bytes:
    """Pillow writes none: Adam7, of one grey, whose rows are all alike."""
    passes = ((6, 6), (6, 6), (12, 6), (12, 12), (24, 12), (24, 24), (48, 24))
    rows = b"".join((b"\0" + bytes([90]) * width) * height for width, height in passes)
    header = struct.pack(">II5B", 48, 48, 8, 0, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _flip(data: bytearray, random: Random) -> None:
    for _ in range(random.choice((1, 1, 4, 32))):
        if data:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _flip_in_header(data: bytearray, random: Random) -> None:
    if data:
        data[random.randrange(min(len(data), 64))] = random.choice(INTERESTING)


def _number(data: bytearray, random: Random) -> None:
    """Some number becomes an extreme one."""
    width = random.choice((1, 2, 4))
    at = random.randrange(len(data) + 1)
    number = random.choice((0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1))
    data[at : at + width] = number.to_bytes(width, random.choice(("big", "little")))


def _cut(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data) + 1) :]


def _remove(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data) + 1)
    del data[at : at + random.choice((1, 2, 4, 12, 100))]


def _insert(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data) + 1)
    data[at:at] = random.randbytes(random.choice((1, 2, 4, 12, 100)))


def _duplicate(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data) + 1)
    piece = data[at : at + random.choice((2, 12, 100, 1_000))]
    data[at:at] = piece * random.choice((1, 2, 50))


def _splice(data: bytearray, random: Random) -> None:
    """The rest is another picture's, perhaps of another format."""
    other = random.choice(_seeds())
    data[random.randrange(len(data) + 1) :] = other[random.randrange(len(other)) :]


def _transplant(data: bytearray, random: Random) -> None:
    """A piece of another picture in the middle."""
    other = random.choice(_seeds())
    at, start = random.randrange(len(data) + 1), random.randrange(len(other))
    piece = other[start : start + random.choice((4, 30, 300))]
    data[at : at + len(piece)] = piece


_WOUNDS: tuple[Callable[[bytearray, Random], None], ...] = (
    _flip,
    _flip,
    _flip_in_header,
    _number,
    _cut,
    _remove,
    _insert,
    _duplicate,
    _splice,
    _transplant,
)


def _mend_checksums(data: bytearray) -> None:
    """Of a PNG, whose damage would be noticed by nothing else otherwise."""
    at = 8
    while data.startswith(b"\x89PNG") and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4


def main(seed: str, first: int, count: int) -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")  # Pillow's remarks on damaged metadata
    for number in range(first, first + count):
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        check(of_number(seed, number))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
