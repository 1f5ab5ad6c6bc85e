"""More work than is admitted: refused before it begins, to the benefit of what was admitted; stopped when late."""

import asyncio
import os
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest

from facescreen.api.admission import Room
from facescreen.backends.base import IndexUpdate, Probe
from facescreen.config import DetectorName, ModelName, Settings
from facescreen.db import connection
from facescreen.db.connection import Database
from facescreen.domain.faces import Face, Pixels
from facescreen.errors import DatabaseBusyError, OverloadedError
from facescreen.images.folder_store import FolderStore
from tests import at_rest
from tests.api.test_blacklist import enroll, matches, upload
from tests.api.test_process import process
from tests.conftest import serving
from tests.painted import BLUE, GREEN, RED, PaintedBackend, inline, photo
from tests.painted_server import HANGING, ServerProcess, server_process

SEED = os.environ.get("MOMENTS_SEED") or str(secrets.randbits(32))
DEADLINE = 2.0
"""Seconds; long enough for any painted request that is not held."""


class GatedBackend(PaintedBackend):
    """Detects nothing before it is let, and tells what came after it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.detected = 0
        self.prepared = 0

    async def detect(self, image: Pixels, detector: DetectorName) -> tuple[Face, ...]:
        self.detected += 1
        self.reached.set()
        await self.gate.wait()
        return await super().detect(image, detector)

    async def prepare(self, image: Pixels, faces: tuple[Face, ...], model: ModelName) -> Probe:
        self.prepared += 1
        return await super().prepare(image, faces, model)


class FolderGatedBackend(PaintedBackend):
    """The same for another process: its gate is a file ``open``, and it adds a file for each image that it sees."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._detected = 0

    async def detect(self, image: Pixels, detector: DetectorName) -> tuple[Face, ...]:
        self._detected += 1
        (self._folder / f"detected-{self._detected}").touch()
        while not (self._folder / "open").exists():  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.01)
        return await super().detect(image, detector)


