"""How well people in photos are recognized: every photo embedded once, and what their distances say."""

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from facescreen import __version__
from facescreen.backends.base import EmbeddingBackend
from facescreen.config import DetectorName, ModelName
from facescreen.domain.distances import EmbeddingMetric
from facescreen.domain.evaluation import Combination, Evaluation, Rate
from facescreen.domain.faces import Box, Face, Pixels
from facescreen.errors import ImageUndecodableError, InputError
from facescreen.images.decode import decode
from facescreen.pool import together
from facescreen.recognition.catalog import default_threshold
from facescreen.recognition.centerface import shrunk
from facescreen.services.dataset import Dataset
from facescreen.services.embedding_cache import EmbeddedFace, EmbeddedPhoto, EmbeddingCache, EmbeddingKey
from facescreen.services.intake import Intake
from facescreen.services.measures import Acquired, Measures

_PICTURE_SIDE = 192
"""Pixels of the longer side of a picture of a face, at most."""


@dataclass(frozen=True, slots=True)
class Measured:
    """An evaluation, and where the face that counts is in each photo that shows one."""

    evaluation: Evaluation
    boxes: Mapping[str, Box]


class EvaluationService:
    """Embeds photos of known people and measures how well they are recognized.

    Args:
        detector_max_side: the backend's; part of what embeddings are kept by.
        at_once: how many photos are in work at the same time.
    """

    def __init__(
        self, *, backend: EmbeddingBackend, intake: Intake, detector_max_side: int | None, at_once: int
    ) -> None:
        self._backend = backend
        self._intake = intake
        self._detector_max_side = detector_max_side
        self._at_once = at_once

    async def evaluate(
        self,
        dataset: Dataset,
        detectors: Sequence[DetectorName],
        models: Sequence[ModelName],
        *,
        metric: EmbeddingMetric,
        cache: EmbeddingCache | None,
        progress: Callable[[int, int], None],
    ) -> Measured:
        """Measure every detector with every model.

        Args:
            cache: where embeddings are looked up and kept; without it, every photo is embedded anew.
            progress: told how many photos are done, of how many; each counts once for each detector.

        Raises:
            NotReadyError: weights or packages are missing.
            EvaluationDataError: the photos of no two people show a face.
            StorageFullError: embeddings cannot be kept.
        """
        for detector in detectors:
            for model in models:
                await self._backend.require(detector, model)
        total, done = len(detectors) * len(dataset.photos), 0
        room = asyncio.Semaphore(self._at_once)

        async def acquire(photo: str, detector: DetectorName) -> dict[ModelName, Acquired]:
            nonlocal done
            async with room:
                acquired = await self._acquire(dataset.folder / photo, detector, models, cache=cache)
            done += 1
            progress(done, total)
            return acquired

        combinations = []
        boxes: dict[str, Box] = {}
        for detector in detectors:
            photos = await together(acquire(photo, detector) for photo in dataset.photos)
            for model in models:
                acquired = [photo[model] for photo in photos]
                for name, result in zip(dataset.photos, acquired, strict=True):
                    if isinstance(result, EmbeddedPhoto) and result.face is not None:
                        boxes.setdefault(name, result.face.box)
                measures = Measures(dataset, acquired, metric, shipped=default_threshold(model, metric))
                combinations.append(
                    await asyncio.to_thread(measures.combination, detector, model, space=self._backend.space(model))
                )
        evaluation = Evaluation(
            title=dataset.folder.resolve().name,
            version=__version__,
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            metric=metric,
            photos=len(dataset.photos),
            people=len(set(dataset.people)),
            folds=max((pair.fold + 1 for pair in dataset.pairs), default=0),
            combinations=tuple(combinations),
        )
        return Measured(evaluation, boxes)

    async def _acquire(
        self, path: Path, detector: DetectorName, models: Sequence[ModelName], *, cache: EmbeddingCache | None
    ) -> dict[ModelName, Acquired]:
        """The embeddings of one photo; decoded, and its faces found, only if one of them is not in the cache."""
        try:
            data = await asyncio.to_thread(path.read_bytes)
        except OSError:
            return dict.fromkeys(models, ImageUndecodableError("the file cannot be read"))
        digest = hashlib.sha256(data).hexdigest()
        keys = {
            model: EmbeddingKey(digest, detector, self._detector_max_side, self._backend.space(model))
            for model in models
        }
        acquired: dict[ModelName, Acquired] = {}
        for model, key in keys.items():
            if cache is not None and (known := await cache.get(key)) is not None:
                acquired[model] = known
        missing = [model for model in models if model not in acquired]
        if not missing:
            return acquired
        try:
            image = await self._intake.decode(data)
        except InputError as error:
            return dict.fromkeys(models, error)
        begun = time.perf_counter()
        face = centred_face(image, await self._backend.detect(image, detector))
        detect_ms = _milliseconds_since(begun)
        for model in missing:
            embedded = None if face is None else await self._embed(image, face, model)
            acquired[model] = photo = EmbeddedPhoto(embedded, detect_ms)
            if cache is not None:
                await cache.put(keys[model], photo)
        return acquired

    async def _embed(self, image: Pixels, face: Face, model: ModelName) -> EmbeddedFace:
        begun = time.perf_counter()
        probe = await self._backend.prepare(image, (face,), model)
        (vector,) = await self._backend.embed([probe], model)
        return EmbeddedFace(face.box, vector, _milliseconds_since(begun))


