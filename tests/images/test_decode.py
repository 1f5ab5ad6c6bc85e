import io
import struct
import time
import zlib
from functools import cache
from typing import Any

import cv2
import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facescreen.domain.faces import Pixels
from facescreen.errors import ImageTooLargeError, ImageUndecodableError, UnsupportedFormatError
from facescreen.images.decode import (
    MAX_GIF_BLOCKS,
    MAX_JPEG_FILL,
    MAX_JPEG_SCANS,
    MAX_JPEG_SEGMENTS,
    MAX_PNG_CHUNKS,
    decode,
    encode_jpeg,
    format_of,
)
from tests.images.crafted import entry, frame_of, gif_of, gigapixel, heif_of, tiff_of
from tests.images.crafted import saved as encoded

PLENTY = 10_000_000


@cache
def photo(width: int = 96, height: int = 64) -> Image.Image:
    """Smooth as photos are, and like none of its mirror images."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = np.dstack([x**2, np.sin(5 * x + 3 * y) / 2 + 0.5, (1 - x) * y])
    return Image.fromarray((255 * waves).round().astype(np.uint8))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int) -> bytes:
    """A PNG with a correct header of that size and hardly any pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def assert_close(pixels: Pixels, expected: Pixels, tolerance: float) -> None:
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(float) - expected).mean() <= tolerance


@pytest.mark.parametrize(
    ("file_format", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95}, 4),
        ("JPEG", {"quality": 95, "progressive": True, "subsampling": 0}, 4),
        ("JPEG", {"quality": 95, "restart_marker_rows": 1}, 4),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 5),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_deflate"}, 0),
        ("TIFF", {"compression": "packbits"}, 0),
        ("TIFF", {"compression": "jpeg"}, 4),
        ("HEIF", {}, 4),
        ("HEIF", {"tile_size": 32}, 4),
        ("AVIF", {}, 4),
    ],
)
def test_every_format_gives_the_picture(file_format: str, options: dict[str, Any], tolerance: float) -> None:
    data = encoded(photo(), file_format, **options)
    pixels = decode(data, max_pixels=PLENTY)
    assert format_of(data) == file_format
    assert_close(pixels, np.asarray(photo()), tolerance)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [
        *(("JPEG", mode) for mode in ("1", "L", "CMYK", "YCbCr")),
        *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGBA")),
        *(("WEBP", mode) for mode in ("L", "LA", "P", "RGBA")),
        *(("BMP", mode) for mode in ("1", "L", "P", "RGBA")),
        *(("GIF", mode) for mode in ("1", "L", "LA", "P", "RGBA")),
        *(("TIFF", mode) for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr")),
        *(("HEIF", mode) for mode in ("L", "LA", "RGBA")),
        *(("AVIF", mode) for mode in ("L", "LA", "P", "RGBA")),
    ],
)
def test_every_mode_gives_the_picture(file_format: str, mode: str) -> None:
    picture = photo().convert(mode)
    assert_close(decode(encoded(picture, file_format), max_pixels=PLENTY), np.asarray(picture.convert("RGB")), 14)


def test_jpeg_equals_the_reference_decoder() -> None:
    for picture in (photo(), photo().convert("L")):
        data = encoded(picture, "JPEG", quality=90)
        with Image.open(io.BytesIO(data)) as reference:
            np.testing.assert_array_equal(decode(data, max_pixels=PLENTY), np.asarray(reference.convert("RGB")))


def test_sixteen_bits_keep_the_upper_byte() -> None:
    grey = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    expected = np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    for picture in (grey, np.dstack([grey, grey, grey])):
        for kind in (".png", ".tiff"):
            _, data = cv2.imencode(kind, picture)
            np.testing.assert_array_equal(decode(data.tobytes(), max_pixels=PLENTY), expected)


def test_ten_bits_of_a_telephone_become_eight() -> None:
    grey = np.asarray(photo().convert("L")).astype(np.uint16) * 257
    data = encoded(Image.fromarray(grey), "HEIF")
    assert pillow_heif.open_heif(data).info["bit_depth"] == 10
    assert_close(decode(data, max_pixels=PLENTY), np.asarray(photo().convert("L").convert("RGB")), 4)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "GIF", "TIFF", "HEIF", "AVIF"])
