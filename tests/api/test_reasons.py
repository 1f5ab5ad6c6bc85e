"""What is said of a value that does not fit is meant for people."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from facescreen.config import Settings
from facescreen.main import create_app
from tests.api.test_blacklist import enroll
from tests.conftest import fresh_settings, serving
from tests.painted import RED, inline, photo

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENT = create_app(Settings(_env_file=None)).openapi()
PYTHON = re.compile(r"<|Value error|\bclass\b|None\b|dictionary|UploadFile|pattern")


def choices(schema: dict[str, Any]) -> list[str] | None:
    """The names that a schema lists, whether it may be null or stands in a list."""
    if "$ref" in schema:
        return choices(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    listed: list[str] | None = schema.get("enum")
    inner = (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ()))
    return listed or next(filter(None, map(choices, inner)), None)


def enumerated() -> Iterator[tuple[str, str, str, str, list[str]]]:
    """Method, path, media type (of a body) or query, name and choices of everything that is one of some names."""
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            for parameter in operation.get("parameters", ()):
                if names := choices(parameter["schema"]):
                    yield method, path, "query", parameter["name"], names
            for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
                model = body["schema"]
                if "$ref" in model:
                    model = DOCUMENT["components"]["schemas"][model["$ref"].rpartition("/")[2]]
                for name, schema in model["properties"].items():
                    if names := choices(schema):
                        yield method, path, media_type, name, names


ENUMERATED = list(enumerated())


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return fresh_settings(tmp_path_factory.mktemp("reasons"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """One service for all that is tried here."""
    async with serving(settings) as started:
        yield started


async def told(
    client: httpx.AsyncClient, choice: tuple[str, str, str, str, list[str]], value: object
) -> dict[str, str]:
    """What is found wrong with the parameter where it has this value, or nothing."""
    method, path, place, name, _ = choice
    sent: dict[str, Any]
    if place == "query":
        sent = {"params": {name: str(value)}}
    elif place == "application/json":
        sent = {"json": {name: value}}
    else:
        sent = {"data": {name: str(value)}, "files": {"image" if "detect" in path else "images": ("a.png", photo(RED))}}
    url = path.removeprefix("/api/v1").replace("{id}", "1")
    answer = (await client.request(method.upper(), url, **sent)).json()
    faults = answer.get("errors", []) if isinstance(answer, dict) else []
    return next((fault for fault in faults if fault["location"].split(".")[1:2] == [name]), {})


async def test_there_are_choices() -> None:
    assert {name for *_, name, _ in ENUMERATED} >= {"verdict", "face_selection", "detector_backend", "distance_metric"}


@pytest.mark.parametrize("choice", ENUMERATED, ids=lambda choice: f"{choice[1]} {choice[3]}")
async def test_every_choice_is_taken_in_any_case_and_told_in_words(
    client: httpx.AsyncClient, choice: tuple[str, str, str, str, list[str]]
) -> None:
    names = choice[-1]
    for name in names:
        for spelling in (name.upper(), name.lower(), f" {name.title()} "):
            assert not await told(client, choice, spelling)
    values: list[object] = [f"{names[0]}x", "", 7, ["x"], {}]
    for wrong in values:
        if fault := await told(client, choice, wrong):
            assert not PYTHON.search(fault["detail"]), fault
    detail = (await told(client, choice, f"{names[0]}x"))["detail"]
    assert detail == f"must be one of {', '.join(names)}; the nearest one is {names[0]}"


@pytest.mark.parametrize(
    "body", [b"{", b"", b"[1]", b'{"images": 1}', b'{"images": [1]}', b'{"images": ["x"], "threshold": "a"}']
)
async def test_json_that_does_not_fit(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/process/process-images", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    for fault in answer.json()["errors"]:
        assert not PYTHON.search(fault["detail"]), fault


@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_part_without_a_file_name(client: httpx.AsyncClient, size: int) -> None:
    head = "--x\r\nContent-Disposition: form-data; name="
    body = f'{head}"name"\r\n\r\nAda\r\n{head}"images"\r\n\r\n{"x" * size}\r\n--x--\r\n'.encode()
    answer = await client.post("/blacklist/", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert answer.status_code in {400, 422}
    assert "=@photo.jpg" in answer.json()["detail"]
    assert not PYTHON.search(answer.json()["detail"])


@pytest.mark.parametrize(
    "moment", ["2099-01-01T00:00:00 01:00", "2099-01-01T00:00 0100", "2099-01-01T00:00:00.5 01:00"]
)
async def test_a_plus_that_nobody_escaped(client: httpx.AsyncClient, moment: str) -> None:
    assert (await client.post("/process/process-images", json={"images": [inline(photo(RED))]})).is_success
    for path in ("/processed-images/", "/audit/"):
        plain = await client.get(f"{path}?to={moment.replace(' ', '+')}&limit=1")
        assert plain.status_code == 200
    assert (await client.get(f"/processed-images/?to={moment.replace(' ', '+')}")).json()["total_items"] >= 1
    assert (await client.get(f"/processed-images/?from={moment.replace(' ', '+')}")).json()["total_items"] == 0


async def test_base64_of_a_pdf_is_no_path(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED))
    answer = await client.post("/detect/detect-face", json={"image": inline(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_format")
    answer = await client.post(
        "/process/process-images",
        content=json.dumps({"images": ["cam1:08:30.jpg"]}),
        headers={"content-type": "application/json"},
    )
    assert answer.json()[0]["error"]["code"] == "path_not_allowed"
