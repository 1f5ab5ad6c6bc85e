"""Several lists beside each other, and nothing of one in another."""

from typing import Any

import httpx
import pytest

from facescreen.config import Settings
from facescreen.db import collections
from facescreen.domain.access import Scope
from facescreen.factory import Services
from tests.api.test_access import bearer, key
from tests.api.test_blacklist import enroll, files, upload
from tests.api.test_process import process
from tests.api.test_sync import drop, sync
from tests.at_rest import check_disk, is_readable
from tests.conftest import serving
from tests.painted import BLUE, GREEN, RED, YELLOW, PaintedBackend, inline, photo


async def create(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    response = await client.post("/collections/", json={"name": name})
    assert response.status_code == 201, response.text
    record: dict[str, Any] = response.json()
    return record


async def describe(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    response = await client.get(f"/collections/{name}/")
    assert response.status_code == 200, response.text
    record: dict[str, Any] = response.json()
    return record


async def enroll_in(client: httpx.AsyncClient, collection: str, name: str, *photos: bytes) -> dict[str, Any]:
    response = await client.post(
        "/blacklist/", params={"collection": collection}, data={"name": name}, files=upload(*photos)
    )
    assert response.status_code == 201, response.text
    record: dict[str, Any] = response.json()
    del record["warnings"]
    return record


async def names_in(client: httpx.AsyncClient, collection: str, data: bytes, **options: object) -> list[str]:
    """Who is found in the picture by a request that names the collection."""
    (result,) = await process(client, inline(data), collection=collection, **options)
    assert result["collection"] == collection
    return [match["name"] for face in result["faces"] for match in face["blacklist_matches"]]


async def test_a_collection_is_created_described_and_listed_by_name(client: httpx.AsyncClient) -> None:
    created = await create(client, "staff")
    assert {key: created[key] for key in ("name", "entries", "reference_images", "list_version")} == {
        "name": "staff",
        "entries": 0,
        "reference_images": 0,
        "list_version": 0,
    }
    assert await describe(client, "staff") == created
    await create(client, "Zoo")
    await enroll_in(client, "staff", "Eve", photo(RED), photo(GREEN))
    listed = (await client.get("/collections/")).json()
    assert [(c["name"], c["entries"], c["reference_images"]) for c in listed] == [
        ("Zoo", 0, 0),
        ("default", 0, 0),
        ("staff", 1, 2),
    ]
    assert listed[2] == await describe(client, "staff")
    assert (await client.get("/")).json()["collections"] == 3


async def test_what_contradicts_the_present_collections_has_a_stable_code(client: httpx.AsyncClient) -> None:
    await create(client, "staff")
    for response, status, code in (
        (await client.post("/collections/", json={"name": "staff"}), 409, "collection_exists"),
        (await client.post("/collections/", json={"name": "default"}), 409, "collection_exists"),
        (await client.get("/collections/nowhere/"), 404, "collection_not_found"),
        (await client.delete("/collections/nowhere/"), 404, "collection_not_found"),
        (await client.delete("/collections/default/"), 409, "default_collection"),
    ):
        assert (response.status_code, response.json()["code"]) == (status, code)
    assert [collection["name"] for collection in (await client.get("/collections/")).json()] == ["default", "staff"]


@pytest.mark.parametrize("name", ["a", "A_b.c-1", "0", "x" * 255])
async def test_a_name_is_what_rekognition_allows(client: httpx.AsyncClient, name: str) -> None:
    await create(client, name)
    assert (await describe(client, name))["name"] == name
    await enroll_in(client, name, "Eve", photo(RED))
    assert await names_in(client, name, photo(RED)) == ["Eve"]
    assert (await client.delete(f"/collections/{name}/")).status_code == 204


@pytest.mark.parametrize("name", ["", " ", "a b", "ä", "a/b", "a:b", "a\n", "x" * 256])
async def test_any_other_name_is_refused_wherever_it_stands(client: httpx.AsyncClient, name: str) -> None:
    body = {"images": [inline(photo(RED))], "collection": name}
    for response, location in (
        (await client.post("/collections/", json={"name": name}), "body.name"),
        (await client.get("/blacklist/", params={"collection": name}), "query.collection"),
        (await client.get("/processed-images/", params={"collection": name}), "query.collection.0"),
        (await client.post("/process/process-images", json=body), "body.collection"),
    ):
        assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
        assert [fault["location"] for fault in response.json()["errors"]] == [location]


async def test_an_unknown_collection_is_said_and_nothing_is_done(client: httpx.AsyncClient, settings: Settings) -> None:
    record = await enroll(client, "Ada", photo(RED))
    entry = f"/blacklist/{record['id']}/"
    image = f"{entry}images/{record['images'][0]['id']}"
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/blacklist/", {"data": {"name": "Eve"}, "files": upload(photo(GREEN))}),
        ("GET", "/blacklist/", {}),
        ("GET", entry, {}),
        ("PUT", entry, {"json": {"name": "Eve"}}),
        ("POST", f"{entry}images", {"files": upload(photo(GREEN))}),
        ("GET", image, {}),
        ("DELETE", image, {}),
        ("DELETE", entry, {}),
    ]
    answers = [
        await client.request(method, path, params={"collection": "nowhere"}, **options)
        for method, path, options in calls
    ]
    body = {"images": [inline(photo(RED))], "collection": "nowhere"}
    answers.append(await client.post("/process/process-images", json=body))
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(404, "collection_not_found")}
    assert (await client.get("/blacklist/")).json() == [record]
    assert (await client.get("/processed-images/")).json()["total_items"] == 0
    assert len(files(settings.blacklist_db_path)) == 1


