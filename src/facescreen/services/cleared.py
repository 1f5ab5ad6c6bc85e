"""Embeddings of faces that were cleared of being somebody, for whichever model searches."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from facescreen.backends.base import EmbeddingBackend, EmbeddingSpace
from facescreen.config import ModelName
from facescreen.db import clearances, screenings
from facescreen.db.connection import Database
from facescreen.db.files import FileName, StoreName
from facescreen.domain.faces import Face, Vector
from facescreen.domain.screening import Clearance, Screening
from facescreen.domain.trail import Action
from facescreen.errors import InputError, PictureGoneError
from facescreen.services.files import StoredFiles
from facescreen.services.intake import Intake
from facescreen.services.trail import record

logger = logging.getLogger(__name__)

_EMBEDDED_AT_ONCE = 16
"""Cleared faces that one search embeds for its model. The matches of the others alert until a later search."""


class ClearedFaces:
    """Embeds faces of results from the pictures that are kept of them.

    The database has a cleared face's embedding by one model: that of its result, or the configured one since
    :meth:`keep_for` ran. Embeddings by other models are made when a search needs them, and only kept in memory.
    """

    def __init__(self, *, database: Database, backend: EmbeddingBackend, stored: StoredFiles, intake: Intake) -> None:
        self._database = database
        self._backend = backend
        self._stored = stored
        self._intake = intake
        self._made: dict[ModelName, dict[int, Vector | None]] = {}

    async def of(
        self, entry_ids: Collection[int], model: ModelName
    ) -> Mapping[int, Sequence[tuple[Clearance, Vector]]]:
        """What holds for these entries, by entry, each clearance with the raw embedding (dimension,) of its face.

        Where only another model's embedding is kept, and the picture is gone, a clearance is left out: its pair alerts.
        """
        if not entry_ids:
            return {}
        space = self._backend.space(model)
        async with self._database.read() as connection:
            held = dict(await clearances.clearances_of(connection, entry_ids, space))
            others = await clearances.clearances_elsewhere(connection, space, entry_ids)
            made = self._made.setdefault(model, {})
            for ended in made.keys() - await clearances.holding(connection, made):
                made.pop(ended, None)
        room = _EMBEDDED_AT_ONCE
        for clearance in others:
            if clearance.id not in made and room:
                made[clearance.id] = await self._carried(clearance, model)
                room -= 1
            if (vector := made.get(clearance.id)) is not None:
                held[clearance.entry_id] = [*held.get(clearance.entry_id, ()), (clearance, vector)]
        return held

    async def keep_for(self, model: ModelName, *, until: Callable[[], bool]) -> None:
        """Keep every cleared face's embedding by this model in the database, in place of another model's.

        A clearance whose picture is gone stays as it is. It holds for the other model only, which the log says.

        Args:
            until: asked before each face; the run ends once it is true.
        """
        space = self._backend.space(model)
        async with self._database.read() as connection:
            others = await clearances.clearances_elsewhere(connection, space)
        kept = 0
        for clearance in others:
            if until():
                return
            if (vector := await self._carried(clearance, model)) is not None:
                async with self._database.write() as connection:
                    if kept == 0:
                        await record(connection, Action.REINDEX)
                    await clearances.replace_embedding(connection, clearance, space=space, vector=vector)
                kept += 1
        if kept < len(others):
            logger.warning("clearances_do_not_hold", extra={"model": model, "skipped": len(others) - kept})

    async def embed(self, screening: Screening, face: Face, model: ModelName) -> tuple[EmbeddingSpace, Vector]:
        """The raw embedding (dimension,) of a face of the result, and its space.

        Raises:
            PictureGoneError: the result's picture cannot be read.
            NotReadyError: the weights or packages of the model are missing.
        """
        gone = PictureGoneError(f"the picture of result {screening.id} is gone or damaged")
        if screening.copy is None:
            raise gone
        try:
            data = await self._stored.read(FileName(StoreName.PROCESSED, screening.copy))
            pixels = await self._intake.decode(data)
        except (OSError, InputError):
            raise gone from None
        probe = await self._backend.prepare(pixels, (face,), model)
        vectors = await self._backend.embed([probe], model)
        return self._backend.space(model), vectors[0]

    async def _carried(self, clearance: Clearance, model: ModelName) -> Vector | None:
        """The cleared face's embedding, ``None`` where its picture is gone."""
        if clearance.screening_id is None:
            return None
        async with self._database.read() as connection:
            screening = await screenings.get_screening(connection, clearance.screening_id)
        if screening is None:
            return None
        try:
            _, vector = await self.embed(screening, screening.faces[clearance.face_index].face, model)
        except PictureGoneError:
            return None
        return vector
