"""Images to faces, by every detector of the catalogue, whichever way up their heads are.

CenterFace, MTCNN, YuNet and RetinaFace give five points and are asked directly. All others are asked through DeepFace's
clients, which round points and give eyes at most.
"""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from facescreen.config import DetectorName
from facescreen.domain.faces import Box, Face, Landmarks, Pixels, Point
from facescreen.recognition import centerface
from facescreen.recognition.catalog import DETECTORS
from facescreen.recognition.centerface import CenterFace
from facescreen.recognition.networks import THREADS
from facescreen.recognition.orientation import UprightCenterFace
from facescreen.recognition.sightings import Sightings
from facescreen.recognition.weights import WeightStore

SMALLEST_SIDE: Final = 20
"""Images with a shorter side, in pixels, hold no face: the smallest that MTCNN looks for (``min_face_size``)."""

MAX_SIDE: Final = 1024
"""Longest side, in pixels, of what detectors see that have no bound of their own."""

YUNET_SIDE: Final = 640
"""YuNet misses faces on larger inputs; the bound of DeepFace's client."""

CUT_OFF_SIDE: Final = 256
"""Longest side, in pixels, of the copy on which faces are sought that the edge of the image cuts: those are large."""

CUT_OFF_BORDER: Final = 0.4
"""Width of the black border around that copy, as a share of its sides."""

_TAKES_RGB: Final = frozenset({"dlib", "mediapipe"})
"""Detectors trained on RGB that DeepFace's client does not convert for."""


class Detector(Protocol):
    """Finds faces. Safe for concurrent use; the answer depends on the pixels alone."""

    def detect(self, image: Pixels) -> tuple[Face, ...]:
        """Every face, largest first, with boxes inside of the image; ``()`` where there is none.

        The landmarks of a head that is turned, by up to half a circle, are those of the head as it is seen upright.
        """
        ...

    def smallest_face(self, width: int, height: int) -> int | None:
        """Side, in pixels, from which faces are looked for in images of this size; ``None`` where nobody knows."""
        ...


def load_detector(name: DetectorName, *, weights: WeightStore, max_side: int | None = None) -> Detector:
    """A detector that sees images scaled down to ``max_side`` pixels on their longest side.

    Without it each detector has its own bound: :data:`facescreen.recognition.centerface.SIDE`, :data:`YUNET_SIDE` or
    :data:`MAX_SIDE`.

    Raises:
        PackageMissingError: a Python package that it needs is not installed, or is a version that it cannot use.
        WeightsMissingError: its weights, or those of CenterFace, are not on this machine.
    """
    network = CenterFace(weights.require(DETECTORS["centerface"])[0], threads=THREADS)
    if name == "centerface":
        return _Upright(UprightCenterFace(network, side=max_side or centerface.SIDE))
    paths = weights.require(DETECTORS[name])
    match name:
        case "mtcnn":
            find = _scaled(_with_cut_off_faces(_mtcnn([str(path) for path in paths])), max_side or MAX_SIDE)
        case "yunet":
            find = _scaled(_yunet(paths[0]), min(max_side or YUNET_SIDE, YUNET_SIDE))
        case "retinaface":
            find = _scaled(_retinaface(_client(name, weights)), max_side or MAX_SIDE)
        case _:
            find = _scaled(_generic(_client(name, weights), rgb=name in _TAKES_RGB), max_side or MAX_SIDE)
    return _Upright(UprightCenterFace(network, side=centerface.SIDE), find)


_Find = Callable[[Pixels], Sightings]


class _Upright:
    """Finds heads whichever way up they are.

    Args:
        compass: tells which heads are turned, and finds their landmarks; finds all others, too, without ``find``.
        find: finds upright heads.
    """

    def __init__(self, compass: UprightCenterFace, find: _Find | None = None) -> None:
        self._compass = compass
        self._find = find

    def detect(self, image: Pixels) -> tuple[Face, ...]:
        known, turns = self._compass.find(image)
        if self._find is None:
            faces, is_upright = known, turns >= 0
        else:
            faces, is_upright = self._with_turned(image, self._find(image), known=known, turns=turns)
        height, width, _ = image.shape
        every = (_face(faces, row, (width, height), is_upright=bool(is_upright[row])) for row in range(len(faces)))
        return tuple(sorted(filter(None, every), key=lambda face: (-face.box.area, face.box.x, face.box.y)))

    def smallest_face(self, width: int, height: int) -> int | None:
        return None if self._find else self._compass.smallest_face(width, height)

    def _with_turned(
        self, image: Pixels, found: Sightings, *, known: Sightings, turns: NDArray[np.intp]
    ) -> tuple[Sightings, NDArray[np.bool_]]:
        """What was found, without the heads that are turned, and those as the compass knows them."""
        turned = known.chosen(turns != 0)
        found = found.chosen(~found.are_among(turned))
        is_upright = np.ones(len(found), np.bool_)
        unknown = ~found.are_among(known)
        is_upright[unknown] = self._compass.vote(image, found.chosen(unknown)) <= 0
        return Sightings.together([found, turned]), np.append(is_upright, turns[turns != 0] > 0)


