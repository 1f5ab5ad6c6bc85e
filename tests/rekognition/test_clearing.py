"""Rekognition gives no embeddings, so no face is cleared of being somebody."""

import httpx

from tests.api.test_blacklist import enroll
from tests.api.test_process import process
from tests.painted import RED, inline, photo


async def test_no_face_can_be_cleared(client: httpx.AsyncClient) -> None:
    ada = await enroll(client, "Ada", photo(RED))
    (result,) = await process(client, inline(photo(RED)))
    url = f"/processed-images/{result['id']}/faces/0/clear"
    refused = await client.post(url, json={"entry_id": ada["id"]})
    assert (refused.status_code, refused.json()["code"]) == (422, "option_not_available")
    undone = await client.delete(url, params={"entry_id": ada["id"]})
    assert (undone.status_code, undone.json()["code"]) == (404, "clearance_not_found")
