"""Every path with and without its trailing slash."""

import logging

import httpx
import pytest

from facescreen.config import Settings
from tests.api.test_access import operations
from tests.conftest import serving


async def test_either_spelling_reaches_the_same_operation(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "facescreen.api.middleware")
    async with serving(settings) as client:
        for asked in operations(settings):
            bare = asked.filled.rstrip("/")
            for spelling in (bare, f"{bare}/"):
                caplog.clear()
                response = await client.request(asked.method, f"http://127.0.0.1{spelling}")
                (logged,) = (vars(record) for record in caplog.records if record.message == "request")
                assert logged["route"] == asked.path, spelling
                assert response.status_code != 405, spelling


@pytest.mark.parametrize(
    ("method", "path", "allowed"), [("GET", "/blacklist/sync", "POST"), ("DELETE", "/blacklist/report", "GET, HEAD")]
)
@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_name_is_no_id_for_other_methods_either(
    client: httpx.AsyncClient, method: str, path: str, allowed: str, slash: str
) -> None:
    refused = await client.request(method, path + slash)
    assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
