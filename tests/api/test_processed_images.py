"""Stored results as reviewers read them."""

import io
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from facescreen.config import Settings
from tests.api.test_blacklist import enroll, files
from tests.api.test_process import process
from tests.painted import GREEN, RED, inline, photo


async def page(client: httpx.AsyncClient, **query: str | int | list[str]) -> dict[str, Any]:
    response = await client.get("/processed-images/", params=query)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def ids(client: httpx.AsyncClient, **query: str | int | list[str]) -> list[int]:
    return [item["id"] for item in (await page(client, **query))["items"]]


async def test_results_are_paged_newest_first(client: httpx.AsyncClient) -> None:
    results = [(await process(client, inline(photo(RED))))[0] for _ in range(12)]
    newest = [result["id"] for result in results[::-1]]
    first = await page(client)
    assert first["total_items"] == 12
    assert first["items"][0] == results[-1]
    assert await ids(client) == newest[:10]
    assert await ids(client, offset=10) == newest[10:]
    assert await ids(client, limit=3, offset=2) == newest[2:5]


async def test_results_are_filtered(client: httpx.AsyncClient) -> None:
    ada = await enroll(client, "Ada", photo(RED))
    eve = await enroll(client, "Eve", photo(GREEN))
    red, green, both, nobody, bad = await process(
        client, *map(inline, (photo(RED), photo(GREEN), photo(RED, GREEN), photo((230, 230, 20)))), "no/such.jpg"
    )
    assert await ids(client, matched_only="true") == [both["id"], green["id"], red["id"]]
    assert await ids(client, entry=ada["id"]) == [both["id"], red["id"]]
    assert await ids(client, entry=eve["id"], verdict="match", limit=1) == [both["id"]]
    assert await ids(client, verdict="clear") == [nobody["id"]]
    assert bad["id"] in await ids(client)
    now = datetime.now(UTC).isoformat()
    assert (await page(client, **{"from": now}))["total_items"] == 0
    assert (await page(client, to=now))["total_items"] == 5
    assert (await page(client, **{"from": red["created_at"], "to": now.replace("+00:00", "")}))["total_items"] == 5


async def test_an_image_has_the_gravest_verdict_of_its_faces(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED))
    results = await process(client, *map(inline, (photo(RED, GREEN), photo(GREEN), photo())), "no/such.jpg")
    assert [result["verdict"] for result in results] == ["match", "clear", "no_face", None]
    matched, clear, empty, _ = (result["id"] for result in results)
    assert await ids(client, verdict="no_face") == [empty]
    assert await ids(client, verdict=["no_face", "clear"]) == [empty, clear, matched]


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 1001}, {"offset": -1}, {"verdict": "maybe"}, {"from": "yesterday"}, {"offset": 2**63}],
)
async def test_a_wrong_page_is_refused(client: httpx.AsyncClient, query: dict[str, str | int]) -> None:
    assert (await client.get("/processed-images/", params=query)).json()["code"] == "invalid_request"


async def test_one_result_is_read_and_deleted_with_its_copy(client: httpx.AsyncClient, settings: Settings) -> None:
    (result,) = await process(client, inline(photo(RED)))
    url = f"/processed-images/{result['id']}"
    assert (await client.get(url)).json() == result
    assert len(files(settings.processed_images_output_dir)) == 1
    assert (await client.delete(url)).status_code == 204
    assert files(settings.processed_images_output_dir) == []
    for response in (await client.get(url), await client.get(f"{url}/image"), await client.delete(url)):
        assert (response.status_code, response.json()["code"]) == (404, "result_not_found")


async def test_the_picture_is_the_upright_copy_and_the_annotated_one_is_drawn_on(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED))
    (result,) = await process(client, inline(photo(RED, GREEN)))
    url = f"/processed-images/{result['id']}/image"
    plain, drawn = await client.get(url), await client.get(url, params={"annotated": "true"})
    assert plain.headers["content-type"] == drawn.headers["content-type"] == "image/jpeg"
    before, after = (np.asarray(Image.open(io.BytesIO(r.content)).convert("RGB")) for r in (plain, drawn))
    original = np.asarray(Image.open(io.BytesIO(photo(RED, GREEN))))
    assert before.shape == after.shape == original.shape
    assert np.abs(before.astype(int) - original).mean() < 3
    assert np.abs(after.astype(int) - before).mean() > 3


async def test_copies_carry_no_metadata_and_are_upright(client: httpx.AsyncClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[1] = "N"
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo(RED, GREEN))).save(buffer, "JPEG", exif=exif)
    (result,) = await process(client, inline(buffer.getvalue()))
    copy = Image.open(io.BytesIO((await client.get(f"/processed-images/{result['id']}/image")).content))
    assert copy.size == (128, 256)
    assert not copy.getexif()


async def test_a_refused_image_has_no_picture(client: httpx.AsyncClient) -> None:
    (result,) = await process(client, "no/such.jpg")
    response = await client.get(f"/processed-images/{result['id']}/image")
    assert response.json()["code"] == "result_not_found"
