"""Collections come and go while they are used."""

import asyncio
from collections.abc import Collection

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.backends.base import IndexUpdate
from facescreen.config import ModelName, Settings
from facescreen.db import collections
from tests.api.test_blacklist import enroll, files, upload
from tests.api.test_collections import create, enroll_in, names_in
from tests.api.test_process import process
from tests.api.test_sync import drop, sync
from tests.at_rest import check_disk, is_readable
from tests.concurrency.test_overload import GatedBackend
from tests.conftest import serving
from tests.painted import BLUE, GREEN, RED, PaintedBackend, inline, photo
from tests.painted_server import HANGING


@pytest.mark.parametrize("is_made_again", [False, True])
async def test_nobody_is_enrolled_in_a_collection_that_is_deleted_meanwhile(
    settings: Settings, *, is_made_again: bool
) -> None:
    backend = GatedBackend()
    async with asyncio.timeout(HANGING), serving(settings, backend) as client:
        await create(client, "staff")
        body, new = {"collection": "staff"}, {"name": "Eve"}
        enrolling = asyncio.create_task(client.post("/blacklist/", params=body, data=new, files=upload(photo(RED))))
        await backend.reached.wait()
        assert (await client.delete("/collections/staff/")).status_code == 204
        if is_made_again:
            await create(client, "staff")
        backend.gate.set()
        refused = await enrolling
        assert (refused.status_code, refused.json()["code"]) == (404, "collection_not_found")
    check_disk(settings)
    assert files(settings.blacklist_db_path) == []
    assert not is_readable(settings, RED)


async def test_a_photo_for_a_collection_that_is_deleted_meanwhile_does_not_stop_the_synchronisation(
    settings: Settings,
) -> None:
    backend = GatedBackend()
    backend.gate.set()
    async with asyncio.timeout(HANGING), serving(settings, backend) as client:
        await create(client, "staff")
        eve = await enroll_in(client, "staff", "Eve", photo(RED))
        folder = eve["images"][0]["identity"].split("/")[1]
        drop(settings, f"{folder}/more.png", photo(GREEN))
        drop(settings, "somebody/new.png", photo(BLUE))
        backend.reached.clear()
        backend.gate.clear()
        synchronising = asyncio.create_task(sync(client))
        await backend.reached.wait()
        assert (await client.delete("/collections/staff/")).status_code == 204
        backend.gate.set()
        assert (await synchronising)["added"] == ["blacklist_db/somebody/new.png"]
    check_disk(settings)
    assert not is_readable(settings, GREEN)


async def test_a_search_in_a_collection_that_is_deleted_meanwhile_finds_nobody(settings: Settings) -> None:
    backend = GatedBackend()
    backend.gate.set()
    async with asyncio.timeout(HANGING), serving(settings, backend) as client:
        await create(client, "staff")
        await enroll_in(client, "staff", "Eve", photo(RED))
        assert await names_in(client, "staff", photo(RED)) == ["Eve"]
        backend.reached.clear()
        backend.gate.clear()
        searching = asyncio.create_task(process(client, inline(photo(RED)), collection="staff"))
        await backend.reached.wait()
        assert (await client.delete("/collections/staff/")).status_code == 204
        backend.gate.set()
        (result,) = await searching
        assert result["faces"][0]["blacklist_matches"] == []
        assert (await client.get("/processed-images/", params={"matched_only": "true"})).json()["total_items"] == 0
    check_disk(settings)


class HeldBackend(PaintedBackend):
    """While :attr:`ready` is cleared, an index that was brought up to date is not said to be so."""

    def __init__(self) -> None:
        super().__init__()
        self.applied, self.ready = asyncio.Event(), asyncio.Event()
        self.ready.set()

    async def apply(self, collection_id: int, model: ModelName, update: IndexUpdate) -> None:
        await super().apply(collection_id, model, update)
        self.applied.set()
        await self.ready.wait()


async def test_an_index_is_not_let_go_by_who_read_before_its_collection_was_there(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_ids = collections.collection_ids
    has_read, goes_on = asyncio.Event(), asyncio.Event()

    async def read_then_wait(connection: AsyncConnection) -> Collection[int]:
        ids = await read_ids(connection)
        if not has_read.is_set():
            has_read.set()
            await goes_on.wait()
        return ids

    backend = HeldBackend()
    async with asyncio.timeout(HANGING), serving(settings, backend) as client:
        await enroll(client, "Ada", photo(RED))
        monkeypatch.setattr(collections, "collection_ids", read_then_wait)
        early = asyncio.create_task(names_in(client, "default", photo(RED)))
        await has_read.wait()
        await create(client, "staff")
        await enroll_in(client, "staff", "Eve", photo(GREEN))
        assert await names_in(client, "staff", photo(GREEN, BLUE)) == ["Eve"]
        await enroll_in(client, "staff", "Bob", photo(BLUE))
        backend.applied.clear()
        backend.ready.clear()
        late = asyncio.create_task(names_in(client, "staff", photo(GREEN, BLUE)))
        await backend.applied.wait()
        backend.applied.clear()
        goes_on.set()
        await backend.applied.wait()
        backend.ready.set()
        assert await early == ["Ada"]
        assert await late == ["Eve", "Bob"]
        assert await names_in(client, "staff", photo(GREEN, BLUE)) == ["Eve", "Bob"]
