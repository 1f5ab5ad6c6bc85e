"""A key that is revoked in one process is refused by all."""

import asyncio
import time

import httpx

from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.domain.access import Scope
from facescreen.services.keys import KeyService
from tests.painted_server import HANGING, ServerProcess

PROMISED = 1.0
"""Seconds after a revocation from which on no request is let in."""


async def test_every_worker_knows_of_a_revocation_within_a_second(settings: Settings) -> None:
    database = Database(settings.database_url)
    keys = KeyService(database)
    made = await keys.create({Scope.READ})
    servers = [ServerProcess(settings) for _ in range(2)]
    try:
        for server in servers:
            server.client.headers["X-API-Key"] = made.text
            await server.started()
        replaced = await keys.rotate(made.key.id)
        revoked_at = time.monotonic()
        async with asyncio.timeout(HANGING):
            await asyncio.gather(*(_refused(server.client, revoked_at) for server in servers))
        for server in servers:
            response = await server.client.get("/blacklist/", headers={"X-API-Key": replaced.text})
            assert response.status_code == 200
    finally:
        for server in servers:
            await server.aclose()
        await database.aclose()


async def _refused(client: httpx.AsyncClient, revoked_at: float) -> None:
    while True:
        begun = time.monotonic()
        response = await client.get("/blacklist/")
        if response.status_code == 401:
            return
        assert response.status_code == 200
        assert begun < revoked_at + PROMISED, "a request that was begun a second later was let in"
