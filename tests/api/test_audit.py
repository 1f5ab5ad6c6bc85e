"""Who did what, over HTTP: every use and every change leaves one event, of whoever asked."""

import json
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.event import listen

from facescreen.api.attempts import ACTIONS
from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.domain.access import Scope
from facescreen.factory import Services
from facescreen.main import create_app
from facescreen.services.calibration import CalibrationOptions
from tests.api.test_blacklist import enroll, upload
from tests.api.test_process import process
from tests.at_rest import check_disk, events
from tests.painted import BLUE, GREEN, RED, YELLOW, inline, photo
from tests.services.test_calibration import strangers, write

NOTE, NAME, REASON, IDENTIFIER = "planted-note", "Planted-Name", "planted-reason", "planted-door.jpg"
NOBODY = 999


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """No threshold is configured, so that calibrations count; no limit stands in the way."""
    return settings.model_copy(update={"match_threshold": None})


async def grant(client: httpx.AsyncClient, services: Services, *scopes: Scope) -> str:
    """The id of a new key, which the client uses from now on."""
    made = await services.keys.create(scopes)
    client.headers["X-API-Key"] = made.text
    return made.key.id


async def answered(response: Awaitable[httpx.Response]) -> Any:
    got = await response
    assert got.is_success, got.text
    return got.json() if got.content else None


