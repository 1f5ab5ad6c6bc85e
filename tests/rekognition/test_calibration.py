"""Where Rekognition compares faces there are no distances to calibrate."""

import httpx
import pytest


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_there_is_nothing_to_calibrate(client: httpx.AsyncClient, method: str) -> None:
    refused = await client.request(method, "/collections/default/calibration")
    assert (refused.status_code, refused.json()["code"]) == (422, "option_not_available")
