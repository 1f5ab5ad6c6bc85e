"""Bytes to an upright RGB array, or a named error: the only decoder. And the way back, to JPEG."""

import io
import re
import struct
from collections.abc import Iterator
from typing import Literal, TypeAlias

import cv2
import numpy as np
import pillow_heif  # noqa: TID251 - the only decoder
from PIL import ExifTags, Image

from facescreen.domain.faces import Pixels
from facescreen.errors import ImageTooLargeError, ImageUndecodableError, InputError, UnsupportedFormatError
from facescreen.images import isobmff, tiff

ImageFormat: TypeAlias = Literal["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "HEIF", "AVIF"]

UNSUPPORTED = "the bytes are no JPEG, PNG, WebP, BMP, GIF, TIFF, HEIC or AVIF image"

MAX_SIDE = 65_500
"""Longest side that is decoded, in pixels: libjpeg's own limit (``JPEG_MAX_DIMENSION``), here for every format."""

MAX_ASPECT = 1_000
"""Longest to shortest side; a strip beyond it holds no face, and scaling it to a detector's input leaves nothing."""

MAX_JPEG_SCANS = 40
"""Each scan is a pass over every pixel and may cost a file only some bytes. Encoders write about ten."""

MAX_JPEG_SEGMENTS = 2_000
"""Pillow reads them one by one, in Python and under the GIL: twenty megabytes of empty ones would take ten seconds."""

MAX_JPEG_FILL = 1_000
"""Bytes between two segments; the standard allows any number, Pillow reads them one by one, encoders write none."""

MAX_PNG_CHUNKS = 20_000
"""For the same reason. Encoders write one for each 8 KB or more."""

MAX_GIF_BLOCKS = 20_000
"""Before the first frame, for the same reason; each has up to 255 bytes of a comment, a profile or other metadata."""

_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_MAGIC: tuple[tuple[bytes, ImageFormat], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (_PNG_START, "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    *((start, "TIFF") for start in tiff.BYTE_ORDERS),
)
_BMP_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}

_GIF_EXTENSION, _GIF_FRAME, _GIF_END = b"!,;"

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_JPEG_SOS, _JPEG_EOI = 0xDA, 0xD9
_JPEG_FRAMES = {0xC0, 0xC1, 0xC2}
"""Baseline, extended and progressive: the frames that libjpeg decodes."""
_JPEG_SEGMENTS = {*_JPEG_FRAMES, 0xC4, 0xDA, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE}
"""Frames, tables, scans, restart interval, application data and comments: what a file may hold, each with a length."""


def format_of(data: bytes) -> ImageFormat | None:
    """The supported format that the bytes begin like, ``None`` for all others."""
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    # Two letters are too little to tell a picture from a text about BMW.
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    return isobmff.coding_of(data)


def decode(data: bytes, *, max_pixels: int) -> Pixels:
    """The picture as an upright, C-contiguous, writable RGB array.

    JPEG, PNG, WebP, BMP (not run-length encoded), GIF, TIFF (no raw file of a camera), HEIF coded as HEVC (.heic) and
    AVIF, judged by their first bytes. Of animations the first frame, and of a TIFF the first page. Deeper channels are
    cut to 8 bits; transparency is composited on white (a colour key in 16-bit grayscale is ignored). The orientation is
    applied, in HEIF the file's own and not EXIF's; everything else that the file says about itself is dropped. Blocks
    for the length of the decoding, mostly without the GIL: call it in a worker thread.

    Args:
        data: the whole file.
        max_pixels: largest width times height; Pillow's own ceiling of 178,956,970 holds besides.

    Raises:
        UnsupportedFormatError: the bytes begin like no supported format, or are of a kind of one that is not.
        ImageTooLargeError: the header claims too many pixels, a side of 0 or above ``MAX_SIDE``, a strip beyond
            ``MAX_ASPECT``, or parts that are too much work together. Nothing was decoded.
        ImageUndecodableError: the file is damaged or incomplete.
    """
    file_format = format_of(data)
    if file_format is None:
        raise UnsupportedFormatError(UNSUPPORTED)
    try:
        return _decode(data, file_format, max_pixels)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLargeError(f"the image has more than {max_pixels:,} pixels") from None
    # Damage surfaces as OSError, SyntaxError, ValueError, struct.error and more: Pillow promises no common base.
    except Exception as error:
        raise ImageUndecodableError(f"the {file_format} image is damaged or incomplete") from error


def encode_jpeg(pixels: Pixels, *, quality: int = 92) -> bytes:
    """A baseline JPEG with 4:2:0 chroma subsampling and no metadata."""
    _, encoded = cv2.imencode(
        ".jpg",
        cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR),
        [
            cv2.IMWRITE_JPEG_QUALITY,
            quality,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
        ],
    )
    return encoded.tobytes()