async def test_a_person_is_found_only_in_the_collection_that_they_are_in(client: httpx.AsyncClient) -> None:
    for name in ("staff", "empty"):
        await create(client, name)
    ada = await enroll(client, "Ada", photo(RED), photo(BLUE))
    eve = await enroll_in(client, "staff", "Eve", photo(RED))
    bob = await enroll_in(client, "staff", "Bob", photo(GREEN))
    picture = photo(RED, GREEN, BLUE)
    everybody: dict[str, object] = {"distance_metric": "euclidean", "threshold": 10}
    for model in ("SFace", "Dlib"):
        chosen: dict[str, object] = {"model_name": model, "threshold": 0.05}
        assert await names_in(client, "default", picture, **chosen) == ["Ada", "Ada"]
        assert await names_in(client, "staff", picture, **chosen) == ["Eve", "Bob"]
        assert await names_in(client, "empty", picture, **chosen) == []
        assert await names_in(client, "default", photo(GREEN), model_name=model, **everybody) == ["Ada"]
        assert await names_in(client, "empty", photo(GREEN), model_name=model, **everybody) == []
    (result,) = await process(client, inline(picture))
    assert result["collection"] == "default"
    assert [len(face["blacklist_matches"]) for face in result["faces"]] == [1, 0, 1]
    assert (await client.get("/blacklist/")).json() == [ada]
    listed = await client.get("/blacklist/", params={"collection": "staff"})
    assert (listed.json(), listed.headers["x-total-count"]) == ([eve, bob], "2")
    assert (await client.get("/blacklist/", params={"collection": "staff", "q": "ada"})).json() == []
    assert (await client.get("/blacklist/", params={"collection": "empty"})).json() == []
    assert [record["collection"] for record in (ada, eve, bob)] == ["default", "staff", "staff"]


