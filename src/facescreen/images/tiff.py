"""What the first page of a TIFF asks of its decoder, read from its directory before anything is decoded."""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from facescreen.errors import ImageTooLargeError, ImageUndecodableError, UnsupportedFormatError

BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
"""By the first bytes of a file; BigTIFF begins in another way."""

MAX_ENTRIES = 1_000
"""Of the directory. Cameras write about fifty."""

MAX_PIECES = 20_000
"""Strips or tiles, which Pillow lists one by one in Python. 50 megapixels in tiles of 64 pixels are 12,000."""

MAX_COVERED = 4
"""Pixels that the tiles cover, in times the limit of a picture: those at the edges reach beyond it."""

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIP_OFFSETS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 273, 279, 322, 323, 324, 325
_SAMPLE_FORMAT, _DNG_VERSION = 339, 50706

_JPEG = 7
_COMPRESSIONS = {1, 2, 3, 4, 5, _JPEG, 8, 32773, 32946}
"""None, CCITT, LZW, JPEG, Deflate (also by its old number) and PackBits."""

_WHITE_IS_ZERO = 0
_UNSIGNED = {1, 4}
"""And what nobody defined, which is the same in practice."""

_REDUCED = 1
"""Bit of the kind of page: a smaller copy of another page, as cameras put before their raw data."""

_TYPES = {1: "B", 3: "H", 4: "I"}
"""Unsigned integers of 8, 16 and 32 bits; the tags above have no other type."""


@dataclass(frozen=True, slots=True)
class FirstPage:
    """The first page.

    Attributes:
        width, height: in pixels, as it is stored.
        jpegs: where each piece begins and ends, if the pieces are JPEGs.
    """

    width: int
    height: int
    jpegs: Sequence[tuple[int, int]]


def first_page(data: bytes, *, max_pixels: int) -> FirstPage:
    """Read the directory of the first page.

    Raises:
        UnsupportedFormatError: it is the preview of a camera's raw file, or its pixels are of no kind that photos have.
        ImageTooLargeError: its tiles cover more than ``MAX_COVERED`` times ``max_pixels``.
        ImageUndecodableError: the directory is damaged or too long.
    """
    tags = _directory(data)
    if _one(tags, _SUBFILE, 0) & _REDUCED or _DNG_VERSION in tags:
        raise UnsupportedFormatError("raw files of cameras are not supported; export a JPEG")
    compression = _one(tags, _COMPRESSION, 1)
    if compression not in _COMPRESSIONS:
        raise UnsupportedFormatError("TIFF images of this compression are not supported; export a JPEG")
    bits = set(tags.get(_BITS, (1,)))
    is_inverted = 16 in bits and _one(tags, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO
    if not bits <= {1, 2, 4, 8, 16} or is_inverted or not set(tags.get(_SAMPLE_FORMAT, (1,))) <= _UNSIGNED:
        raise UnsupportedFormatError("TIFF images of this kind of pixels are not supported; save it with 8 or 16 bits")
    width, height = _one(tags, _WIDTH, 0), _one(tags, _HEIGHT, 0)
    offsets = (*tags.get(_STRIP_OFFSETS, ()), *tags.get(_TILE_OFFSETS, ()))
    if len(offsets) > MAX_PIECES:
        raise ImageUndecodableError(f"the TIFF image has more than {MAX_PIECES:,} strips or tiles")
    if _TILE_OFFSETS in tags:
        tile_width, tile_height = _one(tags, _TILE_WIDTH, 1), _one(tags, _TILE_HEIGHT, 1)
        across, down = math.ceil(width / max(tile_width, 1)), math.ceil(height / max(tile_height, 1))
        if across * tile_width * down * tile_height > MAX_COVERED * max_pixels:
            raise ImageTooLargeError(f"decoding the image takes more than one of {max_pixels:,} pixels may")
    sizes = (*tags.get(_STRIP_BYTES, ()), *tags.get(_TILE_BYTES, ()))
    pieces = [(offset, offset + size) for offset, size in zip(offsets, sizes, strict=False)]
    return FirstPage(width, height, pieces if compression == _JPEG else ())


def _directory(data: bytes) -> Mapping[int, Sequence[int]]:
    """The numbers of each tag in ``_READ``; none may stand there twice, as readers differ in which of two holds."""
    order = BYTE_ORDERS[data[:4]]
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        if count > MAX_ENTRIES:
            raise ImageUndecodableError(f"the TIFF image has more than {MAX_ENTRIES:,} entries in its directory")
        tags: dict[int, Sequence[int]] = {}
        for number in range(count):
            entry = at + 2 + 12 * number
            tag, kind, length = struct.unpack_from(f"{order}HHI", data, entry)
            if tag not in _READ:
                continue
            if kind not in _TYPES or tag in tags or length > len(data):
                raise ImageUndecodableError("the directory of the TIFF image is damaged")
            numbers = f"{order}{length}{_TYPES[kind]}"
            begin = entry + 8
            if struct.calcsize(numbers) > 4:
                (begin,) = struct.unpack_from(f"{order}I", data, begin)
            tags[tag] = struct.unpack_from(numbers, data, begin)
    except struct.error:
        raise ImageUndecodableError("the TIFF image is damaged or incomplete") from None
    return tags


def _one(tags: Mapping[int, Sequence[int]], tag: int, otherwise: int) -> int:
    numbers = tags.get(tag, ())
    return numbers[0] if numbers else otherwise


_READ = {
    _SUBFILE,
    _WIDTH,
    _HEIGHT,
    _BITS,
    _COMPRESSION,
    _PHOTOMETRIC,
    _STRIP_OFFSETS,
    _STRIP_BYTES,
    _TILE_WIDTH,
    _TILE_HEIGHT,
    _TILE_OFFSETS,
    _TILE_BYTES,
    _SAMPLE_FORMAT,
    _DNG_VERSION,
}
