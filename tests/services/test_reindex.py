"""Embeddings for a model that is new to the list."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from facescreen.config import Settings
from facescreen.factory import Services
from facescreen.services.reindex import ReindexService
from tests.api.test_blacklist import enroll
from tests.painted import GREEN, RED, inline, photo


@pytest.fixture
def reindexing(services: Services) -> ReindexService:
    assert services.reindex is not None
    return services.reindex


async def found_by_sface(client: httpx.AsyncClient, data: bytes) -> list[str]:
    body = {"images": [inline(data)], "model_name": "Dlib", "threshold": 0.05}
    (result,) = (await client.post("/process/process-images", json=body)).json()
    return [match["name"] for face in result["faces"] for match in face["blacklist_matches"]]


def stored_photo(settings: Settings, record: dict[str, Any]) -> Path:
    identity: str = record["images"][0]["identity"]
    return settings.blacklist_db_path / identity.removeprefix("blacklist_db/")


async def test_an_unreadable_photo_does_not_hide_the_others(
    client: httpx.AsyncClient, reindexing: ReindexService, settings: Settings
) -> None:
    broken = await enroll(client, "Ada", photo(RED))
    stored_photo(settings, broken).write_bytes(b"gone bad")
    assert await found_by_sface(client, photo(RED)) == []
    report = await reindexing.reindex("Dlib")
    assert [image.id for image in report.unreadable] == [broken["images"][0]["id"]]
    await client.delete(f"/blacklist/{broken['id']}/")
    await enroll(client, "Eve", photo(GREEN))
    assert await found_by_sface(client, photo(GREEN)) == ["Eve"]


async def test_an_interrupted_run_goes_on_where_it_was(client: httpx.AsyncClient, reindexing: ReindexService) -> None:
    class Interrupted(Exception):  # noqa: N818 - not an error
        pass

    def stop_after_one(done: int, _total: int) -> None:
        if done == 1:
            raise Interrupted

    for name in ("Ada", "Eve", "Bob"):
        await enroll(client, name, photo(RED))
    with pytest.raises(Interrupted):
        await reindexing.reindex("Dlib", stop_after_one)
    seen: list[tuple[int, int]] = []
    report = await reindexing.reindex("Dlib", lambda done, total: seen.append((done, total)))
    assert report.embedded == 2
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert sorted(await found_by_sface(client, photo(RED))) == ["Ada", "Bob", "Eve"]