def test_transparency_becomes_white(file_format: str) -> None:
    picture = Image.new("RGBA", (128, 64), (200, 0, 0, 255))
    picture.paste((0, 0, 200, 0), (64, 0, 128, 64))
    pixels = decode(
        encoded(picture, file_format, **({"lossless": True} if file_format == "WEBP" else {})), max_pixels=PLENTY
    )
    assert_close(pixels[:, 64:], np.full((64, 64, 3), 255, np.uint8), 0)
    assert_close(pixels[:, :64], np.full((64, 64, 3), (200, 0, 0), np.uint8), 3)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_an_animation_gives_its_first_frame(file_format: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
    assert_close(decode(data, max_pixels=PLENTY), np.asarray(frames[0]), 2)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
@pytest.mark.parametrize(
    ("orientation", "stored_as"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_all_orientations_give_the_same_upright_picture(
    file_format: str, orientation: int, stored_as: Image.Transpose | None
) -> None:
    stored = photo() if stored_as is None else photo().transpose(stored_as)
    exif = Image.Exif()
    exif[0x0112] = orientation
    # The encoders of HEIF and AVIF write boxes that say so, as telephones do; in HEIF they stand beside the EXIF.
    as_saved = exif.tobytes() if file_format == "HEIF" else exif
    pixels = decode(encoded(stored, file_format, exif=as_saved, quality=95), max_pixels=PLENTY)
    assert_close(pixels, np.asarray(photo()), 5)
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", bytes(40)])
@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on damaged metadata
def test_unreadable_exif_is_no_reason_to_refuse_a_picture(exif: bytes) -> None:
    assert decode(encoded(photo(), "JPEG", exif=exif), max_pixels=PLENTY).shape == (64, 96, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"BMW is a brand, and this is a text about it",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\0\0\0\x18ftypmp42\0\0\0\0isommp42",
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
        b"\xff\x0a" + bytes(100),
        b"%PDF-1.7",
        b"RIFF\x24\0\0\0WAVEfmt ",
        encoded(photo(), "ICO"),
        encoded(photo(), "TIFF", big_tiff=True),
        encoded(photo().convert("F"), "TIFF"),
        encoded(photo().convert("I"), "TIFF"),
        tiff_of(8, 8, entry(254, 4, 1, 1)),
        tiff_of(8, 8, entry(259, 3, 1, 6)),
        tiff_of(8, 8, entry(50706, 1, 4, 1)),
    ],
)
def test_other_formats_are_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedFormatError):
        decode(data, max_pixels=PLENTY)


def test_run_length_encoded_bitmaps_are_unsupported() -> None:
    data = bytearray(encoded(photo().convert("P"), "BMP"))
    data[30] = 1
    with pytest.raises(UnsupportedFormatError):
        decode(bytes(data), max_pixels=PLENTY)


@pytest.mark.parametrize(
    ("width", "height"), [(40_000, 25_000), (0, 10), (10, 0), (65_501, 100), (65_500, 1), (1, 65_500), (2**31 - 1, 1)]
)
def test_size_is_judged_from_the_header(width: int, height: int) -> None:
    with pytest.raises(ImageTooLargeError):
        decode(png_of(width, height), max_pixels=PLENTY)


@pytest.mark.parametrize("file_format", ["JPEG", "BMP", "GIF", "TIFF"])
def test_no_size_at_all_is_no_size_to_decode(file_format: str) -> None:
    data = bytearray(encoded(photo(), file_format))
    width_at = {"JPEG": data.find(b"\xff\xc0") + 7, "BMP": 18, "GIF": 6, "TIFF": 18}[file_format]
    data[width_at : width_at + 2] = bytes(2)
    with pytest.raises(ImageTooLargeError):
        decode(bytes(data), max_pixels=PLENTY)


def test_a_webp_canvas_is_judged_before_it_is_made() -> None:
    data = bytearray(encoded(photo(), "WEBP", lossless=True, exif=b"II*\0"))
    assert data[12:16] == b"VP8X"
    data[24:30] = b"\xff\xff\x00\xff\xff\x00"
    with pytest.raises(ImageTooLargeError):
        decode(bytes(data), max_pixels=PLENTY)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "HEIF", "AVIF"])
