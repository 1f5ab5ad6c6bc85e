"""Answers that are files: what the OpenAPI document says of them, and in which type they come."""

import httpx
import pytest

from facescreen.config import Settings
from facescreen.main import create_app
from tests.api.test_blacklist import enroll
from tests.painted import RED, inline, photo

BYTES = "application/octet-stream"
FILES = {
    "/audit/": "application/x-ndjson",
    "/blacklist/1/images/1": "image/jpeg",
    "/processed-images/1/image": "image/jpeg",
}


@pytest.mark.parametrize("path", FILES)
async def test_a_file_comes_in_its_own_type_unless_only_bytes_are_taken(client: httpx.AsyncClient, path: str) -> None:
    await enroll(client, "Ada", photo(RED))
    await client.post("/process/process-images", json={"images": [inline(photo(RED))]})
    for accepted in ("*/*", FILES[path], f"{FILES[path]}, {BYTES}", "text/html", f"{BYTES}, */*;q=0.1"):
        answer = await client.get(path, headers={"Accept": accepted})
        assert (answer.status_code, answer.headers["content-type"]) == (200, FILES[path])
    as_bytes = await client.get(path, headers={"Accept": BYTES})
    assert as_bytes.headers["content-type"] == BYTES
    assert as_bytes.content[:2] in {b"\xff\xd8", b'{"'}


def test_every_answer_is_declared_in_a_type_that_generated_clients_know(settings: Settings) -> None:
    known = {"application/json", BYTES}
    for path, item in create_app(settings).openapi()["paths"].items():
        for method, operation in item.items():
            for status, answer in operation["responses"].items():
                content = answer.get("content", {})
                assert not content or known & {*content} or status >= "4", (method, path, status)