def _decode(data: bytes, file_format: ImageFormat, max_pixels: int) -> Pixels:
    if file_format == "HEIF":
        return _heif(data, max_pixels)
    # Pillow takes a side of 0 for damage, so the header is read here as well.
    if claimed := _claimed_size(data, file_format, max_pixels):
        _check_size(*claimed, max_pixels=max_pixels)
    with Image.open(io.BytesIO(data), formats=[file_format]) as image:  # noqa: TID251 - the only decoder
        _check_size(*image.size, max_pixels=max_pixels)
        if file_format == "BMP" and image.tile[0].codec_name == "bmp_rle":
            # Pillow expands these pixel by pixel in Python: seconds under the GIL for a small file.
            raise UnsupportedFormatError("run-length encoded BMP images are not supported")
        if file_format == "JPEG":
            end = _jpeg_end(data)
            # OpenCV does without Pillow's four-byte pixels and the copies to and from them, which hold the GIL.
            pixels = _by_opencv(data, end, image.size) if image.mode in {"RGB", "L"} else _by_pillow(image)
        else:
            pixels = _by_pillow(image)
        return _upright(pixels, _orientation(image))


def _heif(data: bytes, max_pixels: int) -> Pixels:
    """Decode without Pillow's registry of formats, where every ``Image.open`` of the process would find the decoder.

    libheif turns the picture as its boxes say. HEIF gives no meaning to the orientation in EXIF, which cameras write
    too: applied as well, it would turn the picture twice (ISO/IEC 23008-12, 6.5.10 and A.2.1).
    """
    isobmff.check_work(data, max_pixels=max_pixels)
    image = pillow_heif.open_heif(data)
    _check_size(*image.size, max_pixels=max_pixels)
    # Not `image.to_pillow()`, which reads EXIF and XMP for the orientation and fails where they are damaged.
    return _by_pillow(Image.frombytes(image.mode, image.size, image.data, "raw", image.mode, image.stride))