class SlowIndexBackend(PaintedBackend):
    """Brings its index up to date only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.applications = 0

    async def apply(self, collection_id: int, model: ModelName, update: IndexUpdate) -> None:
        self.applications += 1
        self.begun.set()
        await self.gate.wait()
        await super().apply(collection_id, model, update)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    folder = tmp_path / "gate"
    folder.mkdir()
    return folder


@pytest.fixture
async def gated(settings: Settings, gate: Path) -> AsyncIterator[ServerProcess]:
    """A server with one slot and room for one more, whose gate is closed."""
    tight = settings.model_copy(update={"max_concurrent_requests": 1, "max_queued_requests": 1})
    async with asyncio.timeout(HANGING), server_process(tight, partial(FolderGatedBackend, gate)) as server:
        yield server


async def sample(client: httpx.AsyncClient, name: str) -> float:
    """Sum of all metrics that begin like this."""
    text = (await client.get(client.base_url.copy_with(path="/metrics"))).text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


async def until(client: httpx.AsyncClient, name: str, value: float) -> None:
    """Wait until a metric has this value."""
    while await sample(client, name) != value:  # noqa: ASYNC110 - in another process
        await asyncio.sleep(0.01)


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def screen(client: httpx.AsyncClient) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(client.post("/process/process-images", json={"images": [inline(photo(RED))]}))


async def test_what_does_not_fit_is_refused_unread_and_what_was_admitted_is_answered(settings: Settings) -> None:
    backend = GatedBackend()
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(1)
        yield b"{}"

    tight = settings.model_copy(update={"max_concurrent_requests": 1, "max_queued_requests": 1})
    async with asyncio.timeout(HANGING), serving(tight, backend) as client:
        admitted = screen(client)
        await backend.reached.wait()
        queued = screen(client)
        await until(client, "facescreen_work_waiting ", 1)
        for method, path in (("POST", "/process/process-images"), ("POST", "/blacklist/"), ("POST", "/blacklist/sync")):
            refused = await client.request(method, path, content=body())
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded"), path
            assert int(refused.headers["retry-after"]) >= 1
        assert not read
        assert backend.detected == 1
        assert (await client.get("/")).json()["entries"] == 0
        assert not admitted.done()
        assert not queued.done()

        backend.gate.set()
        assert (await admitted).status_code == (await queued).status_code == 200
        assert len(await process(client, inline(photo(RED)))) == 1
        assert (await client.get("/processed-images/")).json()["total_items"] == 3


async def test_slow_uploads_keep_nobody_waiting(settings: Settings) -> None:
    arriving = asyncio.Event()
    rest = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        arriving.set()
        yield b'{"images": ['
        await rest.wait()
        yield b'"x"]}'

    tight = settings.model_copy(update={"max_concurrent_requests": 1, "max_queued_requests": 0})
    async with asyncio.timeout(HANGING), serving(tight) as client:
        headers = {"content-type": "application/json"}
        slow = asyncio.create_task(client.post("/process/process-images", content=slowly(), headers=headers))
        await arriving.wait()
        assert len(await process(client, inline(photo(RED)))) == 1
        rest.set()
        assert (await slow).status_code in {200, 422}


async def test_a_deadline_stops_the_work_and_frees_the_slot(settings: Settings) -> None:
    backend = GatedBackend()
    short = settings.model_copy(
        update={"max_concurrent_requests": 1, "max_queued_requests": 0, "request_timeout_seconds": DEADLINE}
    )
    async with asyncio.timeout(HANGING), serving(short, backend) as client:
        late = await client.post("/process/process-images", json={"images": [inline(photo(RED))] * 6})
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        assert int(late.headers["retry-after"]) >= 1
        begun = backend.detected
        backend.gate.set()
        assert len(await process(client, inline(photo(GREEN)))) == 1
        assert backend.detected == begun + 1
        assert backend.prepared == 1
        assert (await client.get("/processed-images/")).json()["total_items"] == 1
    at_rest.check_disk(settings)


async def test_a_deadline_while_waiting_for_a_slot(settings: Settings) -> None:
    backend = GatedBackend()
    short = settings.model_copy(
        update={"max_concurrent_requests": 1, "max_queued_requests": 8, "request_timeout_seconds": DEADLINE}
    )
    async with asyncio.timeout(HANGING), serving(short, backend) as client:
        answers = await asyncio.gather(*(screen(client) for _ in range(4)))
        assert {answer.status_code for answer in answers} == {504}
        assert backend.detected == 1
        backend.gate.set()
        assert len(await process(client, inline(photo(RED)))) == 1


async def test_an_enrollment_that_has_begun_to_write_is_finished_and_answered(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = FolderStore.put

    async def slowly(store: FolderStore, name: str, data: bytes) -> None:
        await asyncio.sleep(1.5 * DEADLINE)  # which ends while the file is written
        await put(store, name, data)

    short = settings.model_copy(update={"request_timeout_seconds": DEADLINE})
    async with asyncio.timeout(HANGING), serving(short) as client:
        monkeypatch.setattr(FolderStore, "put", slowly)
        answer = await client.post("/blacklist/", data={"name": "Ada"}, files=upload(photo(RED)))
        assert answer.status_code == 201
        assert len((await client.get("/blacklist/")).json()) == 1
    assert len(at_rest.check_disk(settings)) == 1


async def test_deadlines_at_any_moment_leave_all_or_nothing(settings: Settings) -> None:
    print(f"MOMENTS_SEED={SEED}")  # noqa: T201 - pytest shows it where the test fails
    moments = random.Random(SEED)  # noqa: S311 - can be repeated
    enrolled = 0
    for _ in range(8):
        short = settings.model_copy(update={"request_timeout_seconds": moments.uniform(0.001, 0.1)})
        async with asyncio.timeout(HANGING), serving(short) as client:
            answer = await client.post("/blacklist/", data={"name": "Ada"}, files=upload(photo(RED), photo(BLUE)))
            assert answer.status_code in {201, 504}
            enrolled += answer.status_code == 201
    async with serving(settings) as client:
        assert len((await client.get("/blacklist/")).json()) == enrolled
    assert len(at_rest.check_disk(settings)) == 2 * enrolled


@pytest.mark.parametrize("has_key", [False, True])
async def test_what_was_written_is_answered_whenever_the_deadline_is(settings: Settings, has_key: bool) -> None:
    print(f"MOMENTS_SEED={SEED}")  # noqa: T201 - pytest shows it where the test fails
    moments = random.Random(SEED)  # noqa: S311 - can be repeated

    async def make(client: httpx.AsyncClient, name: str) -> bool:
        headers = {"Idempotency-Key": f"to-make-{name}"} if has_key else {}
        return (await client.post("/collections/", json={"name": name}, headers=headers)).status_code == 201

    async def is_there(path: str) -> bool:
        return (await patient.get(path)).status_code == 200

    async with asyncio.timeout(HANGING), serving(settings) as patient:
        began = time.monotonic()
        for letter in "abcdefgh":
            assert await make(patient, letter)
        usual = (time.monotonic() - began) / 8
        for number in range(8):
            entry = (await enroll(patient, "Ada", photo(RED)))["id"]
            deadline = moments.uniform(0.6, 1.1) * usual
            async with serving(settings.model_copy(update={"request_timeout_seconds": deadline})) as hasty:
                for name in (f"{letter}{number}" for letter in "abcdefgh"):
                    assert await make(hasty, name) == await is_there(f"/collections/{name}/")
                deleted = (await hasty.delete(f"/blacklist/{entry}/")).status_code == 200
            assert deleted != await is_there(f"/blacklist/{entry}/")
            await patient.delete(f"/blacklist/{entry}/")
    assert not at_rest.check_disk(settings)


async def test_the_index_is_brought_up_to_date_though_who_asked_for_it_has_gone(settings: Settings) -> None:
    backend = SlowIndexBackend()
    backend.gate.set()
    async with asyncio.timeout(HANGING), serving(settings, backend) as client, serving(settings) as other:
        backend.gate.clear()
        backend.begun.clear()
        backend.applications = 0
        await enroll(other, "Ada", photo(RED))
        gone = screen(client)
        await backend.begun.wait()
        gone.cancel()
        await asyncio.wait([gone])
        backend.gate.set()
        assert len(await matches(client, photo(RED))) == 1
        assert backend.applications == 1


async def test_a_burst_is_answered_or_refused_and_nothing_else(settings: Settings) -> None:
    body = {"images": [inline(photo(RED, side=300))] * 2}
    tight = settings.model_copy(update={"max_concurrent_requests": 2, "max_queued_requests": 2})
    async with server_process(tight) as server:
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


async def test_work_of_vanished_clients_never_begins_or_is_stopped(gated: ServerProcess, gate: Path) -> None:
    running = screen(gated.client)
    await until(gated.client, "facescreen_work_running ", 1)
    queued = screen(gated.client)
    await until(gated.client, "facescreen_work_waiting ", 1)

    queued.cancel()
    await until(gated.client, 'facescreen_requests_stopped_total{reason="client_gone"}', 1)
    assert await sample(gated.client, "facescreen_work_waiting ") == 0
    running.cancel()
    await until(gated.client, "facescreen_work_running ", 0)

    (gate / "open").touch()
    assert len(await process(gated.client, inline(photo(RED)))) == 1
    assert contents(gate) == {"detected-1", "detected-2", "open"}
    assert (await gated.client.get("/processed-images/")).json()["total_items"] == 1
    gone = 'facescreen_requests_total{method="POST",route="/api/v1/process/process-images",status="499"}'
    assert await sample(gated.client, gone) == 2


async def test_probes_and_metrics_answer_while_every_slot_is_taken(gated: ServerProcess, gate: Path) -> None:
    running = screen(gated.client)
    await until(gated.client, "facescreen_work_running ", 1)
    queued = screen(gated.client)
    await until(gated.client, "facescreen_work_waiting ", 1)
    assert (await screen(gated.client)).status_code == 503

    assert (await gated.client.get("/live")).json() == {"status": "alive"}
    assert (await gated.client.get("/ready")).json()["status"] == "ready"
    assert await sample(gated.client, 'facescreen_problems_total{code="overloaded"}') == 1
    (gate / "open").touch()
    assert {(await answer).status_code for answer in (running, queued)} == {200}


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


async def test_one_address_does_not_take_every_place_where_bodies_are_read() -> None:
    room = Room(running=1, waiting=1)
    with ExitStack() as places:

        def fill(address: str, number: int) -> None:
            for _ in range(number):
                places.enter_context(room.reading(address))

        with pytest.raises(OverloadedError):
            fill("192.0.2.1", 1_000)
        fill("192.0.2.2", 100)
    with room.reading("192.0.2.1"):
        pass
