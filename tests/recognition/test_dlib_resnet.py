"""Tests of the onnxruntime translation of dlib's face recognition network against dlib itself."""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import dlib
import numpy as np
import pytest

from facescreen.recognition.dlib_resnet import DlibResNet

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 1e-5


def _model(name: str) -> Path:
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("face_recognition_models is not installed")
    return Path(spec.submodule_search_locations[0]) / "models" / name


@pytest.fixture(scope="module")
def weights() -> Path:
    return _model("dlib_face_recognition_resnet_model_v1.dat")


@pytest.fixture(scope="module")
def network(weights: Path) -> DlibResNet:
    return DlibResNet(weights, threads=1)


@pytest.fixture(scope="module")
def noise() -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (6, 150, 150, 3), dtype=np.uint8)


def _reference(weights: Path, chips: NDArray[np.uint8]) -> NDArray[np.float64]:
    model = dlib.face_recognition_model_v1(str(weights))
    return np.array([model.compute_face_descriptor(chip) for chip in chips])


def _aligned_faces(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    landmarks = dlib.shape_predictor(str(_model("shape_predictor_5_face_landmarks.dat")))
    faces = dlib.get_frontal_face_detector()(image)
    assert len(faces) > 0
    return np.stack([dlib.get_face_chip(image, landmarks(image, f), size=150, padding=0.25) for f in faces])


def test_noise_matches_dlib(weights: Path, network: DlibResNet, noise: NDArray[np.uint8]) -> None:
    black, white = np.zeros_like(noise[:1]), np.full_like(noise[:1], 255)
    chips = np.concatenate([noise, black, white])
    np.testing.assert_allclose(network.embed(chips), _reference(weights, chips), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("photo", ["astronaut", "grace_hopper"])
def test_faces_match_dlib(weights: Path, network: DlibResNet, photo: str, request: pytest.FixtureRequest) -> None:
    chips = _aligned_faces(request.getfixturevalue(photo))
    np.testing.assert_allclose(network.embed(chips), _reference(weights, chips), rtol=0, atol=TOLERANCE)


def test_descriptor_depends_on_its_chip_alone(weights: Path, network: DlibResNet, noise: NDArray[np.uint8]) -> None:
    together = network.embed(noise)
    assert np.array_equal(network.embed(noise[::-1]), together[::-1])
    assert np.array_equal(network.embed(noise[2:3]), together[2:3])
    with ThreadPoolExecutor(4) as pool:
        for descriptors in pool.map(network.embed, [noise] * 8):
            assert np.array_equal(descriptors, together)
    two_threads = DlibResNet(weights, threads=2).embed(noise)
    np.testing.assert_allclose(two_threads, together, rtol=0, atol=TOLERANCE)


def test_output_type(network: DlibResNet, noise: NDArray[np.uint8]) -> None:
    for count in (0, 2):
        descriptors = network.embed(noise[:count])
        assert descriptors.shape == (count, 128)
        assert descriptors.dtype == np.float32


def test_strided_chips(network: DlibResNet, noise: NDArray[np.uint8]) -> None:
    flipped = noise[:2, :, ::-1, ::-1]
    assert np.array_equal(network.embed(flipped), network.embed(flipped.copy()))


@pytest.mark.parametrize(
    "chips",
    [
        np.zeros((150, 150, 3), np.uint8),
        np.zeros((1, 150, 149, 3), np.uint8),
        np.zeros((1, 150, 150, 3), np.float32),
    ],
)
def test_wrong_chips_are_refused(network: DlibResNet, chips: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        network.embed(chips)


def test_damaged_files_are_refused(weights: Path, tmp_path: Path) -> None:
    data = weights.read_bytes()
    first_value = data.index(b"con_4") + 16
    damaged = [
        b"",
        bytes(100),
        np.random.default_rng(3).bytes(1000),
        data[1:],
        data + b"\x00",
        *(data[:size] for size in (1, 10, 300, len(data) // 2, len(data) - 1)),
        *(
            data.replace(name, name[::-1], 1)
            for name in (b"con_4", b"affine_", b"relu_", b"max_pool_2", b"add_prev_", b"fc_2")
        ),
        *(data[:version] + b"\x7f" + data[version + 1 :] for version in range(29, 289, 20)),
        data[:first_value] + np.float32("nan").tobytes() + data[first_value + 4 :],
    ]
    path = tmp_path / "weights.dat"
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not dlib's face recognition network"):
            DlibResNet(path)
