"""What holds of a photo that became another entry's, as Rekognition's clients make it."""

import httpx
import pytest

from facescreen.config import Settings
from facescreen.db import blacklist, screenings
from facescreen.db.blacklist import NewEntry
from facescreen.domain.blacklist import Status
from facescreen.domain.screening import Verdict
from facescreen.factory import Services
from facescreen.images.sources import SourceImage
from facescreen.services.thresholds import ScreeningOptions
from tests.api.test_blacklist import enroll
from tests.painted import BLUE, GREEN, RED, photo


async def move(services: Services, entry_id: int, name: str) -> int:
    """Make the entry's first photo that of a new person, whose folder is empty; the person's id."""
    async with services.database.write() as connection:
        entry = await blacklist.get_entry(connection, entry_id)
        assert entry is not None
        collection = await services.collections.get(entry.collection)
        other = await blacklist.insert_entry(
            connection, collection.id, NewEntry(name, "", f"{name}-folder", name), status=Status.ACTIVE
        )
        await blacklist.move_images(connection, [entry.images[0].id], other)
    return other


async def test_a_result_is_of_whoever_has_the_photo_when_it_is_stored(
    client: httpx.AsyncClient, services: Services
) -> None:
    ada = (await enroll(client, "Ada", photo(RED)))["id"]
    (result,) = await services.screening.screen([SourceImage(photo(RED), "red")], ScreeningOptions())
    eve = await move(services, ada, "Eve")
    await services.blacklist.delete("default", ada)
    async with services.database.write() as connection:
        late = await screenings.insert_screening(connection, result)
    assert [(face.verdict, [match.entry_id for match in face.matches]) for face in late.faces] == [
        (Verdict.MATCH, [eve])
    ]
    await services.blacklist.delete("default", eve)
    async with services.database.write() as connection:
        later = await screenings.insert_screening(connection, result)
    assert [(face.verdict, face.matches) for face in later.faces] == [(Verdict.WITHDRAWN, ())]


async def test_a_person_goes_only_with_the_folder_of_its_last_photo(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    await enroll(client, "Keep", photo(BLUE))
    added = await enroll(client, "Ada", photo(RED), photo(GREEN))
    eve = await move(services, added["id"], "Eve")
    folder = next(settings.blacklist_db_path.glob("ada-*"))
    entry = await services.blacklist.get("default", eve)
    (settings.blacklist_db_path / entry.images[0].photo).unlink()
    assert folder.exists()
    report = await services.sync.sync()
    assert report.withdrawn == [entry.images[0].photo]
    assert (await services.blacklist.get("default", eve)).images == ()


@pytest.mark.parametrize("is_person", [True, False])
async def test_deleting_the_only_photo_answers_with_what_is_left(
    client: httpx.AsyncClient, services: Services, is_person: bool
) -> None:
    added = await enroll(client, "Ada", photo(RED))
    if not is_person:
        async with services.database.write() as connection:
            await blacklist.set_user_id(connection, added["id"], None)
    response = await client.delete(f"/blacklist/{added['id']}/images/{added['images'][0]['id']}")
    assert (response.status_code, response.json()["images"]) == (200, [])
    there = await client.get(f"/blacklist/{added['id']}/")
    assert there.status_code == (200 if is_person else 404)
