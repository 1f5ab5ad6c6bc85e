"""Files that mean harm: bombs, lies in headers, floods, polyglots, cut-off files and formats that nobody takes.

``python -m tests.images.crafted FOLDER`` writes them out.
"""

import base64
import gzip
import io
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

PNG_START = b"\x89PNG\r\n\x1a\n"
LARGE = 1_000_000
"""Bytes of a flood; whatever takes longer than linear time shows with so many."""


@cache
def crafted() -> dict[str, bytes]:
    """Every file by its name."""
    return {
        f"{family.__name__}: {name}": data
        for family in (png, jpeg, gif, bmp, webp, tiff_pages, heif, exif, polyglot, other, cut_off)
        for name, data in family()
    }


def texts() -> dict[str, str]:
    """What may stand where a request names an image, and is none."""
    picture = base64.b64encode(encoded("PNG")).decode()
    return {
        "base64 of base64": base64.b64encode(picture.encode()).decode(),
        "data URL in a data URL": data_url(data_url(encoded("PNG")).encode()),
        "data URL of HTML": data_url(b"<script>alert(1)</script>", "text/html"),
        "data URL of SVG": "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        "data URL of nothing": "data:,",
        "data URL of an empty image": "data:image/png;base64,",
        "data URL without a comma": "data:image/png;base64" + "A" * 10_000,
        "data URL of percent signs": "data:image/png," + "%" * 1_000_000,
        "base64 of foreign letters": "\N{FULLWIDTH LATIN CAPITAL LETTER A}" * 10_000,
        "nothing but padding": "=" * 1_000_000,
        "nothing but white space": " \n" * 500_000,
        "white space between letters": "A \r\n" * 300_000,
        "one letter": "A",
        "a NUL": "\0",
        "a URL of a megabyte": "http://" + "a" * 1_000_000,
        "a URL of slashes": "http:" + "/" * 1_000_000 + "@",
        "a scheme of its own": "x-scheme:" + "y" * 1_000_000,
        "a path of dots": "../" * 300_000 + "etc/passwd",
        "/proc/self/mem": "/proc/self/mem",
        "/dev/zero": "/dev/zero",
        "a UNC path": "\\\\example.com\\share\\a.jpg",
        "a format string": "%s%n{0.__class__}${jndi:ldap://127.0.0.1/a}.jpg",
    }


def data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


@cache
def photo(mode: str = "RGB", side: int = 48) -> Image.Image:
    y, x = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    waves = np.dstack([x**2, np.sin(5 * x + 3 * y) / 2 + 0.5, (1 - x) * y])
    return Image.fromarray((255 * waves).astype(np.uint8)).convert(mode)


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """The picture in a format of Pillow's or as HEIF."""
    stream = io.BytesIO()
    if file_format == "HEIF":
        pillow_heif.from_pillow(image).save(stream, **options)
    else:
        image.save(stream, file_format, **options)
    return stream.getvalue()


def encoded(file_format: str, mode: str = "RGB", **options: Any) -> bytes:
    return saved(photo(mode), file_format, **options)


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def ihdr(width: int, height: int, *rest: int) -> bytes:
    """Bit depth, colour type, compression, filter and interlace follow; 8-bit grey without them."""
    return chunk(b"IHDR", struct.pack(">II5B", width, height, *(rest or (8, 0, 0, 0, 0))))


def png_of(*chunks: bytes) -> bytes:
    return PNG_START + b"".join(chunks) + chunk(b"IEND")


