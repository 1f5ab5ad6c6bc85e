"""Every file in the blacklist folder is a reference photo, or somebody is told why it is none."""

import errno
import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from facescreen.config import Settings
from facescreen.images import survey
from facescreen.images.decode import format_of
from facescreen.images.folder_store import FolderStore, medium_faults_translated
from tests.api.test_blacklist import enroll, matches
from tests.api.test_sync import drop, sync
from tests.painted import BLUE, GREEN, RED, YELLOW, inline, photo

PREFIX = "blacklist_db/"


async def report(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    response = await client.get("/blacklist/report")
    assert response.status_code == 200, response.text
    left_out: list[dict[str, Any]] = response.json()["left_out"]
    return left_out


def codes(skipped: list[dict[str, Any]]) -> dict[str, str]:
    return {skip["file"].removeprefix(PREFIX): skip["code"] for skip in skipped}


@pytest.mark.parametrize(
    ("name", "image_format"),
    [("IMG_0001.HEIC", "HEIF"), ("a.avif", "AVIF"), ("scan.tif", "TIFF"), ("a.pjpeg", "JPEG"), ("no suffix", "PNG")],
)
async def test_a_photo_is_known_by_its_bytes(
    client: httpx.AsyncClient, settings: Settings, name: str, image_format: str
) -> None:
    data = photo(RED, image_format=image_format)
    drop(settings, f"person_A/{name}", data)
    assert (await sync(client))["added"] == [f"{PREFIX}person_A/{name}"]
    (match,) = await matches(client, data)  # as base64
    assert match["name"] == "person_A"
    (record,) = (await client.get("/blacklist/")).json()
    shown = await client.get(f"/blacklist/{record['id']}/images/{record['images'][0]['id']}")
    assert format_of(shown.content) == ("PNG" if image_format == "PNG" else "JPEG")
    assert await report(client) == []
    await client.delete(f"/blacklist/{record['id']}/")
    assert not (settings.blacklist_db_path / "person_A").exists()


@pytest.mark.parametrize(("image_format", "suffix"), [("HEIF", "heic"), ("AVIF", "avif"), ("TIFF", "tiff")])
async def test_every_way_in_takes_what_telephones_and_scanners_make(
    client: httpx.AsyncClient, settings: Settings, image_format: str, suffix: str
) -> None:
    data = photo(RED, image_format=image_format)
    await enroll(client, "Ada", data)
    path = settings.image_input_roots[0] / f"a.{suffix}"
    path.write_bytes(data)
    sources = [inline(data), f"data:image/{suffix};base64,{inline(data)}", str(path)]
    for result in (await client.post("/process/process-images", json={"images": sources})).json():
        assert [face["verdict"] for face in result["faces"]] == ["match"], result


async def test_what_is_no_photo_is_told_with_its_reason(
    client: httpx.AsyncClient, settings: Settings, tmp_path: Path
) -> None:
    drop(settings, "person_A/a.png", photo(RED))
    expected = {
        "person_A/notes.txt": "unsupported_format",
        "person_A/film.mp4": "unsupported_format",
        "person_A/cut.heic": "image_undecodable",
        "person_A/nothing.jpg": "unsupported_format",
        "person_A/.hidden.png": "hidden_file",
        "person_A/b.png.part": "file_unfinished",
        "person_B/group.png": "several_faces",
        "loose.png": "not_in_person_folder",
        ".secret": "hidden_file",
    }
    drop(settings, "person_A/notes.txt", b"who")
    drop(settings, "person_A/film.mp4", b"\0\0\0\x18ftypmp42\0\0\0\0isommp42")
    drop(settings, "person_A/cut.heic", photo(RED, image_format="HEIF")[:-20])
    drop(settings, "person_A/nothing.jpg", b"")
    drop(settings, "person_B/group.png", photo(RED, GREEN))
    for name in ("person_A/.hidden.png", "person_A/b.png.part", "loose.png", ".secret/a.png"):
        drop(settings, name, photo(BLUE))
    for name in ("person_A/.DS_Store", "person_A/._a.png", "person_A/Thumbs.db", ".gitkeep"):
        drop(settings, name, b"of the system")
    (settings.blacklist_db_path / "person_C").mkdir()
    (settings.blacklist_db_path / "person_D").symlink_to(tmp_path)
    os.mkfifo(settings.blacklist_db_path / "person_A" / "pipe")
    expected |= {"person_C": "folder_without_photos", "person_D": "not_a_file", "person_A/pipe": "not_a_file"}
    before = codes(await report(client))
    assert before.keys() == {*expected, "person_A/a.png"}
    assert (before["person_A/a.png"], before["person_A/notes.txt"]) == ("file_not_listed", "unsupported_format")
    done = await sync(client)
    assert done["added"] == [f"{PREFIX}person_A/a.png"]
    assert codes(done["skipped"]) == expected
    assert all(skip["detail"] for skip in done["skipped"])
    assert codes(await report(client)) == expected


async def test_a_file_that_cannot_be_read_is_told_and_stops_nobody_else(
    client: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = FolderStore._get

    def get_unless_locked(self: FolderStore, parts: tuple[str, ...], size: int = -1) -> bytes:
        with medium_faults_translated():
            if parts[-1] == "locked.png":
                raise PermissionError(errno.EACCES, "Permission denied")
        return get(self, parts, size)

    drop(settings, "person_A/locked.png", photo(RED))
    await sync(client)
    (settings.blacklist_db_path / "person_A" / "locked.png").touch()
    drop(settings, "person_B/locked.png", photo(GREEN))
    drop(settings, "person_C/c.png", photo(BLUE))
    monkeypatch.setattr(FolderStore, "_get", get_unless_locked)
    done = await sync(client)
    assert done["added"] == [f"{PREFIX}person_C/c.png"]
    assert codes(done["skipped"]) == dict.fromkeys(("person_A/locked.png", "person_B/locked.png"), "photo_unreadable")
    assert len(await matches(client, photo(RED))) == 1


@pytest.mark.parametrize(
    "folder",
    [
        "#recycle/person_A",
        "$RECYCLE.BIN/S-1-5",
        "@Recycle",
        ".Trash-1000/files",
        ".Trash/person_A",
        "person_A/@eaDir/a.png",
        ".snapshot/daily",
        "lost+found",
        "#Recycle",
    ],
)
async def test_who_was_removed_over_a_share_alerts_no_more(
    client: httpx.AsyncClient, settings: Settings, folder: str
) -> None:
    path = drop(settings, "person_A/a.png", photo(RED))
    await sync(client)
    target = settings.blacklist_db_path / folder / "deleted.png"
    data = path.read_bytes()
    path.unlink()
    if "person_A" not in folder.partition("/")[0]:
        path.parent.rmdir()
    target.parent.mkdir(parents=True)
    target.write_bytes(data)
    drop(settings, "person_B/b.png", photo(GREEN))
    done = await sync(client)
    assert done["withdrawn"] == [f"{PREFIX}person_A/a.png"]
    assert done["added"] == [f"{PREFIX}person_B/b.png"]
    assert await matches(client, photo(RED)) == []
    expected = (
        "hidden_file" if folder.startswith(".") and "rash" not in folder and "snap" not in folder else "recycle_bin"
    )
    assert set(codes(done["skipped"]).values()) == {expected}
    assert codes(await report(client)) == codes(done["skipped"])


async def test_who_was_enrolled_from_a_recycle_bin_before_is_withdrawn(
    client: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As versions did that took the bin for a person."""
    drop(settings, "#recycle/a.png", photo(RED))
    drop(settings, "#recycle/b.png", photo(YELLOW))
    with monkeypatch.context() as before:
        before.setattr(survey, "_BINS", re.compile("no such thing"))
        assert len((await sync(client))["added"]) == 2
    done = await sync(client)
    assert sorted(done["withdrawn"]) == [f"{PREFIX}#recycle/a.png", f"{PREFIX}#recycle/b.png"]
    assert await matches(client, photo(RED)) == await matches(client, photo(YELLOW)) == []
    assert (await client.get("/blacklist/")).json() == []


async def test_a_text_at_an_unmounted_share_withdraws_nobody(client: httpx.AsyncClient, settings: Settings) -> None:
    path = drop(settings, "person_A/a.png", photo(RED))
    await sync(client)
    path.unlink()
    drop(settings, "README.txt", b"mount the share here")
    response = await client.post("/blacklist/sync")
    assert (response.status_code, response.json()["code"]) == (409, "blacklist_folder_empty")
    assert len(await matches(client, photo(RED))) == 1
