"""A person's folder that this service may not read: said so, and nobody is taken for removed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from facescreen.config import Settings
from facescreen.factory import Services
from tests.api.test_blacklist import enroll, matches
from tests.api.test_expiry import expire
from tests.api.test_sync import drop, sync
from tests.conftest import serving
from tests.faults.scenario import check_refused
from tests.ordinary import ordinary_rights
from tests.painted import BLUE, GREEN, RED, photo


@contextmanager
def unreadable(folder: Path) -> Iterator[None]:
    before = folder.stat().st_mode
    folder.chmod(0)
    try:
        with ordinary_rights():
            yield
    finally:
        folder.chmod(before)


async def listed(client: httpx.AsyncClient) -> set[str]:
    return {record["name"] for record in (await client.get("/blacklist/")).json()}


async def test_what_needs_the_folder_is_refused_whole_and_works_afterwards(settings: Settings) -> None:
    async with serving(settings) as client:
        photos = [drop(settings, f"{name}/{name}.png", photo(colour)) for name, colour in (("Ada", RED), ("Eve", BLUE))]
        await sync(client)
        (ada,) = [record for record in (await client.get("/blacklist/")).json() if record["name"] == "Ada"]
        with unreadable(photos[0].parent):
            check_refused(await client.post("/blacklist/sync"), "synchronise")
            check_refused(await client.delete(f"/blacklist/{ada['id']}/"), "delete an entry")
            assert [match["name"] for match in await matches(client, photo(RED))] == ["Ada"]
        assert await listed(client) == {"Ada", "Eve"}
        assert (await sync(client))["unchanged"] == 2
        assert (await client.delete(f"/blacklist/{ada['id']}/")).is_success


async def test_the_service_starts_all_the_same(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    ada = drop(settings, "Ada/ada.png", photo(RED))
    async with serving(settings):
        pass
    drop(settings, "Eve/eve.png", photo(BLUE))
    with unreadable(ada.parent):
        async with serving(settings) as client:
            assert [match["name"] for match in await matches(client, photo(RED))] == ["Ada"]
    assert "folder_not_synchronised" in caplog.messages
    async with serving(settings) as client:
        assert await listed(client) == {"Ada", "Eve"}


async def test_a_folder_that_cannot_be_written_stops_no_start(settings: Settings) -> None:
    async with serving(settings) as client:
        await enroll(client, "Ada", photo(RED))
    before = settings.blacklist_db_path.stat().st_mode
    (settings.blacklist_db_path / ".sync.lock").unlink()
    settings.blacklist_db_path.chmod(0o500)
    try:
        with ordinary_rights():
            async with serving(settings) as client:
                assert [match["name"] for match in await matches(client, photo(RED))] == ["Ada"]
    finally:
        settings.blacklist_db_path.chmod(before)


async def test_a_sweep_deletes_the_others(settings: Settings) -> None:
    async with serving(settings) as client:
        services: Services = client.services  # type: ignore[attr-defined]
        people = [await enroll(client, name, photo(colour)) for name, colour in (("Ada", RED), ("Eve", GREEN))]
        for record in people:
            await expire(settings, record)
        folder = Path(people[0]["images"][0]["identity"]).parent.name
        with unreadable(settings.blacklist_db_path / folder):
            await services.retention.sweep()
            assert await listed(client) == {"Ada"}
        await services.retention.sweep()
        assert await listed(client) == set()