async def test_an_entry_is_read_and_changed_only_through_its_own_collection(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    await create(client, "staff")
    ada, eve = await enroll(client, "Ada", photo(RED)), await enroll_in(client, "staff", "Eve", photo(GREEN))
    for record, home, abroad in ((ada, "default", "staff"), (eve, "staff", "default")):
        entry = f"/blacklist/{record['id']}/"
        image = f"{entry}images/{record['images'][0]['id']}"
        calls: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", entry, {}),
            ("PUT", entry, {"json": {"name": "Bob"}}),
            ("POST", f"{entry}images", {"files": upload(photo(BLUE))}),
            ("GET", image, {}),
            ("DELETE", image, {}),
            ("DELETE", entry, {}),
        ]
        for method, path, options in calls:
            answer = await client.request(method, path, params={"collection": abroad}, **options)
            assert (answer.status_code, answer.json()["code"]) == (404, "entry_not_found"), f"{method} {path}"
            assert answer.json()["detail"].endswith(f"the collection {home} has it: add ?collection={home}")
        assert (await client.get(entry, params={"collection": home})).json() == record
        assert (await client.get(image, params={"collection": home})).status_code == 200
    assert len(files(settings.blacklist_db_path)) == 2

    missing = await client.get("/blacklist/99/")
    assert missing.json()["detail"] == "there is no blacklist entry 99 in the collection default"

    # No collection is the default one, here as everywhere.
    assert (await client.get(f"/blacklist/{eve['id']}/")).status_code == 404
    within = {"collection": "staff"}
    entry = f"/blacklist/{eve['id']}/"
    added = await client.post(f"{entry}images", params=within, files=upload(photo(BLUE)))
    assert len(added.json()["record"]["images"]) == 2
    assert await names_in(client, "staff", photo(BLUE)) == ["Eve"]
    assert await names_in(client, "default", photo(BLUE)) == []
    assert (await client.put(entry, params=within, json={"name": "Bob"})).json()["name"] == "Bob"
    image_id = eve["images"][0]["id"]
    assert len((await client.delete(f"{entry}images/{image_id}", params=within)).json()["images"]) == 1
    assert await names_in(client, "staff", photo(GREEN, BLUE)) == ["Bob"]
    assert (await client.delete(entry, params=within)).json()["id"] == eve["id"]
    assert await names_in(client, "staff", photo(BLUE)) == []
    check_disk(settings)


async def test_who_may_not_read_the_list_is_not_told_of_other_collections(settings: Settings) -> None:
    async with serving(settings) as client:
        await create(client, "staff")
        eve = await enroll_in(client, "staff", "Eve", photo(GREEN))
        keys = {scope: await key(client, Scope.MANAGE, scope) for scope in (Scope.READ, Scope.SCREEN)}
    details = {}
    async with serving(settings) as client:
        for scope, text in keys.items():
            answer = await client.delete(f"/blacklist/{eve['id']}/", headers=bearer(text))
            assert answer.json()["code"] == "entry_not_found"
            details[scope] = answer.json()["detail"]
    assert "staff" in details[Scope.READ]
    assert details[Scope.SCREEN] == f"there is no blacklist entry {eve['id']} in the collection default"


async def test_the_location_of_an_entry_leads_to_it(client: httpx.AsyncClient) -> None:
    await create(client, "staff")
    for collection, query in (("staff", "?collection=staff"), ("default", "")):
        response = await client.post(
            "/blacklist/", params={"collection": collection}, data={"name": "Eve"}, files=upload(photo(RED))
        )
        record = response.json()
        assert response.headers["location"] == f"/api/v1/blacklist/{record['id']}/{query}"
        assert (await client.get(f"http://127.0.0.1{response.headers['location']}")).json() | {"warnings": []} == record


