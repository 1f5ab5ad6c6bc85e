"""What is backed up while the service works is all there when it is restored, and nothing else is."""

import asyncio
import json
import os
import re
import shutil
import sqlite3
import stat
import tarfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from alembic import command

from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.db.files import StoreName
from facescreen.domain.trail import Verification
from facescreen.errors import BackupError, DataInUseError, StartupError
from facescreen.factory import Services, open_backup, open_services, restoration
from facescreen.images.folder_store import FolderStore
from facescreen.services.archive import DATABASE, ArchiveWriter, Manifest, Member, opened
from facescreen.services.backup import BackupReport, BackupService
from facescreen.services.presence import alone
from tests.api.test_blacklist import enroll, matches
from tests.at_rest import check_disk, is_readable
from tests.cli.test_cli import facescreen
from tests.conftest import serving
from tests.painted import BLUE, GREEN, RED, YELLOW, Colour, PaintedBackend, inline, photo
from tests.painted_server import ServerProcess, server_process

EXACT = {"distance_metric": "euclidean", "threshold": 0.001, "review_threshold": 0.001}


def elsewhere(settings: Settings, place: Path) -> Settings:
    """The same settings, with all data at another place."""
    return settings.model_copy(
        update={
            "blacklist_db_path": place / "blacklist_db",
            "processed_images_output_dir": place / "processed",
            "database_url": f"sqlite+aiosqlite:///{place / 'data' / 'facescreen.db'}",
        }
    )


async def back_up(settings: Settings, target: Path) -> BackupReport:
    async with open_backup(settings) as service:
        return await service.back_up(target)


async def screen(client: httpx.AsyncClient, *colours: Colour) -> Any:
    body = {"images": [inline(photo(*colours))], **EXACT}
    return (await client.post("/process/process-images", json=body)).raise_for_status().json()


async def everything(client: httpx.AsyncClient) -> list[Any]:
    """What callers can see."""
    lists = [await client.get(path) for path in ("/collections/", "/blacklist/", "/processed-images/?limit=1000")]
    seen = [answer.raise_for_status().json() for answer in lists]
    pictures = [await client.get(f"/processed-images/{result['id']}/image") for result in seen[-1]["items"]]
    return [*seen, *(picture.raise_for_status().content for picture in pictures)]


async def trail(client: httpx.AsyncClient) -> Verification:
    services: Services = client.services  # type: ignore[attr-defined]
    return await services.trail.verify()


@pytest.fixture
async def archive(settings: Settings, tmp_path: Path) -> Path:
    """A backup of a list with an uploaded photo, a dropped one, and a result."""
    dropped = settings.blacklist_db_path / "Eve"
    dropped.mkdir(parents=True)
    (dropped / "eve.png").write_bytes(photo(BLUE))
    async with serving(settings) as client:
        await enroll(client, "Ada", photo(RED))
        await screen(client, RED, BLUE)
    made = tmp_path / "backup.tar"
    assert (await back_up(settings, made)).images == 3
    return made


@pytest.fixture
def place(settings: Settings, tmp_path: Path) -> Settings:
    """Where nothing is yet."""
    return elsewhere(settings, tmp_path / "elsewhere")


async def test_what_was_there_is_there_again(settings: Settings, archive: Path, place: Settings) -> None:
    assert (await restoration(place).restore(archive, replace=False)).missing == []
    assert check_disk(place) == check_disk(settings)
    async with serving(settings) as before, serving(place) as after:
        assert await everything(after) == await everything(before)
        assert [match["name"] for match in await matches(after, photo(BLUE))] == ["Eve"]
        assert [(await trail(each)).misfit for each in (before, after)] == [None, None]
        synced = (await after.post("/blacklist/sync")).json()
        assert (synced["unchanged"], synced["added"], synced["withdrawn"]) == (2, [], [])


def test_a_backup_is_a_tar_archive_for_this_user_alone(archive: Path) -> None:
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    with tarfile.open(archive) as tar:
        assert tar.getnames()[-3:] == [DATABASE, "manifest.json", "SHA256"]
        assert tar.extractfile("blacklist/Eve/eve.png").read() == photo(BLUE)  # type: ignore[union-attr]


async def add_and_delete(client: httpx.AsyncClient, actor: int, over: asyncio.Event) -> None:
    for number in count():
        record = await enroll(client, f"{actor}-{number}", photo((200, 60 * actor, 10 * number % 250)))
        if number % 2:
            (await client.delete(f"/blacklist/{record['id']}/")).raise_for_status()
        if over.is_set():
            return


