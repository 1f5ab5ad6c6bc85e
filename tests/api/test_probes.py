"""Liveness, readiness and metrics, which nobody needs a key for."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from facescreen.backends.base import IndexUpdate
from facescreen.config import DetectorName, ModelName, Settings
from facescreen.db import connection
from facescreen.db.connection import Database
from facescreen.errors import DatabaseBusyError, WeightsMissingError
from facescreen.services import health
from tests.api.test_blacklist import enroll
from tests.api.test_process import process
from tests.conftest import serving
from tests.painted import GREEN, RED, PaintedBackend, inline, photo

CHECKS = {"database_schema", "models", "database_writable", "storage", "index", "accepting"}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every probe checks again."""
    monkeypatch.setattr(health, "_CHECK_HOLDS_SECONDS", -1.0)


async def failed(client: httpx.AsyncClient) -> set[str]:
    """Which checks a readiness probe says fail."""
    response = await client.get("/ready")
    body = response.json()
    assert set(body["checks"]) == CHECKS
    wrong = {name for name, holds in body["checks"].items() if not holds}
    if not wrong:
        assert (response.status_code, body["status"]) == (200, "ready")
    else:
        assert (response.status_code, body["code"]) == (503, "not_ready")
        assert response.headers["content-type"] == "application/problem+json"
        assert int(response.headers["retry-after"]) >= 1
    return wrong


