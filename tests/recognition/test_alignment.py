import importlib.util
import math
from pathlib import Path

import cv2
import dlib
import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facescreen.domain.faces import Box, Face, Landmarks, Pixels, Point
from facescreen.recognition.alignment import (
    DLIB_TEMPLATE,
    LandmarkModel,
    Points,
    Transform,
    apply,
    crop_face,
    dlib_template,
    similarity,
    warp,
)
from facescreen.recognition.catalog import DLIB_LANDMARKS, MODELS, Crop, ModelSpec

FACE = Face(
    Box(182, 64, 83, 107),
    Landmarks(Point(245.4, 102.2), Point(203.5, 100.1), Point(224.2, 126.4), Point(244.4, 140.4), Point(201.8, 138.6)),
    1.0,
)
"""What mtcnn finds in the astronaut photo."""


def _path() -> Path:
    spec = importlib.util.find_spec("face_recognition_models")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / DLIB_LANDMARKS.path


@pytest.fixture(scope="module")
def landmarks() -> LandmarkModel:
    return LandmarkModel(_path())


def _similarity(*, scale: float, degrees: float, shift: tuple[float, float]) -> Transform:
    angle = math.radians(degrees)
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.column_stack([linear, shift])


def _moved(face: Face, transform: Transform) -> Face:
    points = face.landmarks
    every = (points.left_eye, points.right_eye, points.nose, points.mouth_left, points.mouth_right)
    moved = [Point(*row) for row in apply(transform, np.array(every)).tolist()]
    scale = math.sqrt(np.linalg.det(transform[:, :2]))
    box = face.box
    centre = apply(transform, np.array([[box.x + box.w / 2, box.y + box.h / 2]]))[0]
    w, h = round(box.w * scale), round(box.h * scale)
    return Face(Box(round(centre[0] - w / 2), round(centre[1] - h / 2), w, h), Landmarks(*moved), face.confidence)


@given(
    scale=st.floats(0.1, 10),
    degrees=st.floats(-179, 179),
    x=st.floats(-500, 500),
    y=st.floats(-500, 500),
    count=st.sampled_from([2, 3, 5]),
)
def test_a_similarity_is_recovered(scale: float, degrees: float, x: float, y: float, count: int) -> None:
    transform = _similarity(scale=scale, degrees=degrees, shift=(x, y))
    source = DLIB_TEMPLATE[:count] * 100
    np.testing.assert_allclose(similarity(source, apply(transform, source)), transform, rtol=1e-6, atol=1e-6)


def test_a_similarity_never_mirrors() -> None:
    source = DLIB_TEMPLATE * 100
    assert np.linalg.det(similarity(source, source * [-1, 1])[:, :2]) > 0


@hypothesis.settings(deadline=None)  # the first example loads the landmark model
@given(
    scale=st.floats(0.8, 2), degrees=st.floats(-40, 40), crop=st.sampled_from([Crop.DLIB, Crop.ARCFACE, Crop.OPENFACE])
)
def test_a_tilted_or_scaled_photo_gives_the_same_crop(
    landmarks: LandmarkModel, astronaut: Pixels, scale: float, degrees: float, crop: Crop
) -> None:
    around = np.array([224.0, 120.0])
    turn = _similarity(scale=scale, degrees=degrees, shift=(0, 0))
    turn[:, 2] = 400 - turn[:, :2] @ around
    moved = warp(astronaut, turn, (800, 800))
    plain = crop_face(crop, astronaut, FACE, size=(112, 112), landmarks=landmarks).astype(int)
    again = crop_face(crop, moved, _moved(FACE, turn), size=(112, 112), landmarks=landmarks).astype(int)
    assert np.abs(plain - again)[8:-8, 8:-8].mean() < 6


def test_the_chip_is_dlibs(landmarks: LandmarkModel, astronaut: Pixels) -> None:
    points = np.rint(landmarks.locate(astronaut, FACE))
    parts = dlib.points([dlib.point(int(x), int(y)) for x, y in points])
    expected = dlib.get_face_chip(
        astronaut, dlib.full_object_detection(dlib.rectangle(176, 70, 268, 170), parts), size=150, padding=0.25
    )
    chip = warp(astronaut, similarity(points, dlib_template(150)), (150, 150))
    assert np.abs(chip.astype(int) - np.asarray(expected).astype(int)).mean() < 2


