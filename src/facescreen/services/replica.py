"""This process's copy of the collections, brought up to date before every search by replaying the change feed."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass

from facescreen.backends.base import EmbeddingBackend, EmbeddingSpace, IndexUpdate
from facescreen.config import ModelName
from facescreen.db import blacklist, collections
from facescreen.db.connection import Database
from facescreen.domain.blacklist import ChangeKind
from facescreen.domain.distances import Metric
from facescreen.domain.faces import Candidate, Vectors
from facescreen.lifeline import to_the_end

_Key = tuple[int, EmbeddingSpace]


@dataclass(frozen=True, slots=True)
class ListState:
    """What the index of a collection and an embedding space holds.

    Attributes:
        size: how many reference photos.
        missing: how many it lacks.
    """

    version: int
    size: int
    missing: int


class ListReplica:
    """Keeps the backend's indexes at the database's version, which other processes change too."""

    def __init__(self, database: Database, backend: EmbeddingBackend) -> None:
        self._database = database
        self._backend = backend
        self._states: dict[_Key, ListState] = {}
        self._locks: defaultdict[_Key, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def catch_up(self, collection_id: int, model: ModelName) -> ListState:
        """Apply every change of the collection that was committed before this call."""
        key = (collection_id, self._backend.space(model))
        async with self._database.read() as connection:
            committed = await blacklist.version(connection, collection_id)
        if (state := self._states.get(key)) and state.version >= committed:
            return state
        # All searches wait for it, and half of it in the index would be worse than none.
        return await to_the_end(self._replay(key, model, committed))

    async def search(
        self,
        collection_id: int,
        vectors: Vectors,
        model: ModelName,
        *,
        metric: Metric,
        radius: Callable[[int], float],
    ) -> tuple[ListState, list[tuple[Candidate, ...]]]:
        """Candidates within the radius for each embedding, and the state of the index that they were sought in.

        The search is done again until no change of the index came into it.

        Args:
            radius: by how many reference photos the index holds.
        """
        key = (collection_id, self._backend.space(model))
        while True:
            state = await self.catch_up(collection_id, model)
            found = await self._backend.search(collection_id, vectors, model, metric=metric, radius=radius(state.size))
            if self._states.get(key) is state and not self._locks[key].locked():
                return state, found

    async def release(self) -> None:
        """Let go what is held of collections that were deleted."""
        held = set(self._states)
        async with self._database.read() as connection:
            alive = await collections.collection_ids(connection)
        await self._release(held, alive)

    async def _release(self, held: Collection[_Key], alive: Collection[int]) -> None:
        """Let go what was held before ``alive`` was read; what came after may be of collections that are newer."""
        gone = [key for key in self._states if key in held and key[0] not in alive]
        if gone:
            await self._backend.release({collection_id for collection_id, _ in gone})
            for key in gone:
                self._states.pop(key, None)

    async def _replay(self, key: _Key, model: ModelName, committed: int) -> ListState:
        async with self._locks[key]:
            if (state := self._states.get(key)) and state.version >= committed:
                return state
            update, state = await self._changes(key, state)
            await self._backend.apply(key[0], model, update)
            self._states[key] = state
            return state

    async def _changes(self, key: _Key, known: ListState | None) -> tuple[IndexUpdate, ListState]:
        collection_id, space = key
        held = set(self._states)
        async with self._database.read() as connection:
            version = await blacklist.version(connection, collection_id)
            size, missing = await blacklist.count_embedded(connection, collection_id, space)
            alive = await collections.collection_ids(connection)
            if known is None:
                ids, vectors = await blacklist.vectors(connection, collection_id, space)
                withdrawn: list[int] = []
            else:
                changes = await blacklist.changes_since(connection, collection_id, known.version)
                touched = {c.reference_image_id: c.kind for c in changes if c.reference_image_id is not None}
                withdrawn = [id_ for id_, kind in touched.items() if kind is ChangeKind.WITHDRAWN]
                fresh = [id_ for id_, kind in touched.items() if kind is ChangeKind.EMBEDDED]
                ids, vectors = await blacklist.vectors(connection, collection_id, space, ids=fresh)
        await self._release(held, alive)
        return IndexUpdate(ids, vectors, withdrawn), ListState(version, size, missing)
