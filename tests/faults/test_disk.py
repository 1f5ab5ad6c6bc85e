"""A disk that is full, read-only or failing: writes say so, searches go on, and nothing is half-written."""

import errno
import itertools
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection

from facescreen.config import Settings
from facescreen.factory import Services
from tests.api.test_blacklist import enroll, upload
from tests.api.test_process import process
from tests.at_rest import check_disk
from tests.faults.failing_disk import SYNCING, FailingDisk
from tests.faults.scenario import Written, check_fault, check_refused, check_screening, clean, outline
from tests.faults.small_disk import filled, moved, on_small_disk, require_namespaces
from tests.painted import BLUE, RED, YELLOW, inline, photo
from tests.painted_server import HANGING, server_process


@pytest.mark.parametrize(
    ("error", "calls"),
    [(errno.ENOSPC, None), (errno.EROFS, None), (errno.EIO, None), (errno.EIO, SYNCING)],
    ids=["full", "read-only", "failing", "failing fsync"],
)
async def test_a_disk_that_refuses(
    settings: Settings, tmp_path: Path, error: int, calls: Collection[str] | None
) -> None:
    _require_failing_disk()
    with FailingDisk(tmp_path) as disk:
        async with server_process(settings, around=disk.around) as server:
            await check_fault(server.client, settings, partial(disk.refusing, error, calls))
            check_disk(settings)
        assert disk.refused


def _require_failing_disk() -> None:
    if not FailingDisk.is_possible():
        pytest.skip("this kernel asks nobody about system calls")


async def test_a_device_without_a_byte_left(settings: Settings, tmp_path: Path) -> None:
    require_namespaces()
    disk = tmp_path / "disk"
    disk.mkdir()
    around = partial(on_small_disk, disk, tmp_path / "data")
    async with server_process(moved(settings, disk), around=around) as server:
        seen = Path(f"/proc/{server.pid}/root{disk}")
        await check_fault(server.client, moved(settings, seen), partial(filled, seen))
        check_disk(moved(settings, shutil.copytree(seen, tmp_path / "copy")))


async def test_a_limit_for_the_size_of_files(settings: Settings) -> None:
    @contextmanager
    def limited(pid: int) -> Iterator[None]:
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    async with server_process(settings) as server:
        await check_fault(server.client, settings, partial(limited, server.pid))
        check_disk(settings)


async def test_a_database_that_may_not_grow(client: httpx.AsyncClient, services: Services, settings: Settings) -> None:
    room = 0

    def limit(connection: DBAPIConnection, *_: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA max_page_count={room}")
        cursor.close()

    async def all_refused() -> None:
        """What fits into the pages that there are is taken."""
        for number in range(1000):
            answer = await client.post("/blacklist/", data={"name": f"Tom {number}"}, files=upload(photo(BLUE)))
            if not answer.is_success:
                check_refused(answer, "enroll")
                return

    event.listen(services.database._engine.sync_engine, "checkout", limit)
    await enroll(client, "Eve", photo(RED))
    with closing(sqlite3.connect(services.database.path)) as database:
        (room,) = database.execute("PRAGMA page_count").fetchone()
    await all_refused()
    while (await process(client, inline(photo(RED))))[0]["stored"]:
        pass
    await check_screening(client)
    room = 2**31
    await enroll(client, "Ada", photo(YELLOW))
    (result,) = await process(client, inline(photo(YELLOW)))
    assert (result["stored"], result["faces"][0]["blacklist_matches"][0]["name"]) == (True, "Ada")
    check_disk(settings)


STRIDE = int(os.environ.get("FAULT_STRIDE", "17"))
"""``FAULT_STRIDE=1 pytest tests/faults`` lets the disk fail at every single call, of more changes than usual."""
CHANGES = ["enroll", "delete an entry"]
if STRIDE == 1:
    CHANGES += ["add a photo", "synchronise", "delete a photo", "delete a result", "take back", "delete a collection"]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO] if STRIDE == 1 else [errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", CHANGES)
async def test_a_disk_that_begins_to_refuse_half_way(settings: Settings, tmp_path: Path, name: str, error: int) -> None:
    _require_failing_disk()
    seen = []
    with FailingDisk(tmp_path) as disk:
        async with server_process(settings, around=disk.around) as server:
            for spare in itertools.count(0, STRIDE):
                written = await Written.of(server.client, settings)
                before = await outline(server.client)
                with disk.refusing(error, spare=spare):
                    answer = await written.changes()[name]()
                seen.append(await outline(server.client))
                assert (await server.client.post("/blacklist/sync")).is_success
                check_disk(settings)
                await clean(server.client)
                if answer.is_success:
                    break
                check_refused(answer, f"{name}, {spare=}")
    assert [state for state in seen[:-1] if state not in (before, seen[-1])] == []
    assert len(seen) > 1


SERVE = """
import uvicorn
from facescreen.config import Settings
from facescreen.main import create_app
from tests.painted import PaintedBackend
uvicorn.run(create_app(Settings(), PaintedBackend()), port=0)
"""
MOUNT = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


def test_a_read_only_database_refuses_the_start_in_one_line(settings: Settings, tmp_path: Path) -> None:
    require_namespaces()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "DATABASE_URL": settings.database_url,
        "BLACKLIST_DB_PATH": str(settings.blacklist_db_path),
        "PROCESSED_IMAGES_OUTPUT_DIR": str(settings.processed_images_output_dir),
        "MATCH_THRESHOLD": "0.05",
    }
    command = ["unshare", "-rm", "sh", "-c", MOUNT, str(tmp_path / "data"), sys.executable, "-c", SERVE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANGING, check=False)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "facescreen: " in line]
    assert "read-only" in line
    assert str(tmp_path) not in done.stderr
