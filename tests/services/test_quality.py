"""What is measured of the picture of a face, and which bars it passes."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facescreen.domain.faces import Box, Face, Landmarks, Pixels, Point
from facescreen.domain.quality import ENROLLMENT_LIMITS, SCREENING_LIMITS, QualityIssue
from facescreen.images.decode import decode
from facescreen.services.quality import BARS, QualityFault, QualityFilter, assess, sharpness
from tests.painted import BLUE, GREEN, RED, YELLOW, PaintedBackend, photo

SAMPLES = Path(__file__).parents[2] / "samples"


def _sample(name: str) -> Pixels:
    return decode((SAMPLES / name).read_bytes(), max_pixels=10**7)


def _points(*coordinates: tuple[float, float]) -> Landmarks:
    return Landmarks(*(Point(*coordinate) for coordinate in coordinates))


ASTRONAUT = _sample("astronaut.jpg")
FACE = Face(
    Box(180, 65, 85, 107),
    _points((245.9, 102.7), (203.6, 100.3), (224.6, 126.3), (244.3, 140.6), (201.4, 138.8)),
    1.0,
)
ADMIRAL = Face(
    Box(178, 110, 173, 220),
    _points((308.2, 186.0), (220.4, 190.2), (268.3, 237.4), (303.6, 272.9), (231.7, 277.0)),
    0.989,
)
"""What centerface finds in the two samples."""

NOISE = np.random.default_rng(11).integers(0, 256, (200, 200, 3), np.uint8)
NOTHING = Landmarks()


def _exposed(stops: float) -> Pixels:
    """The astronaut with that much more light, if sRGB was a power of 2.2."""
    light = (ASTRONAUT / 255.0) ** 2.2 * 2.0**stops
    return np.asarray(np.rint(255.0 * np.clip(light, 0, 1) ** (1 / 2.2)), np.uint8)


def _mirrored(image: Pixels, face: Face) -> tuple[Pixels, Face]:
    width = image.shape[1]

    def flip(point: Point | None) -> Point | None:
        return None if point is None else Point(width - 1 - point.x, point.y)

    box, points = face.box, face.landmarks
    landmarks = Landmarks(
        left_eye=flip(points.right_eye),
        right_eye=flip(points.left_eye),
        nose=flip(points.nose),
        mouth_left=flip(points.mouth_right),
        mouth_right=flip(points.mouth_left),
    )
    flipped = Box(width - box.x - box.w, box.y, box.w, box.h)
    return np.ascontiguousarray(image[:, ::-1]), Face(flipped, landmarks, face.confidence)


def _covered(box: Box, colour: tuple[int, int, int]) -> Pixels:
    image = ASTRONAUT.copy()
    image[box.y : box.y + box.h, box.x : box.x + box.w] = colour
    return image


def _looking(yaw: float, pitch: float, roll: float) -> Landmarks:
    """Five points of a head raised, turned to its own left, and tilted clockwise, seen from far away.

    Its proportions are those of the ArcFace template, and its nose stands out by 0.6 of the distance between the eyes.
    """
    left, mouth = np.array([0.5, -0.55, 0.0]), np.array([0.4, 0.6, -0.1])
    mirror = np.array([-1.0, 1.0, 1.0])
    points = np.array([left, left * mirror, [0.0, 0.05, -0.6], mouth, mouth * mirror])
    y, p, r = np.radians([yaw, pitch, roll])
    turned = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    raised = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    tilted = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    seen = points @ (tilted @ turned @ raised).T
    return _points(*((100 + 40 * float(x), 100 + 40 * float(y)) for x, y, _ in seen))


def test_brightness_goes_from_black_to_white() -> None:
    plain = [np.full((100, 100, 3), value, np.uint8) for value in (0, 51, 255)]
    measured = [assess(image, Face(Box(10, 10, 50, 50), NOTHING, 1.0)) for image in plain]
    assert [quality.brightness for quality in measured] == pytest.approx([0, 20, 100])
    assert [quality.shadows for quality in measured] == [100, 0, 0]
    assert [quality.highlights for quality in measured] == [0, 0, 100]


def test_the_more_a_face_is_blurred_the_less_sharp_it_is() -> None:
    blurred = [cv2.GaussianBlur(ASTRONAUT, (0, 0), deviation) for deviation in (1, 2, 4, 8)]
    sharp = [assess(image.astype(np.uint8), FACE).sharpness for image in (ASTRONAUT, *blurred)]
    assert sharp == sorted(sharp, reverse=True)
    assert sharp[0] > BARS[QualityFilter.HIGH].sharpness
    assert sharp[-1] < BARS[QualityFilter.LOW].sharpness


@pytest.mark.parametrize("size", [(17, 1), (1, 17)])
def test_a_face_that_moved_in_one_direction_is_not_sharp(size: tuple[int, int]) -> None:
    moved = cv2.blur(ASTRONAUT, size).astype(np.uint8)
    assert assess(moved, FACE).sharpness < assess(ASTRONAUT, FACE).sharpness / 2


def test_what_has_no_gradient_cannot_be_blurred() -> None:
    assert sharpness(np.full((50, 50), 90, np.uint8)) == 100


def test_less_light_is_more_shadow_and_more_light_more_highlight() -> None:
    darker = [assess(_exposed(stops), FACE).shadows for stops in (0, -2, -4, -6)]
    lighter = [assess(_exposed(stops), FACE).highlights for stops in (0, 1, 2, 4)]
    assert all(less < more for less, more in pairwise(darker))
    assert all(less < more for less, more in pairwise(lighter))


def test_hair_and_background_in_the_corners_of_the_box_are_no_shadow() -> None:
    image = np.full((100, 100, 3), 120, np.uint8)
    for rows in (slice(0, 12), slice(88, 100)):
        for columns in (slice(0, 12), slice(88, 100)):
            image[rows, columns] = 0
    assert assess(image, Face(Box(0, 0, 100, 100), NOTHING, 1.0)).shadows == 0


@settings(deadline=None)
@given(st.floats(-50, 50), st.floats(-30, 30), st.floats(-45, 45))
def test_the_direction_of_a_head_is_found(yaw: float, pitch: float, roll: float) -> None:
    points = _looking(yaw, pitch, roll)
    quality = assess(NOISE, Face(Box(50, 50, 100, 100), points, 1.0))
    level = assess(NOISE, Face(Box(50, 50, 100, 100), _looking(0, 0, 0), 1.0))
    assert quality.yaw == pytest.approx(yaw, abs=12)
    assert quality.pitch is not None
    assert level.pitch is not None
    assert quality.pitch - level.pitch == pytest.approx(pitch, abs=12)


@settings(deadline=None)
@given(st.floats(-179, 179))
def test_roll_is_the_tilt_of_the_eyes(roll: float) -> None:
    quality = assess(NOISE, Face(Box(50, 50, 100, 100), replace(_looking(0, 0, roll), nose=None), 1.0))
    assert quality.roll == pytest.approx(roll, abs=0.01)
    assert (quality.yaw, quality.pitch) == (None, None)


def test_a_face_without_points_has_no_direction_and_no_features() -> None:
    quality = assess(ASTRONAUT, replace(FACE, landmarks=NOTHING))
    assert (quality.yaw, quality.pitch, quality.roll, quality.features, quality.tint) == (None,) * 5


def test_a_mirrored_face_looks_to_the_other_side_and_is_as_good() -> None:
    quality, mirrored = assess(ASTRONAUT, FACE), assess(*_mirrored(ASTRONAUT, FACE))
    assert quality.yaw is not None
    assert quality.roll is not None
    assert (mirrored.yaw, mirrored.roll) == pytest.approx((-quality.yaw, -quality.roll))
    for measure in ("brightness", "sharpness", "shadows", "highlights", "pitch", "features", "tint"):
        assert getattr(mirrored, measure) == pytest.approx(getattr(quality, measure), abs=1.0)


@pytest.mark.parametrize(
    ("cover", "measure"),
    [
        (Box(190, 122, 70, 60), "features"),
        (Box(190, 88, 70, 26), "features"),
        (Box(222, 88, 50, 90), "features"),
        (Box(190, 122, 70, 60), "tint"),
    ],
    ids=["mask", "glasses", "hand", "blue mask"],
)
def test_what_covers_a_part_of_the_face_is_seen(cover: Box, measure: str) -> None:
    reasons = ENROLLMENT_LIMITS.reasons(assess(_covered(cover, (110, 150, 200)), FACE))
    assert measure in {reason.measure for reason in reasons if reason.issue is QualityIssue.OCCLUDED}


def test_a_grey_picture_has_no_tint() -> None:
    grey = cv2.cvtColor(cv2.cvtColor(ASTRONAUT, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.uint8)
    assert assess(grey, FACE).tint == 0
    grey[122:182, 190:260, 2] += 4  # as compression does
    tint = assess(grey, FACE).tint
    assert tint is not None
    assert 0 < tint < ENROLLMENT_LIMITS.tint


@pytest.mark.parametrize(("name", "face"), [("astronaut.jpg", FACE), ("grace_hopper.jpg", ADMIRAL)])
@pytest.mark.parametrize("points", [5, 2, 0])
def test_a_good_photo_is_good_enough(name: str, face: Face, points: int) -> None:
    landmarks = face.landmarks
    given = {5: landmarks, 2: Landmarks(landmarks.left_eye, landmarks.right_eye), 0: NOTHING}[points]
    quality = assess(_sample(name), replace(face, landmarks=given))
    assert SCREENING_LIMITS.reasons(quality) == ()
    assert ENROLLMENT_LIMITS.reasons(quality) == ()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
async def test_a_square_of_one_colour_lacks_nothing(image_format: str) -> None:
    image = decode(photo(RED, GREEN, BLUE, YELLOW, image_format=image_format), max_pixels=10**7)
    faces = await PaintedBackend().detect(image, "centerface")
    assert len(faces) == 4
    for face in faces:
        assert ENROLLMENT_LIMITS.reasons(assess(image, face)) == ()


@pytest.mark.parametrize(
    ("image", "issue"),
    [
        (cv2.GaussianBlur(ASTRONAUT, (0, 0), 6).astype(np.uint8), QualityIssue.BLURRED),
        (_exposed(-9), QualityIssue.UNDEREXPOSED),
        (_exposed(6), QualityIssue.OVEREXPOSED),
    ],
    ids=["blurred", "dark", "bright"],
)
def test_a_bad_picture_is_not_screenable(image: Pixels, issue: QualityIssue) -> None:
    assert issue in {reason.issue for reason in SCREENING_LIMITS.reasons(assess(image, FACE))}


@pytest.mark.parametrize("box", [Box(-20, -20, 60, 60), Box(180, 150, 90, 90)])
def test_only_what_is_in_the_image_is_measured(box: Box) -> None:
    framed = np.zeros((200, 200, 3), np.uint8)
    framed[max(box.y, 0) : box.y + box.h, max(box.x, 0) : box.x + box.w] = 255
    quality = assess(framed, Face(box, NOTHING, 1.0))
    assert (quality.brightness, quality.highlights) == pytest.approx((100, 100))


@pytest.mark.parametrize("box", [Box(300, 300, 10, 10), Box(-30, 5, 20, 20), Box(5, 5, 0, 9)])
def test_outside_of_the_image_all_is_black(box: Box) -> None:
    quality = assess(NOISE, Face(box, FACE.landmarks, 1.0))
    assert (quality.brightness, quality.shadows, quality.features) == (0, 100, None)


@settings(deadline=None)
@given(
    box=st.builds(Box, st.integers(-80, 80), st.integers(-80, 80), st.integers(1, 120), st.integers(1, 120)),
    points=st.lists(st.builds(Point, st.floats(-99, 99), st.floats(-99, 99)) | st.none(), min_size=5, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_box_and_all_points_have_a_quality(box: Box, points: list[Point | None], seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (50, 60, 3), np.uint8)
    quality = assess(image, Face(box, Landmarks(*points), 0.5))
    for percentage in (quality.brightness, quality.sharpness, quality.shadows, quality.highlights):
        assert 0 <= percentage <= 100
    for angle in (quality.yaw, quality.pitch, quality.roll):
        assert angle is None or -180 <= angle <= 180
    for share in (quality.features, quality.tint):
        assert share is None or (np.isfinite(share) and share >= 0)


def test_every_fault_is_named() -> None:
    bad = assess(np.zeros((300, 300, 3), np.uint8), Face(Box(0, 0, 20, 300), NOTHING, 0.1))
    bad = replace(bad, sharpness=0.0)
    assert set(BARS[QualityFilter.AUTO].faults(bad)) == set(QualityFault)
    assert BARS[QualityFilter.NONE].faults(bad) == ()


def test_a_higher_bar_is_higher_in_everything() -> None:
    low, medium, high = (BARS[quality] for quality in (QualityFilter.LOW, QualityFilter.MEDIUM, QualityFilter.HIGH))
    for measured in ("side", "confidence", "brightness", "sharpness"):
        assert getattr(low, measured) < getattr(medium, measured) < getattr(high, measured)