def centred_face(image: Pixels, faces: Sequence[Face]) -> Face | None:
    """The face whose area, less twice its squared distance from the middle, is largest: whose photo it is.

    ``align_dataset_mtcnn.py`` of davidsandberg/facenet, which prepares Labeled Faces in the Wild in this way.
    """
    height, width = image.shape[:2]

    def prominence(face: Face) -> float:
        box = face.box
        return box.area - 2 * math.dist((box.x + box.w / 2, box.y + box.h / 2), (width / 2, height / 2)) ** 2

    return max(faces, key=prominence, default=None)


class FacePictures:
    """Small pictures of the faces that were measured, for somebody to look at.

    Args:
        max_pixels: largest photo that is decoded.
    """

    def __init__(self, folder: Path, boxes: Mapping[str, Box], *, max_pixels: int) -> None:
        self._folder = folder
        self._boxes = boxes
        self._max_pixels = max_pixels

    def __call__(self, photo: str) -> Pixels | None:
        """The face with half of its size around it, the whole photo without a face, ``None`` if it cannot be read."""
        try:
            image = decode((self._folder / photo).read_bytes(), max_pixels=self._max_pixels)
        except (OSError, InputError):
            return None
        if (box := self._boxes.get(photo)) is not None:
            across, along = box.w // 2, box.h // 2
            image = image[
                max(box.y - along, 0) : max(box.y + box.h + along, 1),
                max(box.x - across, 0) : max(box.x + box.w + across, 1),
            ]
        return shrunk(image, _PICTURE_SIDE)


def summary(combination: Combination) -> str:
    """The measures that matter most, in one line."""
    found = combination.identification
    parts = []
    if combination.listed_pairs is not None and combination.listed_pairs.accuracy is not None:
        parts.append(f"accuracy {_percent(combination.listed_pairs.accuracy.across_folds)} of listed pairs")
    parts += [
        f"TAR {_percent(point.tar)} at FAR {point.target:.0e}"
        for point in combination.all_pairs.points
        if point.target == 1e-3
    ]
    parts.append(f"rank-1 {_percent(found.whole.rank_one)} on a list of {found.people}")
    parts += [
        f"FNIR {_percent(point.fnir)} at FPIR {point.target:.0e}"
        for point in found.whole.points
        if point.target == 1e-2
    ]
    parts.append(f"{len(combination.acquisition.failed)} photos without a usable face")
    parts.append(f"{combination.timing.detect:.0f} ms to detect and {combination.timing.embed:.0f} ms to embed")
    return f"{combination.name}: {', '.join(parts)}"


def _percent(share: Rate | None) -> str:
    if share is None:
        return "not measurable"
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"


def _milliseconds_since(begun: float) -> float:
    return 1000 * (time.perf_counter() - begun)
