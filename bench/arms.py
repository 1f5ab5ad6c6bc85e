"""The service over HTTP, DeepFace and the bare model calls on the same photos, each in a process of its own."""

import importlib
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facescreen.images.decode import decode
from facescreen.recognition.catalog import DETECTORS, MODELS
from facescreen.recognition.detectors import load_detector
from facescreen.recognition.embedders import load_embedder
from facescreen.recognition.networks import repaired_network
from facescreen.recognition.weights import WeightStore

from .service import (
    DETECTOR,
    MAX_PIXELS,
    MAX_SIDE,
    MODEL,
    THRESHOLD,
    PeakMemory,
    Service,
    random_embeddings,
    request,
)

_DEEPFACE_NAMES = {
    "face_recognition_sface_2021dec_int8bq.onnx": "face_recognition_sface_2021dec.onnx",
}
"""What DeepFace calls the files of weights, where its name for them is not the service's."""


class Timing(NamedTuple):
    """How long one photo took, and how many faces were found in it."""

    seconds: float
    faces: int


class _Arm(ABC):
    @abstractmethod
    def __init__(self, photos: Sequence[Path], references: int, scratch: Path) -> None: ...

    @abstractmethod
    def screen(self, photo: int) -> int:
        """Recognize everybody in one of the photos; how many faces that were."""
        ...


class _Bare(_Arm):
    """Only detector and model, on pictures that were decoded before."""

    def __init__(self, photos: Sequence[Path], _references: int, _scratch: Path) -> None:
        weights = WeightStore(Path.home())
        self._pictures = [decode(path.read_bytes(), max_pixels=MAX_PIXELS) for path in photos]
        self._detector = load_detector(DETECTOR, weights=weights, max_side=MAX_SIDE)
        self._embedder = load_embedder(MODEL, weights=weights)

    def screen(self, photo: int) -> int:
        picture = self._pictures[photo]
        crops = [self._embedder.align(picture, face) for face in self._detector.detect(picture)]
        return len(self._embedder.embed(crops))


class _DeepFace(_Arm):
    """``DeepFace.represent`` on a JPEG that the service's decoder decodes, and a search by NumPy.

    DeepFace has code of its own around the same weights. It reads only repaired ONNX files of models, so it gets the
    service's repairs too; its own file of ``SFace`` has float weights from the start.
    """

    def __init__(self, photos: Sequence[Path], references: int, scratch: Path) -> None:
        self._deepface = _import_deepface(scratch)
        self._files = [path.read_bytes() for path in photos]
        self._references = random_embeddings(references)
        self._references /= np.linalg.norm(self._references, axis=1, keepdims=True)

    def screen(self, photo: int) -> int:
        bgr = decode(self._files[photo], max_pixels=MAX_PIXELS)[..., ::-1]
        found = self._deepface.represent(
            img_path=bgr, model_name=MODEL, detector_backend=DETECTOR, enforce_detection=False
        )
        for face in found:
            embedding = np.asarray(face["embedding"], np.float32)
            np.flatnonzero(1 - self._references @ (embedding / np.linalg.norm(embedding)) <= THRESHOLD)
        return sum(face["face_confidence"] > 0 for face in found)  # where it finds none, it gives the whole picture


def _import_deepface(home: Path) -> Any:  # noqa: ANN401 - it has no types
    weights = home / ".deepface" / "weights"
    weights.mkdir(parents=True)
    store = WeightStore(Path.home())
    for path in store.require(DETECTORS[DETECTOR]):
        (weights / path.name).symlink_to(path)
    for path in store.require(MODELS[MODEL]):
        there = weights / _DEEPFACE_NAMES.get(path.name, path.name)
        if path.suffix == ".onnx":
            there.write_bytes(repaired_network(path))
        else:
            there.symlink_to(path)
    os.environ.update(DEEPFACE_HOME=str(home), DEEPFACE_BACKEND_ENGINE="onnx", DEEPFACE_LOG_LEVEL="40")
    return importlib.import_module("deepface.DeepFace")


@dataclass(frozen=True)
class Comparison:
    """What each arm needed.

    Attributes:
        seconds: shape (passes, photos).
        together: the same of requests to the service that came several at a time.
        together_seconds: from the first of those in a pass to the last, summed over the passes.
        megabytes: largest resident memory.
        faces: found in all photos.
    """

    seconds: dict[str, NDArray[np.float64]]
    together: NDArray[np.float64]
    together_seconds: float
    megabytes: dict[str, float]
    faces: dict[str, int]


def compare(
    service: Service, photos: Sequence[Path], *, references: int, passes: int, at_once: int, scratch: Path
) -> Comparison:
    """Screen every photo once to warm up, and then in every pass by each arm before the next photo.

    After each pass the service alone gets all photos again, ``at_once`` at a time.
    """
    bodies = [request(path.read_bytes()) for path in photos]
    numbers = range(len(photos))

    def over_http(photo: int) -> Timing:
        began = time.perf_counter()
        answer = service.screen(bodies[photo])
        return Timing(time.perf_counter() - began, len(answer["faces"]))

    arms: dict[str, Callable[[int], Timing]] = {"service": over_http}
    memory = {"service": service.memory}
    with ExitStack() as stack:
        for name, kind in (("bare calls", _Bare), ("DeepFace", _DeepFace)):
            pool, memory[name] = stack.enter_context(own_process())
            arms[name] = partial(_in_pool, pool, _Recipe(kind, tuple(photos), references, scratch / name))
        faces = {name: sum(screen(photo).faces for photo in numbers) for name, screen in arms.items()}
        seconds = {name: np.zeros((passes, len(photos))) for name in arms}
        together = np.zeros((passes, len(photos)))
        together_seconds = 0.0
        threads = stack.enter_context(ThreadPoolExecutor(at_once))
        for row in range(passes):
            for photo in numbers:
                for name, screen in arms.items():
                    seconds[name][row, photo] = screen(photo).seconds
            began = time.perf_counter()
            together[row] = [timing.seconds for timing in threads.map(over_http, numbers)]
            together_seconds += time.perf_counter() - began
    megabytes = {name: peak.megabytes for name, peak in memory.items()}
    return Comparison(seconds, together, together_seconds, megabytes, faces)


@contextmanager
def own_process() -> Iterator[tuple[ProcessPoolExecutor, PeakMemory]]:
    """A fresh process that runs functions, and its memory."""
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_hush) as pool,
        PeakMemory(pool.submit(os.getpid).result()) as memory,
    ):
        yield pool, memory


def _hush() -> None:
    # Libraries write remarks to the error stream; what goes wrong comes back through the pool.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


@dataclass(frozen=True)
class _Recipe:
    """An arm before it is made, in the process that it is for."""

    kind: type[_Arm]
    photos: tuple[Path, ...]
    references: int
    scratch: Path


def _in_pool(pool: ProcessPoolExecutor, recipe: _Recipe, photo: int) -> Timing:
    return pool.submit(_timed, recipe, photo).result()


def _timed(recipe: _Recipe, photo: int) -> Timing:
    arm = _made(recipe)
    began = time.perf_counter()
    faces = arm.screen(photo)
    return Timing(time.perf_counter() - began, faces)


@cache
def _made(recipe: _Recipe) -> _Arm:
    return recipe.kind(recipe.photos, recipe.references, recipe.scratch)
