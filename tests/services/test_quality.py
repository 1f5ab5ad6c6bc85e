"""What is measured of the picture of a face, and which bars it passes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facescreen.domain.faces import Box, Face, Landmarks
from facescreen.images.decode import decode
from facescreen.services.quality import BARS, Quality, QualityFault, QualityFilter, measure, sharpness

SAMPLES = Path(__file__).parents[2] / "samples"
ASTRONAUT = decode((SAMPLES / "astronaut.jpg").read_bytes(), max_pixels=10**7)
FACE = Box(170, 60, 110, 130)
NOISE = np.random.default_rng(11).integers(0, 256, (200, 200, 3), np.uint8)


def test_brightness_goes_from_black_to_white() -> None:
    measured = [measure(np.full((100, 100, 3), value, np.uint8), Box(10, 10, 50, 50)) for value in (0, 51, 255)]
    assert [quality.brightness for quality in measured] == pytest.approx([0, 20, 100])


def test_the_more_a_face_is_blurred_the_less_sharp_it_is() -> None:
    blurred = [cv2.GaussianBlur(ASTRONAUT, (0, 0), deviation) for deviation in (1, 2, 4, 8)]
    sharp = [measure(image.astype(np.uint8), FACE).sharpness for image in (ASTRONAUT, *blurred)]
    assert sharp == sorted(sharp, reverse=True)
    assert sharp[0] > BARS[QualityFilter.HIGH].sharpness
    assert sharp[-1] < BARS[QualityFilter.LOW].sharpness


@pytest.mark.parametrize("size", [(17, 1), (1, 17)])
def test_a_face_that_moved_in_one_direction_is_not_sharp(size: tuple[int, int]) -> None:
    moved = cv2.blur(ASTRONAUT, size).astype(np.uint8)
    assert measure(moved, FACE).sharpness < measure(ASTRONAUT, FACE).sharpness / 2


def test_what_has_no_gradient_cannot_be_blurred() -> None:
    assert sharpness(np.full((50, 50), 90, np.uint8)) == 100


@pytest.mark.parametrize("box", [Box(-20, -20, 60, 60), Box(180, 150, 90, 90)])
def test_only_what_is_in_the_image_is_measured(box: Box) -> None:
    framed = np.zeros((200, 200, 3), np.uint8)
    framed[max(box.y, 0) : box.y + box.h, max(box.x, 0) : box.x + box.w] = 255
    assert measure(framed, box).brightness == pytest.approx(100)


@pytest.mark.parametrize("box", [Box(300, 300, 10, 10), Box(-30, 5, 20, 20), Box(5, 5, 0, 9)])
def test_nothing_is_bright_or_sharp_outside_of_the_image(box: Box) -> None:
    assert measure(NOISE, box) == Quality(0, 0)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_measures_are_percentages(rows: int, columns: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)
    quality = measure(image, Box(0, 0, columns, rows))
    assert 0 <= quality.brightness <= 100
    assert 0 <= quality.sharpness <= 100


def test_every_fault_is_named() -> None:
    bad = Face(Box(0, 0, 20, 300), Landmarks(), 0.1)
    assert set(BARS[QualityFilter.AUTO].faults(bad, Quality(1, 1))) == set(QualityFault)
    assert BARS[QualityFilter.NONE].faults(bad, Quality(0, 0)) == ()


def test_a_higher_bar_is_higher_in_everything() -> None:
    low, medium, high = (BARS[quality] for quality in (QualityFilter.LOW, QualityFilter.MEDIUM, QualityFilter.HIGH))
    for measured in ("side", "confidence", "brightness", "sharpness"):
        assert getattr(low, measured) < getattr(medium, measured) < getattr(high, measured)