class Doings:
    """Each operation that uses or changes something, as the document names it; what it should leave in the trail."""

    def __init__(self, client: httpx.AsyncClient, services: Services, folder: Path) -> None:
        self._client = client
        self._services = services
        self._folder = folder

    async def detect_face(self) -> dict[str, Any]:
        await answered(self._client.post("/detect/detect-face", json={"image": inline(photo(RED))}))
        return {"action": "detect"}

    async def process_images(self) -> dict[str, Any]:
        ada = await enroll(self._client, NAME, photo(RED), reason=REASON)
        before = events(self._services.settings)[-1]["list_version"]
        results = await process(self._client, inline(photo(RED)), inline(photo(GREEN)), inline(b"nonsense"))
        return {
            "action": "screening",
            "result_ids": [result["id"] for result in results],
            "entry_ids": [ada["id"]],
            "list_version": before,
            "collection_id": 1,
        }

    async def delete_result(self) -> dict[str, Any]:
        (result,) = await process(self._client, inline(photo(RED)))
        await answered(self._client.delete(f"/processed-images/{result['id']}"))
        return {"action": "result.delete", "result_ids": [result["id"]]}

    async def clear_face(self, note: str = NOTE) -> dict[str, Any]:
        ada = await enroll(self._client, NAME, photo(YELLOW))
        (result,) = await process(self._client, inline(photo(YELLOW)))
        url, body = f"/processed-images/{result['id']}/faces/0/clear", {"entry_id": ada["id"], "note": note}
        await answered(self._client.post(url, json=body))
        return {"action": "clear", "result_ids": [result["id"]], "entry_ids": [ada["id"]]}

    async def restore_face(self) -> dict[str, Any]:
        cleared = await self.clear_face()
        url, query = (
            f"/processed-images/{cleared['result_ids'][0]}/faces/0/clear",
            {"entry_id": cleared["entry_ids"][0]},
        )
        await answered(self._client.delete(url, params=query))
        return {**cleared, "action": "unclear"}

    async def create_entry(self) -> dict[str, Any]:
        ada = await enroll(self._client, NAME, photo(RED), reason=REASON)
        return {
            "action": "entry.create",
            "entry_ids": [ada["id"]],
            "collection_id": 1,
            "list_version": await self._version(),
        }

    async def update_entry(self) -> dict[str, Any]:
        ada = await enroll(self._client, "Ada", photo(RED))
        await answered(self._client.put(f"/blacklist/{ada['id']}/", json={"name": NAME, "reason": REASON}))
        return {
            "action": "entry.update",
            "entry_ids": [ada["id"]],
            "collection_id": 1,
            "list_version": await self._version(),
        }

    async def delete_entry(self) -> dict[str, Any]:
        ada = await enroll(self._client, NAME, photo(RED))
        await answered(self._client.delete(f"/blacklist/{ada['id']}/"))
        return {
            "action": "entry.delete",
            "entry_ids": [ada["id"]],
            "collection_id": 1,
            "list_version": await self._version(),
        }

    async def add_images(self) -> dict[str, Any]:
        ada = await enroll(self._client, NAME, photo(RED))
        await answered(self._client.post(f"/blacklist/{ada['id']}/images", files=upload(photo(BLUE), photo(GREEN))))
        return {
            "action": "image.add",
            "entry_ids": [ada["id"]],
            "collection_id": 1,
            "list_version": await self._version(),
        }

    async def delete_image(self) -> dict[str, Any]:
        ada = await enroll(self._client, NAME, photo(RED))
        await answered(self._client.delete(f"/blacklist/{ada['id']}/images/{ada['images'][0]['id']}"))
        return {
            "action": "image.delete",
            "entry_ids": [ada["id"]],
            "collection_id": 1,
            "list_version": await self._version(),
        }

    async def sync_folder(self) -> dict[str, Any]:
        await answered(self._client.post("/blacklist/sync"))
        return {"action": "sync"}

    async def create_collection(self, name: str = "Planted-Collection") -> dict[str, Any]:
        await answered(self._client.post("/collections/", json={"name": name}))
        return {"action": "collection.create", "collection_id": 2, "list_version": 0}

    async def delete_collection(self) -> dict[str, Any]:
        await self.create_collection("Planted-Group")
        await answered(self._client.delete("/collections/Planted-Group/"))
        return {"action": "collection.delete", "collection_id": 2, "list_version": 0}

    async def delete_calibration(self) -> dict[str, Any]:
        await enroll(self._client, NAME, photo(RED))
        assert self._services.calibration is not None
        probes, options = write(self._folder, strangers(20)), CalibrationOptions(one_in=10, review_one_in=2)
        await self._services.calibration.calibrate(probes, options, collection="default", source="strangers")
        made = events(self._services.settings)[-1]
        assert (made["action"], made["actor"]) == ("calibration.create", "service")
        await answered(self._client.delete("/collections/default/calibration"))
        return {"action": "calibration.delete", "collection_id": 1, "list_version": await self._version()}

    async def export_trail(self) -> dict[str, Any]:
        assert (await self._client.get("/audit/")).is_success
        return {"action": "audit.export"}

    async def _version(self) -> int:
        version: int = (await answered(self._client.get("/collections/default/")))["list_version"]
        return version


def operations(settings: Settings) -> dict[str, tuple[str, str]]:
    """Method and path below the prefix, by the name of the operation: of all that do not only show something."""
    found = {}
    for path, item in create_app(settings).openapi()["paths"].items():
        for method, operation in item.items():
            name = operation["operationId"]
            if method != "get" or name == "export_trail":
                found[name] = (method.upper(), path.removeprefix("/api/v1"))
    return found


DOINGS = [name for name in vars(Doings) if not name.startswith("_")]


def test_no_operation_is_forgotten(settings: Settings) -> None:
    assert set(operations(settings)) == set(DOINGS)
    assert set(ACTIONS) == set(DOINGS) - {"detect_face", "export_trail"}


