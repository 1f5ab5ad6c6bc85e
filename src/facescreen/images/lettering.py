"""Text of every major script as pixels, in fonts that come with packages."""

import math
import re
import unicodedata
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from facescreen.domain.faces import Pixels

Colour = tuple[int, int, int]

_FONTS: Final = (
    ("matplotlib", "mpl-data/fonts/ttf/DejaVuSans.ttf"),
    ("manimgx_fonts", "NotoSans[!-]*.ttf"),
    ("manimgx_fonts_cjk", "*.ttc"),
    ("manimgx_fonts", "NotoEmoji*.ttf"),
)
"""Packages and the font files in them. The first font that has all characters of a text draws it."""

_REGULAR: Final = 400
"""Weight of upright book type, on the axis ``wght`` of OpenType."""

_PROBE_SIZE: Final = 16
_NO_CHARACTER: Final = "\uffff"
_RIGHT_TO_LEFT: Final = frozenset({"R", "AL", "AN"})
"""Bidirectional classes (Unicode Standard Annex 9) of Hebrew, Arabic and their like."""

_JOINED: Final = frozenset({"Mn", "Mc", "Me", "Cf"})
"""General categories of marks, signs of vowels and joiners, which are drawn with the characters beside them."""


def can_be_drawn(text: str) -> bool:
    """Whether fonts have every character, and the layout that the script needs is here.

    Scripts that are written from right to left or join their letters need FriBiDi, which Pillow loads where the system
    has it. A text that is written from right to left needs one font that has all of it.
    """
    return bool(_runs(text))


def lettered(text: str, *, size: int, ink: Colour, paper: Colour) -> Pixels:
    """One line of text with a margin. What is parted by `` · `` stays in this order, however it is written itself.

    Args:
        text: each part of it :func:`can_be_drawn`.
        size: of a letter, in pixels.
    """
    parts = [(run, _font(file, size)) for part in re.split("( · |…)", text) for run, file in _runs(part)]
    boxes = [font.getbbox(run, anchor="ls") for run, font in [("Ág", _font(_files()[0], size)), *parts]]
    top, bottom = min(box[1] for box in boxes), max(box[3] for box in boxes)
    widths = [font.getlength(run) for run, font in parts]
    margin = max(1, size // 5)
    patch = Image.new("RGB", (math.ceil(sum(widths)) + 2 * margin, math.ceil(bottom - top) + 2 * margin), paper)
    pen, x = ImageDraw.Draw(patch), float(margin)
    for (run, font), width in zip(parts, widths, strict=True):
        pen.text((x, margin - top), run, fill=ink, font=font, anchor="ls")
        x += width
    return np.asarray(patch)


def _runs(text: str) -> list[tuple[str, Path]]:
    """Parts of the text with the font of each; none where it cannot be drawn."""
    if _needs_layout(text) and not features.check("raqm"):
        return []
    for file in _files():
        if all(_has(file, character) for character in text):
            return [(text, file)]
    runs: list[tuple[str, Path]] = []
    for character in text:
        before = [runs[-1][1]] if runs else []
        having = next((file for file in (*before, *_files()) if _has(file, character)), None)
        if having is None or unicodedata.bidirectional(character) in _RIGHT_TO_LEFT:
            return []
        if [having] == before:
            runs[-1] = (runs[-1][0] + character, having)
        else:
            runs.append((character, having))
    return runs


def _needs_layout(text: str) -> bool:
    return any(
        unicodedata.bidirectional(character) in _RIGHT_TO_LEFT or unicodedata.category(character) in _JOINED
        for character in text
    )


@lru_cache(maxsize=1)
def _files() -> tuple[Path, ...]:
    found: list[Path] = []
    for package, pattern in _FONTS:
        # Not `importlib.resources`, which would import the package: that takes a second.
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            found += sorted(Path(folder).glob(pattern))
    return tuple(found)


@lru_cache(maxsize=64)
def _font(file: Path, size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(file, size)
    with suppress(OSError):  # a font of one weight
        font.set_variation_by_axes([_REGULAR])
    return font


@lru_cache(maxsize=64)
def _probe(file: Path) -> tuple[ImageFont.FreeTypeFont, bytes]:
    """A font that joins nothing, and what it draws for a character that it does not have."""
    font = ImageFont.truetype(file, _PROBE_SIZE, layout_engine=ImageFont.Layout.BASIC)
    return font, bytes(font.getmask(_NO_CHARACTER))


@lru_cache(maxsize=4096)
def _has(file: Path, character: str) -> bool:
    if character.isspace() or unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f":
        return True  # nothing of it is drawn
    font, missing = _probe(file)
    return bytes(font.getmask(character)) != missing