def _face(faces: Sightings, row: int, size: tuple[int, int], *, is_upright: bool) -> Face | None:
    """One of the faces in an image of this (width, height), or nothing where it lies outside."""
    corners = faces.corners[row]
    if not np.isfinite(corners).all():
        return None
    (left, top), (right, bottom) = np.clip(np.rint(corners), 0, size).astype(int).tolist()
    if right <= left or bottom <= top:
        return None
    # Pixel centres have whole coordinates, so the image begins at -0.5; boxes count edges, points count centres.
    points = [Point(float(x), float(y)) if np.isfinite(x + y) else None for x, y in faces.points[row] - 0.5]
    right_eye, left_eye, nose, mouth_right, mouth_left = points
    return Face(
        Box(left, top, right - left, bottom - top),
        Landmarks(left_eye=left_eye, right_eye=right_eye, nose=nose, mouth_left=mouth_left, mouth_right=mouth_right),
        float(np.clip(faces.confidences[row], 0.0, 1.0)),
        is_upright=is_upright,
    )


def _scaled(find: _Find, max_side: int) -> _Find:
    """Looks at the image scaled down to this longest side, one at a time."""
    # Half of the libraries keep state between calls (cv2.FaceDetectorYN its input size, cv2.dnn its input), and the
    # others use every core for one image.
    turn = threading.Lock()

    def look(image: Pixels) -> Sightings:
        height, width, _ = image.shape
        scale = min(1.0, max_side / max(height, width))
        columns, rows = round(width * scale), round(height * scale)
        if min(columns, rows) < SMALLEST_SIDE:
            return Sightings.none()
        scaled = image if scale == 1.0 else cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
        with turn:
            found = find(np.ascontiguousarray(scaled, dtype=np.uint8))
        return found.moved(np.array([width / columns, height / rows]))

    return look


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

    def find(image: Pixels) -> Sightings:
        # Rows of image number, two corners, confidence, five x, five y; mtcnn's left is the observer's.
        rows = np.asarray(model.detect_faces(image, output_type="numpy", box_format="xyxy"), np.float64).reshape(-1, 16)
        return Sightings(
            rows[:, 1:5].reshape(-1, 2, 2), rows[:, 5], rows[:, 6:16].reshape(-1, 2, 5).transpose(0, 2, 1) + 0.5
        )

    return find


def _with_cut_off_faces(find: _Find) -> _Find:
    """A second, cheap look for faces that the edge of the image cuts.

    MTCNN's first network slides over the image and proposes nothing that reaches far beyond it, so such faces are only
    found with a border around the image; a border around the large image would cost twice the time for them alone.
    """

    def look_twice(image: Pixels) -> Sightings:
        height, width, _ = image.shape
        scale = min(1.0, CUT_OFF_SIDE / max(height, width))
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = round(rows * CUT_OFF_BORDER), round(columns * CUT_OFF_BORDER)
        small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
        framed = cv2.copyMakeBorder(small, top, top, left, left, cv2.BORDER_CONSTANT)
        again = find(np.asarray(framed, np.uint8)).moved(np.array([width / columns, height / rows]), (-left, -top))
        reaches_out = np.concatenate([again.corners[:, 0] < 0, again.corners[:, 1] > (width, height)], axis=1)
        found = find(image)
        return Sightings.together([found, again.chosen(np.any(reaches_out, axis=1) & ~again.are_among(found))])

    return look_twice


def _yunet(path: Path) -> _Find:
    model: Any = cv2.FaceDetectorYN.create(str(path), "", (YUNET_SIDE, YUNET_SIDE))

    def find(image: Pixels) -> Sightings:
        model.setInputSize((image.shape[1], image.shape[0]))
        _, found = model.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        # Rows of box, right eye, left eye, nose, right and left mouth corner, score (OpenCV, FaceDetectorYN::detect).
        rows = np.empty((0, 15)) if found is None else found.astype(np.float64)
        first, extent = rows[:, None, 0:2], rows[:, None, 2:4]
        corners = np.concatenate([first, first + extent], axis=1)
        return Sightings(corners, rows[:, 14], rows[:, 4:14].reshape(-1, 5, 2) + 0.5)

    return find


def _retinaface(client: _Client) -> _Find:
    from retinaface import RetinaFace  # noqa: PLC0415

    def find(image: Pixels) -> Sightings:
        found = RetinaFace.detect_faces(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), model=client.model, threshold=0.9)
        names = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")
        return _sightings(
            (face["facial_area"], face["score"], [face["landmarks"][name] for name in names]) for face in found.values()
        )

    return find


def _generic(client: _Client, *, rgb: bool) -> _Find:
    def find(image: Pixels) -> Sightings:
        regions = client.detect_faces(image if rgb else image[..., ::-1].copy())
        nowhere = (np.nan, np.nan)
        return _sightings(
            (
                (region.x, region.y, region.x + region.w, region.y + region.h),
                region.confidence or 0.0,
                [region.right_eye or nowhere, region.left_eye or nowhere, nowhere, nowhere, nowhere],
            )
            for region in regions
        )

    return find


def _sightings(found: Iterable[tuple[Sequence[float], float, Sequence[tuple[float, float]]]]) -> Sightings:
    """Of boxes by their corners, confidences, and points by the places of pixel centres."""
    every = list(found)
    return Sightings(
        np.array([box for box, _, _ in every], np.float64).reshape(-1, 2, 2),
        np.array([confidence for _, confidence, _ in every], np.float64),
        np.array([points for _, _, points in every], np.float64).reshape(-1, 5, 2) + 0.5,
    )
