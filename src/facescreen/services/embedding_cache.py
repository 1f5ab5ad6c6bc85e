"""Embeddings of photos that were measured before, by content: what lets an interrupted evaluation go on."""

import hashlib
import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facescreen.backends.base import EmbeddingSpace
from facescreen.config import DetectorName
from facescreen.domain.faces import Box, Vector
from facescreen.images.folder_store import FolderStore


@dataclass(frozen=True, slots=True)
class EmbeddingKey:
    """What an embedding depends on, beside the versions of this program and its libraries.

    Attributes:
        sha256: of the file's bytes, in hex.
        max_side: longest side, in pixels, of what the detector saw; ``None`` for its own bound.
    """

    sha256: str
    detector: DetectorName
    max_side: int | None
    space: EmbeddingSpace

    @property
    def name(self) -> str:
        """The name of its file below the folder of the cache."""
        digest = hashlib.sha256(
            json.dumps([self.sha256, self.detector, self.max_side, self.space]).encode()
        ).hexdigest()
        return f"{digest[:2]}/{digest}.json"


@dataclass(frozen=True, slots=True)
class EmbeddedFace:
    """The face that counts in a photo; ``embed_ms`` is what aligning and embedding it took, in milliseconds."""

    box: Box
    vector: Vector
    embed_ms: float


@dataclass(frozen=True, slots=True)
class EmbeddedPhoto:
    """A photo that could be decoded: its face, if it shows one, and what the detection took, in milliseconds."""

    face: EmbeddedFace | None
    detect_ms: float


class EmbeddingCache:
    """One small JSON file per photo, detector and model, in a folder that only this user may read.

    Embeddings are biometric data: who has them can recognize the people. Delete the folder when the work is done.

    Args:
        folder: created with the first embedding.
    """

    def __init__(self, folder: Path) -> None:
        self._store = FolderStore(folder)

    async def get(self, key: EmbeddingKey) -> EmbeddedPhoto | None:
        """What was kept under the key, ``None`` if nothing was or the file is not as it was written."""
        try:
            document = json.loads(await self._store.get(key.name))
            face = document["face"]
            return EmbeddedPhoto(
                None
                if face is None
                else EmbeddedFace(
                    Box(*face["box"]), np.frombuffer(b64decode(face["vector"]), "<f4"), float(face["embed_ms"])
                ),
                float(document["detect_ms"]),
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    async def put(self, key: EmbeddingKey, photo: EmbeddedPhoto) -> None:
        """Keep it; no part of a file is ever seen.

        Raises:
            StorageFullError: the medium is full, read-only or failing.
        """
        face = photo.face and {
            "box": [photo.face.box.x, photo.face.box.y, photo.face.box.w, photo.face.box.h],
            "vector": b64encode(photo.face.vector.astype("<f4").tobytes()).decode(),
            "embed_ms": photo.face.embed_ms,
        }
        document = {"detector": key.detector, "space": key.space, "detect_ms": photo.detect_ms, "face": face}
        await self._store.put(key.name, json.dumps(document).encode())
