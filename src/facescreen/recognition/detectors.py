"""Images to faces, by every detector that DeepFace offers.

DeepFace's clients round landmarks and drop noses and mouths; the adapters for detectors that give five points ask the
library underneath instead. All others are asked through DeepFace's client and give eyes at most.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from facescreen.config import DetectorName
from facescreen.domain.faces import Box, Face, Landmarks, Pixels, Point
from facescreen.recognition.catalog import DETECTORS
from facescreen.recognition.weights import WeightStore

SMALLEST_SIDE: Final = 20
"""Images with a shorter side, in pixels, hold no face: the smallest that MTCNN looks for (``min_face_size``)."""

YUNET_SIDE: Final = 640
"""YuNet misses faces on larger inputs; the bound of DeepFace's client."""

CUT_OFF_SIDE: Final = 256
"""Longest side, in pixels, of the copy on which faces are sought that the edge of the image cuts: those are large."""

CUT_OFF_BORDER: Final = 0.4
"""Width of the black border around that copy, as a share of its sides."""

SAME_FACE: Final = 0.3
"""Intersection over union from which two boxes are taken for one face."""

_TAKES_RGB: Final = frozenset({"dlib", "mediapipe"})
"""Detectors trained on RGB that DeepFace's client does not convert for."""


class Detector(Protocol):
    """Finds faces. Safe for concurrent use; the answer depends on the pixels alone."""

    def detect(self, image: Pixels) -> tuple[Face, ...]:
        """Every face, largest first, with boxes inside of the image; ``()`` where there is none."""
        ...


def load_detector(name: DetectorName, *, weights: WeightStore, max_side: int) -> Detector:
    """A detector that sees images scaled down to ``max_side`` pixels on their longest side.

    Raises:
        PackageMissingError: a Python package that it needs is not installed, or is a version that it cannot use.
        WeightsMissingError: its weights are not on this machine.
    """
    paths = weights.require(DETECTORS[name])
    match name:
        case "mtcnn":
            return _Bounded(_with_cut_off_faces(_mtcnn([str(path) for path in paths])), max_side)
        case "yunet":
            return _Bounded(_yunet(_client(name, weights)), min(max_side, YUNET_SIDE))
        case "retinaface":
            return _Bounded(_retinaface(_client(name, weights)), max_side)
        case _:
            return _Bounded(_generic(_client(name, weights), rgb=name in _TAKES_RGB), max_side)


@dataclass(frozen=True, slots=True)
class _Found:
    """A detection in pixels of what the detector saw: corners of the box, and five points in the order of a template.

    The points are right eye, left eye, nose, right and left mouth corner; NaN where the detector gives none.
    """

    corners: tuple[float, float, float, float]
    confidence: float
    points: NDArray[np.float64]


_Find = Callable[[Pixels], Iterable[_Found]]


class _Bounded:
    """Scales down, detects, scales back, clamps and orders."""

    def __init__(self, find: _Find, max_side: int) -> None:
        self._find = find
        self._max_side = max_side
        # Half of the libraries keep state between calls (cv2.FaceDetectorYN its input size, cv2.dnn its input), and the
        # others use every core for one image.
        self._turn = threading.Lock()

    def detect(self, image: Pixels) -> tuple[Face, ...]:
        height, width = image.shape[:2]
        scale = min(1.0, self._max_side / max(height, width))
        columns, rows = round(width * scale), round(height * scale)
        if min(columns, rows) < SMALLEST_SIDE:
            return ()
        seen = image if scale == 1.0 else cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
        with self._turn:
            found = list(self._find(np.ascontiguousarray(seen, dtype=np.uint8)))
        back = np.array([width / columns, height / rows])
        faces = (_face(detection, back, (width, height)) for detection in found)
        return tuple(sorted(filter(None, faces), key=lambda face: (-face.box.area, face.box.x, face.box.y)))


def _face(found: _Found, back: NDArray[np.float64], size: tuple[int, int]) -> Face | None:
    """The detection in the image of this (width, height), or nothing where it lies outside."""
    corners = np.reshape(found.corners, (2, 2)) * back
    if not np.isfinite(corners).all():
        return None
    (left, top), (right, bottom) = np.clip(np.rint(corners), 0, size).astype(int).tolist()
    if right <= left or bottom <= top:
        return None
    # Pixel centres have whole coordinates, so the image begins at -0.5; boxes count edges, points count centres.
    points = [Point(float(x), float(y)) if np.isfinite(x + y) else None for x, y in (found.points + 0.5) * back - 0.5]
    right_eye, left_eye, nose, mouth_right, mouth_left = points
    return Face(
        Box(left, top, right - left, bottom - top),
        Landmarks(left_eye=left_eye, right_eye=right_eye, nose=nose, mouth_left=mouth_left, mouth_right=mouth_right),
        float(np.clip(found.confidence, 0.0, 1.0)),
    )