@pytest.mark.parametrize("name", DOINGS)
async def test_each_operation_leaves_one_event_of_who_asked(
    client: httpx.AsyncClient, services: Services, tmp_path: Path, name: str
) -> None:
    key_id = await grant(client, services, *Scope)
    client.headers["X-Request-ID"] = "0123456789abcdef"
    doing: Callable[[], Awaitable[dict[str, Any]]] = getattr(Doings(client, services, tmp_path / "probes"), name)
    expected: dict[str, Any] = {
        "collection_id": None,
        "list_version": None,
        "entry_ids": [],
        "result_ids": [],
        "subject": None,
    }
    expected |= await doing()
    found = [event for event in events(services.settings) if event["action"] == expected["action"]]
    (event,) = [event for event in found if event["actor"] == key_id]
    assert (event["outcome"], event["request_id"]) == ("done", "0123456789abcdef")
    assert {key: event[key] for key in expected} == expected
    # And nothing else was done meanwhile but what this needed.
    assert {event["outcome"] for event in events(services.settings)} == {"done"}
    check_disk(services.settings)


@pytest.mark.parametrize("name", ACTIONS)
async def test_each_attempt_that_fails_leaves_one_event_with_its_code(
    client: httpx.AsyncClient, services: Services, settings: Settings, name: str
) -> None:
    key_id = await grant(client, services, *Scope)
    method, path = operations(settings)[name]
    path = path.format(id=NOBODY, image_id=NOBODY, n=0, name="nowhere")
    params = {"collection": "nowhere", "entry_id": "1"}
    if name == "sync_folder":
        await enroll(client, "Ada", photo(RED))
        for file in settings.blacklist_db_path.rglob("*.jpg"):
            file.unlink()
    response = await client.request(method, path, params=params if method != "POST" or "clear" not in path else None)
    assert not response.is_success
    (event,) = [event for event in events(settings) if event["outcome"] != "done"]
    assert (event["action"], event["actor"], event["outcome"]) == (ACTIONS[name], key_id, response.json()["code"])
    assert event["entry_ids"] + event["result_ids"] == ([NOBODY] if str(NOBODY) in path else [])


