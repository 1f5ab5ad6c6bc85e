from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from facescreen.domain.faces import Pixels
from facescreen.recognition.catalog import DETECTORS
from facescreen.recognition.centerface import (
    HUGE_IMAGE_FACE,
    LARGE_IMAGE,
    LARGE_IMAGE_FACE,
    SIDE,
    SMALLEST_FACE,
    CenterFace,
    smallest_face,
)
from facescreen.recognition.sightings import Sightings
from facescreen.recognition.weights import WeightStore

GREY = 90
FACE_WIDTH = 89
"""Pixels of the astronaut's face, as CenterFace sees it."""


class Blind(CenterFace):
    """Sees no faces and remembers what it was shown, as shapes (n, rows, columns, 3) and pixels."""

    shown: list[NDArray[np.uint8]]

    def see(self, patches: NDArray[np.uint8]) -> list[Sightings]:
        self.shown.append(patches)
        return [Sightings.none() for _ in patches]


@pytest.fixture(scope="module")
def network(store: WeightStore) -> CenterFace:
    return CenterFace(store.require(DETECTORS["centerface"])[0], threads=2)


@pytest.fixture(scope="module")
def blind(store: WeightStore) -> Blind:
    return Blind(store.require(DETECTORS["centerface"])[0], threads=1)


def shown(blind: Blind, image: Pixels, side: int = SIDE) -> list[NDArray[np.uint8]]:
    blind.shown = []
    blind.look(image, side=side)
    return blind.shown


@pytest.fixture(scope="module")
def head(astronaut: Pixels) -> Pixels:
    """The astronaut's head with its hair, without which faces are harder to find; the face is in the middle."""
    return np.ascontiguousarray(astronaut[:236, 81:370])


def scaled(head: Pixels, width: int) -> Pixels:
    """The head so large that its face is so many pixels wide."""
    factor = width / FACE_WIDTH
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(head, None, fx=factor, fy=factor, interpolation=way), np.uint8)


def pasted(head: Pixels, width: int, height: int, *, left: int, top: int) -> Pixels:
    """A grey image of this size with the head in it."""
    image = np.full((height, width, 3), GREY, np.uint8)
    image[top : top + head.shape[0], left : left + head.shape[1]] = head
    return image


def assert_once(found: Sightings, head: Pixels, left: int, top: int) -> None:
    """One face is found, in the middle of the head that was pasted here."""
    rows, columns, _ = head.shape
    assert len(found) == 1
    middle = found.corners[0].mean(axis=0)
    assert middle == pytest.approx((left + columns / 2, top + rows / 2), abs=0.12 * columns)


@given(width=st.integers(1, 5000), height=st.integers(1, 90), is_turned=st.booleans())
def test_tiles_cover_the_image(blind: Blind, width: int, height: int, is_turned: bool) -> None:
    """Every column of an image appears in a tile, beside columns of which neighbouring tiles share enough."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(width) % 256, np.arange(width) // 256
    side = max(width, height)
    if is_turned:
        image = image.transpose(1, 0, 2)
    tiles = shown(blind, np.ascontiguousarray(image), side)
    if min(width, height) < SMALLEST_FACE:
        assert tiles == []
        return
    spans = []
    for tile in tiles:
        (pixels,) = tile.transpose(0, 2, 1, 3) if is_turned else tile
        if pixels.shape[0] == height:
            line = pixels[0].astype(int)
            spans.append((line[0, 0] + 256 * line[0, 1], line[-1, 0] + 256 * line[-1, 1] + 1))
    assert spans[0][0] == 0
    assert max(end for _, end in spans) == width
    for (_, end), (begin, _) in pairwise(spans):
        assert end - begin >= 96 or begin == 0  # the next scale begins anew


@pytest.mark.parametrize(("width", "height"), [(8660, 5774), (5774, 8660), (100_000, 500), (7071, 7071)])
def test_the_network_is_shown_one_bounded_tile_at_a_time(blind: Blind, width: int, height: int) -> None:
    """However large the image is, fifty megapixels here: memory for the network does not grow."""
    tiles = shown(blind, np.zeros((height, width, 3), np.uint8))
    assert all(tile.shape[0] == 1 and max(tile.shape) <= SIDE for tile in tiles)
    finest = SMALLEST_FACE / HUGE_IMAGE_FACE
    pixels = sum(tile.shape[1] * tile.shape[2] for tile in tiles)
    assert finest**2 * width * height < pixels < 1.6 * finest**2 * width * height


def test_a_face_that_a_tile_cuts_is_left_to_another_view(blind: Blind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something as large as the view is seen in every view: only the whole image shows all of it."""

    def see(patches: NDArray[np.uint8]) -> list[Sightings]:
        (_, rows, columns, _) = patches.shape
        return [Sightings(np.array([[[0.0, 0.0], [columns, rows]]]), np.ones(1), np.zeros((1, 5, 2)))]

    monkeypatch.setattr(blind, "see", see)
    found = blind.look(np.zeros((1000, 1500, 3), np.uint8), side=1500)
    assert found.corners.tolist() == [[[0, 0], pytest.approx([1500, 1000])]]


