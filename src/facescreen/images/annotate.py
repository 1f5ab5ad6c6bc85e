"""Boxes, names and verdicts, drawn on a copy of the image."""

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from facescreen.domain.faces import Box, Pixels
from facescreen.domain.screening import ScreenedFace, Verdict

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Five of the eight that Okabe and Ito chose so that the colour-blind tell them apart (Color Universal Design, 2008).
_COLOURS: dict[Verdict, Colour] = {
    Verdict.MATCH: (213, 94, 0),
    Verdict.POSSIBLE: (230, 159, 0),
    Verdict.CLEAR: (0, 114, 178),
    Verdict.NOT_SCREENABLE: (204, 121, 167),
    Verdict.WITHDRAWN: (240, 228, 66),
}
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)

_FONT_PACKAGE, _FONT_FILE = "matplotlib", "mpl-data/fonts/ttf/DejaVuSans.ttf"
"""Latin, Greek, Cyrillic, Arabic, Hebrew, Armenian, Georgian and many symbols, with the package that brings it."""

# Pillow's own font holds hardly more than ASCII; these are found by name where the system has them.
_SYSTEM_FONTS = (
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansBengali-Regular.ttf",
    "NotoSansTamil-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "Arial.ttf",
)
_ASCII_SPELLINGS = str.maketrans({"≤": "<=", "·": "-", "…": "..."})
_NO_CHARACTER = "\uffff"
_SMALLEST_LETTER = 10
_LETTER_TO_SIDE = 0.022
_ROOM_FOR_FACES = 12
_PROBE_SIZE = 16
_SHORT_NAME = 12

_LUMINANCE_OF_EQUAL_CONTRAST = math.sqrt(1.05 * 0.05) - 0.05
"""Where black and white have the same contrast with a colour, by the contrast ratio of WCAG 2.2."""


@dataclass(frozen=True, slots=True)
class _Label:
    pixels: Pixels
    place: Box
    cost: float


def annotate(image: Pixels, faces: Sequence[ScreenedFace]) -> Pixels:
    """A copy with every face's box and a label such as ``#0 match · Ada Lovelace · 0.031 ≤ 0.065 cosine``.

    The number is the face's position in ``faces``, from 0 as in answers; name and distance are the best match's. Lines
    and letters grow with the image and shrink in a crowd. Labels stay inside and avoid each other and the faces as far
    as there is room; the longest text that fits well is taken, the number alone at the least. Characters that no font
    here can draw are spelled in ASCII, or else the entry's id stands for the name.
    """
    canvas = image.copy()
    height, width = image.shape[:2]
    crowding = max(1, len(faces) / _ROOM_FOR_FACES)
    letter = max(_SMALLEST_LETTER, round(_LETTER_TO_SIDE * math.sqrt(width * height / crowding)))
    line = max(1, round(letter / 7))
    boxes = [screened.face.box for screened in faces]
    for screened in faces:
        _draw_box(canvas, screened.face.box, line=line, colour=_COLOURS[screened.verdict])
    taken: list[Box] = []
    for number, screened in enumerate(faces):
        label = _best_label(number, screened, size=(width, height), letter=letter, boxes=boxes, taken=taken)
        taken.append(label.place)
        place = label.place
        canvas[place.y : place.y + place.h, place.x : place.x + place.w] = label.pixels[: place.h, : place.w]
    return canvas


