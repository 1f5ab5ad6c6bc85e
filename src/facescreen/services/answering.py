"""Which model answers requests that name none: the configured one as soon as it has every photo of the list.

Until then another model answers that has them all, such as the one that was configured before. Every process reads
this from the database, so all of them answer alike, and nothing has to be switched.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from facescreen import metrics
from facescreen.backends.base import EmbeddingBackend
from facescreen.config import DetectorName, ModelName
from facescreen.db import blacklist, calibrations
from facescreen.db.blacklist import Embedded
from facescreen.db.connection import Database
from facescreen.errors import NotReadyError
from facescreen.recognition.catalog import MODELS, has_similarity, shipped_false_alerts
from facescreen.services.enrollment import Enrolled
from facescreen.services.replica import ListReplica


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Lists that other models answer for while the configured one is embedded.

    Attributes:
        model: that is being embedded.
        answering: the models that answer meanwhile.
        done, total: reference photos of these lists that have an embedding of ``model``, and all of them.
    """

    model: ModelName
    answering: Sequence[ModelName]
    done: int
    total: int


class AnsweringModel:
    """Chooses the answering model of each collection, and embeds new photos for it.

    Args:
        detector: the configured one.
        inline_limit: how many photos a request may wait for.

    Attributes:
        configured: the model that answers where it has every photo.
        is_behind: set when a collection is found that another model answers for.
    """

    def __init__(
        self,
        *,
        database: Database,
        backend: EmbeddingBackend,
        replica: ListReplica,
        detector: DetectorName,
        configured: ModelName,
        inline_limit: int,
    ) -> None:
        self._database = database
        self._backend = backend
        self._replica = replica
        self._detector = detector
        self._inline_limit = inline_limit
        self.configured = configured
        self.is_behind = asyncio.Event()

    async def of(self, collection_id: int) -> ModelName:
        """The model that answers in this collection at this moment.

        It is the configured one, too, where no other can answer; then the search says what is missing.
        """
        if (await self._replica.catch_up(collection_id, self.configured)).missing <= 0:
            return self.configured
        other = await self._stand_in(collection_id)
        if other is None:
            return self.configured
        self.is_behind.set()
        return other

    async def with_similarity(self, collection_id: int) -> ModelName:
        """The same among models whose distances can be told as similarities."""
        model = await self.of(collection_id)
        return model if has_similarity(model) else self.configured

    async def also_embedded(self, collection_id: int, enrolled: Enrolled) -> Sequence[Embedded]:
        """Embeddings of a new photo: its own, and that of the answering model if that is another one."""
        if enrolled.embedded is None:
            return ()
        model = await self.of(collection_id)
        space = self._backend.space(model)
        if enrolled.embedded.space == space:
            return (enrolled.embedded,)
        probe = await self._backend.prepare(enrolled.pixels, (enrolled.face,), model)
        (vector,) = await self._backend.embed([probe], model)
        return (enrolled.embedded, Embedded(space, vector))

    async def upgrade(self) -> Upgrade | None:
        """How far the lists are that another model answers for; ``None`` where there are none."""
        incomplete = await self.incomplete()
        answering = {id_: await self.of(id_) for id_ in incomplete}
        behind = {id_: sizes for id_, sizes in incomplete.items() if answering[id_] != self.configured}
        total = sum(size for size, _ in behind.values())
        missing = sum(missing for _, missing in behind.values())
        metrics.photos_to_embed.set(missing)
        if not behind:
            return None
        models = sorted({answering[id_] for id_ in behind})
        return Upgrade(self.configured, models, total - missing, total)

    async def incomplete(self) -> Mapping[int, tuple[int, int]]:
        """Collections that lack embeddings of the configured model: how many photos, and how many of them lack it."""
        async with self._database.read() as connection:
            return await blacklist.incomplete_collections(connection, self._backend.space(self.configured))

    async def _stand_in(self, collection_id: int) -> ModelName | None:
        """Of the models that can answer instead, the one that lacks the fewest photos; ``None`` where there is none.

        One that lacks a few, which a request embeds, stands in only where the configured one lacks too many for that.
        """
        async with self._database.read() as connection:
            size, embedded = await blacklist.coverage(connection, collection_id)
        lacking = {model: size - embedded.get(self._backend.space(model), 0) for model in MODELS}
        missing = lacking.pop(self.configured)
        most = self._inline_limit if missing > self._inline_limit else 0
        for model in sorted(lacking, key=lambda model: lacking[model]):
            if lacking[model] <= min(most, size - 1) and await self._can_answer(collection_id, model):
                return model
        return None

    async def _can_answer(self, collection_id: int, model: ModelName) -> bool:
        """Whether the model is on this machine, and false alerts were measured that thresholds can be chosen by."""
        try:
            await self._backend.require(self._detector, model)
        except NotReadyError:
            return False
        if shipped_false_alerts(model) is not None:
            return True
        async with self._database.read() as connection:
            own = await calibrations.latest_calibration(connection, collection_id, self._backend.space(model))
        return own is not None
