import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from facescreen.backends.rekognition_images import MAX_BYTES, MAX_SIDE, MIN_SIDE, SentImage, crops, fitted
from facescreen.domain.faces import Box, Face, Landmarks, Pixels, Point
from tests.painted import BLUE, GREEN, RED
from tests.rekognition_server import squares

SIDES = st.integers(1, 10_000)
RATIOS = st.floats(-2, 3, width=32)


def grey(width: int, height: int) -> Pixels:
    return np.full((height, width, 3), 90, np.uint8)


def paint(image: Pixels, box: Box, colour: tuple[int, int, int]) -> Face:
    image[box.y : box.y + box.h, box.x : box.x + box.w] = colour
    return Face(box, Landmarks(), 1.0)


def decoded(sent: SentImage) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(sent.data)).convert("RGB"))


@st.composite
def boxes(draw: st.DrawFn) -> tuple[tuple[int, int], Box]:
    width, height = draw(SIDES), draw(SIDES)
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return (width, height), Box(x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y)))


@given(boxes())
def test_ratios_become_the_pixels_that_they_were(case: tuple[tuple[int, int], Box]) -> None:
    (width, height), box = case
    sent = SentImage(b"", (width, height), (width, height))
    left, top, w, h = np.array([box.x / width, box.y / height, box.w / width, box.h / height], np.float32).tolist()
    assert sent.box({"Left": left, "Top": top, "Width": w, "Height": h}) == box


@given(SIDES, SIDES, RATIOS, RATIOS, RATIOS, RATIOS)
def test_boxes_lie_inside_of_the_image_wherever_the_service_sees_them(
    width: int, height: int, left: float, top: float, w: float, h: float
) -> None:
    box = SentImage(b"", (width, height), (width, height)).box({"Left": left, "Top": top, "Width": w, "Height": h})
    assert 0 <= box.x < box.x + box.w <= width
    assert 0 <= box.y < box.y + box.h <= height


@pytest.mark.parametrize("size", [(160, 160), (250, 250), (1600, 100), (80, 4000)])
def test_an_image_within_the_limits_is_sent_as_it_is(size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    sent = fitted(image)
    assert np.array_equal(decoded(sent), image)
    assert (sent.size, sent.extent) == (size, size)
    assert sent.point({"X": 0.25, "Y": 0.5}) == Point(size[0] / 4, size[1] / 2)


@pytest.mark.parametrize("size", [(1, 1), (30, 30), (79, 79), (20, 30), (500, 12), (7, 2000)])
def test_a_small_image_is_made_large_enough_and_mapped_back(size: tuple[int, int]) -> None:
    image = grey(*size)
    face = paint(image, Box(size[0] // 4, size[1] // 4, -(-size[0] // 2), -(-size[1] // 2)), RED)
    sent = fitted(image)
    height, width, _ = decoded(sent).shape
    assert min(width, height) >= MIN_SIDE
    if min(size) >= 20:
        (seen,) = squares(sent.data)
        box = sent.box(seen.detail()["BoundingBox"])
        assert all(abs(side - other) <= 1 for side, other in zip(astuple(box), astuple(face.box), strict=True))


def test_an_image_with_too_many_bytes_loses_pixels_and_its_boxes_are_mapped_back() -> None:
    image = np.random.default_rng(1).integers(90, 130, (4000, 6000, 1), np.uint8).repeat(3, axis=2)
    image += np.random.default_rng(2).integers(0, 60, image.shape, np.uint8)
    face = paint(image, Box(1000, 500, 2000, 3000), RED)
    sent = fitted(image)
    assert len(sent.data) <= MAX_BYTES
    assert max(decoded(sent).shape) < 6000
    (seen,) = squares(sent.data)
    box = sent.box(seen.detail()["BoundingBox"])
    assert all(abs(side - other) <= 8 for side, other in zip(astuple(box), astuple(face.box), strict=True))


def test_a_large_photo_is_a_good_jpeg_of_the_same_size() -> None:
    image = grey(4000, 3000)
    face = paint(image, Box(1000, 500, 2000, 1500), RED)
    sent = fitted(image)
    assert sent.data.startswith(b"\xff\xd8")
    assert decoded(sent).shape == image.shape
    (seen,) = squares(sent.data)
    assert sent.box(seen.detail()["BoundingBox"]).intersection_over_union(face.box) > 0.99


def test_a_panorama_is_scaled_to_the_longest_side() -> None:
    sent = fitted(grey(20_000, 100))
    assert decoded(sent).shape == (MIN_SIDE, MAX_SIDE, 3)
    assert sent.box({"Left": 0.5, "Top": 0, "Width": 0.25, "Height": 50 / MIN_SIDE}) == Box(10_000, 0, 5_000, 100)


def astuple(box: Box) -> tuple[int, ...]:
    return box.x, box.y, box.w, box.h


def largest_colour(crop: Pixels) -> tuple[int, ...]:
    """The colour of the face that a search of the crop would be for."""
    seen = squares(fitted(crop).data)[0]
    return tuple(round((part + 0.5) * 255) for part in seen.vector)


def test_every_face_is_the_largest_of_what_is_searched_and_small_images_are_not_cropped() -> None:
    image = grey(1000, 600)
    faces = (paint(image, Box(300, 100, 300, 400), BLUE), paint(image, Box(610, 300, 60, 60), RED))
    untouched = image.copy()
    found = crops(image, faces)
    assert [largest_colour(crop) for crop in found] == [BLUE, RED]
    assert [crop.shape for crop in found] == [image.shape] * 2
    assert np.array_equal(image, untouched)


def test_every_face_of_a_large_image_is_the_largest_of_its_crop() -> None:
    image = grey(1300, 1000)
    faces = (
        paint(image, Box(300, 100, 300, 400), BLUE),
        paint(image, Box(610, 300, 60, 60), RED),
        paint(image, Box(680, 300, 58, 60), GREEN),
    )
    untouched = image.copy()
    found = crops(image, faces)
    assert [largest_colour(crop) for crop in found] == [BLUE, RED, GREEN]
    assert found[0].shape == image.shape
    assert all(crop.shape[0] <= 180 and crop.shape[1] <= 180 for crop in found[1:])
    assert np.array_equal(image, untouched)
    assert not any(np.shares_memory(crop, image) for crop in found[1:])


def test_faces_of_one_size_are_told_apart() -> None:
    image = grey(600, 200)
    faces = tuple(paint(image, Box(50 + 110 * n, 50, 100, 100), colour) for n, colour in enumerate((RED, GREEN, BLUE)))
    assert [largest_colour(crop) for crop in crops(image, faces)] == [RED, GREEN, BLUE]


def test_a_face_in_front_of_another_is_whole() -> None:
    image = grey(600, 400)
    behind = paint(image, Box(100, 50, 250, 250), BLUE)
    before = paint(image, Box(300, 200, 100, 100), RED)
    crop = crops(image, (behind, before))[1]
    assert largest_colour(crop) == RED
    assert (crop == RED).all(axis=2).sum() == before.box.area


def test_one_face_alone_and_none() -> None:
    image = grey(300, 200)
    (crop,) = crops(image, (paint(image, Box(10, 10, 50, 50), RED),))
    assert np.array_equal(crop, image)
    assert crops(image, ()) == ()


def test_a_face_at_the_edge_is_cropped_inside_of_the_image() -> None:
    image = grey(1500, 1400)
    faces = (paint(image, Box(200, 100, 200, 200), BLUE), paint(image, Box(1440, 1340, 60, 60), RED))
    crop = crops(image, faces)[1]
    assert crop.shape == (120, 120, 3)
    assert largest_colour(crop) == RED
