"""Add, search, delete, search, each against a worker that chance picks: none is ever stale.

``WORKER_CYCLES=1000 pytest tests/concurrency`` does so often, and with the real models of ``facescreen serve`` too.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from random import Random

import httpx
import pytest

from facescreen.config import Settings
from tests.api.test_blacklist import enroll, upload
from tests.at_rest import check_disk
from tests.concurrency.test_several_processes import search
from tests.painted import photo
from tests.painted_server import HANGING, ServerProcess, listening_socket, server_process

CYCLES = int(os.environ.get("WORKER_CYCLES", "8"))
IS_LONG = CYCLES >= 1000
ACTORS, WORKERS = 4, 3


@pytest.mark.skipif(not IS_LONG, reason="test_several_processes.py does the same in short")
async def test_workers_with_sockets_of_their_own(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(server_process(settings)) for _ in range(WORKERS)]
        await _painted_cycles(lambda random: random.choice(servers).client)
    check_disk(settings)


async def test_workers_on_one_socket(settings: Settings) -> None:
    with listening_socket() as shared:
        workers = [ServerProcess(settings, socket=shared) for _ in range(WORKERS)]
        try:
            async with _no_keep_alive(workers[0].url) as client:
                (await client.get("/")).raise_for_status()
                await _painted_cycles(lambda _: client)
        finally:
            for worker in workers:
                await worker.aclose()
    check_disk(settings)


@pytest.mark.skipif(not IS_LONG, reason="it loads the models of three workers; WORKER_CYCLES=1000 does")
async def test_workers_of_the_command(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PORT": str(port),
        "WORKERS": str(WORKERS),
        "DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/data/facescreen.db",
        "BLACKLIST_DB_PATH": str(tmp_path / "blacklist_db"),
        "PROCESSED_IMAGES_OUTPUT_DIR": str(tmp_path / "processed"),
        "RATE_LIMIT_PER_ADDRESS": "",
    }
    astronaut = Path(__file__).parents[2] / "samples" / "astronaut.jpg"
    async with _command(environment), _no_keep_alive(f"http://127.0.0.1:{port}") as client:

        async def names() -> list[str]:
            response = await client.post(
                "/process/process-images", json={"images": [str(astronaut)], "threshold": 0.05}
            )
            assert response.status_code == 200, response.text
            return [match["name"] for face in response.json()[0]["faces"] for match in face["blacklist_matches"]]

        for cycle in range(CYCLES // 20):
            answer = await client.post("/blacklist/", data={"name": str(cycle)}, files=upload(astronaut.read_bytes()))
            assert answer.status_code == 201, answer.text
            assert await names() == [str(cycle)]
            assert (await client.delete(f"/blacklist/{answer.json()['id']}/")).status_code == 200
            assert await names() == []
        print(f"{CYCLES // 20} cycles, none stale")  # noqa: T201 - the figure


async def _painted_cycles(pick: Callable[[Random], httpx.AsyncClient]) -> None:
    numbers = count()

    async def act(actor: int) -> None:
        random = Random(actor)  # noqa: S311 - the same choices every time
        while (number := next(numbers)) < CYCLES:
            colour, name = (200 + 15 * actor, number % 80, number // 80 % 80), f"{actor}-{number}"
            record = await enroll(pick(random), name, photo(colour))
            version, found = await search(pick(random), colour)
            assert found == [[name]], f"{name} was not found in version {version}"
            assert (await pick(random).delete(f"/blacklist/{record['id']}/")).status_code == 200
            later, found = await search(pick(random), colour)
            assert found == [[]], f"{name} was found in version {later}"
            assert later > version

    await asyncio.gather(*map(act, range(ACTORS)))
    print(f"{CYCLES} cycles, none stale")  # noqa: T201 - the figure


def _no_keep_alive(url: str) -> httpx.AsyncClient:
    """A client whose every request may be taken by another worker."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=f"{url}/api/v1", timeout=HANGING, limits=limits, trust_env=False)


@asynccontextmanager
async def _command(environment: dict[str, str]) -> AsyncIterator[None]:
    """``facescreen serve``, once it answers."""

    async def run(*arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "facescreen", *arguments, env=environment, start_new_session=True
        )

    assert await (await run("migrate")).wait() == 0
    server = await run("serve")
    try:
        async with asyncio.timeout(HANGING), _no_keep_alive(f"http://127.0.0.1:{environment['PORT']}") as client:
            await _answering(client)
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        await server.wait()


async def _answering(client: httpx.AsyncClient) -> None:
    while True:
        try:
            (await client.get("/")).raise_for_status()
        except httpx.TransportError:
            await asyncio.sleep(0.2)  # there is no socket yet
        else:
            return
