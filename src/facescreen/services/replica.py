"""This process's copy of the list, brought up to date before every search by replaying the change feed."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass

from facescreen.backends.base import Backend, EmbeddingSpace, IndexUpdate
from facescreen.config import ModelName
from facescreen.db import blacklist
from facescreen.db.connection import Database
from facescreen.domain.blacklist import ChangeKind
from facescreen.domain.distances import Metric
from facescreen.domain.faces import Candidate, Vectors


@dataclass(frozen=True, slots=True)
class ListState:
    """What the index of one embedding space holds: the version of the list, and how many photos it lacks."""

    version: int
    missing: int


class ListReplica:
    """Keeps the backend's indexes at the database's version, which other processes change too."""

    def __init__(self, database: Database, backend: Backend) -> None:
        self._database = database
        self._backend = backend
        self._states: dict[EmbeddingSpace, ListState] = {}
        self._locks: defaultdict[EmbeddingSpace, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def catch_up(self, model: ModelName) -> ListState:
        """Apply every change that was committed before this call."""
        space = self._backend.space(model)
        async with self._database.read() as connection:
            committed = await blacklist.version(connection)
        if (state := self._states.get(space)) and state.version >= committed:
            return state
        async with self._locks[space]:
            if (state := self._states.get(space)) and state.version >= committed:
                return state
            update, state = await self._changes(space, state)
            await self._backend.apply(model, update)
            self._states[space] = state
            return state

    async def search(
        self, vectors: Vectors, model: ModelName, *, metric: Metric, radius: float
    ) -> tuple[int, list[tuple[Candidate, ...]]]:
        """Candidates within the radius for each embedding, and the version of the list that they were sought in."""
        space = self._backend.space(model)
        while True:
            state = await self.catch_up(model)
            found = await self._backend.search(vectors, model, metric=metric, radius=radius)
            if self._states[space] is state and not self._locks[space].locked():
                return state.version, found

    async def _changes(self, space: EmbeddingSpace, known: ListState | None) -> tuple[IndexUpdate, ListState]:
        async with self._database.read() as connection:
            version = await blacklist.version(connection)
            _, images = await blacklist.count(connection)
            embedded = await blacklist.count_embeddings(connection, space)
            if known is None:
                ids, vectors = await blacklist.vectors(connection, space)
                withdrawn: list[int] = []
            else:
                changes = await blacklist.changes_since(connection, known.version)
                touched = {c.reference_image_id: c.kind for c in changes if c.reference_image_id is not None}
                withdrawn = [id_ for id_, kind in touched.items() if kind is ChangeKind.WITHDRAWN]
                fresh = [id_ for id_, kind in touched.items() if kind is ChangeKind.EMBEDDED]
                ids, vectors = await blacklist.vectors(connection, space, fresh)
        return IndexUpdate(ids, vectors, withdrawn), ListState(version, images - embedded)