def _draw_box(canvas: Pixels, box: Box, *, line: int, colour: Colour) -> None:
    # A black frame around the coloured one keeps it visible on any background.
    edge = max(1, line // 3)
    for inset, thickness, paint in ((-edge, line + 2 * edge, _BLACK), (0, line, colour)):
        left, top = max(0, box.x + inset), max(0, box.y + inset)
        right, bottom = box.x + box.w - inset, box.y + box.h - inset
        canvas[top : top + thickness, left : max(0, right)] = paint
        canvas[max(0, bottom - thickness) : max(0, bottom), left : max(0, right)] = paint
        canvas[top : max(0, bottom), left : left + thickness] = paint
        canvas[top : max(0, bottom), max(0, right - thickness) : max(0, right)] = paint


def _best_label(
    number: int,
    screened: ScreenedFace,
    *,
    size: tuple[int, int],
    letter: int,
    boxes: Sequence[Box],
    taken: Sequence[Box],
) -> _Label:
    """The label that covers least and says most."""
    candidates: list[_Label] = []
    reluctance = 0.0
    for text in _texts(number, screened):
        pixels = _rendered(text, letter, _COLOURS[screened.verdict])
        h, w = pixels.shape[:2]
        places = list(_places(screened.face.box, (w, h), size))
        cut_off = w * h - places[0].area
        costs = reluctance + 40 * cut_off + 200 * _covered(places, taken) + 8 * _covered(places, boxes)
        best = int(costs.argmin())
        candidates.append(_Label(pixels, places[best], float(costs[best])))
        reluctance += w * h / 2
    return min(candidates, key=lambda label: label.cost)


def _texts(number: int, screened: ScreenedFace) -> Iterator[str]:
    """What a label may say, longest first."""
    if screened.alerts:
        best = screened.alerts[0]
        name = _drawable(best.name, otherwise=f"entry {best.entry_id}")
        yield f"#{number} {screened.verdict} · {name} · {best.distance:.3f} ≤ {best.limit:.3f} {best.metric}"
        yield f"#{number} {screened.verdict} · {name}"
        if len(name) > _SHORT_NAME:
            yield f"#{number} {screened.verdict} · {name[: _SHORT_NAME - 1].rstrip()}…"
    yield f"#{number} {screened.verdict}"
    yield f"#{number}"


def _places(box: Box, label: tuple[int, int], image: tuple[int, int]) -> Iterator[Box]:
    """Around the box, then inside it, moved and at last cut to fit the image."""
    w, h = min(label[0], image[0]), min(label[1], image[1])
    furthest_right, lowest = image[0] - w, image[1] - h
    right, bottom = box.x + box.w, box.y + box.h
    for y in (box.y - h, bottom, box.y - 2 * h, bottom + h, box.y, bottom - h):
        for x in (box.x, right - w, box.x + (box.w - w) // 2):
            yield Box(min(max(0, x), furthest_right), min(max(0, y), lowest), w, h)
    for x in (right, box.x - w):
        yield Box(min(max(0, x), furthest_right), min(max(0, box.y), lowest), w, h)


def _covered(places: Sequence[Box], others: Sequence[Box]) -> NDArray[np.int64]:
    """How many pixels of all the others each place covers, shape (places,)."""
    left, top, w, h = np.array([(box.x, box.y, box.w, box.h) for box in places]).T[:, :, np.newaxis]
    x, y, other_w, other_h = np.array([(box.x, box.y, box.w, box.h) for box in others], int).reshape(-1, 4).T
    width = np.minimum(left + w, x + other_w) - np.maximum(left, x)
    height = np.minimum(top + h, y + other_h) - np.maximum(top, y)
    shared: NDArray[np.int64] = (width.clip(0) * height.clip(0)).sum(axis=1)
    return shared


def _rendered(text: str, letter: int, colour: Colour) -> Pixels:
    font = next((font for font in _fonts(letter) if _covers(font, text)), None)
    if font is None:
        font, text = ImageFont.load_default(letter), _in_ascii(text)
    left, top, right, bottom = font.getbbox(f"{text}Ág")
    right = font.getbbox(text)[2]
    margin = max(1, letter // 5)
    patch = Image.new("RGB", (math.ceil(right - left) + 2 * margin, math.ceil(bottom - top) + 2 * margin), colour)
    ink = _BLACK if _luminance(colour) > _LUMINANCE_OF_EQUAL_CONTRAST else _WHITE
    ImageDraw.Draw(patch).text((margin - left, margin - top), text, fill=ink, font=font)
    return np.asarray(patch)


def _drawable(name: str, *, otherwise: str) -> str:
    name = " ".join("".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFC", name)).split())
    if any(_covers(font, name) for font in _fonts(_PROBE_SIZE)):
        return name
    ascii_name = _in_ascii(name)
    return ascii_name if len(ascii_name) >= len(name) else otherwise


def _in_ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text.translate(_ASCII_SPELLINGS)).encode("ascii", "ignore").decode()


@lru_cache(maxsize=32)
def _fonts(size: int) -> tuple[Font, ...]:
    found: list[Font] = []
    for name in (*_packaged_fonts(), *_SYSTEM_FONTS):
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return (*found, ImageFont.load_default(size))


def _packaged_fonts() -> Iterator[str]:
    # Not `importlib.resources`, which would import the package: that takes a second.
    spec = find_spec(_FONT_PACKAGE)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        yield f"{folder}/{_FONT_FILE}"


def _covers(font: Font, text: str) -> bool:
    missing = bytes(font.getmask(_NO_CHARACTER))
    return all(character == " " or bytes(font.getmask(character)) != missing for character in set(text))


def _luminance(colour: Colour) -> float:
    """Relative luminance of an sRGB colour, by WCAG 2.2."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