async def test_what_a_key_may_not_do_is_recorded_and_what_nobody_may_is_not(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    key_id = await grant(client, services, Scope.READ)
    before = len(events(settings))
    assert (await client.delete("/blacklist/7/")).json()["code"] == "scope_missing"
    assert (await client.get("/audit/")).json()["code"] == "scope_missing"
    assert (await client.get("/blacklist/")).is_success
    client.headers["X-API-Key"] = "fsk_nonsense"
    assert (await client.delete("/blacklist/7/")).json()["code"] == "unauthenticated"
    denied = events(settings)[before:]
    assert [(event["actor"], event["action"], event["outcome"], event["subject"]) for event in denied] == [
        (key_id, "denied", "scope_missing", "delete_entry"),
        (key_id, "denied", "scope_missing", "export_trail"),
    ]


async def test_a_method_that_there_is_not_is_no_attempt(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    await grant(client, services, *Scope)
    before = len(events(settings))
    for path in ("/process/process-images", "/blacklist/sync"):
        assert (await client.request("PATCH", path)).status_code == 405
    assert len(events(settings)) == before


async def test_a_refusal_does_not_wait_for_its_event(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    key_id = await grant(client, services, Scope.ADMINISTER)
    before = len(events(settings))
    async with services.database.write():
        assert (await client.delete("/blacklist/7/")).json()["code"] == "scope_missing"
        assert (await client.post("/collections/", json={})).json()["code"] == "invalid_request"
    async with services.database.write():  # after those that were waiting
        pass
    assert [(event["actor"], event["action"], event["outcome"]) for event in events(settings)[before:]] == [
        (key_id, "denied", "scope_missing"),
        (key_id, "collection.create", "invalid_request"),
    ]


async def test_keys_leave_events_with_their_ids_alone(services: Services, settings: Settings) -> None:
    made = await services.keys.create({Scope.READ}, label=NAME)
    again = await services.keys.rotate(made.key.id)
    await services.keys.revoke(again.key.id)
    await services.keys.revoke(again.key.id)
    found = [(event["action"], event["subject"]) for event in events(settings) if event["action"].startswith("key.")]
    assert found == [
        ("key.create", made.key.id),
        ("key.rotate", f"{made.key.id} {again.key.id}"),
        ("key.revoke", again.key.id),
    ]
    written = json.dumps(events(settings))
    assert not [secret for secret in (NAME, made.text, again.text, made.text.split("_")[2]) if secret in written]


async def test_folders_leave_an_event_for_each_change(client: httpx.AsyncClient, settings: Settings) -> None:
    person = settings.blacklist_db_path / "planted-folder"
    person.mkdir(parents=True)
    for name, colour in (("a.png", RED), ("b.png", BLUE)):
        (person / name).write_bytes(photo(colour))
    before = len(events(settings))
    await answered(client.post("/blacklist/sync"))
    (person / "b.png").unlink()
    await answered(client.post("/blacklist/sync"))
    (entry,) = await answered(client.get("/blacklist/"))
    assert [(event["action"], event["entry_ids"]) for event in events(settings)[before:]] == [
        ("entry.create", [entry["id"]]),
        ("image.add", [entry["id"]]),
        ("sync", []),
        ("image.delete", [entry["id"]]),
        ("sync", []),
    ]


async def test_nothing_of_a_person_is_in_the_trail(
    client: httpx.AsyncClient, services: Services, settings: Settings, tmp_path: Path
) -> None:
    doings = Doings(client, services, tmp_path / "probes")
    for name in DOINGS:
        await getattr(doings, name)()
    path = settings.image_input_roots[0] / IDENTIFIER
    path.write_bytes(photo(RED))
    await process(client, str(path))
    await client.get(f"/blacklist/{NOTE}/")
    await client.delete(f"/collections/{NAME}/")
    with closing(sqlite3.connect(Database(settings.database_url).path)) as connection:
        written = "\n".join(line for line in connection.iterdump() if "audit_events" in line)
        names = [name for row in connection.execute("SELECT name, reason, folder FROM entries") for name in row if name]
    assert written.count("\n") > len(DOINGS)
    planted = [
        NOTE,
        NAME,
        REASON,
        IDENTIFIER,
        "Planted-Collection",
        "Planted-Group",
        "strangers",
        str(tmp_path),
        *names,
    ]
    assert not [value for value in planted if value.lower() in written.lower()]


async def test_the_trail_is_exported(client: httpx.AsyncClient, services: Services, settings: Settings) -> None:
    await enroll(client, "Ada", photo(RED))
    whole = await client.get("/audit/")
    assert (whole.status_code, whole.headers["content-type"]) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in whole.text.splitlines()]
    assert [{key: line[key] for key in event} for line, event in zip(lines, events(settings)[:-1], strict=True)] == [
        *events(settings)[:-1]
    ]
    assert lines[-1]["action"] == "entry.create"
    after = (await client.get("/audit/", params={"after_id": lines[0]["id"], "limit": 1})).text
    assert after == whole.text.splitlines(keepends=True)[1]
    assert (await client.get("/audit/", params={"from": lines[-1]["at"], "to": lines[-1]["at"]})).text == ""
    since = (await client.get("/audit/", params={"from": lines[-1]["at"], "limit": 1})).text
    assert since == whole.text.splitlines(keepends=True)[-1]
    assert (await client.get("/audit/", params={"limit": 0})).status_code == 422
    assert (await services.trail.verify()).misfit is None


async def test_a_use_goes_on_where_it_cannot_be_recorded(
    client: httpx.AsyncClient, services: Services, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    def fill(connection: DBAPIConnection, *_: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA max_page_count=1")  # SQLite takes as many as there are
        cursor.close()

    before = len(events(settings))
    listen(services.database._engine.sync_engine, "checkout", fill)
    for _ in range(40):  # the last page has room for a few
        assert len(await answered(client.post("/detect/detect-face", json={"image": inline(photo(RED))}))) == 1
    assert "event_not_recorded" in caplog.text
    assert len(events(settings)) < before + 40
    check_disk(settings)
