"""An answer is of exactly the version of the list that it names."""

import asyncio

from facescreen.backends.base import IndexUpdate
from facescreen.config import ModelName, Settings
from facescreen.domain.distances import Metric
from facescreen.domain.faces import Candidate, Vectors
from tests.api.test_blacklist import enroll
from tests.api.test_process import process
from tests.conftest import serving
from tests.painted import BLUE, RED, PaintedBackend, inline, photo
from tests.painted_server import HANGING


class OvertakenBackend(PaintedBackend):
    """Once :attr:`began` is cleared, a search for two faces waits until the index was changed.

    The change is told after it. Enrollments, which search for the one face that they are about to add, do not wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.began, self.changed, self.searched = asyncio.Event(), asyncio.Event(), asyncio.Event()
        for event in (self.began, self.changed, self.searched):
            event.set()

    async def search(
        self, collection_id: int, vectors: Vectors, model: ModelName, *, metric: Metric, radius: float
    ) -> list[tuple[Candidate, ...]]:
        if len(vectors) == 1:
            return await super().search(collection_id, vectors, model, metric=metric, radius=radius)
        self.began.set()
        await self.changed.wait()
        found = await super().search(collection_id, vectors, model, metric=metric, radius=radius)
        self.searched.set()
        return found

    async def apply(self, collection_id: int, model: ModelName, update: IndexUpdate) -> None:
        await super().apply(collection_id, model, update)
        self.changed.set()
        await self.searched.wait()


async def test_a_search_that_is_overtaken_by_a_change_is_done_again(settings: Settings) -> None:
    backend = OvertakenBackend()
    async with asyncio.timeout(HANGING), serving(settings, backend) as client:
        await enroll(client, "Ada", photo(RED))
        (before,) = await process(client, inline(photo(RED)))
        for event in (backend.began, backend.changed, backend.searched):
            event.clear()
        overtaken = asyncio.create_task(process(client, inline(photo(RED, BLUE))))
        await backend.began.wait()
        await enroll(client, "Eve", photo(BLUE))
        (other,) = await process(client, inline(photo(BLUE)))
        (result,) = await overtaken
    assert before["list_version"] < other["list_version"] == result["list_version"]
    assert [[match["name"] for match in face["blacklist_matches"]] for face in result["faces"]] == [["Ada"], ["Eve"]]