class _Region(Protocol):
    """DeepFace's ``FacialAreaRegion``."""

    x: float
    y: float
    w: float
    h: float
    left_eye: tuple[float, float] | None
    right_eye: tuple[float, float] | None
    confidence: float | None


class _Client(Protocol):
    """DeepFace's ``Detector``."""

    model: Any

    def detect_faces(self, img: Pixels) -> list[_Region]: ...


def _client(name: DetectorName, weights: WeightStore) -> _Client:
    with weights.deepface(name):
        from deepface.modules.modeling import get_model_class  # noqa: PLC0415

        client: _Client = get_model_class("face_detector", name)()
        return client


def _mtcnn(paths: list[str]) -> _Find:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf  # noqa: PLC0415
    from mtcnn import MTCNN  # noqa: PLC0415
    from mtcnn.stages import StageONet, StagePNet, StageRNet  # noqa: PLC0415

    # MTCNN() would look for its weights, which are pickles, in the working directory first.
    stages = [stage(weights=path) for stage, path in zip((StagePNet, StageRNet, StageONet), paths, strict=True)]
    for stage in stages:
        # Called eagerly, as mtcnn does, they spend half of their time in Python; as graphs they give the same numbers.
        shape = tf.TensorSpec([None, None, None, 3], tf.float32)
        stage._model = tf.function(stage.model, input_signature=[shape])  # noqa: SLF001
    model = MTCNN(stages=stages)

    def find(image: Pixels) -> Iterator[_Found]:
        # Rows of image number, two corners, confidence, five x, five y; mtcnn's left is the observer's.
        for row in np.asarray(model.detect_faces(image, output_type="numpy", box_format="xyxy"), np.float64):
            yield _Found(tuple(row[1:5]), row[5], row[6:16].reshape(2, 5).T)

    return find


def _with_cut_off_faces(find: _Find) -> _Find:
    """A second, cheap look for faces that the edge of the image cuts.

    MTCNN's first network slides over the image and proposes nothing that reaches far beyond it, so such faces are only
    found with a border around the image; a border around the large image would cost twice the time for them alone.
    """

    def look_twice(image: Pixels) -> Iterator[_Found]:
        found = list(find(image))
        yield from found
        height, width = image.shape[:2]
        scale = min(1.0, CUT_OFF_SIDE / max(height, width))
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = round(rows * CUT_OFF_BORDER), round(columns * CUT_OFF_BORDER)
        small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
        framed = cv2.copyMakeBorder(small, top, top, left, left, cv2.BORDER_CONSTANT)
        step = np.array([width / columns, height / rows])
        for again in find(np.asarray(framed, np.uint8)):
            corners = (np.reshape(again.corners, (2, 2)) - [left, top]) * step
            is_cut = bool((corners[0] < 0).any() or (corners[1] > [width, height]).any())
            if is_cut and not any(_overlap(corners, np.reshape(known.corners, (2, 2))) > SAME_FACE for known in found):
                points = (again.points - [left, top] + 0.5) * step - 0.5
                yield _Found(tuple(corners.ravel().tolist()), again.confidence, points)

    return look_twice


def _overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Intersection over union of two boxes given by their corners (2, 2)."""
    shared = float(np.prod(np.clip(np.minimum(one[1], other[1]) - np.maximum(one[0], other[0]), 0, None)))
    return shared / float(np.prod(one[1] - one[0]) + np.prod(other[1] - other[0]) - shared)


def _yunet(client: _Client) -> _Find:
    model = client.model

    def find(image: Pixels) -> Iterator[_Found]:
        model.setInputSize((image.shape[1], image.shape[0]))
        _, rows = model.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        # Rows of box, right eye, left eye, nose, right and left mouth corner, score (OpenCV, FaceDetectorYN::detect).
        for row in np.empty((0, 15)) if rows is None else rows.astype(np.float64):
            x, y, w, h = row[:4]
            yield _Found((x, y, x + w, y + h), row[14], row[4:14].reshape(5, 2))

    return find


def _retinaface(client: _Client) -> _Find:
    from retinaface import RetinaFace  # noqa: PLC0415

    def find(image: Pixels) -> Iterator[_Found]:
        faces = RetinaFace.detect_faces(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), model=client.model, threshold=0.9)
        for face in faces.values():
            points = [face["landmarks"][key] for key in ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")]
            yield _Found(face["facial_area"], face["score"], np.array(points, np.float64))

    return find


def _generic(client: _Client, *, rgb: bool) -> _Find:
    def find(image: Pixels) -> Iterator[_Found]:
        for region in client.detect_faces(image if rgb else image[..., ::-1].copy()):
            points = np.full((5, 2), np.nan)
            for row, eye in enumerate((region.right_eye, region.left_eye)):
                if eye is not None:
                    points[row] = eye
            corners = (region.x, region.y, region.x + region.w, region.y + region.h)
            yield _Found(corners, region.confidence or 0.0, points)

    return find
