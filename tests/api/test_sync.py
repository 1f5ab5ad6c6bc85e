"""Photos that admins drop into the blacklist folder by hand."""

import asyncio
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from facescreen.config import Settings
from facescreen.errors import StartupError
from tests.api.test_blacklist import enroll, matches
from tests.conftest import serving
from tests.painted import BLUE, GREEN, RED, YELLOW, photo
from tests.painted_server import HANGING


def drop(settings: Settings, name: str, data: bytes) -> Path:
    path = settings.blacklist_db_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


async def sync(client: httpx.AsyncClient) -> dict[str, Any]:
    response = await client.post("/blacklist/sync")
    assert response.status_code == 200, response.text
    report: dict[str, Any] = response.json()
    return report


async def test_photos_in_the_folder_are_enrolled_at_start(settings: Settings) -> None:
    drop(settings, "person_A/img1.jpg", photo(RED, image_format="JPEG"))
    drop(settings, "person_A/img2.png", photo(GREEN))
    async with serving(settings) as client:
        (match,) = await matches(client, photo(RED))
        assert (match["name"], match["identity"]) == ("person_A", "blacklist_db/person_A/img1.jpg")
        (record,) = (await client.get("/blacklist/")).json()
        assert len(record["images"]) == 2


async def test_whoever_waits_for_another_process_that_synchronises_keeps_no_thread(settings: Settings) -> None:
    short = settings.model_copy(update={"request_timeout_seconds": 2.0})
    async with asyncio.timeout(HANGING), serving(short) as client:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        with (settings.blacklist_db_path / ".sync.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert (await client.post("/blacklist/sync")).status_code == 504
            await enroll(client, "Ada", photo(RED))
        await sync(client)


async def test_sync_says_what_it_did_and_embeds_nothing_twice(client: httpx.AsyncClient, settings: Settings) -> None:
    drop(settings, "person_A/a.png", photo(RED))
    drop(settings, "person_A/copy-of-a.png", photo(RED))
    drop(settings, "person_A/group.png", photo(RED, GREEN))
    drop(settings, "person_B/blank.png", photo())
    drop(settings, "person_B/b.png", photo(BLUE))
    drop(settings, "person_B/deep/er.png", photo(BLUE))
    drop(settings, "loose.png", photo(YELLOW))
    first = await sync(client)
    assert first["added"] == ["blacklist_db/person_A/a.png", "blacklist_db/person_B/b.png"]
    assert {(skip["file"], skip["code"]) for skip in first["skipped"]} == {
        ("blacklist_db/person_A/copy-of-a.png", "duplicate_image"),
        ("blacklist_db/person_A/group.png", "several_faces"),
        ("blacklist_db/person_B/blank.png", "no_face"),
        ("blacklist_db/person_B/deep/er.png", "not_in_person_folder"),
        ("blacklist_db/loose.png", "not_in_person_folder"),
    }
    version = (await client.get("/")).json()["list_version"]
    second = await sync(client)
    assert (second["added"], second["withdrawn"], second["unchanged"]) == ([], [], 2)
    assert (await client.get("/")).json()["list_version"] == version


async def test_removed_photos_and_folders_are_withdrawn(client: httpx.AsyncClient, settings: Settings) -> None:
    red, green = drop(settings, "person_A/a.png", photo(RED)), drop(settings, "person_A/b.png", photo(GREEN))
    blue = drop(settings, "person_B/c.png", photo(BLUE))
    await sync(client)
    red.unlink()
    blue.unlink()
    blue.parent.rmdir()
    report = await sync(client)
    assert sorted(report["withdrawn"]) == ["blacklist_db/person_A/a.png", "blacklist_db/person_B/c.png"]
    assert await matches(client, photo(RED)) == await matches(client, photo(BLUE)) == []
    assert len(await matches(client, photo(GREEN))) == 1
    assert [record["name"] for record in (await client.get("/blacklist/")).json()] == ["person_A"]
    assert green.exists()


async def test_a_replaced_photo_is_enrolled_anew(client: httpx.AsyncClient, settings: Settings) -> None:
    path = drop(settings, "person_A/a.png", photo(RED))
    await sync(client)
    path.write_bytes(photo(GREEN))
    report = await sync(client)
    assert report["added"] == report["withdrawn"] == ["blacklist_db/person_A/a.png"]
    assert await matches(client, photo(RED)) == []
    assert len(await matches(client, photo(GREEN))) == 1


async def test_a_photo_dropped_beside_uploaded_ones_joins_that_entry(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    record = await enroll(client, "Ada", photo(RED))
    folder = record["images"][0]["identity"].split("/")[1]
    drop(settings, f"{folder}/more.png", photo(GREEN))
    assert (await sync(client))["added"] == [f"blacklist_db/{folder}/more.png"]
    (match,) = await matches(client, photo(GREEN))
    assert match["entry_id"] == record["id"]


async def test_deleting_an_entry_removes_its_folder(client: httpx.AsyncClient, settings: Settings) -> None:
    drop(settings, "person_A/a.png", photo(RED))
    drop(settings, "person_A/group.png", photo(RED, GREEN))
    await sync(client)
    (record,) = (await client.get("/blacklist/")).json()
    await client.delete(f"/blacklist/{record['id']}/")
    assert not (settings.blacklist_db_path / "person_A").exists()
    assert (await sync(client))["added"] == []


async def test_an_empty_folder_withdraws_nobody(settings: Settings) -> None:
    async with serving(settings) as client:
        path = drop(settings, "person_A/a.png", photo(RED))
        await sync(client)
        path.unlink()
        response = await client.post("/blacklist/sync")
        assert (response.status_code, response.json()["code"]) == (409, "blacklist_folder_empty")
        assert len(await matches(client, photo(RED))) == 1
    with pytest.raises(StartupError, match="folder"):
        async with serving(settings):
            pass


async def test_names_that_are_none_are_skipped_with_a_reason_and_never_in_the_way(settings: Settings) -> None:
    for name in (
        b"person_A/\xff\xfe.png",
        b"\xc3\x28/a.png",
        b"person_A/two\nlines.png",
        b"person_A/\x1b]0;title\x07.png",
        b"two\nlines/a.png",
        b"x" * 201 + b"/a.png",
        "adA\u202e/a.png".encode(),
        b"   /a.png",
    ):
        drop(settings, os.fsdecode(name), photo(GREEN))
    drop(settings, "person_B/b.png", photo(BLUE))
    async with serving(settings) as client:
        drop(settings, "person_A/a.png", photo(RED))
        report = await sync(client)
        assert report["added"] == ["blacklist_db/person_A/a.png"]
        assert [skipped["code"] for skipped in report["skipped"]] == ["file_name_unusable"] * 8
        assert all(skipped["file"].isprintable() for skipped in report["skipped"])
        for record in (await client.get("/blacklist/")).json():
            assert (await client.delete(f"/blacklist/{record['id']}/")).status_code == 200


async def test_odd_names_are_names_like_any_other(client: httpx.AsyncClient, settings: Settings) -> None:
    for name in (
        "person_A/<script>alert(1).png",
        "<img src=x onerror=alert(1)>/a.png",
        "%s %n {0}/-rf.png",
        "person_A/" + "x" * 251 + ".png",
        "Zoë\N{IDEOGRAPHIC SPACE}李明 ' OR 1=1 --/ü.png",
        "x" * 200 + "/a.png",
    ):
        path = drop(settings, name, photo(RED))
        assert (await sync(client))["added"] == [f"blacklist_db/{name}"]
        (match,) = await matches(client, photo(RED))
        assert (match["identity"], match["name"]) == (f"blacklist_db/{name}", name.partition("/")[0])
        await client.delete(f"/blacklist/{match['entry_id']}/")
        assert not path.exists()


async def test_nothing_that_lies_outside_of_the_folder_is_enrolled_or_touched(
    client: httpx.AsyncClient, settings: Settings, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(photo(RED))
    drop(settings, "person_A/a.png", photo(GREEN))
    person = settings.blacklist_db_path / "person_A"
    (person / "link.png").symlink_to(outside / "a.png")
    (person / "passwd.png").symlink_to("/etc/passwd")
    (person / "inner").symlink_to(outside)
    (settings.blacklist_db_path / "person_B").symlink_to(outside)
    os.mkfifo(person / "fifo.png")
    assert (await sync(client))["added"] == ["blacklist_db/person_A/a.png"]
    assert await matches(client, photo(RED)) == []
    (person / "a.png").unlink()
    (person / "a.png").symlink_to(outside / "a.png")
    await sync(client)
    assert await matches(client, photo(RED)) == []
    for record in (await client.get("/blacklist/")).json():
        await client.delete(f"/blacklist/{record['id']}/")
    assert (outside / "a.png").read_bytes() == photo(RED)
