"""Encryption at rest: what is stored cannot be read without the keys, and every answer stays the same."""

import asyncio
import hashlib
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import randrange
from typing import Any

import httpx
import numpy as np
import pytest

from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.db.key_ring import KeyRing
from facescreen.domain.sealing import SealBrokenError
from facescreen.errors import StartupError
from facescreen.factory import open_encryption, open_services
from facescreen.images.folder_store import FolderStore
from facescreen.images.sealed_store import SealedStore
from facescreen.services.audit import Finding, FindingKind
from tests.api.test_blacklist import enroll, matches
from tests.api.test_sync import drop, sync
from tests.conftest import serving
from tests.painted import BLUE, GREEN, RED, YELLOW, Colour, PaintedBackend, inline, photo
from tests.painted_server import server_process

TWIN = (225, 45, 20)
"""Looks like RED."""
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG"


@pytest.fixture
def sealed(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"encryption_key_dir": tmp_path / "keys"})


@pytest.fixture
async def client(sealed: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(sealed) as started:
        yield started


def data_folders(settings: Settings) -> list[Path]:
    database = Database(settings.database_url).path
    return [database.parent, settings.blacklist_db_path, settings.processed_images_output_dir]


def files(settings: Settings) -> Iterator[tuple[Path, bytes]]:
    for folder in data_folders(settings):
        yield from ((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def vector(colour: Colour) -> bytes:
    return (np.array(colour) / 255 - 0.5).astype("<f4").tobytes()


def readable(settings: Settings, *colours: Colour) -> list[str]:
    """Files of the data that hold an image or one of these embeddings."""
    plain = (JPEG, PNG, *map(vector, colours))
    return [path.name for path, data in files(settings) if any(each in data for each in plain)]


async def screen(client: httpx.AsyncClient, *colours: Colour) -> dict[str, Any]:
    response = await client.post("/process/process-images", json={"images": [inline(photo(*colours))]})
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()[0]
    return result


async def clear(client: httpx.AsyncClient, result: dict[str, Any]) -> None:
    entry_id = result["faces"][0]["blacklist_matches"][0]["entry_id"]
    body = {"entry_id": entry_id, "note": "a twin"}
    response = await client.post(f"/processed-images/{result['id']}/faces/0/clear", json=body)
    assert response.status_code == 200, response.text


async def audit(settings: Settings, *, fix: bool = False) -> list[Finding]:
    async with open_services(settings, PaintedBackend()) as services:
        return [finding async for finding in services.audit.audit(fix=fix)]


def rows(settings: Settings, statement: str) -> list[Any]:
    with closing(sqlite3.connect(Database(settings.database_url).path)) as database:
        found = database.execute(statement).fetchall()
        database.commit()
        return found


def flipped(value: bytes) -> bytes:
    """One bit of it changed."""
    at = randrange(len(value) * 8)  # noqa: S311 - any will do
    return bytes(byte ^ (index == at // 8) << at % 8 for index, byte in enumerate(value))


def change_vector(settings: Settings, table: str, change: Callable[[bytes], bytes]) -> None:
    """Change what the first row of a table has."""
    select = f"SELECT rowid, vector FROM {table} ORDER BY 1"  # noqa: S608 - a table of ours
    update = f"UPDATE {table} SET vector = ? WHERE rowid = ?"  # noqa: S608 - the same
    with closing(sqlite3.connect(Database(settings.database_url).path)) as database:
        rowid, value = database.execute(select).fetchone()
        database.execute(update, (change(value), rowid))
        database.commit()


async def test_nothing_that_is_stored_can_be_read_and_every_answer_is_the_same(
    sealed: Settings, client: httpx.AsyncClient
) -> None:
    drop(sealed, "person_A/a.png", photo(GREEN))
    ada = await enroll(client, "Ada", photo(RED))
    assert (await sync(client))["added"] == ["blacklist_db/person_A/a.png"]
    for colour, name in ((RED, "Ada"), (GREEN, "person_A")):
        result = await screen(client, colour)
        assert [match["name"] for match in result["faces"][0]["blacklist_matches"]] == [name]
        picture = await client.get(f"/processed-images/{result['id']}/image")
        assert picture.content.startswith(JPEG)
    await clear(client, await screen(client, TWIN))
    assert (await screen(client, TWIN))["faces"][0]["verdict"] == "clear"
    image = await client.get(f"/blacklist/{ada['id']}/images/{ada['images'][0]['id']}")
    assert image.content.startswith(JPEG)
    assert (
        hashlib.sha256(image.content).hexdigest()
        == rows(sealed, "SELECT sha256 FROM reference_images WHERE id = 1")[0][0]
    )
    assert readable(sealed, RED, GREEN) == []
    second = await sync(client)
    assert (second["added"], second["withdrawn"], second["unchanged"]) == ([], [], 2)


async def test_it_is_all_there_after_a_restart_and_for_another_process(sealed: Settings) -> None:
    async with serving(sealed) as client:
        await enroll(client, "Ada", photo(RED))
        await clear(client, await screen(client, TWIN))
    async with serving(sealed) as client, server_process(sealed) as other:
        assert (await screen(client, TWIN))["faces"][0]["verdict"] == "clear"
        assert (await screen(other.client, TWIN))["faces"][0]["verdict"] == "clear"
        eve = await enroll(other.client, "Eve", photo(BLUE))
        (match,) = await matches(client, photo(BLUE))
        assert match["name"] == "Eve"
        await client.delete(f"/blacklist/{eve['id']}/")
        assert await matches(other.client, photo(BLUE)) == []
    assert await audit(sealed) == []


async def test_a_backup_of_what_was_deleted_since_cannot_be_read(sealed: Settings, tmp_path: Path) -> None:
    async with serving(sealed) as client:
        ada, eve = [await enroll(client, name, photo(colour)) for name, colour in (("Ada", RED), ("Eve", BLUE))]
        result = await screen(client, RED)
    for index, folder in enumerate(data_folders(sealed)):
        shutil.copytree(folder, tmp_path / "backup" / str(index))
    async with serving(sealed) as client:
        await client.delete(f"/blacklist/{ada['id']}/")
        await client.delete(f"/processed-images/{result['id']}")
    for index, folder in enumerate(data_folders(sealed)):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "backup" / str(index), folder)

    with pytest.raises(StartupError, match=r"1 of 2 embeddings cannot be decrypted.*facescreen audit"):
        async with serving(sealed):
            pass
    identity = ada["images"][0]["identity"].removeprefix("blacklist_db/")
    for name, store in (("blacklist", sealed.blacklist_db_path), ("processed", sealed.processed_images_output_dir)):
        with closing(KeyRing(tmp_path / "keys", apart_from=[])) as keys:
            erased = SealedStore(FolderStore(store), name, keys)
            found = [path for path in await erased.list() if name == "processed" or path == identity]
            assert len(found) == 1
            with pytest.raises(SealBrokenError):
                await erased.get(found[0])
    findings = await audit(sealed, fix=True)
    assert {finding.kind for finding in findings} == {FindingKind.SEAL_BROKEN}
    assert all(finding.repaired for finding in findings)
    assert identity in {finding.subject for finding in findings}
    assert await audit(sealed) == []
    async with serving(sealed) as client:
        assert [entry["name"] for entry in (await client.get("/blacklist/")).json()] == ["Eve"]
        assert await matches(client, photo(RED)) == []
        assert len(await matches(client, photo(BLUE))) == 1
        picture = await client.get(f"/processed-images/{result['id']}/image")
        assert picture.status_code == 404
    assert eve["id"] != ada["id"]


async def test_what_was_stored_before_is_encrypted_when_told_and_nothing_of_it_stays_readable(
    settings: Settings, sealed: Settings
) -> None:
    async with serving(settings) as client:
        drop(settings, "person_A/a.jpg", photo(GREEN, image_format="JPEG"))
        await enroll(client, "Ada", photo(RED))
        await sync(client)
        await clear(client, await screen(client, TWIN))
    assert len(readable(settings, RED, GREEN)) >= 4
    async with serving(sealed) as client, server_process(sealed) as other:
        assert (await screen(client, GREEN))["faces"][0]["verdict"] == "match"
        told: list[tuple[int, int]] = []
        async with open_encryption(sealed) as encryption:
            before = await encryption.status()
            assert (before.embeddings.count, before.embeddings.total) == (0, 2)
            after = await encryption.apply(lambda done, total: told.append((done, total)))
        counts = [after.embeddings, after.clearances, *after.files.values()]
        assert [each.count for each in counts] == [each.total for each in counts] == [2, 1, 2, 2]
        assert told[-1][0] == told[-1][1]
        assert readable(sealed, RED, GREEN) == []
        assert (await sync(client))["unchanged"] == 2
        assert (await screen(other.client, TWIN))["faces"][0]["verdict"] == "clear"
        assert (await screen(client, GREEN))["faces"][0]["verdict"] == "match"
    assert await audit(sealed) == []
    with pytest.raises(StartupError, match="ENCRYPTION_KEY_DIR: must be set"):
        async with serving(settings):
            pass


async def test_what_is_deleted_while_the_rest_is_encrypted_stays_deleted(settings: Settings, sealed: Settings) -> None:
    async with serving(settings) as client:
        people = [await enroll(client, f"person {blue}", photo((200, 10, blue))) for blue in range(0, 120, 10)]
        results = [await screen(client, (200, 10, blue)) for blue in range(0, 40, 10)]
    async with serving(sealed) as client, open_encryption(sealed) as encryption:

        async def delete() -> None:
            for result in results:
                await client.delete(f"/processed-images/{result['id']}")
            for person in reversed(people[2:]):
                assert (await client.delete(f"/blacklist/{person['id']}/")).status_code == 200

        status, _ = await asyncio.gather(encryption.apply(), delete())
        assert (status.embeddings.count, status.embeddings.total) == (status.embeddings.total, status.embeddings.total)
        assert (await sync(client))["added"] == []
        assert len((await client.get("/blacklist/")).json()) == 2
        assert readable(sealed, *((200, 10, blue) for blue in range(0, 120, 10))) == []
    assert await audit(sealed) == []


@pytest.mark.parametrize("at", [0, 5, 25, 40, -1])
async def test_a_changed_byte_of_a_photo_is_found(sealed: Settings, at: int) -> None:
    async with serving(sealed) as client:
        ada = await enroll(client, "Ada", photo(RED))
        (path,) = sealed.blacklist_db_path.rglob("*.jpg")
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)
        response = await client.get(f"/blacklist/{ada['id']}/images/{ada['images'][0]['id']}")
        assert response.status_code == 404
        assert len(await matches(client, photo(RED))) == 1
    (finding,) = await audit(sealed, fix=True)
    assert (finding.kind, finding.where, finding.repaired) == (FindingKind.SEAL_BROKEN, "blacklist", False)


@pytest.mark.parametrize("change", [flipped, lambda _: b"", lambda _: b"x", lambda value: value[:-1]])
async def test_a_changed_embedding_stops_the_start_and_is_made_anew(
    sealed: Settings, change: Callable[[bytes], bytes]
) -> None:
    async with serving(sealed) as client:
        await enroll(client, "Ada", photo(RED))
        await enroll(client, "Eve", photo(BLUE))
    change_vector(sealed, "embeddings", change)
    await _refuses_and_repairs(sealed)


async def test_embeddings_cannot_change_places(sealed: Settings) -> None:
    async with serving(sealed) as client:
        await enroll(client, "Ada", photo(RED), photo(GREEN))
        await enroll(client, "Eve", photo(BLUE))
        body = {"images": [inline(photo(RED))], "model_name": "Dlib", "threshold": 0.05}
        assert (await client.post("/process/process-images", json=body)).status_code == 200
    for which in ("reference_image_id = 3 AND space = 'SFace/painted'", "space = 'Dlib/painted' LIMIT 1"):
        ((other,),) = rows(sealed, f"SELECT vector FROM embeddings WHERE {which}")  # noqa: S608 - ours
        change_vector(sealed, "embeddings", lambda _, other=other: other)  # type: ignore[misc]
        await _refuses_and_repairs(sealed)


async def _refuses_and_repairs(sealed: Settings) -> None:
    with pytest.raises(StartupError, match=r"1 of \d embeddings cannot be decrypted"):
        async with serving(sealed):
            pass
    (finding,) = await audit(sealed, fix=True)
    assert (finding.kind, finding.repaired) == (FindingKind.SEAL_BROKEN, True)
    async with serving(sealed) as client:
        (match,) = await matches(client, photo(RED))
        assert match["name"] == "Ada"
    assert await audit(sealed) == []


async def test_a_changed_clearance_alerts_again_and_is_named(sealed: Settings) -> None:
    async with serving(sealed) as client:
        await enroll(client, "Ada", photo(RED))
        await clear(client, await screen(client, TWIN))
        change_vector(sealed, "clearances", flipped)
        assert (await screen(client, TWIN))["faces"][0]["verdict"] == "match"
    (finding,) = await audit(sealed, fix=True)
    assert (finding.kind, finding.subject, finding.repaired) == (FindingKind.SEAL_BROKEN, "clearance 1", True)
    assert await audit(sealed) == []


async def test_a_photo_that_is_renamed_by_hand_is_enrolled_again(sealed: Settings) -> None:
    async with serving(sealed) as client:
        drop(sealed, "person_A/a.png", photo(RED))
        drop(sealed, "person_B/b.png", photo(GREEN))
        await sync(client)
        (sealed.blacklist_db_path / "person_A").rename(sealed.blacklist_db_path / "Ada")
        report = await sync(client)
        assert (report["added"], report["withdrawn"]) == (["blacklist_db/Ada/a.png"], ["blacklist_db/person_A/a.png"])
        (match,) = await matches(client, photo(RED))
        assert match["name"] == "Ada"
    assert await audit(sealed) == []


async def test_a_photo_that_is_replaced_or_removed_by_hand_takes_its_key_along(
    sealed: Settings, client: httpx.AsyncClient
) -> None:
    paths = [drop(sealed, f"person_A/{name}.png", photo(colour)) for name, colour in (("a", RED), ("b", BLUE))]
    await sync(client)
    before = [path.read_bytes() for path in paths]
    paths[0].write_bytes(photo(GREEN))
    paths[1].unlink()
    report = await sync(client)
    assert report["added"] == ["blacklist_db/person_A/a.png"]
    assert await matches(client, photo(RED)) == await matches(client, photo(BLUE)) == []
    assert len(await matches(client, photo(GREEN))) == 1
    assert readable(sealed, RED, GREEN, BLUE) == []
    with closing(KeyRing(sealed.encryption_key_dir or Path(), apart_from=[])) as keys:
        assert {name for name in keys.names() if name.startswith("blacklist/")} == {"blacklist/person_A/a.png"}
    for path, data in zip(paths, before, strict=True):
        path.with_name(f"old-{path.name}").write_bytes(data)
    report = await sync(client)
    assert [skipped["code"] for skipped in report["skipped"]] == ["photo_unreadable"] * 2


@pytest.mark.parametrize("is_sealed", [False, True])
async def test_a_photo_that_is_replaced_by_one_that_cannot_be_enrolled_takes_its_key_along(
    sealed: Settings, client: httpx.AsyncClient, *, is_sealed: bool
) -> None:
    path = drop(sealed, "person_A/a.png", photo(RED))
    other = drop(sealed, "person_A/b.png", photo(BLUE))
    await sync(client)
    before = path.read_bytes()
    if is_sealed:  # the photo of another one, moved here: it is enrolled
        other.replace(path)
    else:
        path.write_bytes(photo())
    report = await sync(client)
    assert len(report["added"]) == is_sealed
    assert len(report["skipped"]) == (not is_sealed)
    assert await matches(client, photo(RED)) == []
    assert len(await matches(client, photo(BLUE))) == 1
    path.write_bytes(before)
    await sync(client)
    assert await matches(client, photo(RED)) == []
    with pytest.raises(SealBrokenError), closing(KeyRing(sealed.encryption_key_dir or Path(), apart_from=[])) as keys:
        await SealedStore(FolderStore(sealed.blacklist_db_path), "blacklist", keys).get("person_A/a.png")


async def test_the_same_photo_put_there_once_more_is_sealed_again(sealed: Settings, client: httpx.AsyncClient) -> None:
    path = drop(sealed, "person_A/a.png", photo(RED))
    await sync(client)
    path.write_bytes(photo(RED))
    assert readable(sealed) == ["a.png"]
    assert (await sync(client))["unchanged"] == 1
    assert readable(sealed) == []


async def test_a_key_that_nothing_needs_is_found_and_dropped(sealed: Settings, client: httpx.AsyncClient) -> None:
    assert sealed.encryption_key_dir is not None
    with closing(KeyRing(sealed.encryption_key_dir, apart_from=[])) as keys:
        keys.make(["blacklist/ada/gone.jpg"])
    (finding,) = await audit(sealed, fix=True)
    assert not finding.repaired, "without any data these are more likely missing"
    await enroll(client, "Ada", photo(RED))
    for repaired in (False, True):
        (finding,) = await audit(sealed, fix=repaired)
        assert finding == Finding(FindingKind.KEY_LEFT_OVER, "keys", "blacklist/ada/gone.jpg", repaired=repaired)
    assert await audit(sealed) == []


@pytest.mark.parametrize("is_new", [False, True])
async def test_a_key_folder_that_is_anothers_or_not_mounted_is_refused(
    sealed: Settings, tmp_path: Path, *, is_new: bool
) -> None:
    async with serving(sealed) as client:
        people = [await enroll(client, name, photo(colour)) for name, colour in (("Ada", RED), ("Eve", BLUE))]
        people.append(await enroll(client, "Joe", photo(GREEN)))
    (tmp_path / "keys").rename(tmp_path / "lost")
    if not is_new:  # one that even has a key of this list
        with closing(KeyRing(tmp_path / "keys", apart_from=[])) as keys:
            plain = SealedStore(FolderStore(sealed.blacklist_db_path), "blacklist", keys)
            await plain.put(people[0]["images"][0]["identity"].removeprefix("blacklist_db/"), photo(RED))
    found, missing = (0, 3) if is_new else (1, 2)
    refused = f"ENCRYPTION_KEY_DIR: {missing} of 3 encrypted files have no key"
    with pytest.raises(StartupError, match=refused):
        await audit(sealed, fix=True)
    with pytest.raises(StartupError, match=refused):
        async with open_encryption(sealed):
            pass
    assert len(list((tmp_path / "keys").glob("master-*.key"))) == found
    assert len(list(sealed.blacklist_db_path.rglob("*.jpg"))) == 3
    if not is_new:
        return
    shutil.rmtree(tmp_path / "keys")
    (tmp_path / "lost").rename(tmp_path / "keys")
    async with serving(sealed) as client:
        assert len(await matches(client, photo(RED))) == 1


async def test_another_master_key_is_refused_in_one_line(sealed: Settings, tmp_path: Path) -> None:
    async with serving(sealed) as client:
        await enroll(client, "Ada", photo(YELLOW))
    (master,) = (tmp_path / "keys").glob("master-*.key")
    for change, problem in ((lambda: master.write_bytes(bytes(32)), "is not the one"), (master.unlink, "is missing")):
        change()
        with pytest.raises(StartupError, match=f"ENCRYPTION_KEY_DIR: the master key .*{problem}"):
            async with serving(sealed):
                pass


async def test_keys_beside_the_data_are_refused(settings: Settings) -> None:
    database = Database(settings.database_url).path.parent
    for folder in (
        settings.blacklist_db_path / "keys",
        settings.processed_images_output_dir,
        database,
        database.parent,
    ):
        with pytest.raises(StartupError, match="ENCRYPTION_KEY_DIR: must be a folder outside"):
            async with serving(settings.model_copy(update={"encryption_key_dir": folder})):
                pass


async def test_rotation_goes_on_while_services_do(sealed: Settings, tmp_path: Path) -> None:
    async with serving(sealed) as client, server_process(sealed) as other:
        await enroll(client, "Ada", photo(RED))
        (before,) = (tmp_path / "keys").glob("master-*.key")
        async with open_encryption(sealed) as encryption:
            masters = await encryption.rotate()
        (after,) = (tmp_path / "keys").glob("master-*.key")
        assert after != before
        assert after.name == f"master-{masters.current}.key"
        for each, colour, name in ((client, BLUE, "Eve"), (other.client, GREEN, "Joe")):
            await enroll(each, name, photo(colour))
            assert (await screen(each, RED))["faces"][0]["verdict"] == "match"
        async with open_encryption(sealed) as encryption:
            assert set((await encryption.status()).masters.wrapped) == {masters.current}
    assert await audit(sealed) == []
