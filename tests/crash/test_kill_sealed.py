"""Kill -9 with encryption at rest: no key is lost, and none outlives what it encrypts.

``CRASH_ROUNDS=200 pytest tests/crash`` kills at every single step instead of every ninth.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from facescreen.config import Settings
from facescreen.factory import open_encryption, open_services
from tests.api.test_blacklist import enroll
from tests.at_rest import is_readable
from tests.crash.mortal import HEADER, Mortal
from tests.painted import BLUE, RED, PaintedBackend, inline, photo
from tests.painted_server import ServerProcess

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "8"))
STRIDE = 1 if ROUNDS >= 100 else 9


async def add_person(client: httpx.AsyncClient) -> None:
    await enroll(client, "Eve", photo(BLUE))


async def screen(client: httpx.AsyncClient) -> None:
    response = await client.post("/process/process-images", json={"images": [inline(photo(RED, BLUE))]})
    assert response.status_code == 200


async def delete_person(client: httpx.AsyncClient) -> None:
    for entry in (await client.get("/blacklist/")).json()[1:]:
        await client.delete(f"/blacklist/{entry['id']}/")


async def delete_result(client: httpx.AsyncClient) -> None:
    for result in (await client.get("/processed-images/")).json()["items"]:
        await client.delete(f"/processed-images/{result['id']}")


@asynccontextmanager
async def _server(settings: Settings) -> AsyncIterator[ServerProcess]:
    server = ServerProcess(settings, Mortal)
    try:
        await server.started()
        yield server
    finally:
        await server.aclose()


@pytest.mark.parametrize("action", [add_person, screen, delete_person, delete_result], ids=lambda each: each.__name__)
async def test_keys_and_data_agree_after_a_kill_at_every_step(
    settings: Settings, tmp_path: Path, action: Callable[[httpx.AsyncClient], Awaitable[None]]
) -> None:
    settings = settings.model_copy(update={"encryption_key_dir": tmp_path / "keys"})
    answered, steps = False, 0
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(_server(settings))
        await enroll(server.client, "Ada", photo(RED))
        while not answered:
            for prepare in (add_person, screen):
                await prepare(server.client)
            server.client.headers[HEADER] = str(steps)
            try:
                await action(server.client)
                answered = True
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                pass
            server.kill()
            server = await stack.enter_async_context(_server(settings))
            async with open_services(settings, PaintedBackend()) as services:
                assert [finding async for finding in services.audit.audit(fix=False)] == []
            async with open_encryption(settings) as encryption:
                status = await encryption.status()
            assert sum(status.masters.wrapped.values()) == sum(each.total for each in status.files.values())
            assert not is_readable(settings, RED)
            assert not is_readable(settings, BLUE)
            steps += STRIDE
    assert steps > STRIDE