def test_a_large_face_is_left_to_the_scale_that_shows_it_whole(blind: Blind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its forehead or a cheek fills a part of the image, and looks like a face there."""

    def see(patches: NDArray[np.uint8]) -> list[Sightings]:
        return [Sightings(np.array([[[200.0, 200.0], [320.0, 320.0]]]), np.ones(1), np.zeros((1, 5, 2)))]

    monkeypatch.setattr(blind, "see", see)
    found = blind.look(np.zeros((2000, 3000, 3), np.uint8), side=SIDE)
    step = 3000 / SIDE
    assert found.corners.tolist() == [[pytest.approx([200 * step] * 2), pytest.approx([320 * step] * 2)]]


@pytest.mark.parametrize("size", [(20, 20), (768, 768), (640, 480), (300, 768)])
def test_an_image_that_fits_is_seen_once_and_as_it_is(blind: Blind, size: tuple[int, int]) -> None:
    image = np.random.default_rng(5).integers(0, 256, (*size, 3), np.uint8)
    (tile,) = shown(blind, image)
    assert np.array_equal(tile[0], image)


@pytest.mark.parametrize(("left", "top"), [(11, 7), (1830, 1960), (3500, 1211), (5800, 3850)])
def test_a_small_face_in_24_megapixels_is_found_once(network: CenterFace, head: Pixels, left: int, top: int) -> None:
    face = scaled(head, 50)
    assert_once(network.look(pasted(face, 6000, 4000, left=left, top=top), side=SIDE), face, left, top)


def test_small_faces_before_clothes_are_found_in_24_megapixels(
    network: CenterFace, astronaut: Pixels, head: Pixels
) -> None:
    """Among folds and lamps a face has to be seen larger than on grey."""
    clothes = astronaut[int(0.65 * len(astronaut)) :]
    image = np.tile(cv2.resize(clothes, (2000, 700)).astype(np.uint8), (6, 3, 1))[:4000]
    face = scaled(head, 50)
    places = [(left, top) for left in range(300, 5800, 700) for top in range(200, 3800, 500)]
    for left, top in places:
        image[top : top + face.shape[0], left : left + face.shape[1]] = face
    found = network.look(image, side=SIDE).corners.mean(axis=1)
    middles = np.array(places) + np.array(face.shape[1::-1]) / 2
    nearest = np.linalg.norm(found[None] - middles[:, None], axis=2).min(axis=1)
    assert nearest.max() < 25


def test_the_smallest_face_depends_on_the_size_of_the_image() -> None:
    assert smallest_face(640, 480, SIDE) == SMALLEST_FACE
    assert smallest_face(2 * SIDE, 100, SIDE) == 2 * SMALLEST_FACE
    assert smallest_face(LARGE_IMAGE, 100, SIDE) == LARGE_IMAGE_FACE
    assert smallest_face(LARGE_IMAGE + 1, 100, SIDE) == HUGE_IMAGE_FACE
    assert smallest_face(6000, 4000, SIDE) == smallest_face(100, 30_000, SIDE) == HUGE_IMAGE_FACE


@pytest.mark.parametrize("width", [20, 50, 100, 250])
@pytest.mark.parametrize("is_turned", [False, True])
def test_a_face_where_tiles_meet_is_found_once(
    network: CenterFace, head: Pixels, width: int, *, is_turned: bool
) -> None:
    """Two tiles of 748 columns would be too long, so 1400 are three: their edges are at 434, 531, 869 and 965."""
    face = scaled(head, width)
    rows, columns, _ = face.shape
    for edge in (434, 482, 531, 869, 965):
        left = edge - columns // 2
        image = pasted(face, 1400, max(300, rows), left=left, top=0)
        if is_turned:
            image = np.ascontiguousarray(np.rot90(image))
        found = network.look(image, side=1400, turn=3 if is_turned else 0)
        assert_once(found.turned_back(1, (1400, image.shape[1])) if is_turned else found, face, left, 0)


@pytest.mark.parametrize("is_upright_strip", [False, True])
def test_every_face_in_a_long_strip_is_found_once(network: CenterFace, head: Pixels, *, is_upright_strip: bool) -> None:
    face = scaled(head, 60)
    strip = np.full((20_000, 500, 3) if is_upright_strip else (500, 20_000, 3), GREY, np.uint8)
    along = [0, 2400, 9000, 14_321, 20_000 - max(face.shape)]
    for place in along:
        left, top = (150, place) if is_upright_strip else (place, 150)
        strip[top : top + face.shape[0], left : left + face.shape[1]] = face
    found = network.look(strip, side=SIDE)
    middles = np.sort(found.corners.mean(axis=1)[:, 1 if is_upright_strip else 0])
    assert middles == pytest.approx([place + face.shape[0 if is_upright_strip else 1] / 2 for place in along], abs=15)


@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("side", ["left", "top", "right", "bottom"])
@pytest.mark.parametrize("enlarged", [1, 10])
def test_a_face_at_the_border_is_found_where_it_is(
    network: CenterFace, astronaut: Pixels, side: str, share: float, enlarged: int
) -> None:
    """The border touches the face, or cuts a fifth of it off; once in an image so large that it is seen in tiles."""
    whole = network.look(astronaut, side=SIDE).corners[0]
    (left, top), (right, bottom) = np.rint(whole + share * (whole[1] - whole[0]) * [[1], [-1]]).astype(int).tolist()
    match side:
        case "left":
            rows, columns = slice(None), slice(left, None)
        case "top":
            rows, columns = slice(top, None), slice(None)
        case "right":
            rows, columns = slice(None), slice(right)
        case _:
            rows, columns = slice(bottom), slice(None)
    image = astronaut[rows, columns].repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    found = network.look(image, side=SIDE)
    begin = np.array([columns.start or 0, rows.start or 0])
    seen = np.clip((whole - begin) * enlarged, 0, image.shape[1::-1])
    expected = Sightings(seen[None], np.ones(1), np.full((1, 5, 2), np.nan))
    assert len(found) == 1
    clipped = Sightings(np.clip(found.corners, 0, image.shape[1::-1]), found.confidences, found.points)
    assert clipped.overlaps(expected)[0, 0] > 0.7


@pytest.mark.parametrize("width", [60, 200, 450])
def test_large_faces_are_found_in_large_images_once(network: CenterFace, head: Pixels, width: int) -> None:
    """The largest has 525 pixels where the image is seen in tiles of 632, which show most of its head."""
    face = scaled(head, 4 * width)
    rows, columns, _ = face.shape
    image = pasted(face, max(4000, columns), max(4000, rows), left=0, top=0)
    assert_once(network.look(image, side=SIDE), face, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 768), (13, 400), (14, 14), (3, 20_000), (32, 32), (33, 1000)])
def test_tiny_images_hold_nothing(network: CenterFace, size: tuple[int, int]) -> None:
    image = np.random.default_rng(7).integers(0, 256, (*size, 3), np.uint8)
    assert len(network.look(image, side=SIDE)) == 0
