"""Several at once, callers that go away, and processes that die."""

import asyncio
import math
import os
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.db.files import FileName, StoreName
from facescreen.pool import WorkPool
from facescreen.services.files import StoredFiles
from facescreen.services.presence import Presence
from facescreen.services.register import Register
from tests.api.test_blacklist import enroll, matches, upload
from tests.loopback_aws import CREDENTIALS
from tests.painted import BLUE, GREEN, RED, YELLOW, Colour, photo
from tests.painted_server import ServerProcess
from tests.rekognition.agreement import check_sides
from tests.rekognition.sides import Aws, inside
from tests.rekognition_server import ACCESS_DENIED, Silence


def post(client: httpx.AsyncClient, name: str, *colours: Colour) -> Any:
    return client.post("/blacklist/", data={"name": name}, files=upload(*map(photo, colours)))


def codes(responses: list[httpx.Response]) -> list[int]:
    return sorted(response.status_code for response in responses)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Where the first attempt of a call that hangs is over soon, and the next ones have all the time they need."""
    return settings.model_copy(update={"aws_read_timeout_seconds": 2})


async def test_many_are_enrolled_and_withdrawn_at_once(client: httpx.AsyncClient, settings: Settings, aws: Aws) -> None:
    records = await asyncio.gather(*(enroll(client, f"{n}", photo(RED, side=64 + n)) for n in range(8)))
    assert check_sides(settings, aws) == {record["name"]: 1 for record in records}
    gone, kept = records[:4], records[4:]
    responses = await asyncio.gather(
        *(client.delete(f"/blacklist/{record['id']}/") for record in gone),
        *(client.post(f"/blacklist/{record['id']}/images", files=upload(photo(GREEN))) for record in kept),
        *(post(client, "more", BLUE) for _ in range(4)),
    )
    assert codes(responses) == [200] * 8 + [201] * 4
    found = {match["name"] for match in await matches(client, photo(GREEN))}
    assert found == {record["name"] for record in kept}
    assert check_sides(settings, aws) == {record["name"]: 2 for record in kept} | {"more": 1}


async def test_photos_for_one_person_at_once(client: httpx.AsyncClient, settings: Settings, aws: Aws) -> None:
    record = await enroll(client, "Ada", photo(RED))
    url = f"/blacklist/{record['id']}/images"
    same, other, another = photo(GREEN), photo(BLUE), photo(YELLOW)
    responses = await asyncio.gather(*(client.post(url, files=upload(p)) for p in (same, same, same, other, another)))
    assert codes(responses)[:3] == [200] * 3
    assert {response.status_code for response in responses} <= {200, 409, 422}
    assert check_sides(settings, aws) == {"Ada": 4}


async def test_one_person_is_withdrawn_by_several(client: httpx.AsyncClient, settings: Settings, aws: Aws) -> None:
    record = await enroll(client, "Ada", photo(RED), photo(GREEN))
    async with process(settings) as other:
        responses = await asyncio.gather(
            *(each.delete(f"/blacklist/{record['id']}/") for each in (client, other.client) * 2)
        )
    assert set(codes(responses)) <= {200, 404}
    assert 200 in codes(responses)
    assert check_sides(settings, aws) == {}


@asynccontextmanager
async def enrolling(client: httpx.AsyncClient, aws: Aws) -> AsyncIterator["asyncio.Task[httpx.Response]"]:
    """An enrollment of Ada that has got as far as IndexFaces."""
    struck = aws.rekognition.fail("IndexFaces", Silence.HANG)
    task = asyncio.create_task(post(client, "Ada", RED))
    assert await asyncio.to_thread(struck.wait, 20)
    yield task
    with suppress(asyncio.CancelledError):
        await task


async def test_who_is_being_enrolled_cannot_be_withdrawn_yet(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    async with process(settings) as server, enrolling(client, aws) as task:
        (record,) = (await client.get("/blacklist/")).json()
        assert record["status"] == "pending"
        assert await inside(client).register.abandoned() == []
        for each in (client, server.client):
            refused = await each.delete(f"/blacklist/{record['id']}/")
            assert (refused.status_code, refused.json()["code"]) == (409, "entry_pending")
            health = (await each.get("/")).json()
            assert (health["entries"], health["reference_images"]) == (0, 0)
        assert (await task).status_code == 201
    assert check_sides(settings, aws) == {"Ada": 1}
    assert (await client.delete(f"/blacklist/{record['id']}/")).status_code == 200


async def test_an_enrollment_that_goes_on_is_not_finished_by_others(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    async with enrolling(client, aws) as task:
        (record,) = (await client.get("/blacklist/")).json()
        entry = await inside(client).blacklist.get("default", record["id"])
        assert not await inside(client).register.finish(entry)
        assert (await task).status_code == 201
    assert check_sides(settings, aws) == {"Ada": 1}


class Late(StoredFiles):
    """Asked who writes, it waits for something else first."""

    first: Awaitable[Any]

    async def are_being_written(self, names: Iterable[FileName]) -> bool:
        await self.first
        return await super().are_being_written(names)


async def test_an_enrollment_that_ends_while_it_is_looked_at_is_not_abandoned(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    database = Database(settings.database_url)
    with closing(Presence(database.path)) as presence, closing(WorkPool(threads=1)) as pool:
        stored = Late(database, {}, presence)
        register = Register(
            database=database,
            stored=stored,
            pool=pool,
            detector="",
            gallery=None,
            answering=None,
            copies_to=[StoreName.BUCKET],
            folder=settings.blacklist_db_path,
        )
        async with enrolling(client, aws) as stored.first:
            assert await register.abandoned() == []
    await database.aclose()
    assert check_sides(settings, aws) == {"Ada": 1}


@pytest.mark.parametrize("fails", [False, True])
async def test_an_enrollment_whose_caller_is_gone_is_finished_or_taken_back(
    client: httpx.AsyncClient, settings: Settings, aws: Aws, fails: bool
) -> None:
    async with enrolling(client, aws) as task:
        if fails:
            aws.rekognition.fail("IndexFaces", ACCESS_DENIED, times=math.inf)
        task.cancel()
    await inside(client).register.aclose()
    assert check_sides(settings, aws) == ({} if fails else {"Ada": 1})


async def test_a_collection_that_goes_takes_along_who_is_being_enrolled(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    await client.post("/collections/", json={"name": "staff"})
    struck = aws.rekognition.fail("IndexFaces", Silence.HANG)
    into = {"collection": "staff"}
    task = asyncio.create_task(client.post("/blacklist/", params=into, data={"name": "Ada"}, files=upload(photo(RED))))
    assert await asyncio.to_thread(struck.wait, 20)
    assert (await client.delete("/collections/staff/")).status_code == 204
    assert (await task).status_code == 503
    assert check_sides(settings, aws) == {}


def with_credentials(app: ASGIApp) -> ASGIApp:
    """Servers are forked from a process that may have been there before the credentials."""
    os.environ.update(CREDENTIALS)
    return app


@asynccontextmanager
async def process(settings: Settings) -> AsyncIterator[ServerProcess]:
    server = ServerProcess(settings, with_credentials, backend=None)
    try:
        await server.started()
        yield server
    finally:
        await server.aclose()


async def test_several_recover_at_once(client: httpx.AsyncClient, settings: Settings, aws: Aws) -> None:
    record = await enroll(client, "Ada", photo(RED), photo(GREEN))
    aws.rekognition.fail("DeleteFaces", ACCESS_DENIED)
    assert (await client.delete(f"/blacklist/{record['id']}/")).status_code == 503
    servers = [ServerProcess(settings, with_credentials, backend=None) for _ in range(3)]
    await asyncio.gather(*(server.started() for server in servers))
    assert check_sides(settings, aws) == {}
    for server in servers:
        await server.aclose()


ENROLLMENT = (("PUT", 1), ("CreateUser", 0), ("IndexFaces", 1), ("AssociateFaces", 0))
REMOVAL = (("DisassociateFaces", 0), ("DeleteFaces", 0), ("DeleteUser", 0), ("DELETE", 1))
"""What hangs when a server dies, after how many calls that do not."""


async def test_kill_in_the_middle(settings: Settings, aws: Aws) -> None:
    settings = settings.model_copy(update={"aws_read_timeout_seconds": 60, "aws_deadline_seconds": 120})
    for where, after in (*ENROLLMENT, *REMOVAL):
        async with process(settings) as server:
            # Whatever the one before left half done was finished or taken back by this start.
            assert check_sides(settings, aws) == {}
            if (where, after) in REMOVAL:
                ada = await enroll(server.client, "Ada", photo(RED), photo(GREEN))
                request = server.client.delete(f"/blacklist/{ada['id']}/")
            else:
                request = post(server.client, "Ada", RED, GREEN)
            side: Any = aws.s3 if where.isupper() else aws.rekognition
            struck = side.fail(where, Silence.HANG, after=after)
            task = asyncio.create_task(request)
            assert await asyncio.to_thread(struck.wait, 20)
            server.kill()
            with pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError)):
                await task
    async with process(settings):
        assert check_sides(settings, aws) == {}
