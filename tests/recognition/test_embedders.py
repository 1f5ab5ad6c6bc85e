import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import dlib
import numpy as np
import pytest
from deepface.modules.preprocessing import normalize_input
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save_model

from facescreen.config import ModelName
from facescreen.domain.distances import EMBEDDING_METRICS, Metric, distances
from facescreen.domain.faces import Box, Face, Landmarks, Pixels, Point
from facescreen.recognition.catalog import MODELS, ModelSpec, Normalization, default_threshold
from facescreen.recognition.embedders import Embedder, load_embedder, normalize
from facescreen.recognition.weights import WeightStore
from tests.recognition.test_alignment import FACE

HOPPER = Face(Box(190, 90, 155, 190), Landmarks(Point(317, 150), Point(243, 152)), 1.0)
"""Grace Hopper's face and eyes."""

pytestmark = pytest.mark.filterwarnings("ignore")  # deepface's own


@pytest.fixture(scope="module")
def embedder(store: WeightStore) -> Embedder:
    return load_embedder("Dlib", weights=store)


@pytest.fixture(scope="module")
def crops(embedder: Embedder, astronaut: Pixels, grace_hopper: Pixels) -> list[NDArray[np.uint8]]:
    return [embedder.align(astronaut, FACE), embedder.align(grace_hopper, HOPPER)]


def test_dlib_is_the_mean_of_both_sides(embedder: Embedder, crops: list[NDArray[np.uint8]], store: WeightStore) -> None:
    network, _ = store.require(MODELS["Dlib"])
    reference = dlib.face_recognition_model_v1(str(network))
    expected = np.array(
        [
            [reference.compute_face_descriptor(np.ascontiguousarray(side)) for side in (crop, crop[:, ::-1])]
            for crop in crops
        ]
    ).mean(axis=1)
    vectors = embedder.embed(crops)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_a_crop_does_not_depend_on_its_batch(embedder: Embedder, crops: list[NDArray[np.uint8]]) -> None:
    alone = [embedder.embed([crop])[0] for crop in crops]
    together = embedder.embed([*crops, *crops, crops[0]])
    for row, vector in enumerate(together):
        assert np.array_equal(vector, alone[row % 2])
    assert embedder.embed([]).shape == (0, 128)


def test_concurrent_answers_are_the_same(embedder: Embedder, crops: list[NDArray[np.uint8]]) -> None:
    alone = embedder.embed(crops)
    with ThreadPoolExecutor(4) as pool:
        for vectors in pool.map(embedder.embed, [crops] * 8):
            assert np.array_equal(vectors, alone)


@pytest.mark.parametrize("metric", EMBEDDING_METRICS)
def test_the_default_threshold_tells_two_people_apart(
    embedder: Embedder, crops: list[NDArray[np.uint8]], astronaut: Pixels, metric: Metric
) -> None:
    small = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA).astype(np.uint8)
    points = [getattr(FACE.landmarks, name) for name in Landmarks.__slots__]
    half = Landmarks(*(Point(point.x / 2, point.y / 2) for point in points))
    again = embedder.align(small, Face(Box(91, 32, 42, 54), half, 1.0))
    query, other, same = embedder.embed([*crops, again])
    threshold = default_threshold("Dlib", metric)
    assert threshold is not None
    assert distances(metric, query, same[None])[0] <= threshold < distances(metric, query, other[None])[0]


@pytest.mark.parametrize(
    ("normalization", "name"),
    [
        (Normalization.CENTERED, "ArcFace"),
        (Normalization.WHITENED, "Facenet"),
        (Normalization.VGG_MEAN, "VGGFace"),
        (Normalization.UNIT, "base"),
    ],
)
def test_normalizations_are_deepfaces_of_the_same_name(normalization: Normalization, name: str) -> None:
    crop = np.random.default_rng(5).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    bgr = crop[..., ::-1].astype(np.float32) / 255
    expected = normalize_input(bgr.copy(), name)[..., ::-1]
    np.testing.assert_allclose(normalize(crop[None], normalization)[0], expected, atol=1e-4)


def test_a_blank_crop_is_whitened_to_zero() -> None:
    assert not normalize(np.full((1, 8, 8, 3), 200, np.uint8), Normalization.WHITENED).any()


def _tell_apart(path: Path, spec: ModelSpec) -> NDArray[np.float32]:
    """Save a graph that maps the means of the channels linearly to an embedding, and return the map, (3, dimension)."""
    linear = np.random.default_rng(3).normal(size=(3, spec.dimension)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "linear"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "channels",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", *spec.input_size, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", spec.dimension])],
        [numpy_helper.from_array(np.array([1, 2], np.int64), "axes"), numpy_helper.from_array(linear, "linear")],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return linear


ZOO: tuple[ModelName, ...] = (
    "ArcFace", "GhostFaceNet", "Facenet", "Facenet512", "VGG-Face", "OpenFace", "DeepFace", "DeepID",
)  # fmt: skip


@pytest.mark.parametrize("name", ZOO)
def test_deepfaces_clients_are_fed_as_their_model_was_trained(
    name: ModelName, tmp_path: Path, astronaut: Pixels
) -> None:
    spec = MODELS[name]
    path = tmp_path / ".deepface/weights" / spec.files[0].name
    linear = _tell_apart(path, spec)
    embedder = load_embedder(name, weights=WeightStore(tmp_path))

    crop = embedder.align(astronaut, FACE)
    assert crop.shape == (*spec.input_size, 3)
    vectors = embedder.embed([crop, crop[::-1]])
    expected = normalize(crop[None], spec.normalization)[0].mean(axis=(0, 1)) @ linear
    if name == "VGG-Face":
        expected /= np.linalg.norm(expected)
    assert embedder.space == spec.space
    np.testing.assert_allclose(vectors[0], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(vectors[1], expected, rtol=1e-3, atol=1e-3)


PROGRAM = """
import sys
from pathlib import Path
import facescreen.recognition.alignment, facescreen.recognition.catalog, facescreen.recognition.detectors
import facescreen.recognition.embedders, facescreen.recognition.weights
from facescreen.recognition.detectors import load_detector
from facescreen.recognition.embedders import load_embedder
assert not {"tensorflow", "keras", "deepface", "mtcnn"} & set(sys.modules)
store = facescreen.recognition.weights.WeightStore(Path(sys.argv[1]))
load_embedder("Dlib", weights=store)
for name in sys.argv[2:]:
    load_detector(name, weights=store, max_side=1024)
assert not {"tensorflow", "keras", "torch", "face_recognition_models"} & set(sys.modules)
"""


def test_tensorflow_loads_only_for_what_needs_it(store: WeightStore) -> None:
    from facescreen.recognition.catalog import DETECTORS

    names = [name for name in ("opencv", "dlib", "yunet") if not store.missing(DETECTORS[name])]
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(store._home), *names], check=True, capture_output=True, timeout=60
    )
