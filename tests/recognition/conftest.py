"""Photos with a free licence, and weights that are on this machine."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from facescreen.domain.faces import Pixels
from facescreen.images.decode import decode
from facescreen.recognition.weights import WeightStore

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(scope="session")
def astronaut() -> Pixels:
    """Eileen Collins, NASA, 512x512."""
    return decode((SAMPLES / "astronaut.jpg").read_bytes(), max_pixels=10**6)


@pytest.fixture(scope="session")
def grace_hopper() -> Pixels:
    """Grace Hopper, US Navy, 512x600."""
    return decode((SAMPLES / "grace_hopper.jpg").read_bytes(), max_pixels=10**6)


@pytest.fixture(scope="session")
def collage(astronaut: Pixels, grace_hopper: Pixels) -> Pixels:
    """Both side by side, Grace Hopper larger."""
    right = cv2.resize(astronaut, (384, 384), interpolation=cv2.INTER_AREA)
    canvas = np.full((600, 960, 3), 90, np.uint8)
    canvas[:, :512] = cv2.resize(grace_hopper, (512, 600), interpolation=cv2.INTER_AREA)
    canvas[100:484, 544:928] = right
    return canvas


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> WeightStore:
    """The weights inside installed packages."""
    return WeightStore(tmp_path_factory.mktemp("home"))
