"""Crops to embeddings, by every recognition model that DeepFace offers."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from facescreen.config import ModelName
from facescreen.domain.faces import Face, Pixels, Vectors
from facescreen.recognition.alignment import crop_face, landmark_model
from facescreen.recognition.catalog import MODELS, ModelSpec, Normalization
from facescreen.recognition.networks import THREADS, load_network
from facescreen.recognition.weights import WeightStore


class Embedder(Protocol):
    """Cuts faces out as its model expects them and embeds them. Safe for concurrent use."""

    @property
    def space(self) -> str:
        """The catalogue's name for the space that the embeddings are comparable in."""
        ...

    @property
    def dimension(self) -> int: ...

    def align(self, image: Pixels, face: Face) -> NDArray[np.uint8]:
        """The crop of one face, RGB, of the model's input size."""
        ...

    def embed(self, crops: Sequence[NDArray[np.uint8]]) -> Vectors:
        """Raw embeddings, shape (n, dimension), float32; a crop's does not depend on the others, to the last bit.

        Each is the mean of the embeddings of the crop and of its mirror image.
        """
        ...


def load_embedder(name: ModelName, *, weights: WeightStore) -> Embedder:
    """A model with its weights.

    Raises:
        PackageMissingError: a Python package that it needs is not installed, or is a version that it cannot use.
        WeightsMissingError: its weights are not on this machine.
    """
    spec = MODELS[name]
    *own, landmarks = weights.require(spec)
    match name:
        case "SFace":
            forward = _sface_forward(own[0])
        case "Dlib":
            forward = _dlib_forward(own[0])
        case _:
            forward = _zoo_forward(spec, weights)
    return _Embedder(spec, forward, landmarks)


_Forward = Callable[[NDArray[np.uint8]], NDArray[Any]]
"""Crops (n, rows, columns, 3), RGB uint8, to embeddings (n, dimension)."""


class _Embedder:
    def __init__(self, spec: ModelSpec, forward: _Forward, landmarks: Path) -> None:
        self._spec = spec
        self._forward = forward
        self._landmarks = landmark_model(landmarks)

    @property
    def space(self) -> str:
        return self._spec.space

    @property
    def dimension(self) -> int:
        return self._spec.dimension

    def align(self, image: Pixels, face: Face) -> NDArray[np.uint8]:
        return crop_face(self._spec.alignment.crop, image, face, size=self._spec.input_size, landmarks=self._landmarks)

    def embed(self, crops: Sequence[NDArray[np.uint8]]) -> Vectors:
        vectors = np.empty((len(crops), self.dimension), np.float32)
        # Always one face at a time: a runtime picks its kernels by the size of the batch, and their sums differ.
        for row, crop in enumerate(crops):
            batch = np.stack([crop, crop[:, ::-1]])
            vectors[row] = np.asarray(self._forward(batch), np.float32).reshape(-1, self.dimension).mean(axis=0)
        return vectors


def _sface_forward(weights: Path) -> _Forward:
    network = load_network(weights, threads=1)
    # Each crop on a processor of its own takes four fifths of the time that two processors take for one after another.
    processors = ThreadPoolExecutor(THREADS, thread_name_prefix="sface")

    def embedding(crop: NDArray[np.uint8]) -> NDArray[Any]:
        (embeddings,) = network.run(["fc1"], {"data": crop.transpose(2, 0, 1)[None].astype(np.float32)})
        return np.asarray(embeddings)

    return lambda crops: np.concatenate(list(processors.map(embedding, crops)))


def _dlib_forward(weights: Path) -> _Forward:
    import dlib  # noqa: PLC0415

    network = dlib.face_recognition_model_v1(str(weights))
    # dlib's network keeps the activations of its last run.
    turn = threading.Lock()

    def forward(crops: NDArray[np.uint8]) -> NDArray[Any]:
        with turn:
            return np.array([network.compute_face_descriptor(np.ascontiguousarray(crop)) for crop in crops])

    return forward


def _zoo_forward(spec: ModelSpec, weights: WeightStore) -> _Forward:
    """DeepFace's client, fed as its model was trained instead of as ``DeepFace.represent`` feeds it."""
    with weights.deepface(spec.name):
        from deepface.modules.modeling import get_model_class  # noqa: PLC0415

        client = get_model_class("facial_recognition", spec.name)()

    if spec.normalization is Normalization.BYTES:
        # The client multiplies by 255 and reverses the channels itself.
        return lambda crops: np.asarray(client.forward(crops[..., ::-1] / np.float32(255)))
    return lambda crops: np.asarray(client.forward(normalize(crops, spec.normalization)))


def normalize(crops: NDArray[np.uint8], normalization: Normalization) -> NDArray[np.float32]:
    """RGB crops (n, rows, columns, 3) as a network sees them, float32."""
    pixels = crops.astype(np.float32)
    match normalization:
        case Normalization.BYTES:
            return pixels
        case Normalization.UNIT:
            return pixels / np.float32(255)
        case Normalization.CENTERED:
            return (pixels - np.float32(127.5)) / np.float32(128)
        case Normalization.WHITENED:
            each = (1, 2, 3)
            deviation = np.maximum(pixels.std(axis=each, keepdims=True), np.float32(pixels[0].size ** -0.5))
            whitened: NDArray[np.float32] = (pixels - pixels.mean(axis=each, keepdims=True)) / deviation
            return whitened
        case Normalization.VGG_MEAN:
            centred: NDArray[np.float32] = pixels - np.array([129.1863, 104.7624, 93.5940], np.float32)
            return centred