@cache
def zeros(count: int) -> bytes:
    """So many zeros in about a thousandth of the bytes."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join([*parts, packer.compress(bytes(count % (1 << 20))), packer.flush()])


@cache
def gigapixel() -> bytes:
    """31,623 x 31,623 pixels of one bit, all of them there, in 120 KB."""
    side = 31_623
    return png_of(ihdr(side, side, 1, 0, 0, 0, 0), chunk(b"IDAT", zeros(side * (1 + (side + 7) // 8))))


def png() -> Iterator[tuple[str, bytes]]:
    pixels = chunk(b"IDAT", zlib.compress(bytes(8 * 9)))
    small = ihdr(8, 8)
    yield "a gigapixel in 120 KB", gigapixel()
    for width, height in ((65_500, 1), (1, 65_500), (0, 0), (0, 10), (2**31 - 1, 1), (2**32 - 1, 2**32 - 1)):
        yield f"{width} x {height}", png_of(ihdr(width, height), pixels)
    for name, fields in {
        "bit depth 3": (3, 0, 0, 0, 0),
        "colour type 5": (8, 5, 0, 0, 0),
        "compression 1": (8, 0, 1, 0, 0),
        "filter 1": (8, 0, 0, 1, 0),
        "interlace 7": (8, 0, 0, 0, 7),
        "palette of 16 bits": (16, 3, 0, 0, 0),
    }.items():
        yield name, png_of(ihdr(8, 8, *fields), pixels)
    yield "no IHDR", png_of(pixels)
    yield "two IHDR", png_of(small, ihdr(5_000, 5_000), pixels)
    yield "a larger IHDR after the pixels", png_of(small, pixels, ihdr(5_000, 5_000), pixels)
    yield "IHDR of four bytes", png_of(chunk(b"IHDR", b"\0\0\0\1"), pixels)
    yield "wrong CRC", png_of(small[:-1] + b"\0", pixels)
    yield "no IDAT", png_of(small)
    yield "IDAT of another thing", png_of(small, chunk(b"IDAT", b"not zlib"))
    yield "IDAT too short", png_of(small, chunk(b"IDAT", zlib.compress(bytes(9))))
    yield "a hundred megabytes behind the pixels", png_of(small, chunk(b"IDAT", zeros(100 << 20)))
    yield "unknown filter", png_of(small, chunk(b"IDAT", zlib.compress(b"\x09" * 72)))
    yield "unknown critical chunk", png_of(small, chunk(b"EVIL"), pixels)
    yield "Apple's", png_of(chunk(b"CgBI", bytes(4)), small, pixels)
    yield "chunk of 4 GB", PNG_START + small + b"\xff\xff\xff\xffIDAT" + bytes(100)
    yield "chunk of -1 bytes", PNG_START + small + b"\x80\0\0\0IDAT" + bytes(100)
    yield "zTXt bomb", png_of(small, chunk(b"zTXt", b"a\0\0" + zeros(100 << 20)), pixels)
    yield "iTXt bomb", png_of(small, chunk(b"iTXt", b"a\0\1\0\0\0" + zeros(100 << 20)), pixels)
    yield "iCCP bomb", png_of(small, chunk(b"iCCP", b"a\0\0" + zeros(100 << 20)), pixels)
    yield "a hundred zTXt of a megabyte", png_of(small, *[chunk(b"zTXt", b"a\0\0" + zeros(1 << 20))] * 100, pixels)
    yield "flood of chunks", png_of(small, *[chunk(b"tIME")] * (LARGE // 12), pixels)
    yield "flood of IDAT", png_of(small, *[chunk(b"IDAT")] * (LARGE // 12), pixels)
    yield "flood after the pixels", png_of(small, pixels, *[chunk(b"tEXt", b"a\0b")] * (LARGE // 15))
    yield "palette missing", png_of(ihdr(8, 8, 8, 3, 0, 0, 0), pixels)
    yield (
        "palette of one colour",
        png_of(
            ihdr(8, 8, 8, 3, 0, 0, 0), chunk(b"PLTE", b"\1\2\3"), chunk(b"IDAT", zlib.compress(b"\0" + b"\xff" * 71))
        ),
    )
    yield "palette of 300 bytes and a half", png_of(ihdr(8, 8, 8, 3, 0, 0, 0), chunk(b"PLTE", bytes(301)), pixels)
    yield (
        "transparency of a thousand colours",
        png_of(ihdr(8, 8, 8, 3, 0, 0, 0), chunk(b"PLTE", bytes(768)), chunk(b"tRNS", bytes(1_000)), pixels),
    )
    yield "transparency of no bytes", png_of(small, chunk(b"tRNS"), pixels)
    yield "background and gamma of no bytes", png_of(small, chunk(b"bKGD"), chunk(b"gAMA"), chunk(b"pHYs"), pixels)
    frames = struct.pack(">II", 2**31 - 1, 0)
    outside = struct.pack(">5I2H2B", 0, 60_000, 60_000, 60_000, 60_000, 1, 1, 0, 0)
    yield "two billion frames", png_of(small, chunk(b"acTL", frames), pixels)
    yield "no frames", png_of(small, chunk(b"acTL", bytes(8)), pixels)
    yield (
        "frame outside of the canvas",
        png_of(small, chunk(b"acTL", struct.pack(">II", 1, 0)), chunk(b"fcTL", outside), pixels),
    )
    yield (
        "frames out of order",
        png_of(small, chunk(b"acTL", frames), chunk(b"fdAT", b"\xff\xff\xff\xff" + zlib.compress(bytes(72))), pixels),
    )


def segment(marker: int, body: bytes = b"") -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def _inserted(data: bytes, addition: bytes, *, before: int) -> bytes:
    """With something before the first of these markers."""
    at = data.index(bytes((0xFF, before)))
    return data[:at] + addition + data[at:]


def _patched(data: bytes, at: int, replacement: bytes) -> bytes:
    return data[:at] + replacement + data[at + len(replacement) :]


def jpeg() -> Iterator[tuple[str, bytes]]:
    whole = encoded("JPEG")
    frame = whole.index(b"\xff\xc0")
    progressive = encoded("JPEG", "L", progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    yield "ten thousand scans", progressive[:-2] + scan * 10_000 + progressive[-2:]
    yield "thirty scans of four megapixels", _scans_of(2_000, 30)
    for name, marker in (("DHT", 0xC4), ("DQT", 0xDB)):
        at = whole.index(bytes((0xFF, marker)))
        table = whole[at : at + 2 + int.from_bytes(whole[at + 2 : at + 4], "big")]
        yield f"flood of {name}", _inserted(whole, table * (LARGE // len(table)), before=marker)
    yield "flood of comments", _inserted(whole, segment(0xFE) * (LARGE // 4), before=0xDB)
    yield "flood of application data", _inserted(whole, segment(0xE5) * (LARGE // 4), before=0xDB)
    yield "flood of restarts", whole[:-2] + b"\xff\xd0" * (LARGE // 2) + whole[-2:]
    yield "flood of fill bytes", whole[:2] + b"\xff" * LARGE + whole[2:]
    yield "flood of stuffed bytes", whole[:-2] + b"\xff\0" * (LARGE // 2) + whole[-2:]
    yield "flood of starts", b"\xff\xd8" * (LARGE // 2) + whole
    yield "nothing but 0xFF", b"\xff\xd8" + b"\xff" * LARGE
    for name, height, width in (("65,535 x 65,535", 65_535, 65_535), ("no width", 48, 0), ("no height", 0, 48)):
        yield name, _patched(whole, frame + 5, struct.pack(">HH", height, width))
    yield "height told later", _patched(whole, frame + 5, b"\0\0")[:-2] + segment(0xDC, b"\xff\xdc") + whole[-2:]
    other_frame = _patched(whole[frame : frame + 19], 5, struct.pack(">HH", 20_000, 20_000))
    yield "another frame before the scan", _inserted(whole, other_frame, before=0xDA)
    yield "another frame after the scan", whole[:-2] + other_frame + whole[-2:]
    yield "a larger frame in a comment", _inserted(whole, segment(0xFE, other_frame), before=0xC0)
    yield "scan before the frame", whole[:2] + scan + whole[2:]
    for name, marker in (("lossless", 0xC3), ("arithmetic", 0xC9), ("differential", 0xC5), ("reserved", 0xC8)):
        yield f"{name} frame", _patched(whole, frame + 1, bytes((marker,)))
    yield "12 bits", _patched(whole, frame + 4, b"\x0c")
    for count in (0, 1, 2, 5, 255):
        yield f"{count} components", _patched(whole, frame + 9, bytes((count,)))
    for factor in (0x00, 0x44, 0xFF):
        yield f"sampling 0x{factor:02x}", _patched(whole, frame + 11, bytes((factor,)))
    yield "quantization table 9", _patched(whole, frame + 12, b"\x09")
    yield "no Huffman tables", _without(whole, 0xC4)
    yield "no quantization tables", _without(whole, 0xDB)
    yield "no frame", _without(whole, 0xC0)
    yield "no scan", whole[: whole.index(b"\xff\xda")] + b"\xff\xd9"
    yield "Huffman table of all ones", _patched(whole, whole.index(b"\xff\xc4") + 5, b"\xff" * 16)
    yield "segment of no length", _inserted(whole, b"\xff\xfe\0\0", before=0xDB)
    yield "segment beyond the end", whole[:2] + b"\xff\xe1\xff\xff" + whole[2:100]
    yield "start and end", b"\xff\xd8\xff\xd9"
    yield "start only", b"\xff\xd8\xff"
    yield "Adobe's transform 255", _inserted(whole, segment(0xEE, b"Adobe\0\x64\0\0\0\0\xff"), before=0xDB)
    yield "CMYK that says it is YCCK", encoded("JPEG", "CMYK").replace(b"Adobe", b"Adobf")
    profile = b"ICC_PROFILE\0\1\xff" + bytes(65_000)
    yield "a profile in 255 parts", _inserted(whole, segment(0xE2, profile) * 60, before=0xDB)
    yield (
        "several pictures of which none is there",
        _inserted(whole, segment(0xE2, b"MPF\0II*\0\x08\0\0\0\3\0" + b"\xff" * 36), before=0xDB),
    )
    yield (
        "Photoshop data that is none",
        _inserted(whole, segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\xff" + b"\xff" * 40), before=0xDB),
    )


@cache
def _scans_of(side: int, count: int) -> bytes:
    """A large progressive picture of one colour whose last scan comes again and again."""
    stream = io.BytesIO()
    Image.new("L", (side, side), 90).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * count + data[-2:]


def _without(data: bytes, marker: int) -> bytes:
    """Without all of these segments before the scan."""
    start = bytes((0xFF, marker))
    while (at := data.find(start, 0, data.index(b"\xff\xda"))) >= 0:
        data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    return data


def gif_of(*blocks: bytes, size: tuple[int, int] = (8, 8), start: bytes = b"GIF89a") -> bytes:
    palette = bytes(range(6))
    return start + struct.pack("<HHBBB", *size, 0x80, 0, 0) + palette + b"".join(blocks) + b"\x3b"


def frame_of(x: int, y: int, w: int, h: int, *, data: bytes | None = None, code_size: int | None = None) -> bytes:
    """A frame whose pixels are those of 8 x 8 black ones unless told otherwise."""
    black = io.BytesIO()
    Image.new("P", (8, 8)).save(black, "GIF")
    pixels = black.getvalue()[black.getvalue().index(b"\x2c") + 10 : -2]
    start = bytes((pixels[0] if code_size is None else code_size,))
    return b"\x2c" + struct.pack("<4HB", x, y, w, h, 0) + start + (pixels[1:] if data is None else data) + b"\0"


def gif() -> Iterator[tuple[str, bytes]]:
    yield "frame outside of the canvas", gif_of(frame_of(60_000, 60_000, 8, 8))
    yield "frame that makes it gigantic", gif_of(frame_of(0, 0, 65_535, 65_535))
    yield "frame of no size", gif_of(frame_of(0, 0, 0, 0))
    yield "canvas of no size", gif_of(frame_of(0, 0, 8, 8), size=(0, 0))
    yield "canvas of four gigapixels", gif_of(frame_of(0, 0, 8, 8), size=(65_535, 65_535))
    yield "no frame", gif_of()
    yield "nothing", b"GIF89a"
    yield "of an old kind", gif_of(frame_of(0, 0, 8, 8), start=b"GIF87a")
    for code_size in (0, 1, 12, 255):
        yield f"codes of {code_size} bits", gif_of(frame_of(0, 0, 8, 8, code_size=code_size))
    # Every code one longer than the last: the output grows with the square of the input.
    block = b"\xff" + bytes((code * 37 + 4) & 0xFF for code in range(255))
    yield "LZW that grows", gif_of(frame_of(0, 0, 3_000, 1_000, data=block * 400, code_size=8), size=(3_000, 1_000))
    yield "LZW of clear codes", gif_of(frame_of(0, 0, 8, 8, data=(b"\xff" + b"\x24\x49\x92" * 85) * 10_000))
    yield "flood of frames", gif_of(*[frame_of(0, 0, 8, 8)] * (LARGE // 16))
    yield "flood of comments", gif_of(b"\x21\xfe" + b"\1a" * (LARGE // 2) + b"\0", frame_of(0, 0, 8, 8))
    yield "flood of extensions", gif_of(*[b"\x21\xf9\0"] * (LARGE // 3), frame_of(0, 0, 8, 8))
    yield "unknown blocks", gif_of(b"\x99" * LARGE, frame_of(0, 0, 8, 8))
    yield "endless blocks", gif_of(frame_of(0, 0, 8, 8))[:-2] + b"\xff" * 10_000


def bmp_of(
    width: int, height: int, *, bits: int = 24, compression: int = 0, colours: int = 0, offset: int = 54
) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, offset) + header + bytes(1_000)


def bmp() -> Iterator[tuple[str, bytes]]:
    yield "upside down", bmp_of(8, -8)
    for width, height in ((8, -(2**31)), (-8, 8), (2**31 - 1, 2**31 - 1), (0, 8), (65_500, 1), (65_500, 700)):
        yield f"{width} x {height}", bmp_of(width, height, bits=1)
    for bits in (0, 2, 7, 64, 65_535):
        yield f"{bits} bits", bmp_of(8, 8, bits=bits)
    for compression, name in ((1, "RLE8"), (2, "RLE4"), (3, "bit fields"), (4, "JPEG"), (5, "PNG"), (255, "unknown")):
        yield f"compression {name}", bmp_of(8, 8, bits=8, compression=compression)
    yield "RLE bomb", bmp_of(7_000, 7_000, bits=8, compression=1) + b"\xff\0" * 1_000
    yield "two billion colours", bmp_of(8, 8, bits=8, colours=2**31 - 1)
    yield "pixels beyond the end", bmp_of(8, 8, offset=2**31 - 1)
    yield "pixels in the header", bmp_of(8, 8, offset=2)
    yield "another header's size", _patched(bmp_of(8, 8), 14, struct.pack("<I", 124))
    yield "old header", b"BM" + bytes(8) + struct.pack("<IIHHHH", 26, 12, 8, 8, 1, 24) + bytes(300)
    yield "a text about BMW", b"BMW is a brand, and this is a text about it"


def riff(*chunks: bytes, size: int | None = None) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def vp8x(width: int, height: int, flags: int = 0) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return riff_chunk(b"VP8X", struct.pack("<I", flags) + sides)


def webp() -> Iterator[tuple[str, bytes]]:
    lossless, lossy = encoded("WEBP", lossless=True)[12:], encoded("WEBP")[12:]
    yield "a canvas of many gigapixels", riff(vp8x(1 << 24, 1 << 24), lossy)
    yield "a larger canvas than picture", riff(vp8x(3_000, 3_000), lossy)
    yield "a smaller canvas than picture", riff(vp8x(1, 1), lossy)
    yield "a canvas and nothing on it", riff(vp8x(64, 64))
    yield "lossless of 16,384 x 16,384", riff(riff_chunk(b"VP8L", b"\x2f\xff\xff\xff\x0f" + bytes(50)))
    yield "lossy of 16,383 x 16,383", riff(riff_chunk(b"VP8 ", b"\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(50)))
    yield "both kinds at once", riff(lossless, lossy)
    yield "alpha without picture", riff(vp8x(48, 48, 0x10), riff_chunk(b"ALPH", bytes(20)))
    anim = riff_chunk(b"ANIM", bytes(6))
    outside = b"\xff\xff\xff" * 2 + b"\x2f\0\0" * 2 + bytes(4)
    yield "frame outside of the canvas", riff(vp8x(48, 48, 0x02), anim, riff_chunk(b"ANMF", outside + lossy))
    inside = bytes(6) + b"\x2f\0\0" * 2 + bytes(4)
    frames = [riff_chunk(b"ANMF", inside + lossy)] * 2_000
    yield "two thousand frames", riff(vp8x(48, 48, 0x02), anim, *frames)
    yield "flood of chunks", riff(vp8x(48, 48), *[riff_chunk(b"evil", b"")] * (LARGE // 8), lossy)
    for size in (0, 1, 2**32 - 1, 2**31):
        yield f"container of {size} bytes", riff(lossy, size=size)
    yield "no chunks", riff()
    yield "a sound", b"RIFF\x24\0\0\0WAVEfmt " + bytes(40)


def tiff(*entries: bytes, following: int = 0) -> bytes:
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", following)


def entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


def tiff_of(width: int, height: int, *entries: bytes) -> bytes:
    """A page of one grey strip of 100 bytes behind the directory, and more entries of it."""
    whole = [entry(256, 4, 1, width), entry(257, 4, 1, height), entry(258, 3, 1, 8), entry(262, 3, 1, 1), *entries]
    data = 8 + 2 + 12 * (len(whole) + 2) + 4
    return tiff(*whole, entry(273, 4, 1, data), entry(279, 4, 1, 100)) + bytes(100)


def tiff_pages() -> Iterator[tuple[str, bytes]]:
    for width, height in ((31_623, 31_623), (65_500, 1), (0, 0), (2**31 - 1, 1), (2**32 - 1, 2**32 - 1)):
        yield f"{width} x {height}", tiff_of(width, height)
    yield "a directory beyond the end", b"II*\0\xff\xff\xff\xff"
    yield "a directory of 65,535 entries", b"II*\0\x08\0\0\0\xff\xff" + entry(1, 3, 1, 6) * 65_535
    yield "width and width", tiff_of(8, 8, entry(256, 4, 1, 60_000))
    yield "a million strips", tiff_of(8, 8, entry(324, 4, 1_000_000, 8)) + bytes(4_000_000)
    yield (
        "tiles of four gigapixels",
        tiff_of(8, 8, entry(322, 4, 1, 65_536), entry(323, 4, 1, 65_536), entry(324, 4, 1, 8)),
    )
    yield "tiles of no size", tiff_of(8, 8, entry(322, 4, 1, 0), entry(323, 4, 1, 0), entry(324, 4, 1, 8))
    for name, code in (("JPEG of old", 6), ("LZMA", 34925), ("WebP", 50001), ("an unknown kind", 9)):
        yield f"compressed by {name}", tiff_of(8, 8, entry(259, 3, 1, code))
    yield "a preview", tiff_of(8, 8, entry(254, 4, 1, 1))
    yield "a negative", tiff_of(8, 8, entry(50706, 1, 4, 1))


def box(kind: bytes, *bodies: bytes) -> bytes:
    body = b"".join(bodies)
    return struct.pack(">I", 8 + len(body)) + kind + body


def heif_of(*, parts: dict[int, list[int]], side: int = 4_000, size: int = 10) -> bytes:
    """Pictures of that size, the first made of the others, and each of as many bytes at the same place.

    Args:
        parts: what each picture is made of, repetitions included.
    """
    count = max(max([item, *others]) for item, others in parts.items())
    kinds = [b"iovl" if item in parts else b"hvc1" for item in range(1, count + 1)]
    infos = [box(b"infe", struct.pack(">IHH", 2 << 24, item, 0), kind, b"\0") for item, kind in enumerate(kinds, 1)]
    places = [struct.pack(">HHHII", item, 0, 1, 0, size) for item in range(1, count + 1)]
    kept = [struct.pack(">HBB", item, 1, 1) for item in range(1, count + 1)]
    references = [
        box(b"dimg", struct.pack(f">HH{len(others)}H", item, len(others), *others)) for item, others in parts.items()
    ]
    return box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(
        b"meta",
        bytes(4),
        box(b"hdlr", bytes(8), b"pict", bytes(13)),
        box(b"pitm", struct.pack(">IH", 0, 1)),
        box(b"iloc", struct.pack(">IBBH", 0, 0x44, 0, count), *places),
        box(b"iinf", struct.pack(">IH", 0, count), *infos),
        box(
            b"iprp",
            box(b"ipco", box(b"ispe", struct.pack(">III", 0, side, side))),
            box(b"ipma", struct.pack(">II", 0, count), *kept),
        ),
        box(b"iref", bytes(4), *references),
    )


def heif() -> Iterator[tuple[str, bytes]]:
    start = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    yield "HEIC of zeros", start + bytes(100)
    yield "HEIC of one box without end", start + b"\0\0\0\0meta"
    yield "HEIC whose box is longer than the file", start + b"\x7f\0\0\0meta" + bytes(100)
    yield "HEIC of empty boxes", start + box(b"free") * (LARGE // 8)
    yield "one large picture sixty thousand times", heif_of(parts={1: [2] * 60_000})
    yield "a small picture sixty thousand times", heif_of(parts={1: [2] * 60_000}, side=8)
    yield "a doubling thirty times", heif_of(parts={item: [item + 1] * 2 for item in range(1, 31)}, side=64)
    yield "a picture that is made of itself", heif_of(parts={1: [2], 2: [1]})
    yield "items of the whole file", heif_of(parts={1: list(range(2, 900))}, side=8, size=10_000)
    for file_format in ("HEIF", "AVIF"):
        whole = encoded(file_format)
        size = whole.index(b"ispe") + 8
        for width, height in ((0, 48), (65_500, 1), (2**32 - 1, 2**32 - 1), (1, 1), (96, 96), (30_000, 30_000)):
            yield (
                f"{file_format} that says {width} x {height}",
                _patched(whole, size, struct.pack(">II", width, height)),
            )
        yield f"{file_format} of another brand", whole.replace(b"avif" if file_format == "AVIF" else b"heic", b"hevc")
    yield "AVIF sequence of nothing", b"\0\0\0\x18ftypavis\0\0\0\0avifavis" + bytes(100)


def exif() -> Iterator[tuple[str, bytes]]:
    for name, data in {
        "an IFD that follows itself": tiff(entry(0x0112, 3, 1, 6), following=8),
        "a sub-IFD that is its own": tiff(entry(0x8769, 4, 1, 8), entry(0x8825, 4, 1, 8), entry(0xA005, 4, 1, 8)),
        "values of four billion": tiff(entry(0x0112, 5, 2**32 - 1, 0)),
        "values beyond the end": tiff(entry(0x010F, 2, 2**31, 2**31)),
        "orientation 65,535": tiff(entry(0x0112, 3, 1, 65_535)),
        "orientation of text": tiff(entry(0x0112, 2, 4, 0x41414141)),
        "orientation of many": tiff(entry(0x0112, 3, 1_000, 0)),
        "orientation by zero": tiff(entry(0x0112, 5, 1, 0)),
        "an unknown kind": tiff(entry(0x0112, 99, 1, 6)),
        "65,535 entries": b"II*\0\x08\0\0\0\xff\xff" + entry(0x0112, 3, 1, 6) * 5_000,
        "an IFD beyond the end": b"MM\0*\xff\xff\xff\xff",
        "no IFD": b"II",
    }.items():
        yield f"JPEG with {name}", _inserted(encoded("JPEG"), segment(0xE1, b"Exif\0\0" + data), before=0xDB)
        yield f"PNG with {name}", _with_exif(data)
    yield (
        "JPEG of ten megabytes of it",
        _inserted(encoded("JPEG"), segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 150, before=0xDB),
    )
    yield (
        "WebP with an IFD that follows itself",
        riff(vp8x(48, 48, 0x08), encoded("WEBP")[12:], riff_chunk(b"EXIF", tiff(entry(0x0112, 3, 1, 6), following=8))),
    )


def _with_exif(data: bytes) -> bytes:
    whole = encoded("PNG")
    return whole[:33] + chunk(b"eXIf", data) + whole[33:]


def polyglot() -> Iterator[tuple[str, bytes]]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("evil.sh", "#!/bin/sh\n")
    whole = encoded("JPEG")
    yield "JPEG and ZIP", whole + archive.getvalue()
    yield "ZIP and JPEG", archive.getvalue() + whole
    yield "PDF and JPEG", b"%PDF-1.7\n" + whole
    yield "JPEG and PDF", whole + b"%PDF-1.7\n%%EOF"
    yield "JPEG with a page in a comment", _inserted(whole, segment(0xFE, b"<script>alert(1)</script>"), before=0xDB)
    yield "GIF and JavaScript", b"GIF89a/*" + bytes(100) + b"*/=1;alert(1)"
    yield "GIF and page", gif_of(frame_of(0, 0, 8, 8)) + b"<script>alert(1)</script>"
    yield "PNG and PHP", _inserted_text(b"<?php system($_GET[0]); ?>")
    yield "PNG and JPEG", encoded("PNG") + whole
    yield "JPEG that begins as PNG", PNG_START + whole[8:]
    yield "BMP and JavaScript", bmp_of(8, 8) + b"*/=1;alert(1)"


def _inserted_text(text: bytes) -> bytes:
    whole = encoded("PNG")
    return whole[:33] + chunk(b"tEXt", b"Comment\0" + text) + whole[33:]


def other() -> Iterator[tuple[str, bytes]]:
    yield "nothing", b""
    yield "one byte", b"\xff"
    yield "a text", b"This is no picture.\n" * 100
    yield "a text in UTF-16", "This is no picture".encode("utf-16")
    yield "base64 of a picture", base64.b64encode(encoded("PNG"))
    yield "a picture in gzip", gzip.compress(encoded("JPEG"))
    yield "a picture after a byte order mark", b"\xef\xbb\xbf" + encoded("PNG")
    yield "a picture after a NUL", b"\0" + encoded("PNG")
    for file_format in ("ICO", "PPM", "TGA", "PCX", "DDS", "SGI", "JPEG2000", "EPS", "PDF"):
        yield file_format, encoded(file_format)
    yield "SVG", b"<svg xmlns='http://www.w3.org/2000/svg' width='1000000' height='1000000'/>"
    yield (
        "XML with entities",
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd"><!ENTITY y "&x;&x;&x;">]><svg>&y;</svg>'),
    )
    yield "MP4", b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(100)
    yield "Matroska", b"\x1a\x45\xdf\xa3" + bytes(100)
    yield "PSD", b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 300_000, 300_000, 8, 3)
    yield "JPEG XL", b"\xff\x0a" + bytes(100)
    yield "PostScript", b"%!PS-Adobe-3.0\n(/etc/passwd) (r) file\n"
    yield "FITS", b"SIMPLE  =                    T" + b" " * 50
    yield "pickle", b"\x80\x04\x95cposix\nsystem\n(S'id'\ntR."
    yield "NumPy array of objects", b"\x93NUMPY\1\0" + b"\x76\0{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"
    yield "ELF", b"\x7fELF\2\1\1" + bytes(100)


def cut_off() -> Iterator[tuple[str, bytes]]:
    whole = encoded("PNG")
    at = 8
    while at < len(whole):
        yield f"PNG before chunk at {at}", whole[:at]
        yield f"PNG inside of chunk at {at}", whole[: at + 6]
        at += 12 + int.from_bytes(whole[at : at + 4], "big")
    whole = encoded("JPEG")
    at = 2
    while whole[at + 1] != 0xDA:
        yield f"JPEG before segment at {at}", whole[:at]
        yield f"JPEG inside of segment at {at}", whole[: at + 3]
        at += 2 + int.from_bytes(whole[at + 2 : at + 4], "big")
    for name, data in (
        ("JPEG", whole),
        ("progressive JPEG", encoded("JPEG", progressive=True)),
        ("interlaced PNG", encoded("PNG", interlace=True)),
        ("WebP", encoded("WEBP")),
        ("lossless WebP", encoded("WEBP", lossless=True)),
        ("GIF", encoded("GIF", "P")),
        ("BMP", encoded("BMP")),
        ("TIFF", encoded("TIFF")),
        ("HEIF", encoded("HEIF")),
        ("AVIF", encoded("AVIF")),
    ):
        yield f"{name} in the middle", data[: len(data) // 2]
        yield f"{name} before its last byte", data[:-1]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, data) in enumerate(crafted().items()):
        (folder / f"{number:03} {name.replace('/', '-')}").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
