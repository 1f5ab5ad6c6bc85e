from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest

from facescreen.config import DetectorName
from facescreen.domain.faces import Box, Landmarks, Pixels
from facescreen.errors import NotReadyError
from facescreen.recognition.catalog import DETECTORS, LandmarkSet
from facescreen.recognition.detectors import Detector, load_detector
from facescreen.recognition.weights import WeightStore

FACE = Box(176, 70, 92, 100)
"""Eileen Collins's face in the astronaut photo, from the hairline to the chin."""

RUNS_HERE: tuple[DetectorName, ...] = ("centerface", "mtcnn", "opencv", "dlib", "yunet")

pytestmark = pytest.mark.filterwarnings("ignore")  # TensorFlow's and mtcnn's own


@pytest.fixture(scope="module", params=RUNS_HERE)
def name(request: pytest.FixtureRequest, store: WeightStore) -> DetectorName:
    chosen: DetectorName = request.param
    if store.missing(DETECTORS[chosen]):
        pytest.skip(f"the weights of {chosen} are not on this machine")
    return chosen


@pytest.fixture(scope="module")
def detector(name: DetectorName, store: WeightStore) -> Detector:
    return load_detector(name, weights=store)


def test_one_face_where_it_is(detector: Detector, name: DetectorName, astronaut: Pixels) -> None:
    face = detector.detect(astronaut)[0]
    assert face.box.intersection_over_union(FACE) > 0.6
    assert 0 < face.confidence <= 1
    right, left = face.landmarks.right_eye, face.landmarks.left_eye
    assert right is not None
    assert left is not None
    assert right == pytest.approx((203, 101), abs=5)  # the person's right is on the left of the photo
    assert left == pytest.approx((246, 103), abs=5)
    rest = (face.landmarks.nose, face.landmarks.mouth_right, face.landmarks.mouth_left)
    if DETECTORS[name].landmarks is LandmarkSet.FIVE:
        nose, mouth_right, mouth_left = rest
        assert nose is not None
        assert mouth_right is not None
        assert mouth_left is not None
        assert right.y < nose.y < mouth_right.y
        assert mouth_right.x < nose.x < mouth_left.x
        assert any(value != round(value) for point in rest if point for value in point)
    else:
        assert rest == (None, None, None)


def test_two_faces_largest_first(detector: Detector, collage: Pixels) -> None:
    first, second = detector.detect(collage)[:2]
    assert first.box.area > second.box.area
    assert first.box.x + first.box.w / 2 == pytest.approx(270, abs=60)
    assert second.box.x + second.box.w / 2 == pytest.approx(544 + 0.75 * 222, abs=20)


def test_the_answer_is_in_pixels_of_the_image(name: DetectorName, store: WeightStore, astronaut: Pixels) -> None:
    large = astronaut.repeat(4, axis=0).repeat(4, axis=1)
    face = load_detector(name, weights=store, max_side=512).detect(large)[0]
    assert face.box.intersection_over_union(Box(*(4 * value for value in (FACE.x, FACE.y, FACE.w, FACE.h)))) > 0.6
    assert face.landmarks.left_eye == pytest.approx((4 * 246, 4 * 103), abs=20)


@pytest.mark.parametrize("shift", [0, 180, 200, 220])
def test_boxes_stay_inside(detector: Detector, astronaut: Pixels, shift: int) -> None:
    image = np.ascontiguousarray(astronaut[:200, shift : shift + 200])
    for face in detector.detect(image):
        assert face.box.x >= 0
        assert face.box.y >= 0
        assert face.box.w > 0
        assert face.box.h > 0
        assert face.box.x + face.box.w <= image.shape[1]
        assert face.box.y + face.box.h <= image.shape[0]


@pytest.mark.parametrize("name", ["centerface", "mtcnn"], indirect=True)
@pytest.mark.parametrize(("left", "top"), [(240, 0), (0, 190), (0, 210)])
def test_a_face_that_the_edge_cuts_is_found(detector: Detector, grace_hopper: Pixels, left: int, top: int) -> None:
    (whole,) = detector.detect(grace_hopper)
    (cut,) = detector.detect(np.ascontiguousarray(grace_hopper[top:, left:]))
    box = Box(max(0, whole.box.x - left), max(0, whole.box.y - top), cut.box.w, cut.box.h)
    assert cut.box.intersection_over_union(box) > 0.7


@pytest.mark.parametrize("shape", [(1, 1), (20, 20), (21, 21), (3, 4000), (4000, 25), (160, 160)])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_nothing_in_an_empty_image(detector: Detector, shape: tuple[int, int], grey: int) -> None:
    assert detector.detect(np.full((*shape, 3), grey, np.uint8)) == ()


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_turned_head_has_the_landmarks_that_it_has_upright(
    detector: Detector, store: WeightStore, grace_hopper: Pixels, turn: int
) -> None:
    upright = load_detector("centerface", weights=store).detect(grace_hopper)[0]
    height, width, _ = grace_hopper.shape
    expected = upright.turned(turn, width=width, height=height)
    found = detector.detect(np.ascontiguousarray(np.rot90(grace_hopper, turn)))[0]
    assert found.is_upright
    assert found.turn == -turn % 4
    assert found.box.intersection_over_union(expected.box) > 0.9
    for name in Landmarks.__slots__:
        assert tuple(getattr(found.landmarks, name)) == pytest.approx(tuple(getattr(expected.landmarks, name)), abs=3)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_turned_head_beside_an_upright_one(
    detector: Detector, astronaut: Pixels, grace_hopper: Pixels, turn: int
) -> None:
    canvas = np.full((480, 760, 3), 90, np.uint8)
    canvas[:450, :384] = cv2.resize(grace_hopper, (384, 450), interpolation=cv2.INTER_AREA)
    canvas[:360, 390:750] = cv2.resize(np.rot90(astronaut, turn), (360, 360), interpolation=cv2.INTER_AREA)
    faces = [face for face in detector.detect(canvas) if min(face.box.w, face.box.h) > 40]
    assert sorted(face.turn for face in faces) == sorted([0, -turn % 4])
    assert all(face.is_upright for face in faces)


def test_concurrent_answers_are_the_same(detector: Detector, astronaut: Pixels, collage: Pixels) -> None:
    small = np.ascontiguousarray(astronaut[:300, 100:400])
    images = [astronaut, collage, small] * 2
    alone = [detector.detect(image) for image in images[:3]] * 2
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(detector.detect, images)) == alone


@pytest.mark.parametrize("other", [name for name in get_args(DetectorName) if name not in RUNS_HERE])
def test_what_is_missing_is_said(other: DetectorName, tmp_path: Path) -> None:
    with pytest.raises(NotReadyError) as caught:
        load_detector(other, weights=WeightStore(tmp_path))
    assert str(caught.value).endswith(f"facescreen weights pull {other}") or "pip install" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