class FailingBackend(PaintedBackend):
    """Loses its weights, or cannot apply changes, when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.has_weights = self.can_apply = True

    async def require(self, detector: DetectorName, model: ModelName) -> None:
        if not self.has_weights:
            raise WeightsMissingError
        await super().require(detector, model)

    async def apply(self, collection_id: int, model: ModelName, update: IndexUpdate) -> None:
        if not self.can_apply:
            raise MemoryError
        await super().apply(collection_id, model, update)


async def test_a_started_service_lives_and_is_ready(client: httpx.AsyncClient) -> None:
    assert (await client.get("/live")).json() == {"status": "alive"}
    assert await failed(client) == set()


async def test_probes_need_no_key(settings: Settings) -> None:
    async with serving(settings) as client:
        client.base_url = httpx.URL("http://elsewhere.example/api/v1")
        assert (await client.get("/")).status_code == 403
        assert (await client.get("/live")).status_code == 200
        assert await failed(client) == set()
        assert (await client.get("http://elsewhere.example/metrics")).status_code == 200


async def test_weights_that_are_gone_are_not_ready(settings: Settings) -> None:
    backend = FailingBackend()
    async with serving(settings, backend) as client:
        backend.has_weights = False
        assert await failed(client) == {"models"}
        backend.has_weights = True
        assert await failed(client) == set()


async def test_an_index_that_lags_behind_is_not_ready(settings: Settings) -> None:
    backend = FailingBackend()
    async with serving(settings, backend) as client, serving(settings) as other:
        backend.can_apply = False
        await enroll(other, "Ada", photo(RED))
        assert await failed(client) == {"index"}
        assert await failed(other) == set()
        backend.can_apply = True
        assert await failed(client) == set()


async def test_a_database_that_cannot_be_written_is_not_ready(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setitem(connection._PRAGMAS, "busy_timeout", ("100", 100))
    path = Database(settings.database_url).path
    async with serving(settings) as client:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert await failed(client) == {"database_writable"}
            other.execute("ROLLBACK")
        assert await failed(client) == set()


async def test_a_readiness_probe_does_not_wait_for_writes_of_this_process(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(settings.database_url)
    async with database._in_turn():
        await database.require_writable()
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setitem(connection._PRAGMAS, "busy_timeout", ("100", 100))
    impatient = Database(settings.database_url)
    async with database.write():
        with pytest.raises(DatabaseBusyError):
            await impatient.require_writable()
    await database.aclose()
    await impatient.aclose()


async def test_another_schema_is_not_ready(settings: Settings) -> None:
    path = Database(settings.database_url).path
    async with serving(settings) as client:
        with closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE alembic_version SET version_num = '9999'")
            other.commit()
        assert await failed(client) == {"database_schema"}


async def test_a_service_that_is_told_to_stop_is_not_ready_at_once(settings: Settings) -> None:
    heard = []

    def of_the_server(number: int, _frame: object) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGTERM, of_the_server)
    try:
        async with serving(settings) as client:
            assert await failed(client) == set()
            os.kill(os.getpid(), signal.SIGTERM)
            assert await failed(client) == {"accepting"}
            assert heard == [signal.SIGTERM]
            assert (await client.get("/live")).status_code == 200
            assert len(await process(client, inline(photo(RED)))) == 1
        assert signal.getsignal(signal.SIGTERM) is of_the_server
    finally:
        signal.signal(signal.SIGTERM, before)


async def samples(client: httpx.AsyncClient) -> dict[str, float]:
    response = await client.get(client.base_url.copy_with(path="/metrics"))
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    lines = (line.rpartition(" ") for line in response.text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def test_metrics_count_what_was_done(client: httpx.AsyncClient) -> None:
    before = await samples(client)
    await enroll(client, "Ada", photo(RED))
    await process(client, inline(photo(RED, GREEN)), inline(photo()), "no/such.jpg")
    await client.get("/blacklist/99/")
    after = await samples(client)

    def added(name: str) -> float:
        return after[name] - before.get(name, 0)

    route = 'route="/api/v1/process/process-images"'
    assert added(f'facescreen_requests_total{{method="POST",{route},status="200"}}') == 1
    assert added(f'facescreen_request_seconds_count{{method="POST",{route}}}') == 1
    assert added('facescreen_problems_total{code="entry_not_found"}') == 1
    assert added("facescreen_work_admitted_total") == 2
    for verdict in ("match", "no_face", "refused"):
        assert added(f'facescreen_images_total{{verdict="{verdict}"}}') == 1
    assert added('facescreen_faces_total{verdict="match"}') == 1
    assert added('facescreen_faces_total{verdict="clear"}') == 1
    assert added('facescreen_image_seconds_count{step="decode"}') == 3
    assert added("facescreen_database_writes_total") >= 4
    assert after["facescreen_list_version"] > 0
    assert after["facescreen_list_reference_images"] == 1
    assert (after["facescreen_work_running"], after["facescreen_work_waiting"]) == (0, 0)


async def test_callers_make_no_label_values(client: httpx.AsyncClient) -> None:
    await client.get("/zebedee")
    await client.get("/blacklist/zebedee/")
    await client.request("ZEBEDEE", "/blacklist/")
    await client.post("/process/process-images", params={"collection": "zebedee"}, json={"images": ["zebedee"]})
    await client.get("/", headers={"x-request-id": "zebedee", "user-agent": "zebedee"})
    after = await samples(client)
    assert 'facescreen_requests_total{method="other",route="/api/v1/blacklist/",status="405"}' in after
    assert not [name for name in after if "zebedee" in name.lower()]


async def test_metrics_can_be_closed(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"metrics_enabled": False})) as client:
        assert (await client.get("http://127.0.0.1/metrics")).status_code == 404


@pytest.mark.parametrize("folder", ["blacklist_db_path", "processed_images_output_dir"])
async def test_a_folder_that_takes_nothing_is_not_ready(settings: Settings, folder: str) -> None:
    async with serving(settings) as client:
        assert await failed(client) == set()
        incoming: Path = getattr(settings, folder) / ".incoming"
        with closed(incoming):
            assert await failed(client) == {"storage"}
        assert await failed(client) == set()


async def test_keys_that_cannot_be_written_are_not_ready(settings: Settings, tmp_path: Path) -> None:
    async with serving(settings.model_copy(update={"encryption_key_dir": tmp_path / "keys"})) as client:
        assert await failed(client) == set()
        moved = (tmp_path / "keys" / "keys.db").rename(tmp_path / "keys" / "moved.db")
        assert await failed(client) == {"storage"}
        moved.rename(tmp_path / "keys" / "keys.db")
        assert await failed(client) == set()


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    """A file instead of an empty folder."""
    folder.rmdir()
    folder.touch()
    try:
        yield
    finally:
        folder.unlink()