def test_the_limit_is_the_last_size_that_is_decoded(file_format: str) -> None:
    data = encoded(photo(), file_format)
    assert decode(data, max_pixels=96 * 64).shape == (64, 96, 3)
    with pytest.raises(ImageTooLargeError):
        decode(data, max_pixels=96 * 64 - 1)


@pytest.mark.parametrize(
    "data",
    [
        encoded(photo(), "JPEG"),
        encoded(photo(), "JPEG", progressive=True),
        encoded(photo().convert("CMYK"), "JPEG"),
        encoded(photo(), "PNG"),
        encoded(photo(), "WEBP"),
        encoded(photo(), "BMP"),
        encoded(photo(), "TIFF"),
        encoded(photo(), "TIFF", compression="tiff_deflate"),
        encoded(photo(), "TIFF", compression="jpeg"),
        encoded(photo(), "HEIF"),
        encoded(photo(), "AVIF"),
    ],
    ids=["jpeg", "progressive", "cmyk", "png", "webp", "bmp", "tiff", "deflate", "jpeg in tiff", "heif", "avif"],
)
def test_truncation_is_refused_wherever_it_happens(data: bytes) -> None:
    for length in {*range(40, len(data), max(1, len(data) // 200)), *range(len(data) - 30, len(data))}:
        with pytest.raises(ImageUndecodableError):
            decode(data[:length], max_pixels=PLENTY)


def test_what_follows_a_jpeg_is_ignored() -> None:
    data = encoded(photo(), "JPEG")
    np.testing.assert_array_equal(
        decode(data + b"PK\x03\x04" + bytes(1000), max_pixels=PLENTY), decode(data, max_pixels=PLENTY)
    )


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = encoded(photo().convert("L"), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    assert decode(data[:-2] + last_scan * 10 + data[-2:], max_pixels=PLENTY).shape == (64, 96, 3)
    with pytest.raises(ImageUndecodableError):
        decode(data[:-2] + last_scan * MAX_JPEG_SCANS + data[-2:], max_pixels=PLENTY)


@pytest.mark.parametrize(
    "data",
    [
        heif_of(parts={1: [2] * 60_000}),
        heif_of(parts={1: [2] * 60_000}, side=8),
        heif_of(parts={item: [item + 1] * 2 for item in range(1, 31)}, side=64),
        tiff_of(8, 8, entry(322, 4, 1, 65_536), entry(323, 4, 1, 65_536), entry(324, 4, 1, 8)),
    ],
    ids=["large parts", "many parts", "a doubling", "a tile of four gigapixels"],
)
def test_a_small_file_is_no_large_work(data: bytes) -> None:
    began = time.process_time()
    with pytest.raises(ImageTooLargeError):
        decode(data, max_pixels=50_000_000)
    assert time.process_time() - began <= 0.5


def test_the_formats_of_telephones_are_known_to_the_decoder_alone() -> None:
    """Nothing else in the process that opens pictures, with guards or without, has got another parser."""
    decode(encoded(photo(), "HEIF"), max_pixels=PLENTY)
    Image.init()
    assert "HEIF" not in Image.OPEN


SEEDS = [
    encoded(photo(), "JPEG"),
    encoded(
        photo(),
        "JPEG",
        progressive=True,
        exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
    ),
    encoded(photo(), "PNG"),
    encoded(photo().quantize(16), "PNG"),
    encoded(photo(), "WEBP"),
    encoded(photo(), "GIF"),
    encoded(photo(), "BMP"),
    encoded(photo(), "TIFF"),
    encoded(photo(), "TIFF", compression="jpeg"),
    encoded(photo(), "HEIF"),
    encoded(photo(), "AVIF"),
]


@settings(deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=4)), min_size=1, max_size=8),
    near_the_header=st.booleans(),
)
@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on damaged metadata
def test_damage_is_a_picture_or_a_documented_error(
    seed: bytes, changes: list[tuple[int, bytes]], near_the_header: bool
) -> None:
    data = bytearray(seed)
    for position, replacement in changes:
        start = position % (100 if near_the_header else len(data))
        data[start : start + len(replacement)] = replacement
    try:
        pixels = decode(bytes(data), max_pixels=100_000)
    except (UnsupportedFormatError, ImageTooLargeError, ImageUndecodableError):
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.size <= 300_000


def test_encoding_keeps_the_picture_and_nothing_else() -> None:
    pixels = np.asarray(photo())
    data = encode_jpeg(pixels, quality=95)
    assert_close(decode(data, max_pixels=PLENTY), pixels, 4)
    with Image.open(io.BytesIO(data)) as image:
        assert not image.getexif()
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert len(encode_jpeg(pixels, quality=50)) < len(data)


def test_a_gigapixel_is_refused_before_anything_is_decoded() -> None:
    data = gigapixel()
    assert len(data) < 130_000
    began = time.process_time()
    for _ in range(20):
        with pytest.raises(ImageTooLargeError):
            decode(data, max_pixels=50_000_000)
    # One decoding alone takes half a second; the limit for a refusal is 50 milliseconds.
    assert time.process_time() - began <= 20 * 0.05


@pytest.mark.parametrize(
    "data",
    [
        encoded(photo(), "JPEG")[:2] + b"\xff\xe5\0\2" * MAX_JPEG_SEGMENTS + encoded(photo(), "JPEG")[2:],
        encoded(photo(), "JPEG")[:2] + b"\xff" * (MAX_JPEG_FILL + 2) + encoded(photo(), "JPEG")[2:],
        encoded(photo(), "PNG")[:33] + chunk(b"tIME", b"") * MAX_PNG_CHUNKS + encoded(photo(), "PNG")[33:],
        gif_of(b"!\xf9\0" * MAX_GIF_BLOCKS, frame_of(0, 0, 8, 8)),
        gif_of(b"!\xfe" + b"\1a" * MAX_GIF_BLOCKS + b"\0", frame_of(0, 0, 8, 8)),
        gif_of(b"\x99" * MAX_GIF_BLOCKS, frame_of(0, 0, 8, 8)),
        b"II*\0\x08\0\0\0\xff\xff" + entry(1, 3, 1, 6) * 65_535,
        tiff_of(8, 8, entry(324, 4, 1_000_000, 8)) + bytes(4_000_000),
        heif_of(parts={1: list(range(2, 900))}, side=8, size=10_000),
        heif_of(parts={1: [2], 2: [1]}),
    ],
    ids=[
        "segments",
        "fill bytes",
        "chunks",
        "extensions",
        "comments",
        "unknown blocks",
        "entries",
        "tiles",
        "items of the whole file",
        "a part of itself",
    ],
)
def test_floods_are_refused_before_pillow_reads_them(data: bytes) -> None:
    with pytest.raises(ImageUndecodableError):
        decode(data, max_pixels=PLENTY)


def test_what_encoders_write_between_segments_is_no_flood() -> None:
    data = encoded(photo(), "JPEG")
    for padded in (data[:2] + b"\xff" * 100 + data[2:], data[:2] + b"\xff\xe5\0\2" * 500 + data[2:]):
        np.testing.assert_array_equal(decode(padded, max_pixels=PLENTY), decode(data, max_pixels=PLENTY))
    gif = gif_of(b"!\xfe" + (b"\xff" + bytes(255)) * 5_000 + b"\0", frame_of(0, 0, 8, 8))
    bare = gif_of(frame_of(0, 0, 8, 8))
    np.testing.assert_array_equal(decode(gif, max_pixels=PLENTY), decode(bare, max_pixels=PLENTY))
    png = encoded(photo(), "PNG")
    padded = png[:33] + chunk(b"tIME", b"") * 10_000 + png[33:]
    np.testing.assert_array_equal(decode(padded, max_pixels=PLENTY), decode(png, max_pixels=PLENTY))
