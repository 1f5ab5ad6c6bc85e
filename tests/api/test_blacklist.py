"""The list as its admins use it."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from facescreen.config import Settings
from tests.conftest import serving
from tests.painted import BLUE, GREEN, RED, inline, photo


def upload(*photos: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("images", (f"{index}.png", data, "image/png")) for index, data in enumerate(photos)]


async def enroll(client: httpx.AsyncClient, name: str, *photos: bytes, **fields: str) -> dict[str, Any]:
    response = await client.post("/blacklist/", data={"name": name, **fields}, files=upload(*photos))
    assert response.status_code == 201, response.text
    record: dict[str, Any] = response.json()
    del record["warnings"]
    return record


async def matches(client: httpx.AsyncClient, data: bytes, **query: str) -> list[dict[str, Any]]:
    response = await client.post("/process/process-images", json={"images": [inline(data)]}, params=query)
    assert response.status_code == 200, response.text
    return [match for face in response.json()[0]["faces"] for match in face["blacklist_matches"]]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]


async def test_an_enrolled_person_is_found_in_the_very_next_request(client: httpx.AsyncClient) -> None:
    assert await matches(client, photo(RED)) == []
    record = await enroll(client, "Ada", photo(RED), reason="asked to leave")
    (match,) = await matches(client, photo(GREEN, RED))
    assert (match["entry_id"], match["name"], match["reason"]) == (record["id"], "Ada", "asked to leave")
    assert match["identity"] == record["images"][0]["identity"]
    area = record["images"][0]["facial_area"]
    assert [match[f"target_{key}"] for key in "xywh"] == [area[key] for key in "xywh"]
    assert match["distance"] <= match["threshold"]


async def test_create_answers_with_the_record_and_where_it_is(client: httpx.AsyncClient, settings: Settings) -> None:
    response = await client.post("/blacklist/", data={"name": "  Ada "}, files=upload(photo(RED), photo(RED, side=80)))
    record = response.json()
    assert response.status_code == 201
    assert (record["name"], record["reason"], len(record["images"])) == ("Ada", "", 2)
    assert response.headers["location"] == f"/api/v1/blacklist/{record['id']}/"
    assert (await client.get(f"http://127.0.0.1{response.headers['location']}")).json() | {"warnings": []} == record
    stored = {
        f"blacklist_db/{path.relative_to(settings.blacklist_db_path)}" for path in files(settings.blacklist_db_path)
    }
    assert stored == {image["identity"] for image in record["images"]}


async def test_a_refused_photo_is_named_with_its_cause_and_nothing_is_stored(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    photos = upload(photo(RED), photo(), photo(RED, GREEN), b"not an image", photo(RED))
    response = await client.post("/blacklist/", data={"name": "Ada"}, files=photos)
    assert response.status_code == 422
    problem = response.json()
    assert problem["code"] == "enrollment_rejected"
    assert [(fault["location"], fault["code"]) for fault in problem["errors"]] == [
        ("1.png", "no_face"),
        ("2.png", "several_faces"),
        ("3.png", "unsupported_format"),
        ("4.png", "duplicate_image"),
    ]
    assert (await client.get("/blacklist/")).json() == []
    assert files(settings.blacklist_db_path) == []


async def test_the_largest_face_of_a_group_is_taken_where_asked_for(client: httpx.AsyncClient) -> None:
    group = photo(GREEN, RED, side=64)
    record = await enroll(client, "Ada", group, face_selection="largest")
    assert len(record["images"]) == 1


async def test_photos_are_added_and_counted(client: httpx.AsyncClient) -> None:
    record = await enroll(client, "Ada", photo(RED))
    response = await client.post(f"/blacklist/{record['id']}/images", files=upload(photo(GREEN), photo(BLUE)))
    assert response.status_code == 200
    assert response.json()["images_added"] == 2
    assert len(response.json()["record"]["images"]) == 3
    assert len(await matches(client, photo(GREEN))) == 1
    again = await client.post(f"/blacklist/{record['id']}/images", files=upload(photo(GREEN)))
    assert again.json()["errors"][0]["code"] == "duplicate_image"
    assert (await client.post("/blacklist/99/images", files=upload(photo(RED)))).json()["code"] == "entry_not_found"


async def test_one_match_per_person_or_every_reference(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED), photo((225, 30, 30)))
    await enroll(client, "Eve", photo((228, 25, 25)))
    assert [match["name"] for match in await matches(client, photo(RED))] == ["Ada", "Eve"]
    every = await matches(client, photo(RED), all_references="true")
    assert sorted(match["name"] for match in every) == ["Ada", "Ada", "Eve"]
    assert [match["distance"] for match in every] == sorted(match["distance"] for match in every)


async def test_the_list_is_paged_and_searched(client: httpx.AsyncClient) -> None:
    for name, reason in (("Ada", "theft"), ("Bob", "fraud"), ("Adele", "100% sure")):
        await enroll(client, name, photo(RED), reason=reason)

    async def names(**query: str | int) -> list[str]:
        response = await client.get("/blacklist/", params=query)
        return [record["name"] for record in response.json()]

    assert await names() == ["Ada", "Bob", "Adele"]
    assert await names(offset=1, limit=1) == ["Bob"]
    assert await names(q="ad") == ["Ada", "Adele"]
    assert await names(q="FRAUD") == ["Bob"]
    assert await names(q="%") == ["Adele"]
    assert (await client.get("/blacklist/", params={"limit": 1})).headers["x-total-count"] == "3"
    await enroll(client, "Jose\u0301", photo(GREEN), reason="Stra\xdfenraub")
    assert await names(q="JOS\xc9") == await names(q="STRASSEN") == ["Jose\u0301"]


@pytest.mark.parametrize("name", ["Ada\x1b[2J", "Ada\nEve", "adA\u202e", "\u200d", "A\u200bda"])
async def test_a_name_that_cannot_be_shown_is_refused(client: httpx.AsyncClient, name: str) -> None:
    refused = await client.post("/blacklist/", data={"name": name, "reason": "theft"}, files=upload(photo(RED)))
    assert refused.status_code == 422
    assert [fault["location"] for fault in refused.json()["errors"]] == ["body.name"]
    entry = await enroll(client, "Ada", photo(RED))
    for change in ({"name": name}, {"reason": f"theft\u202e{name}"}):
        assert (await client.put(f"/blacklist/{entry['id']}/", json=change)).status_code == 422
    assert [record["name"] for record in (await client.get("/blacklist/")).json()] == ["Ada"]


async def test_name_and_reason_change_alone_or_together(client: httpx.AsyncClient) -> None:
    record = await enroll(client, "Ada", photo(RED), reason="theft")
    url = f"/blacklist/{record['id']}/"
    assert (await client.put(url, json={"reason": "fraud"})).json()["name"] == "Ada"
    changed = (await client.put(url, json={"name": "Eve"})).json()
    assert (changed["name"], changed["reason"]) == ("Eve", "fraud")
    assert changed["updated_at"] > record["updated_at"]
    assert (await matches(client, photo(RED)))[0]["name"] == "Eve"
    assert (await client.put(url, json={"name": " "})).status_code == 422
    assert (await client.put(url, json={"nickname": "E"})).status_code == 422


async def test_a_deleted_person_is_gone_everywhere(client: httpx.AsyncClient, settings: Settings) -> None:
    record = await enroll(client, "Zebedee Quux", photo(RED))
    await matches(client, photo(RED))
    deleted = await client.delete(f"/blacklist/{record['id']}/")
    assert deleted.json() == record
    assert await matches(client, photo(RED)) == []
    assert (await client.get(f"/blacklist/{record['id']}/")).json()["code"] == "entry_not_found"
    assert files(settings.blacklist_db_path) == []
    first = (await client.get("/processed-images/", params={"verdict": "withdrawn"})).json()
    assert first["total_items"] == 1
    assert first["items"][0]["faces"][0]["blacklist_matches"] == []
    for file in Path(settings.database_url.removeprefix("sqlite+aiosqlite:///")).parent.iterdir():
        assert b"Zebedee" not in file.read_bytes()


async def test_photos_are_served_and_deleted_one_by_one(client: httpx.AsyncClient) -> None:
    record = await enroll(client, "Ada", photo(RED), photo(GREEN))
    red, green = (image["id"] for image in record["images"])
    shown = await client.get(f"/blacklist/{record['id']}/images/{red}")
    assert shown.headers["content-type"] == "image/jpeg"
    assert shown.content.startswith(b"\xff\xd8\xff")
    left = (await client.delete(f"/blacklist/{record['id']}/images/{red}")).json()
    assert [image["id"] for image in left["images"]] == [green]
    assert await matches(client, photo(RED)) == []
    assert len(await matches(client, photo(GREEN))) == 1
    assert (await client.get(f"/blacklist/{record['id']}/images/{red}")).json()["code"] == "image_not_found"
    assert (await client.delete(f"/blacklist/{record['id']}/images/{red}")).status_code == 404


@pytest.mark.parametrize("slash", ["", "/"])
async def test_paths_work_with_and_without_the_trailing_slash(client: httpx.AsyncClient, slash: str) -> None:
    record = await enroll(client, "Ada", photo(RED))
    listed = await client.get(f"/blacklist{slash}")
    assert listed.status_code == 200
    assert (await client.get(f"/blacklist/{record['id']}{slash}")).status_code == 200
    assert (await client.get(f"/processed-images{slash}")).status_code == 200
    assert (await client.post(f"/process/process-images{slash}", json={"images": ["x.jpg"]})).status_code == 200
    assert (await client.put(f"/blacklist/{record['id']}{slash}", json={"reason": "x"})).status_code == 200


async def test_a_list_of_another_process_is_never_stale(settings: Settings) -> None:
    async with serving(settings) as one, serving(settings) as other:
        for _ in range(5):
            record = await enroll(one, "Ada", photo(RED))
            assert len(await matches(other, photo(RED))) == 1
            await one.delete(f"/blacklist/{record['id']}/")
            assert await matches(other, photo(RED)) == []


async def test_every_result_names_the_version_of_the_list(client: httpx.AsyncClient) -> None:
    async def version() -> int:
        response = await client.post("/process/process-images", json={"images": [inline(photo(RED))]})
        seen: int = response.json()[0]["list_version"]
        return seen

    assert await version() == 0
    record = await enroll(client, "Ada", photo(RED))
    first = await version()
    await client.put(f"/blacklist/{record['id']}/", json={"reason": "x"})
    assert await version() == first + 1
