"""Entries that are on the list until a certain moment."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.db.schema import entries
from facescreen.domain.blacklist import DEFAULT_COLLECTION, Entry, Status
from facescreen.errors import ConflictError, NotFoundError
from facescreen.factory import Facade, Services
from facescreen.services.quality import QualityFilter
from facescreen.services.retention import Kind
from tests.api.test_blacklist import enroll, files, matches, upload
from tests.api.test_clearing import verdicts
from tests.api.test_process import process
from tests.api.test_sync import drop, sync
from tests.at_rest import check_disk, is_readable
from tests.painted import BLUE, GREEN, RED, inline, photo
from tests.painted_server import HANGING
from tests.services.test_retention import events

LATER = "2099-12-31T23:59:59+01:00"
LATER_IN_UTC = "2099-12-31T22:59:59Z"


async def expire(settings: Settings, record: dict[str, Any], within: timedelta = timedelta(0)) -> datetime:
    """Let an entry expire at this very moment, or soon; when that is."""
    database = Database(settings.database_url)
    async with database.write() as connection:
        moment = datetime.now(UTC) + within
        this = update(entries).where(entries.c.id == record["id"])
        await connection.execute(this.values(expires_at=moment))
    await database.aclose()
    return moment


@given(st.datetimes(timezones=st.just(UTC)), st.timedeltas(timedelta(0), timedelta(days=1)))
def test_an_entry_has_expired_from_the_very_moment_on(moment: datetime, more: timedelta) -> None:
    entry = Entry(1, "default", "Ada", "", "ada", None, Status.ACTIVE, moment, moment, (), expires_at=moment)
    later = moment + more if more < datetime.max.replace(tzinfo=UTC) - moment else moment
    assert entry.has_expired(later)
    assert moment == datetime.min.replace(tzinfo=UTC) or not entry.has_expired(moment - timedelta(microseconds=1))


async def test_a_record_says_when_it_expires_and_that_can_be_changed(client: httpx.AsyncClient) -> None:
    record = await enroll(client, "Ada", photo(RED), expires_at=LATER)
    url = f"/blacklist/{record['id']}/"
    assert record["expires_at"] == LATER_IN_UTC
    assert [entry["expires_at"] for entry in (await client.get("/blacklist/")).json()] == [LATER_IN_UTC]
    kept = (await client.put(url, json={"name": "Ada L."})).json()
    assert (kept["name"], kept["expires_at"]) == ("Ada L.", LATER_IN_UTC)
    never = (await client.put(url, json={"expires_at": None, "name": None})).json()
    assert (never["name"], never["expires_at"]) == ("Ada L.", None)
    assert (await client.put(url, json={"expires_at": LATER})).json()["expires_at"] == LATER_IN_UTC
    assert (await client.get(url)).json()["expires_at"] == LATER_IN_UTC


@pytest.mark.parametrize(
    ("moment", "code"),
    [
        ("2020-01-01T00:00:00Z", "expiry_in_past"),
        ("2099-12-31T23:59:59", "invalid_request"),  # whose midnight is that?
        ("0001-01-01T00:00:00+14:00", "invalid_request"),
        ("9999-12-31T23:59:59-14:00", "invalid_request"),
        ("soon", "invalid_request"),
    ],
)
async def test_it_must_be_in_the_future_and_say_its_zone(client: httpx.AsyncClient, moment: str, code: str) -> None:
    answer = await client.post("/blacklist/", data={"name": "Ada", "expires_at": moment}, files=upload(photo(RED)))
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert (await client.get("/blacklist/")).json() == []
    record = await enroll(client, "Ada", photo(RED))
    answer = await client.put(f"/blacklist/{record['id']}/", json={"expires_at": moment})
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_who_has_expired_matches_nobody_though_no_sweep_has_come(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    ada = await enroll(client, "Ada", photo(RED), expires_at=LATER)
    assert [match["name"] for match in await matches(client, photo(RED))] == ["Ada"]
    await expire(settings, ada)
    assert await matches(client, photo(RED)) == []
    again = await client.post("/blacklist/", data={"name": "Ada", "reject_duplicates": "1"}, files=upload(photo(RED)))
    assert (again.status_code, again.json()["warnings"]) == (201, [])
    url = f"/blacklist/{ada['id']}/"
    for answer in (
        await client.put(url, json={"expires_at": LATER}),
        await client.post(f"{url}images", files=upload(photo(RED, side=80))),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "entry_not_found")
    assert (await client.get(url)).status_code == 200
    assert (await client.delete(url)).status_code == 200


async def test_it_does_so_to_the_moment(client: httpx.AsyncClient, settings: Settings) -> None:
    ada = await enroll(client, "Ada", photo(RED))
    expires_at = await expire(settings, ada, within=timedelta(seconds=0.5))
    async with asyncio.timeout(HANGING):
        while True:
            began = datetime.now(UTC)
            found = await matches(client, photo(RED))
            if datetime.now(UTC) < expires_at:
                assert found
            if began >= expires_at:
                assert not found
                break


async def test_who_expires_while_the_picture_is_compared_is_withdrawn_from_its_result(
    client: httpx.AsyncClient, services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await enroll(client, "Ada", photo(RED))
    store = services.screening._store

    async def late(*arguments: Any, **more: Any) -> Any:
        await expire(settings, ada)
        return await store(*arguments, **more)

    monkeypatch.setattr(services.screening, "_store", late)
    (result,) = await process(client, inline(photo(RED)))
    assert verdicts(result) == ["withdrawn"]


async def test_who_has_expired_is_nobody_for_rekognition_clients(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    ada = await enroll(client, "Ada", photo(RED), expires_at=LATER)
    eve = await enroll(client, "Eve", photo(GREEN))
    facade = services.facade
    assert facade is not None
    (_, evas) = await facade.faces.page(DEFAULT_COLLECTION, after=0, limit=10)
    assert await _similar(facade) == ([ada["user_id"]], 1)
    await expire(settings, ada)
    assert await _similar(facade) == ([], 0)
    assert await facade.faces.page(DEFAULT_COLLECTION, after=0, limit=10) == [evas]
    assert [person.user_id for person in await facade.people.page(DEFAULT_COLLECTION, after=0, limit=10)] == [
        eve["user_id"]
    ]
    with pytest.raises(NotFoundError):
        await facade.faces.people_by_person(DEFAULT_COLLECTION, ada["user_id"], alike=90, most=5)


async def _similar(facade: Facade) -> tuple[list[str], int]:
    """The people, and how many faces, that resemble a red face."""
    wanted: dict[str, Any] = {"alike": 90, "most": 5, "quality": QualityFilter.NONE}
    picture = photo(RED)
    people = (await facade.faces.people_by_image(DEFAULT_COLLECTION, picture, **wanted)).matches
    _, faces = await facade.faces.search_by_image(DEFAULT_COLLECTION, picture, **wanted)
    return [person.user_id for person in people], len(faces)


async def test_a_face_that_is_taken_from_a_person_expires_with_it(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    ada = await enroll(client, "Ada", photo(RED), expires_at=LATER)
    facade = services.facade
    assert facade is not None
    (face,) = await facade.faces.page(DEFAULT_COLLECTION, after=0, limit=10)
    assert face.image.face_id is not None
    await facade.people.disassociate(DEFAULT_COLLECTION, ada["user_id"], [face.image.face_id], token=None)
    assert [entry["expires_at"] for entry in (await client.get("/blacklist/")).json()] == [LATER_IN_UTC] * 2


async def test_a_sweep_withdraws_who_has_expired_wholly(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    drop(settings, "Ada/a.png", photo(RED))
    drop(settings, "Ada/nobody.png", photo())
    await sync(client)
    (ada,) = (await client.get("/blacklist/")).json()
    eve = await enroll(client, "Eve", photo(BLUE), expires_at=LATER)
    results = await process(client, inline(photo(RED)), inline(photo(BLUE)))
    await client.put(f"/blacklist/{ada['id']}/", json={"expires_at": LATER})
    await expire(settings, ada)
    assert is_readable(settings, RED)
    assert (await services.retention.due())[Kind.ENTRIES] == 1
    assert (await services.retention.sweep())[Kind.ENTRIES] == 1
    assert not is_readable(settings, RED)
    assert [entry["id"] for entry in (await client.get("/blacklist/")).json()] == [eve["id"]]
    assert not (settings.blacklist_db_path / "Ada").exists()
    report = await sync(client)
    assert (report["added"], report["withdrawn"]) == ([], [])
    stored = [(await client.get(f"/processed-images/{result['id']}")).json() for result in results]
    assert [verdicts(result) for result in stored] == [["withdrawn"], ["match"]]
    (recorded,) = events(services, "entry.delete")
    assert (recorded["actor"], recorded["entry_ids"]) == ("service", [ada["id"]])
    check_disk(settings)
    assert len(files(settings.blacklist_db_path)) == 1


@pytest.mark.parametrize("is_swept", [False, True])
async def test_a_photo_that_is_dropped_for_whom_has_expired_is_somebody_new(
    client: httpx.AsyncClient, services: Services, settings: Settings, is_swept: bool
) -> None:
    drop(settings, "Ada/a.png", photo(RED))
    drop(settings, "Ada/same.png", photo(RED))
    await sync(client)
    (ada,) = (await client.get("/blacklist/")).json()
    await expire(settings, ada)
    drop(settings, "Ada/b.png", photo(GREEN))
    if is_swept:
        assert (await services.retention.sweep())[Kind.ENTRIES] == 1
    report = await sync(client)
    assert (report["added"], report["skipped"]) == (["blacklist_db/Ada/b.png"], [])
    assert (report["withdrawn"], report["unchanged"]) == ([] if is_swept else ["blacklist_db/Ada/a.png"], 0)
    (entry,) = (await client.get("/blacklist/")).json()
    assert entry["id"] != ada["id"]
    assert await matches(client, photo(RED)) == []
    assert [match["name"] for match in await matches(client, photo(GREEN))] == ["Ada"]
    assert [path.name for path in files(settings.blacklist_db_path)] == ["b.png"]
    check_disk(settings)


async def test_who_has_expired_is_not_counted_or_reported(client: httpx.AsyncClient, settings: Settings) -> None:
    ada = await enroll(client, "Ada", photo(RED))
    await enroll(client, "Eve", photo(RED))
    report = (await client.get("/blacklist/report")).json()
    assert (report["entries"], len(report["findings"])) == (2, 1)
    await expire(settings, ada)  # as time does it: the version of the list stays
    report = (await client.get("/blacklist/report")).json()
    assert (report["entries"], report["reference_images"], report["findings"]) == (1, 1, [])
    health = (await client.get("/")).json()
    assert (health["entries"], health["reference_images"]) == (1, 1)


async def test_the_id_of_who_has_expired_can_be_given_to_another(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    ada = await enroll(client, "Ada", photo(RED))
    assert services.facade is not None
    people = services.facade.people
    with pytest.raises(ConflictError):
        await people.create(DEFAULT_COLLECTION, ada["user_id"], token=None)
    await expire(settings, ada)
    await people.create(DEFAULT_COLLECTION, ada["user_id"], token=None)
    assert [person.user_id for person in await people.page(DEFAULT_COLLECTION, after=0, limit=9)] == [ada["user_id"]]
    assert files(settings.blacklist_db_path) == []
