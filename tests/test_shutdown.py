"""SIGTERM: nothing new is taken, what was taken is answered, and the exit status is 0."""

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import httpx
import pytest

from facescreen.config import Settings
from facescreen.db.connection import Database
from tests import at_rest
from tests.concurrency.test_overload import FolderGatedBackend, sample, screen, until
from tests.painted_server import HANGING, server_process

SAMPLES = Path(__file__).parents[1] / "samples"


async def test_requests_in_flight_are_finished(settings: Settings, tmp_path: Path) -> None:
    narrow = settings.model_copy(update={"max_concurrent_requests": 1, "max_queued_requests": 1})
    async with asyncio.timeout(HANGING), server_process(narrow, partial(FolderGatedBackend, tmp_path)) as server:
        running = screen(server.client)
        await until(server.client, "facescreen_work_running ", 1)
        queued = screen(server.client)
        await until(server.client, "facescreen_work_waiting ", 1)
        server.terminate()
        await _deaf(server.url)
        assert not running.done()
        assert not queued.done()
        (tmp_path / "open").touch()
        assert {(await answer).status_code for answer in (running, queued)} == {200}
        await server.ended()
    at_rest.check_disk(settings)
    with closing(sqlite3.connect(Database(settings.database_url).path)) as database:
        assert database.execute("SELECT count(*) FROM screenings").fetchone() == (2,)


async def _deaf(url: str) -> None:
    """Wait until nobody listens there any more."""
    address = httpx.URL(url)
    while True:
        try:
            _, writer = await asyncio.open_connection(address.host, address.port)
        except OSError:
            return
        writer.close()


@asynccontextmanager
async def _serve(folder: Path, **environment: str) -> AsyncIterator[tuple[subprocess.Popen[bytes], httpx.AsyncClient]]:
    """``facescreen serve`` with the real models, when it is ready."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    (folder / "tmp").mkdir()
    around = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "PORT": str(port),
        "IMAGE_INPUT_ROOTS": str(SAMPLES),
        "MAX_QUEUED_REQUESTS": "16",
        **environment,
    }
    command = [sys.executable, "-m", "facescreen"]
    await Database(f"sqlite+aiosqlite:///{folder / 'data' / 'facescreen.db'}").migrate()
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}/api/v1", timeout=HANGING, trust_env=False
    ) as client:
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([*command, "serve"], cwd=folder, env=around, stderr=log)  # noqa: ASYNC220
            try:
                while True:
                    assert process.poll() is None, (folder / "log").read_text()
                    try:
                        if (await client.get("/ready")).status_code == 200:
                            break
                    except httpx.TransportError:
                        await asyncio.sleep(0.05)
                yield process, client
            finally:
                process.kill()
                process.wait()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_the_command_drains_and_exits_with_status_0(tmp_path: Path, workers: str) -> None:
    async with asyncio.timeout(HANGING), _serve(tmp_path, WORKERS=workers) as (process, client):
        for _ in range(8):
            async with httpx.AsyncClient(trust_env=False) as other:
                await other.get(f"{client.base_url}live")
        live = 'facescreen_requests_total{method="GET",route="/api/v1/live"'
        for _ in range(4):  # whichever worker is asked
            async with httpx.AsyncClient(base_url=client.base_url, trust_env=False) as other:
                assert await sample(other, live) == 8
        assert len([*(tmp_path / "tmp").glob("facescreen-*")]) == (workers != "1")

        body = {"images": [str(SAMPLES / "grace_hopper.jpg")] * 3}
        posts = [client.post("/process/process-images", json=body) for _ in range(2)]
        tasks = [asyncio.create_task(post) for post in posts]
        while await sample(client, "facescreen_work_running ") == 0:
            assert not all(task.done() for task in tasks)
        process.send_signal(signal.SIGTERM)
        assert [(await task).status_code for task in tasks] == [200] * 2
        assert await asyncio.to_thread(process.wait) == 0, (tmp_path / "log").read_text()
        assert not [*(tmp_path / "tmp").glob("facescreen-*")]