async def screen_and_delete(client: httpx.AsyncClient, over: asyncio.Event) -> None:
    for number in count():
        (result,) = await screen(client, (200, 0, 10 * number % 250))
        if number % 2:
            (await client.delete(f"/processed-images/{result['id']}")).raise_for_status()
        if over.is_set():
            return


async def test_a_backup_under_load_agrees_with_itself(settings: Settings, tmp_path: Path) -> None:
    async with server_process(settings) as server:
        await enroll(server.client, "Ada", photo(BLUE))
        over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(add_and_delete(server.client, 0, over))
            tasks.create_task(add_and_delete(server.client, 1, over))
            tasks.create_task(screen_and_delete(server.client, over))
            reports = [await back_up(settings, tmp_path / f"{number}.tar") for number in range(3)]
            over.set()
    assert [report.missing for report in reports] == [[]] * 3
    for number in range(3):
        restored = elsewhere(settings, tmp_path / str(number))
        await restoration(restored).restore(tmp_path / f"{number}.tar", replace=False)
        check_disk(restored)
        async with serving(restored) as client:
            await check_searchable(client)
        check_disk(restored)


async def check_searchable(client: httpx.AsyncClient) -> None:
    """Everybody is found by their own photo, and every result has its picture."""
    assert [match["name"] for match in await matches(client, photo(BLUE))] == ["Ada"]
    await everything(client)
    for record in (await client.get("/blacklist/")).json():
        (image,) = record["images"]
        stored = await client.get(f"/blacklist/{record['id']}/images/{image['id']}")
        assert record["name"] in {match["name"] for match in await matches(client, stored.content)}


class Interrupted(FolderStore):
    """A store where something happens before the first image is read."""

    happens: Callable[[], Awaitable[None]] | None = None

    async def get(self, name: str) -> bytes:
        if self.happens is not None:
            happens, self.happens = self.happens, None
            await happens()
        return await super().get(name)


@pytest.mark.parametrize("store", [StoreName.BLACKLIST, StoreName.PROCESSED])
async def test_who_is_deleted_meanwhile_is_nowhere_in_the_backup(
    settings: Settings, tmp_path: Path, store: StoreName
) -> None:
    """Before their photo is copied, or after it was: copies of results come last."""
    made = tmp_path / "backup.tar"
    stores = {
        StoreName.BLACKLIST: Interrupted(settings.blacklist_db_path),
        StoreName.PROCESSED: Interrupted(settings.processed_images_output_dir),
    }
    async with server_process(settings) as server:
        await enroll(server.client, "Ada", photo(RED))
        eve = await enroll(server.client, "Eve", photo(BLUE))
        identity = eve["images"][0]["identity"].removeprefix("blacklist_db/")
        picture = await stores[StoreName.BLACKLIST].get(identity)
        (result,) = await screen(server.client, GREEN)

        async def leave() -> None:
            for path in (f"/blacklist/{eve['id']}/", f"/processed-images/{result['id']}"):
                (await server.client.delete(path)).raise_for_status()

        stores[store].happens = leave
        database = Database(settings.database_url)
        service = BackupService(database=database, stores=stores, keeps_photos=True, not_included=())
        report = await service.back_up(made)
        await database.aclose()
    assert (report.images, report.missing) == (1, [])
    data = made.read_bytes()
    vector = (np.array(BLUE) / 255 - 0.5).astype("<f4").tobytes()
    assert [secret for secret in (picture, vector, identity.encode(), b"Eve") if secret in data] == []
    restored = elsewhere(settings, tmp_path / "elsewhere")
    await restoration(restored).restore(made, replace=False)
    check_disk(restored)


async def test_deleted_vectors_are_not_readable_in_a_backup(settings: Settings, tmp_path: Path) -> None:
    vector = (np.array(RED) / 255 - 0.5).astype("<f4").tobytes()
    async with serving(settings) as client:
        record = await enroll(client, "Ada", photo(RED))
    await back_up(settings, tmp_path / "before.tar")
    async with serving(settings) as client:
        (await client.delete(f"/blacklist/{record['id']}/")).raise_for_status()
    await back_up(settings, tmp_path / "after.tar")
    assert vector in (tmp_path / "before.tar").read_bytes()
    assert vector not in (tmp_path / "after.tar").read_bytes()
    assert b"Ada" not in (tmp_path / "after.tar").read_bytes()


