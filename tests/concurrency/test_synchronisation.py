"""The list changes while it is brought in line with its folder."""

import asyncio

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db import blacklist
from facescreen.db.blacklist import WatchedFile
from facescreen.images.folder_store import FolderStore
from facescreen.images.survey import Survey
from tests.api.test_blacklist import enroll
from tests.painted import BLUE, RED, photo
from tests.painted_server import HANGING


@pytest.fixture
def ada_is_enrolled_meanwhile(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after the folder was listed."""
    survey = FolderStore.survey

    async def survey_then_enroll(store: FolderStore) -> Survey:
        found = await survey(store)
        await enroll(client, "Ada", photo(RED))
        return found

    monkeypatch.setattr(FolderStore, "survey", survey_then_enroll)


async def test_the_first_person_enrolled_meanwhile_is_no_missing_folder(
    client: httpx.AsyncClient, ada_is_enrolled_meanwhile: None
) -> None:
    report = await client.post("/blacklist/sync")
    assert report.status_code == 200, report.text
    assert (report.json()["added"], report.json()["withdrawn"]) == ([], [])


async def test_a_person_whose_only_photo_is_deleted_meanwhile_stays(
    client: httpx.AsyncClient, ada_is_enrolled_meanwhile: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    eve = await enroll(client, "Eve", photo(BLUE))
    watched_files, delete_file = blacklist.watched_files, FolderStore.delete
    is_deleted = asyncio.Event()
    deletions: list[asyncio.Task[httpx.Response]] = []

    async def delete_and_tell(store: FolderStore, name: str) -> None:
        await delete_file(store, name)
        is_deleted.set()

    async def read_then_delete(connection: AsyncConnection) -> list[WatchedFile]:
        rows = await watched_files(connection)
        (ada,) = (row for row in rows if row.entry_id != eve["id"])
        # Not awaited: in the end a deletion waits until whoever could still read what was deleted is done.
        path = f"/blacklist/{ada.entry_id}/images/{ada.reference_image_id}"
        deletions.append(asyncio.create_task(client.delete(path)))
        await is_deleted.wait()
        return rows

    monkeypatch.setattr(FolderStore, "delete", delete_and_tell)
    monkeypatch.setattr(blacklist, "watched_files", read_then_delete)
    async with asyncio.timeout(HANGING):
        assert (await client.post("/blacklist/sync")).json()["withdrawn"] == []
    assert (await deletions[0]).status_code == 200
    entries = (await client.get("/blacklist/")).json()
    assert [(entry["name"], len(entry["images"])) for entry in entries] == [("Eve", 1), ("Ada", 0)]
