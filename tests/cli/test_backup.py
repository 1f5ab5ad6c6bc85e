"""``facescreen backup`` as an init system or a timer runs it."""

import asyncio
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from facescreen.config import Settings
from facescreen.db.connection import Database
from tests.conftest import serving
from tests.painted_server import HANGING


async def test_sigterm_leaves_nothing_beside_the_backup_that_it_stops(settings: Settings, tmp_path: Path) -> None:
    place = tmp_path / "backups"
    place.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DATABASE_URL": settings.database_url}
    command = (sys.executable, "-m", "facescreen", "backup", str(place / "backup.tar"))
    path = Database(settings.database_url).path
    async with serving(settings):
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # it is not finished without an event in the trail
            backup = await asyncio.create_subprocess_exec(
                *command, cwd=tmp_path, env=environment, stderr=asyncio.subprocess.PIPE
            )
            async with asyncio.timeout(HANGING):
                while not list(place.glob("*/database.db")):  # noqa: ASYNC110 - it is another process
                    await asyncio.sleep(0.01)
                backup.terminate()
                _, told = await backup.communicate()
    assert backup.returncode == 128 + signal.SIGTERM, told
    assert b"Traceback" not in told
    assert list(place.iterdir()) == []
