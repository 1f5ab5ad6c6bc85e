"""What a HEIF or AVIF file asks of its decoder, read from the boxes before anything is decoded.

Both are files of boxes (ISO/IEC 14496-12) that hold items (ISO/IEC 23008-12): coded pictures, grids and overlays of
other items, and metadata. A few bytes can name one large picture thousands of times, and each time costs a decoding.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from facescreen.errors import ImageTooLargeError, ImageUndecodableError

MAX_WORK = 4
"""Pixels that are decoded for one picture, in times its limit. A grid counts twice: its tiles and its canvas. The gain
map and the depth that telephones add are a quarter of the picture or less."""

MAX_PARTS = 2_000
"""Tiles of a picture, with repetitions. 100 megapixels in the usual tiles of 512 pixels are 400."""

MAX_BOXES = 10_000
"""Boxes of one level; telephones write about twenty, and one per item inside of the metadata."""

MAX_READINGS = 4
"""Bytes that items may claim together, in times the bytes of the file."""

_AVIF = {b"avif", b"avis"}
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_EITHER = {b"mif1", b"mif2", b"msf1"}

_SIZES = {0, 4, 8}
"""Bytes of a number in the table of locations (14496-12, 8.11.3)."""

_Id: TypeAlias = int


@dataclass(slots=True)
class _Items:
    """What is known of the items of a file.

    Attributes:
        area: pixels of each picture.
        size: bytes that each item claims.
        parts: the items that each derived picture is made of.
        additions: transparency, depth and gain maps of each picture.
    """

    primary: _Id
    area: dict[_Id, int] = field(default_factory=dict)
    size: dict[_Id, int] = field(default_factory=dict)
    parts: dict[_Id, tuple[_Id, ...]] = field(default_factory=dict)
    additions: defaultdict[_Id, list[_Id]] = field(default_factory=lambda: defaultdict(list))
    described: int = 0


def coding_of(data: bytes) -> Literal["AVIF", "HEIF"] | None:
    """How the pictures of a file are coded, by the brands that its first box names; ``None`` for other files."""
    if data[4:8] != b"ftyp":
        return None
    size = min(int.from_bytes(data[:4], "big"), 1_000)
    major = data[8:12]
    brands = {major, *(data[at : at + 4] for at in range(16, size - 3, 4))}
    if major in _HEIF:
        return "HEIF"
    if major in _AVIF or (major in _EITHER and brands & _AVIF and not brands & _HEIF):
        return "AVIF"
    return "HEIF" if major in _EITHER else None


def check_work(data: bytes, *, max_pixels: int) -> None:
    """Refuse a file whose picture costs more than a picture of the largest size may.

    Raises:
        ImageTooLargeError: decoding takes more than ``MAX_WORK`` times ``max_pixels`` or ``MAX_PARTS`` parts.
        ImageUndecodableError: the boxes cannot be read, contain themselves, or claim more bytes than there are.
    """
    meta = next((body for kind, body in _boxes(memoryview(data)) if kind == b"meta"), None)
    if meta is None:
        raise ImageUndecodableError("the image has no box that says what is in it")
    items = _items(meta[4:], len(data))
    if sum(items.size.values()) + items.described > MAX_READINGS * len(data):
        raise ImageUndecodableError("the items of the image claim more bytes than the file has")
    pixels, parts = _Work(items).of(items.primary)
    if pixels > MAX_WORK * max_pixels or parts > MAX_PARTS:
        raise ImageTooLargeError(f"decoding the image takes more than one of {max_pixels:,} pixels may")


class _Work:
    """Counts pixels and parts, each as often as a decoder decodes it."""

    def __init__(self, items: _Items) -> None:
        self._items = items
        self._known: dict[_Id, tuple[int, int]] = {}
        self._begun: set[_Id] = set()

    def of(self, item: _Id) -> tuple[int, int]:
        if item not in self._known:
            if item in self._begun:
                raise ImageUndecodableError("a part of the image contains itself")
            self._begun.add(item)
            pixels, parts = self._items.area.get(item, 0), 1
            for part in (*self._items.parts.get(item, ()), *self._items.additions.get(item, ())):
                more_pixels, more_parts = self.of(part)
                pixels, parts = pixels + more_pixels, parts + more_parts
            self._known[item] = pixels, parts
        return self._known[item]


def _items(meta: memoryview, file_size: int) -> _Items:
    boxes = dict(_boxes(meta))
    primary = boxes[b"pitm"]
    items = _Items(_number(primary, 4, 4 if primary[0] else 2))
    _read_locations(items, boxes[b"iloc"], file_size)
    _read_areas(items, dict(_boxes(boxes[b"iprp"])))
    if b"iref" in boxes:
        _read_references(items, boxes[b"iref"])
    return items


def _read_locations(items: _Items, box: memoryview, file_size: int) -> None:
    """Table of locations: 14496-12, 8.11.3."""
    version = box[0]
    offset_size, length_size = box[4] >> 4, box[4] & 15
    base_size, index_size = box[5] >> 4, box[5] & 15 if version else 0
    if not {offset_size, length_size, base_size, index_size} <= _SIZES:
        raise ImageUndecodableError("the image's table of locations is damaged")
    wide = 4 if version == 2 else 2
    count, at = _number(box, 6, wide), 6 + wide
    for _ in range(count):
        item = _number(box, at, wide)
        at += wide + (2 if version else 0) + 2 + base_size
        extents = _number(box, at, 2)
        at += 2
        for _ in range(extents):
            at += index_size + offset_size
            length = _number(box, at, length_size)
            items.size[item] = items.size.get(item, 0) + (length or file_size)
            at += length_size


def _read_areas(items: _Items, properties: dict[bytes, memoryview]) -> None:
    """The properties ``ispe`` of items, and which item has which: 23008-12, 6.5.3, and 14496-12, 8.11.14."""
    areas = [
        _number(body, 4, 4) * _number(body, 8, 4) if kind == b"ispe" else 0
        for kind, body in _boxes(properties[b"ipco"])
    ]
    box = properties[b"ipma"]
    id_size, index_size = 4 if box[0] else 2, 2 if box[3] & 1 else 1
    at = 8
    for _ in range(_number(box, 4, 4)):
        item = _number(box, at, id_size)
        associations = box[at + id_size]
        at += id_size + 1
        for _ in range(associations):
            index = _number(box, at, index_size) & (0x7FFF if index_size == 2 else 0x7F)
            at += index_size
            if 0 < index <= len(areas):
                items.area[item] = max(items.area.get(item, 0), areas[index - 1])


def _read_references(items: _Items, box: memoryview) -> None:
    """References between items: 14496-12, 8.11.12."""
    wide = 4 if box[0] else 2
    for kind, body in _boxes(box[4:]):
        item, count = _number(body, 0, wide), _number(body, wide, 2)
        others = tuple(_number(body, wide + 2 + wide * index, wide) for index in range(count))
        if kind == b"dimg":
            items.parts[item] = items.parts.get(item, ()) + others
        elif kind == b"auxl":
            for other in others:
                items.additions[other].append(item)
        elif kind == b"cdsc":
            items.described += items.size.get(item, 0) * count


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and contents of each box."""
    at = 0
    for _ in range(MAX_BOXES):
        if at + 8 > len(data):
            return
        size, begin = _number(data, at, 4), 8
        if size == 1:
            size, begin = _number(data, at + 8, 8), 16
        end = at + size if size else len(data)
        if end < at + begin or end > len(data):
            raise ImageUndecodableError("the image is damaged or incomplete")
        yield bytes(data[at + 4 : at + 8]), data[at + begin : end]
        at = end
    raise ImageUndecodableError(f"the image has more than {MAX_BOXES:,} boxes in one place")


def _number(data: memoryview, at: int, size: int) -> int:
    """Unsigned and big-endian; 0 where it has no bytes.

    Raises:
        ImageUndecodableError: the data end before it.
    """
    if at + size > len(data):
        raise ImageUndecodableError("the image is damaged or incomplete")
    return int.from_bytes(data[at : at + size], "big")