def test_landmarks_without_eyes_are_those_with_eyes(landmarks: LandmarkModel, astronaut: Pixels) -> None:
    blind = Face(FACE.box, Landmarks(), 1.0)
    difference = landmarks.locate(astronaut, blind) - landmarks.locate(astronaut, FACE)
    assert np.abs(difference).max() < 0.05 * 42  # of the distance between the eyes


def test_shrinking_averages_instead_of_skipping(landmarks: LandmarkModel) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    eyes = Landmarks(Point(1300, 900), Point(700, 900), Point(1000, 1300), Point(1250, 1600), Point(750, 1600))
    crop = crop_face(
        Crop.ARCFACE, noise, Face(Box(400, 300, 1200, 1500), eyes, 1.0), size=(112, 112), landmarks=landmarks
    )
    # Noise of one pixel averaged over blocks of 17x17 keeps a seventeenth of its deviation of 74.
    assert crop.std() < 8
    assert crop.mean() == pytest.approx(127.5, abs=2)


def test_shrinking_moves_nothing(astronaut: Pixels) -> None:
    ramp = np.zeros((600, 800, 3), np.float32)
    ramp[..., 0] = np.linspace(0, 255, 800)
    ramp[..., 1] = np.linspace(0, 255, 600)[:, None]
    transform = np.array([[0.13, 0.02, 5.0], [-0.02, 0.13, 20.0]])
    small = warp(np.rint(ramp).astype(np.uint8), transform, (90, 100))
    for x, y in ((30, 40), (60, 50), (80, 70)):
        source = apply(cv2.invertAffineTransform(transform).astype(np.float64), np.array([[x, y]], np.float64))[0]
        assert small[y, x, :2] == pytest.approx((source[0] * 255 / 799, source[1] * 255 / 599), abs=1.5)


coordinate = st.floats(-50, 600)
point = st.none() | st.builds(Point, coordinate, coordinate)


@given(
    spec=st.sampled_from(list(MODELS.values())),
    box=st.builds(Box, st.integers(0, 500), st.integers(0, 500), st.integers(1, 512), st.integers(1, 512)),
    points=st.builds(Landmarks, point, point, point, point, point),
)
def test_every_face_has_a_crop(
    landmarks: LandmarkModel, astronaut: Pixels, spec: ModelSpec, box: Box, points: Landmarks
) -> None:
    crop = crop_face(spec.alignment.crop, astronaut, Face(box, points, 1.0), size=spec.input_size, landmarks=landmarks)
    assert crop.shape == (*spec.input_size, 3)
    assert crop.dtype == np.uint8


def test_margins_of_the_box(landmarks: LandmarkModel) -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    image[100:300, 150:250] = 255
    face = Face(Box(150, 100, 100, 200), Landmarks(), 1.0)
    facenet = crop_face(Crop.FACENET, image, face, size=(160, 160), landmarks=landmarks)[..., 0] > 127
    assert (facenet[80].sum(), facenet[:, 80].sum()) == pytest.approx((128, 128), abs=1)  # 160 less a margin of 32
    square = crop_face(Crop.VGG_FACE, image, face, size=(224, 224), landmarks=landmarks)[..., 0] > 127
    assert square[112].sum() == pytest.approx(224 * 100 / 165, abs=1)


def test_points_are_where_the_template_wants_them(landmarks: LandmarkModel) -> None:
    spots: Points = np.array([[245, 102], [203, 100], [224, 126], [244, 140], [202, 138]], np.float64)
    image = np.zeros((300, 400, 3), np.uint8)
    for x, y in spots.astype(int):
        cv2.circle(image, (int(x), int(y)), 1, (255, 255, 255), -1)
    face = Face(FACE.box, Landmarks(*(Point(x, y) for x, y in spots)), 1.0)
    crop = crop_face(Crop.ARCFACE, image, face, size=(112, 112), landmarks=landmarks)[..., 0]
    rows, columns = np.nonzero(crop[:70] > 60)
    assert columns.min() == pytest.approx(38, abs=5)
    assert columns.max() == pytest.approx(74, abs=5)
    assert rows.mean() == pytest.approx(52, abs=5)