async def test_stored_results_are_filtered_by_collection(client: httpx.AsyncClient) -> None:
    await create(client, "staff")
    await enroll_in(client, "staff", "Eve", photo(RED))
    (default,) = await process(client, inline(photo(RED)))
    staff = await process(client, inline(photo(RED)), inline(photo(GREEN)), collection="staff")
    assert [result["faces"][0]["verdict"] for result in (default, *staff)] == ["clear", "match", "clear"]

    async def ids(**query: str) -> list[int]:
        return [item["id"] for item in (await client.get("/processed-images/", params=query)).json()["items"]]

    assert await ids() == [staff[1]["id"], staff[0]["id"], default["id"]]
    assert await ids(collection="default") == [default["id"]]
    assert await ids(collection="staff") == [staff[1]["id"], staff[0]["id"]]
    assert await ids(collection="staff", matched_only="true") == [staff[0]["id"]]
    assert await ids(collection="default", matched_only="true") == []
    assert await ids(collection="nowhere") == []


async def test_a_deleted_collection_takes_everybody_in_it_along(client: httpx.AsyncClient, settings: Settings) -> None:
    await create(client, "staff")
    ada = await enroll(client, "Ada", photo(RED))
    eve = await enroll_in(client, "staff", "Eve", photo(RED), photo(GREEN))
    await enroll_in(client, "staff", "Bob", photo(BLUE))
    folder = eve["images"][0]["identity"].split("/")[1]
    drop(settings, f"{folder}/group.png", photo(RED, GREEN))
    (kept,) = await process(client, inline(photo(RED)))
    (gone,) = await process(client, inline(photo(RED, YELLOW, BLUE)), collection="staff")
    assert [face["verdict"] for face in gone["faces"]] == ["match", "clear", "match"]
    assert await names_in(client, "staff", photo(GREEN), model_name="Dlib", threshold=0.05) == ["Eve"]
    assert all(is_readable(settings, colour) for colour in (RED, GREEN, BLUE))

    assert (await client.delete("/collections/staff/")).status_code == 204

    assert set(check_disk(settings)) == {ada["images"][0]["identity"]}
    assert not any(is_readable(settings, colour) for colour in (GREEN, BLUE))
    assert (await client.get(f"/processed-images/{kept['id']}")).json() == kept
    left = (await client.get(f"/processed-images/{gone['id']}")).json()
    assert [(face["verdict"], face["blacklist_matches"]) for face in left["faces"]] == [
        ("withdrawn", []),
        ("clear", []),
        ("withdrawn", []),
    ]
    assert (await client.get("/processed-images/", params={"entry": eve["id"]})).json()["total_items"] == 0
    for answer in (
        await client.get("/collections/staff/"),
        await client.delete("/collections/staff/"),
        await client.get("/blacklist/", params={"collection": "staff"}),
    ):
        assert answer.json()["code"] == "collection_not_found"
    assert await names_in(client, "default", photo(RED)) == ["Ada"]
    assert [collection["name"] for collection in (await client.get("/collections/")).json()] == ["default"]


@pytest.mark.parametrize("name", [".", ".."])
async def test_a_collection_is_not_called_like_a_step_of_a_path(
    client: httpx.AsyncClient, services: Services, name: str
) -> None:
    assert (await client.post("/collections/", json={"name": name})).status_code == 422
    async with services.database.write() as connection:
        await collections.insert_collection(connection, name)
    escaped = name.replace(".", "%2E")
    assert (await client.delete(f"/collections/{escaped}/")).status_code == 204
    assert [found["name"] for found in (await client.get("/collections/")).json()] == ["default"]


async def test_a_collection_of_the_same_name_starts_empty(client: httpx.AsyncClient) -> None:
    await create(client, "staff")
    before = await enroll_in(client, "staff", "Eve", photo(RED))
    assert await names_in(client, "staff", photo(RED)) == ["Eve"]
    version = (await describe(client, "staff"))["list_version"]
    await client.delete("/collections/staff/")

    created = await create(client, "staff")
    assert (created["entries"], created["reference_images"], created["list_version"]) == (0, 0, 0)
    assert (await client.get("/blacklist/", params={"collection": "staff"})).json() == []
    assert await names_in(client, "staff", photo(RED)) == []
    after = await enroll_in(client, "staff", "Bob", photo(BLUE))
    assert after["id"] > before["id"]
    assert after["images"][0]["id"] > before["images"][0]["id"]
    assert await names_in(client, "staff", photo(RED, BLUE)) == ["Bob"]
    assert (await describe(client, "staff"))["list_version"] > version


