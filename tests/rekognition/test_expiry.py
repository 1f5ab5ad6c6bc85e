"""Who has expired matches nobody where Rekognition searches, and a sweep withdraws it there too."""

import httpx

from facescreen.config import Settings
from facescreen.services.retention import Kind
from tests.api.test_blacklist import enroll, matches
from tests.api.test_expiry import LATER, expire
from tests.painted import GREEN, RED, photo
from tests.rekognition.sides import Aws, inside


async def test_who_has_expired_matches_nobody_and_goes(client: httpx.AsyncClient, settings: Settings, aws: Aws) -> None:
    ada = await enroll(client, "Ada", photo(RED), expires_at=LATER)
    await enroll(client, "Eve", photo(GREEN))
    assert [match["name"] for match in await matches(client, photo(RED))] == ["Ada"]
    await expire(settings, ada)
    assert await matches(client, photo(RED)) == []
    retention = inside(client).retention
    assert (await retention.sweep())[Kind.ENTRIES] == 1
    assert [entry["name"] for entry in (await client.get("/blacklist/")).json()] == ["Eve"]
    assert [match["name"] for match in await matches(client, photo(GREEN))] == ["Eve"]
    assert [len(side) for side in (aws.objects(), aws.faces(), aws.users())] == [1, 1, 1]
