"""Another process holds the database's write lock: waited for up to the busy timeout, then 503."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx

from facescreen.config import Settings
from facescreen.db.connection import Database
from tests.api.test_blacklist import enroll, upload
from tests.at_rest import check_disk
from tests.faults.small_disk import moved
from tests.painted import BLUE, RED, inline, photo
from tests.painted_server import server_process

SHORT, LONG = 3.0, 8.0
"""Seconds."""


@asynccontextmanager
async def locked(settings: Settings, seconds: float) -> AsyncIterator[asyncio.Task[None]]:
    """Begins with the lock held, and gives what ends when it is released."""
    with closing(sqlite3.connect(Database(settings.database_url).path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        async def release() -> None:
            await asyncio.sleep(seconds)
            other.execute("COMMIT")

        released = asyncio.create_task(release())
        try:
            yield released
        finally:
            await released


async def answers(settings: Settings, seconds: float) -> list[httpx.Response]:
    """To writes that came while the lock was held for so long; reads are answered meanwhile."""
    screening = {"images": [inline(photo(RED))]}
    async with server_process(settings) as server:
        client = server.client
        entry = f"/blacklist/{(await enroll(client, 'Eve', photo(RED)))['id']}/"
        async with locked(settings, seconds) as released:
            first = asyncio.create_task(client.put(entry, json={"reason": "first"}))
            await asyncio.sleep(0.1)  # whose turn it is
            writes = [
                first,
                asyncio.create_task(client.post("/process/process-images", json=screening)),
                asyncio.create_task(client.post("/blacklist/", data={"name": "Ada"}, files=upload(photo(BLUE)))),
            ]
            rounds = 0
            while not released.done():
                for path in ("/", "/blacklist/", entry, "/processed-images/", "/collections/default/"):
                    assert (await client.get(path)).status_code == 200
                rounds += not released.done()
                await asyncio.sleep(0.05)
            assert rounds > 1
            found = [await write for write in writes]
        assert (await client.put(entry, json={"reason": "later"})).status_code == 200
        check_disk(settings)
    return found


async def test_a_lock_is_waited_for_and_then_the_database_is_busy(settings: Settings, tmp_path: Path) -> None:
    other = moved(settings, tmp_path / "other")
    shutil.copytree(tmp_path / "data", tmp_path / "other" / "data")
    waited, (refused, *later) = await asyncio.gather(answers(settings, SHORT), answers(other, LONG))
    assert [answer.status_code for answer in waited] == [200, 200, 201]
    assert [waited[1].json()[0]["stored"], len(waited[1].json()[0]["faces"])] == [True, 1]
    assert (refused.status_code, refused.json()["code"]) == (503, "database_busy")
    for answer in (refused, *later):
        assert answer.is_success or (answer.status_code, answer.json()["code"]) == (503, "database_busy")
        assert answer.is_success or int(answer.headers["retry-after"]) >= 1