async def test_a_deleted_collection_is_let_go_from_the_memory_of_every_process(settings: Settings) -> None:
    here, there = PaintedBackend(), PaintedBackend()
    async with serving(settings, here) as client, serving(settings, there) as other:
        await create(client, "staff")
        await enroll_in(client, "staff", "Eve", photo(RED))
        for each in (client, other):
            assert await names_in(each, "staff", photo(RED)) == ["Eve"]
            assert await names_in(each, "default", photo(RED)) == []
        assert len(here._indexes) == len(there._indexes) == 2
        await client.delete("/collections/staff/")
        assert len(here._indexes) == 1
        # The other process learns of it with the next change that it takes in.
        await enroll(client, "Ada", photo(RED))
        assert await names_in(other, "default", photo(RED)) == ["Ada"]
        assert len(there._indexes) == 1


async def test_each_collection_has_a_version_of_its_own(client: httpx.AsyncClient) -> None:
    await create(client, "staff")

    async def versions() -> tuple[int, int]:
        default, staff = await describe(client, "default"), await describe(client, "staff")
        (one,) = await process(client, inline(photo(RED)))
        (other,) = await process(client, inline(photo(RED)), collection="staff")
        assert (one["list_version"], other["list_version"]) == (default["list_version"], staff["list_version"])
        assert (await client.get("/")).json()["list_version"] == default["list_version"]
        return default["list_version"], staff["list_version"]

    assert await versions() == (0, 0)
    await enroll(client, "Ada", photo(RED))
    default, staff = await versions()
    assert default > 0 == staff
    eve = await enroll_in(client, "staff", "Eve", photo(RED))
    unchanged, enrolled = await versions()
    assert unchanged == default
    assert enrolled > 0
    await client.put(f"/blacklist/{eve['id']}/", params={"collection": "staff"}, json={"reason": "theft"})
    unchanged, edited = await versions()
    assert unchanged == default
    assert edited > enrolled
    await client.delete(f"/blacklist/{eve['id']}/", params={"collection": "staff"})
    unchanged, withdrawn = await versions()
    assert unchanged == default
    assert withdrawn > edited


async def test_photos_in_the_folder_of_an_entry_belong_to_its_collection(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    await create(client, "staff")
    eve = await enroll_in(client, "staff", "Eve", photo(RED))
    folder = eve["images"][0]["identity"].split("/")[1]
    dropped = drop(settings, f"{folder}/more.png", photo(GREEN))
    drop(settings, "somebody/new.png", photo(BLUE))
    assert (await sync(client))["added"] == [f"blacklist_db/{folder}/more.png", "blacklist_db/somebody/new.png"]
    assert await names_in(client, "staff", photo(GREEN, BLUE)) == ["Eve"]
    assert await names_in(client, "default", photo(GREEN, BLUE)) == ["somebody"]
    (record,) = (await client.get("/blacklist/", params={"collection": "staff"})).json()
    assert (record["id"], len(record["images"])) == (eve["id"], 2)
    dropped.unlink()
    assert (await sync(client))["withdrawn"] == [f"blacklist_db/{folder}/more.png"]
    assert await names_in(client, "staff", photo(RED, GREEN)) == ["Eve"]
    check_disk(settings)


async def test_collections_are_there_after_a_restart(settings: Settings) -> None:
    async with serving(settings) as client:
        await create(client, "staff")
        eve = await enroll_in(client, "staff", "Eve", photo(RED))
    async with serving(settings) as client:
        assert await names_in(client, "staff", photo(RED)) == ["Eve"]
        assert await names_in(client, "default", photo(RED)) == []
        assert (await client.get("/blacklist/", params={"collection": "staff"})).json() == [eve]