def _check_size(width: int, height: int, *, max_pixels: int) -> None:
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ImageTooLargeError(f"width and height must be between 1 and {MAX_SIDE:,} pixels")
    if width * height > max_pixels:
        raise ImageTooLargeError(f"the image has more than {max_pixels:,} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageTooLargeError(f"one side of the image is more than {MAX_ASPECT:,} times the other")


def _claimed_size(data: bytes, file_format: ImageFormat, max_pixels: int) -> tuple[int, int] | None:
    """Width and height by the header, ``None`` where Pillow asks before it makes the canvas.

    On the way, what costs much work before or beside the pixels is refused.
    """
    match file_format:
        case "JPEG":
            frame = next((at for marker, at in _jpeg_markers(data) if marker in _JPEG_FRAMES), len(data))
            height, width = struct.unpack_from(">HH", data, frame + 5)
        case "PNG":
            _check_png_chunks(data)
            width, height = struct.unpack_from(">II", data, 16)
        case "GIF":
            _check_gif_blocks(data)
            width, height = struct.unpack_from("<HH", data, 6)
        case "BMP":
            width, height = struct.unpack_from("<HH" if data[14] == 12 else "<ii", data, 18)
        case "TIFF":
            page = tiff.first_page(data, max_pixels=max_pixels)
            for begin, end in page.jpegs:
                _jpeg_end(data[begin:end])
            width, height = page.width, page.height
        case "AVIF":
            isobmff.check_work(data, max_pixels=max_pixels)
            return None
        case "WEBP" | "HEIF":
            return None
    return width, abs(height)


def _check_png_chunks(data: bytes) -> None:
    if _PNG_END not in data:
        raise ImageUndecodableError("the PNG image is incomplete")
    position = len(_PNG_START)
    for _ in range(MAX_PNG_CHUNKS):
        if position >= len(data):
            return
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    raise ImageUndecodableError(f"the PNG image has more than {MAX_PNG_CHUNKS:,} chunks")


def _check_gif_blocks(data: bytes) -> None:
    flags = data[10]
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    inside_extension = False
    for _ in range(MAX_GIF_BLOCKS):
        if inside_extension:
            length = data[position]
            inside_extension = length > 0
            position += 1 + length
        elif data[position] == _GIF_EXTENSION:
            inside_extension = True
            position += 2
        elif data[position] in {_GIF_FRAME, _GIF_END}:
            return
        else:
            position += 1  # Pillow looks for what it knows
    raise ImageUndecodableError(f"the GIF image has more than {MAX_GIF_BLOCKS:,} blocks before its first frame")


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker of a JPEG up to its end, and where it is; restart markers are part of the scans.

    Raises:
        ImageUndecodableError: another marker than a JPEG may hold, too many of them, too much between them, or no end.
    """
    position = 2
    most_between = MAX_JPEG_FILL
    for _ in range(MAX_JPEG_SEGMENTS):
        found = _JPEG_MARKER.search(data, position)
        if found is None or found.start() - position > most_between:
            break
        marker = data[found.start() + 1]
        yield marker, found.start()
        if marker == _JPEG_EOI:
            return
        if marker not in _JPEG_SEGMENTS:
            break
        if marker == _JPEG_SOS:
            most_between = len(data)  # what is scanned has no length
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    raise ImageUndecodableError("the JPEG image is damaged or incomplete")


def _jpeg_end(data: bytes) -> int:
    """The length of the JPEG without what follows it.

    libjpeg fills what is missing with grey and OpenCV does not ask whether it did, so the end marker, the number of
    scans and the markers between them are checked here.
    """
    scans = end = 0
    for marker, at in _jpeg_markers(data):
        scans += marker == _JPEG_SOS
        if scans > MAX_JPEG_SCANS:
            raise ImageUndecodableError(f"the JPEG image has more than {MAX_JPEG_SCANS} scans")
        end = at + 2
    return end


def _by_opencv(data: bytes, end: int, size: tuple[int, int]) -> Pixels:
    encoded = np.frombuffer(data, np.uint8, count=end)
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(encoded, flags)  # noqa: TID251 - the only decoder
    if pixels is None or pixels.shape != (size[1], size[0], 3):
        raise ImageUndecodableError("the JPEG image is damaged or incomplete")
    return pixels.astype(np.uint8, copy=False)


def _by_pillow(image: Image.Image) -> Pixels:
    if image.mode.startswith("I"):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[:, :, np.newaxis], 3, axis=2)
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        return np.array(canvas.convert("RGB"))
    return np.array(image.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    # A picture with unreadable EXIF is still a picture; the parser raises as freely as the decoders.
    except Exception:  # noqa: BLE001
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    match orientation:
        case 2:
            turned = cv2.flip(pixels, 1)
        case 3:
            turned = cv2.rotate(pixels, cv2.ROTATE_180)
        case 4:
            turned = cv2.flip(pixels, 0)
        case 5:
            turned = cv2.transpose(pixels)
        case 6:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
        case 7:
            turned = cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180)
        case 8:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)
        case _:
            return pixels
    return turned.astype(np.uint8, copy=False)
