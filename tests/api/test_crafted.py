"""Every crafted file, sent to everything that takes a picture: a result or a named error, soon, and nobody is hurt."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest

from facescreen.config import Settings
from tests.api.test_blacklist import upload
from tests.images.crafted import crafted, texts
from tests.painted import RED, inline, photo
from tests.painted_server import ServerProcess, server_process

SLOWEST = 2.0
"""Seconds of processor time for the three answers together."""

MOST_MEMORY = 400_000_000
"""Bytes that the server grows by at most, with 4 million pixels allowed."""

NAMED = {
    "image_too_large",
    "image_undecodable",
    "unsupported_format",
    "invalid_base64",
    "path_not_allowed",
    "url_not_allowed",
    "no_face",
    "several_faces",
    "face_unusable",
    "photo_quality",
    "duplicate_image",
    "enrollment_rejected",
}


async def detect(client: httpx.AsyncClient, data: bytes) -> httpx.Response:
    return await client.post(
        "/detect/detect-face", json={"image": f"data:,{inline(data)}" if not data else inline(data)}
    )


async def process(client: httpx.AsyncClient, data: bytes) -> httpx.Response:
    return await client.post("/process/process-images", json={"images": [inline(data) or "data:,"]})


async def enroll(client: httpx.AsyncClient, data: bytes) -> httpx.Response:
    return await client.post("/blacklist/", data={"name": "Mallory"}, files=upload(data))


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[ServerProcess]:
    tight = settings.model_copy(update={"max_image_pixels": 4_000_000})
    async with server_process(tight) as started:
        yield started


def faults(response: httpx.Response) -> list[str]:
    """The codes of everything that an answer complains about."""
    body = response.json()
    if isinstance(body, list):
        return [item["error"]["code"] for item in body if item.get("error")]
    return [body["code"], *(fault["code"] for fault in body["errors"])] if "code" in body else []


def memory(process: psutil.Process) -> int:
    """The most that it ever had, in bytes."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


async def test_crafted_files(server: ServerProcess) -> None:
    worker = psutil.Process(server.pid)
    before = memory(worker)
    for name, data in crafted().items():
        used = worker.cpu_times().user
        answers = await asyncio.gather(*(ask(server.client, data) for ask in (detect, process, enroll)))
        for response in answers:
            assert response.status_code < 500, name
            assert set(faults(response)) <= NAMED, (name, response.text[:500])
            assert response.is_success or faults(response), name
        assert worker.cpu_times().user - used <= SLOWEST, name
        if answers[2].is_success:
            await server.client.delete(f"/blacklist/{answers[2].json()['id']}/")
    assert memory(worker) - before <= MOST_MEMORY
    assert all([(await ask(server.client, photo(RED))).is_success for ask in (detect, process, enroll)])


async def test_crafted_texts(server: ServerProcess) -> None:
    for name, text in texts().items():
        for path, body in (("/detect/detect-face", {"image": text}), ("/process/process-images", {"images": [text]})):
            response = await server.client.post(path, json=body)
            assert response.status_code < 500, name
            assert faults(response), name
            assert set(faults(response)) <= NAMED, (name, response.text[:500])
            assert len(response.content) < 20_000, name
