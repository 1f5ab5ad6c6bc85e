"""Embeddings of stored reference photos for a model that the list has none of yet, and measures that they lack."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from facescreen.backends.base import EmbeddingBackend, EmbeddingSpace
from facescreen.config import ModelName
from facescreen.db import blacklist
from facescreen.db.blacklist import Embedded
from facescreen.db.connection import Database
from facescreen.db.files import FileName, StoreName
from facescreen.domain.blacklist import ReferenceImage
from facescreen.domain.faces import Vector
from facescreen.domain.quality import FaceQuality
from facescreen.domain.trail import Action
from facescreen.errors import EmbeddingsMissingError, FacescreenError, InputError
from facescreen.services.files import StoredFiles
from facescreen.services.intake import Intake
from facescreen.services.quality import assess
from facescreen.services.replica import ListReplica
from facescreen.services.trail import record

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


_FAILURES = 10
"""Photos that a model may fail on before it is taken to be the model's fault."""


@dataclass(frozen=True, slots=True)
class ReindexReport:
    """How many photos were embedded, and the reference images whose stored photo cannot be read any more."""

    embedded: int
    unreadable: tuple[ReferenceImage, ...]


class _Embedding(NamedTuple):
    """The raw embedding (dimension,) of a face, and how good the picture of it is."""

    vector: Vector
    quality: FaceQuality


class ReindexService:
    """Embeds stored photos where the face is known already, so nothing is detected again.

    Args:
        inline_limit: how many photos a request may wait for.
    """

    def __init__(
        self,
        *,
        database: Database,
        backend: EmbeddingBackend,
        replica: ListReplica,
        stored: StoredFiles,
        intake: Intake,
        inline_limit: int,
    ) -> None:
        self._database = database
        self._backend = backend
        self._replica = replica
        self._stored = stored
        self._intake = intake
        self._inline_limit = inline_limit
        self._unreadable: defaultdict[ModelName, set[int]] = defaultdict(set)
        self._lock = asyncio.Lock()

    async def ensure(self, collection_id: int, model: ModelName) -> None:
        """Make sure that a search with this model sees every photo of the collection.

        Raises:
            EmbeddingsMissingError: more photos lack an embedding than a request may wait for.
        """
        if await self.missing(collection_id, model) == 0:
            return
        async with self._lock:
            if (missing := await self.missing(collection_id, model)) == 0:
                return
            if missing > self._inline_limit:
                raise EmbeddingsMissingError(
                    f"{missing} photos have no embedding of {model} yet; run: facescreen reindex --model {model}"
                )
            await self.reindex(model, collection_id=collection_id)

    async def reindex(
        self,
        model: ModelName,
        progress: Progress = lambda _done, _total: None,
        *,
        collection_id: int | None = None,
        until: Callable[[], bool] = lambda: False,
    ) -> ReindexReport:
        """Embed every photo that lacks it, one transaction each, so that an interrupted run goes on where it was.

        A photo that another process has embedded since this run began is not embedded again.

        Args:
            collection_id: only photos of this collection; of all where ``None``.
            until: asked before each photo; the run ends once it is true.

        Raises:
            NotReadyError: weights or packages of the model are missing.
            Exception: what the model raised for a photo, once the other photos are embedded; after ten such photos
                the run ends.
        """
        space = self._backend.space(model)
        async with self._database.read() as connection:
            images = await blacklist.images_without_embedding(connection, space, collection_id)
        unreadable = []
        failures: list[Exception] = []
        embedded = 0
        for done, image in enumerate(images):
            if until() or len(failures) == _FAILURES:
                break
            progress(done, len(images))
            try:
                found = await self._embed(image, space, model)
            except (OSError, InputError):
                logger.warning("reference_photo_unreadable", extra={"reference_image_id": image.id})
                unreadable.append(image)
                continue
            except FacescreenError:
                raise
            except Exception as error:
                logger.exception("reference_photo_not_embedded", extra={"reference_image_id": image.id})
                failures.append(error)
                continue
            if found is None:
                continue
            async with self._database.write() as connection:
                if embedded == 0:
                    await record(connection, Action.REINDEX, collection_id=collection_id)
                if image.quality is None:
                    await blacklist.set_quality(connection, image.id, found.quality)
                await blacklist.insert_embedding(connection, image.id, Embedded(space, found.vector))
            embedded += 1
        else:
            progress(len(images), len(images))
        self._unreadable[model] |= {image.id for image in unreadable}
        if failures:
            raise failures[0]
        return ReindexReport(embedded, tuple(unreadable))

    async def _embed(self, image: ReferenceImage, space: EmbeddingSpace, model: ModelName) -> _Embedding | None:
        """Of the stored photo's face; ``None`` where the photo was withdrawn or embedded by another process meanwhile.

        Raises:
            OSError, InputError: the photo cannot be read.
        """
        if not await self._lacks(image, space):
            return None
        try:
            data = await self._stored.read(FileName(StoreName.BLACKLIST, image.photo))
            pixels = await self._intake.decode(data)
        except (OSError, InputError):
            if await self._lacks(image, space):
                raise
            return None
        probe = await self._backend.prepare(pixels, (image.face,), model)
        vectors = await self._backend.embed([probe], model)
        return _Embedding(vectors[0], await asyncio.to_thread(assess, pixels, image.face))

    async def _lacks(self, image: ReferenceImage, space: EmbeddingSpace) -> bool:
        async with self._database.read() as connection:
            return await blacklist.lacks_embedding(connection, image.id, space)

    async def missing(self, collection_id: int, model: ModelName) -> int:
        """How many photos lack an embedding, without those that were found unreadable."""
        state = await self._replica.catch_up(collection_id, model)
        if state.missing == 0 or not self._unreadable[model]:
            return state.missing
        async with self._database.read() as connection:
            images = await blacklist.images_without_embedding(connection, self._backend.space(model), collection_id)
        return sum(image.id not in self._unreadable[model] for image in images)
