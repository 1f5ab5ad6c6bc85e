"""More work than is admitted: refused before it begins, to the benefit of what was admitted."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from facescreen.config import DetectorName, Settings
from facescreen.db import connection
from facescreen.db.connection import Database
from facescreen.domain.faces import Face, Pixels
from facescreen.errors import DatabaseBusyError
from tests.api.test_blacklist import upload
from tests.api.test_process import process
from tests.conftest import serving
from tests.painted import BLUE, RED, PaintedBackend, inline, photo
from tests.painted_server import HANGING, server_process


class GatedBackend(PaintedBackend):
    """Detects nothing before it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()

    async def detect(self, image: Pixels, detector: DetectorName) -> tuple[Face, ...]:
        self.reached.set()
        await self.gate.wait()
        return await super().detect(image, detector)


async def test_what_does_not_fit_is_refused_at_once_and_what_was_admitted_is_answered(settings: Settings) -> None:
    backend = GatedBackend()
    image = inline(photo(RED))
    tight = settings.model_copy(update={"max_pending_images": 3})
    async with asyncio.timeout(HANGING), serving(tight, backend) as client:
        # On an idle service a request may be larger than what is admitted beside others.
        admitted = asyncio.create_task(process(client, *[image] * 4))
        await backend.reached.wait()
        for refused in (
            await client.post("/process/process-images", json={"images": [image]}),
            await client.post("/detect/detect-face", json={"image": image}),
            await client.post("/blacklist/", data={"name": "Ada"}, files=upload(photo(BLUE))),
        ):
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
        assert (await client.get("/")).json()["entries"] == 0
        assert not admitted.done()

        backend.gate.set()
        assert len(await admitted) == 4
        assert len(await process(client, image)) == 1
        assert (await client.get("/processed-images/")).json()["total_items"] == 5


async def test_a_burst_is_answered_or_refused_and_nothing_else(settings: Settings) -> None:
    body = {"images": [inline(photo(RED, side=300))] * 2}
    async with server_process(settings.model_copy(update={"max_pending_images": 4})) as server:
        call = server.client.post
        answers = await asyncio.gather(*(call("/process/process-images", json=body) for _ in range(64)))
        answered = [answer.json() for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert answered
        assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "overloaded")}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert {len(results) for results in answered} == {2}
        stored = (await server.client.get("/processed-images/")).json()
        assert stored["total_items"] == 2 * len(answered)


async def test_more_transactions_than_connections_are_busy_and_no_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(settings.database_url)
    monkeypatch.setattr(database._engine.pool, "_timeout", 0.1)

    async def use_all(stack: AsyncExitStack) -> None:
        while True:
            await stack.enter_async_context(database.read())

    async with AsyncExitStack() as stack:
        with pytest.raises(DatabaseBusyError):
            await use_all(stack)
    async with database.read():
        pass
    await database.aclose()


async def test_writes_of_one_process_take_turns(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(settings.database_url)
    order: list[int] = []

    async def write(number: int) -> None:
        async with database.write():
            order.append(number)

    await asyncio.gather(*map(write, range(50)))
    assert order == list(range(50))

    monkeypatch.setattr(connection, "_TURN_SECONDS", 0.1)
    async with database.write():
        with pytest.raises(DatabaseBusyError):
            await write(50)
    await write(51)
    await database.aclose()