async def test_answers_that_can_be_asked_for_again_are_in_no_backup(settings: Settings, tmp_path: Path) -> None:
    async with serving(settings) as client:
        await client.post("/collections/", json={"name": "a"}, headers={"Idempotency-Key": "k"})
    await back_up(settings, tmp_path / "backup.tar")
    with tarfile.open(tmp_path / "backup.tar") as tar:
        tar.extract(DATABASE, tmp_path, filter="data")
    with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        assert database.execute("SELECT count(*) FROM idempotency_keys").fetchall() == [(0,)]


async def test_an_image_that_is_missing_is_named(settings: Settings, archive: Path, place: Settings) -> None:
    (settings.blacklist_db_path / "Eve" / "eve.png").unlink()
    report = await back_up(settings, archive)
    assert report.missing == ["blacklist/Eve/eve.png"]
    manifest = await restoration(place).restore(archive, replace=False)
    assert manifest.missing == report.missing
    assert len(manifest.images) == 2


def test_every_flipped_byte_is_seen(archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    edited = tmp_path / "edited.tar"
    tail = range(len(data) - 4096, len(data), 5)
    for at in (*range(0, len(data), len(data) // 300), *tail):
        flipped = bytearray(data)
        flipped[at] ^= 1
        edited.write_bytes(flipped)
        with pytest.raises(BackupError), opened(edited, lambda _done, _total: None):
            pass
    for other in (b"", data[: len(data) // 2], data[:-1], data + b"\0", b"x" * 2048, data * 2):
        edited.write_bytes(other)
        with pytest.raises(BackupError), opened(edited, lambda _done, _total: None):
            pass


def forged(path: Path, database: bytes, *, schema: str = "0005", image: str | None = None) -> None:
    with path.open("xb+") as file:
        writer = ArchiveWriter(file)
        if image is not None:
            writer.add(image, photo(RED))
        writer.add(DATABASE, database)
        writer.finish(Manifest("1", schema, datetime.now(UTC), missing=[], not_included=[]))


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.jpg",
        "/tmp/evil.jpg",  # noqa: S108 - nothing is written there
        "blacklist/../../evil.jpg",
        "blacklist//evil.jpg",
        "blacklist/.incoming/evil.jpg",
        "blacklist/evil.py",
        "blacklist/e\0vil.jpg",
        "bucket/evil.jpg",
        "elsewhere/evil.jpg",
        "blacklist",
    ],
)
async def test_no_name_leads_out_of_the_stores(
    settings: Settings, archive: Path, tmp_path: Path, place: Settings, name: str
) -> None:
    with tarfile.open(archive) as tar:
        database = tar.extractfile(DATABASE).read()  # type: ignore[union-attr]
    hostile = tmp_path / "hostile.tar"
    forged(hostile, database, image=name)
    before = tree(tmp_path)
    with pytest.raises(BackupError):
        await restoration(place).restore(hostile, replace=True)
    after = tree(tmp_path)
    after.pop("elsewhere/data/facescreen.db-writers")
    assert after == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE])
async def test_only_regular_files_are_restored(archive: Path, tmp_path: Path, place: Settings, kind: bytes) -> None:
    with tarfile.open(archive) as tar:
        database = tar.extractfile(DATABASE).read()  # type: ignore[union-attr]
    with (tmp_path / "hostile.tar").open("xb+") as file:
        writer = ArchiveWriter(file)
        writer.add(DATABASE, database)
        info = tarfile.TarInfo("blacklist/evil.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        begin = file.tell()
        file.write(info.tobuf())
        writer._end(Member(info.name, 0, ""), begin)
        writer.finish(Manifest("1", "0005", datetime.now(UTC), missing=[], not_included=[]))
    with pytest.raises(BackupError):
        await restoration(place).restore(tmp_path / "hostile.tar", replace=False)
    assert not list(place.blacklist_db_path.iterdir())


async def test_contents_are_what_the_manifest_says(archive: Path, tmp_path: Path, place: Settings) -> None:
    with tarfile.open(archive) as tar:
        database = tar.extractfile(DATABASE).read()  # type: ignore[union-attr]
    with (tmp_path / "hostile.tar").open("xb+") as file:
        writer = ArchiveWriter(file)
        writer.add(DATABASE, database)
        writer.add("blacklist/a/a.jpg", b"one")
        member, *extent = writer._members["blacklist/a/a.jpg"]
        writer._members["blacklist/a/a.jpg"] = (Member(member.name, member.size, "0" * 64), *extent)  # type: ignore[assignment]
        writer.finish(Manifest("1", "0005", datetime.now(UTC), missing=[], not_included=[]))
    with pytest.raises(BackupError):
        await restoration(place).restore(tmp_path / "hostile.tar", replace=False)
    assert not list(place.blacklist_db_path.iterdir())


async def test_a_newer_schema_is_refused_and_an_older_one_migrated(
    settings: Settings, tmp_path: Path, place: Settings
) -> None:
    old = Database(f"sqlite+aiosqlite:///{tmp_path / 'old.db'}")
    await asyncio.to_thread(command.upgrade, old._alembic(), "0003")
    data = (tmp_path / "old.db").read_bytes()
    forged(tmp_path / "newer.tar", data, schema="9999")
    forged(tmp_path / "lying.tar", data, schema="0002")
    forged(tmp_path / "older.tar", data, schema="0003")
    for refused in ("newer", "lying"):
        with pytest.raises(BackupError):
            await restoration(place).restore(tmp_path / f"{refused}.tar", replace=False)
        assert not restoration(place).database.exists()
    await restoration(place).restore(tmp_path / "older.tar", replace=False)
    async with serving(place) as client:
        await enroll(client, "Ada", photo(RED))
    check_disk(place)


async def test_data_are_replaced_only_if_that_is_asked_for(settings: Settings, archive: Path, place: Settings) -> None:
    database = Database(place.database_url)
    await database.migrate()
    await database.aclose()
    async with serving(place) as client:
        gone = await enroll(client, "Mallory", photo(YELLOW))
        await screen(client, YELLOW)
    (place.blacklist_db_path / "notes").mkdir()
    (place.blacklist_db_path / "notes" / "a.txt").write_text("who")
    with pytest.raises(DataInUseError, match="--replace"):
        await restoration(place).restore(archive, replace=False)
    assert len(check_disk_images(place)) == 1
    await restoration(place).restore(archive, replace=True)
    assert check_disk(place) == check_disk(settings)
    assert not is_readable(place, YELLOW)
    async with serving(place) as client:
        assert await matches(client, photo(YELLOW)) == []
        assert (await client.get(f"/blacklist/{gone['id'] + 1}/")).json()["name"] == "Ada"


def check_disk_images(settings: Settings) -> list[Path]:
    return [path for path in settings.blacklist_db_path.rglob("*.jpg") if path.is_file()]


async def test_nothing_is_restored_below_a_service_that_runs(settings: Settings, archive: Path) -> None:
    async with server_process(settings) as server:
        with pytest.raises(DataInUseError, match="stop it first"):
            await restoration(settings).restore(archive, replace=True)
        assert len((await server.client.get("/blacklist/")).json()) == 2
    await restoration(settings).restore(archive, replace=True)


async def test_no_service_starts_while_a_backup_is_restored(settings: Settings) -> None:
    with alone(restoration(settings).database):
        server = ServerProcess(settings)
        with pytest.raises(httpx.NetworkError):
            await server.started()
        await server.aclose()
    async with server_process(settings):
        pass


async def test_where_nothing_can_be_written_nothing_changes(
    settings: Settings, archive: Path, place: Settings, tmp_path: Path
) -> None:
    """The folder of the copies is a file: nothing can be written there."""
    place.processed_images_output_dir.parent.mkdir(parents=True)
    place.processed_images_output_dir.write_bytes(b"")
    with pytest.raises(BackupError):
        await restoration(place).restore(archive, replace=True)
    assert not restoration(place).database.exists()
    with pytest.raises(BackupError):
        await back_up(settings, tmp_path / "nowhere" / "backup.tar")


async def test_who_was_erased_stays_unreadable_in_a_restored_backup(settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"encryption_key_dir": tmp_path / "keys"})
    async with serving(settings) as client:
        ada = await enroll(client, "Ada", photo(RED))
        await enroll(client, "Eve", photo(BLUE))
    await back_up(settings, tmp_path / "backup.tar")
    async with serving(settings) as client:
        (await client.delete(f"/blacklist/{ada['id']}/")).raise_for_status()
    await restoration(settings).restore(tmp_path / "backup.tar", replace=True)
    async with open_services(settings, PaintedBackend()) as services:
        found = [finding async for finding in services.audit.audit(fix=True)]
        assert {finding.repaired for finding in found} == {True}
    async with serving(settings) as client:
        assert [match["name"] for match in await matches(client, photo(BLUE))] == ["Eve"]
        assert await matches(client, photo(RED)) == []
        assert [record["name"] for record in (await client.get("/blacklist/")).json()] == ["Eve"]


@pytest.mark.parametrize(
    "changed",
    [
        {"processed_images_output_dir": "blacklist_db"},
        {"processed_images_output_dir": "blacklist_db/.out"},
        {"blacklist_db_path": "processed/in"},
        {"processed_images_output_dir": "data"},
        {"blacklist_db_path": "link"},
        {"blacklist_db_path": "."},
    ],
    ids=str,
)
async def test_stores_that_hold_each_other_or_the_database_are_refused(
    settings: Settings, archive: Path, tmp_path: Path, changed: dict[str, str]
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data")
    settings = settings.model_copy(update={name: tmp_path / path for name, path in changed.items()})
    before = tree(tmp_path)
    with pytest.raises(StartupError, match="BLACKLIST_DB_PATH"):
        await restoration(settings).restore(archive, replace=True)
    with pytest.raises(StartupError, match="BLACKLIST_DB_PATH"):
        async with open_services(settings, PaintedBackend()):
            pass
    assert tree(tmp_path) == before


async def test_a_backup_or_keys_in_a_store_are_not_deleted_with_it(
    settings: Settings, archive: Path, tmp_path: Path
) -> None:
    within = settings.processed_images_output_dir / "backup.tar"
    shutil.copy(archive, within)
    (tmp_path / "link.tar").symlink_to(within)
    before = tree(tmp_path)
    for path in (within, tmp_path / "link.tar"):
        with pytest.raises(BackupError, match="the backup lies in"):
            await restoration(settings).restore(path, replace=True)
    settings = settings.model_copy(update={"encryption_key_dir": settings.blacklist_db_path / "keys"})
    with pytest.raises(BackupError, match="ENCRYPTION_KEY_DIR"):
        await restoration(settings).restore(archive, replace=True)
    assert tree(tmp_path) == before


@contextmanager
def nobody(folder: Path) -> Iterator[None]:
    """A process that owns this folder, and cannot do everything."""
    if os.geteuid():
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in folder.parents}
    closed = {path: mode for path, mode in modes.items() if not mode & stat.S_IXOTH}
    for path, mode in closed.items():
        path.chmod(mode | stat.S_IXOTH | stat.S_IXGRP)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for path, mode in closed.items():
            path.chmod(mode)


async def test_what_cannot_be_moved_is_found_before_anything_is_lost(
    settings: Settings, archive: Path, tmp_path: Path
) -> None:
    fixed = settings.processed_images_output_dir / "fixed"
    fixed.mkdir()
    (fixed / "a").write_bytes(b"a")
    stores = (settings.blacklist_db_path, settings.processed_images_output_dir)
    before = [tree(store) for store in stores]
    with nobody(tmp_path):
        fixed.chmod(0o500)  # a folder that its owner may not write cannot move to another one
        with pytest.raises(BackupError, match="could not be restored"):
            await restoration(settings).restore(archive, replace=True)
        await restoration(settings).settle()
        fixed.chmod(0o700)
    assert [tree(store) for store in stores] == before
    assert hidden(settings) == []


async def test_what_cannot_be_deleted_stops_no_start(settings: Settings, archive: Path, tmp_path: Path) -> None:
    fixed = settings.processed_images_output_dir / "old" / "fixed"
    fixed.mkdir(parents=True)
    (fixed / "a").write_bytes(b"a")
    with nobody(tmp_path):
        fixed.chmod(0o500)
        with pytest.raises(BackupError, match="is restored, but"):
            await restoration(settings).restore(archive, replace=True)
        async with serving(settings) as client:
            assert len((await client.get("/blacklist/")).json()) == 2
        (settings.processed_images_output_dir / ".discarded" / "old" / "fixed").chmod(0o700)
        await restoration(settings).settle()
    assert hidden(settings) == []
    check_disk(settings)


def hidden(settings: Settings) -> list[str]:
    """What a restore left."""
    stores = (settings.blacklist_db_path, settings.processed_images_output_dir)
    left = (".restoring", ".replaced", ".discarded")
    return [path.name for store in stores for path in store.iterdir() if path.name in left]


async def test_an_error_at_the_start_is_one_line(settings: Settings, archive: Path, tmp_path: Path) -> None:
    """What a restore set aside, and where it was something stands that cannot be replaced."""
    aside = settings.blacklist_db_path / ".replaced" / "Eve"
    aside.mkdir(parents=True)
    with pytest.raises(BackupError, match="could not be restored: Directory not empty"):
        await restoration(settings).settle()


async def test_an_empty_file_system_and_a_mere_look_are_no_data(archive: Path, place: Settings, tmp_path: Path) -> None:
    (place.blacklist_db_path / "lost+found").mkdir(parents=True)
    looked = await asyncio.to_thread(facescreen, tmp_path, "keys", "list", DATABASE_URL=place.database_url)
    assert "make it: facescreen migrate" in looked.stderr
    assert not restoration(place).database.exists()
    sqlite3.connect(restoration(place).database).execute("PRAGMA journal_mode=WAL").connection.close()
    await restoration(place).restore(archive, replace=False)
    (place.blacklist_db_path / "lost+found").rmdir()
    check_disk(place)


@pytest.mark.parametrize("command", [["keys", "list"], ["audit", "verify"], ["migrate"]])
def test_nobody_looks_into_a_database_that_is_replaced(settings: Settings, tmp_path: Path, command: list[str]) -> None:
    with alone(restoration(settings).database):
        refused = facescreen(tmp_path, *command)
    assert refused.returncode == 2
    assert refused.stderr.startswith("facescreen: a backup is being restored")


async def test_the_trail_says_which_backup_replaced_which_trail(
    settings: Settings, archive: Path, place: Settings
) -> None:
    for expected in ("", " 1:[0-9a-f]{64}"):
        await restoration(place).restore(archive, replace=True)
        with tarfile.open(archive) as tar:
            digest = tar.extractfile("SHA256").read().decode()  # type: ignore[union-attr]
        async with serving(place) as client:
            lines = (await client.get("/audit")).raise_for_status().text.splitlines()
        (event,) = (json.loads(line) for line in lines if json.loads(line)["action"] == "restore")
        assert re.fullmatch(digest + expected.replace("1:", r"\d+:"), event["subject"])


@pytest.mark.parametrize("is_enrolled", [True, False])
async def test_a_photo_replaced_under_its_name_fits_its_row(
    settings: Settings, archive: Path, place: Settings, is_enrolled: bool
) -> None:
    dropped = settings.blacklist_db_path / "Eve" / "eve.png"
    photos = Interrupted(settings.blacklist_db_path)
    stores = {StoreName.BLACKLIST: photos, StoreName.PROCESSED: FolderStore(settings.processed_images_output_dir)}
    async with server_process(settings) as server:

        async def replaced() -> None:
            dropped.write_bytes(photo(GREEN))
            if is_enrolled:
                (await server.client.post("/blacklist/sync")).raise_for_status()

        photos.happens = replaced
        database = Database(settings.database_url)
        service = BackupService(database=database, stores=stores, keeps_photos=True, not_included=())
        await service.back_up(archive)
        await database.aclose()
    await restoration(place).restore(archive, replace=False)
    (row,) = sqlite3.connect(restoration(place).database).execute(
        "SELECT sha256 FROM reference_images WHERE watched = 'Eve/eve.png'"
    )
    stored = (place.blacklist_db_path / "Eve" / "eve.png").read_bytes()
    assert stored == photo(GREEN)
    assert (sha256(stored).hexdigest() == row[0]) == is_enrolled


async def test_a_photo_replaced_after_it_was_copied_is_copied_again(
    settings: Settings, archive: Path, place: Settings, tmp_path: Path
) -> None:
    dropped = settings.blacklist_db_path / "Eve" / "eve.png"
    copies = Interrupted(settings.processed_images_output_dir)
    stores = {StoreName.BLACKLIST: FolderStore(settings.blacklist_db_path), StoreName.PROCESSED: copies}
    async with server_process(settings) as server:
        (result,) = (await server.client.get("/processed-images/")).json()["items"]

        async def replaced() -> None:
            dropped.write_bytes(photo(GREEN))
            (await server.client.post("/blacklist/sync")).raise_for_status()
            (await server.client.delete(f"/processed-images/{result['id']}")).raise_for_status()

        copies.happens = replaced
        database = Database(settings.database_url)
        service = BackupService(database=database, stores=stores, keeps_photos=True, not_included=())
        assert (await service.back_up(archive)).images == 2
        await database.aclose()
    assert photo(BLUE) not in (tmp_path / "backup.tar").read_bytes()
    await restoration(place).restore(archive, replace=False)
    assert (place.blacklist_db_path / "Eve" / "eve.png").read_bytes() == photo(GREEN)
