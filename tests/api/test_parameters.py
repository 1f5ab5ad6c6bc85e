"""No operation passes over what a request gives: tried with every operation of the OpenAPI document."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from facescreen.config import Settings
from facescreen.main import create_app
from tests.api.test_blacklist import enroll
from tests.conftest import fresh_settings, serving
from tests.painted import GREEN, RED, inline, photo

pytestmark = pytest.mark.asyncio(loop_scope="module")

PREFIX = "/api/v1"
DOCUMENT = create_app(Settings(_env_file=None)).openapi()
FORM, JSON = "multipart/form-data", "application/json"


@dataclass(frozen=True)
class Described:
    """An operation as the document has it; of each parameter whether it is a list."""

    method: str
    path: str
    query: dict[str, bool]
    bodies: dict[str, dict[str, bool]]

    @property
    def url(self) -> str:
        return (
            self.path.replace("{name}", "default").replace("{id}", "1").replace("{n}", "0").replace("{image_id}", "1")
        )


def described() -> Iterator[Described]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            query = {
                parameter["name"]: parameter["schema"].get("type") == "array"
                for parameter in operation.get("parameters", ())
                if parameter["in"] == "query"
            }
            content = operation.get("requestBody", {}).get("content", {})
            bodies = {kind: dict(_fields(body["schema"])) for kind, body in content.items()}
            yield Described(method.upper(), path.removeprefix(PREFIX), query, bodies)


def _fields(schema: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    own = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    assert own["additionalProperties"] is False
    for name, field in own["properties"].items():
        yield name, field.get("type") == "array"


OPERATIONS = [pytest.param(each, id=f"{each.method} {each.path}") for each in described()]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return fresh_settings(tmp_path_factory.mktemp("parameters"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """One service for all that is tried here."""
    async with serving(settings) as started:
        yield started


def multipart(*fields: str) -> dict[str, Any]:
    parts = "".join(f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n1\r\n' for name in fields)
    return {"content": f"{parts}--x--\r\n".encode(), "headers": {"content-type": f"{FORM}; boundary=x"}}


def document(text: str) -> dict[str, Any]:
    return {"content": text.encode(), "headers": {"content-type": JSON}}


async def refused(
    client: httpx.AsyncClient, operation: Described, query: Sequence[tuple[str, str]], **body: Any
) -> list[dict[str, str]]:
    """The faults that the operation finds."""
    if operation.bodies and not body:
        body = document("{}") if JSON in operation.bodies else multipart()
    response = await client.request(operation.method, operation.url, params=tuple(query), **body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request"), response.text
    faults: list[dict[str, str]] = response.json()["errors"]
    return faults


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_queries(client: httpx.AsyncClient, operation: Described) -> None:
    (fault,) = await refused(client, operation, [("nonsense_of_nobody", "1")])
    assert (fault["location"], fault["code"]) == ("query.nonsense_of_nobody", "unknown_parameter")
    for name, is_list in operation.query.items():
        (fault,) = await refused(client, operation, [(f"{name}x", "1")])
        assert fault["code"] == "unknown_parameter"
        assert fault["detail"].endswith(f"the nearest one is `{name}`")
        if not is_list:
            (fault,) = await refused(client, operation, [(name, "1"), (name, "1")])
            assert (fault["location"], fault["code"]) == (f"query.{name}", "repeated_parameter")
    for name in {name for fields in operation.bodies.values() for name in fields} - set(operation.query):
        (fault,) = await refused(client, operation, [(name, "1")])
        assert (fault["location"], fault["code"]) == (f"query.{name}", "misplaced_parameter")


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_bodies(client: httpx.AsyncClient, operation: Described) -> None:
    if not operation.bodies:
        for body in (multipart("collection"), document('{"collection": "visitors"}')):
            (fault,) = await refused(client, operation, [], **body)
            assert (fault["location"], fault["code"]) == ("body", "misplaced_parameter")
    for kind, fields in operation.bodies.items():
        for name, is_list in fields.items():
            sent = multipart(f"{name}x") if kind == FORM else document(json.dumps({f"{name}x": 1}))
            (fault,) = [each for each in await refused(client, operation, [], **sent) if each["code"] != "missing"]
            assert (fault["location"], fault["code"]) == (f"body.{name}x", "unknown_parameter")
            assert fault["detail"].endswith(f"the nearest one is `{name}`")
            if not is_list or kind == JSON:
                sent = multipart(name, name) if kind == FORM else document(f'{{"{name}": 1, "{name}": 1}}')
                (fault,) = await refused(client, operation, [], **sent)
                assert f"`{name}` is given more than once" in fault["detail"] or fault["code"] == "repeated_parameter"
        for name in set(operation.query) - set(fields):
            sent = multipart(name) if kind == FORM else document(json.dumps({name: 1}))
            (fault,) = [each for each in await refused(client, operation, [], **sent) if each["code"] != "missing"]
            assert (fault["location"], fault["code"]) == (f"body.{name}", "misplaced_parameter")
            assert "in the query" in fault["detail"]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("colection=visitors", "there is no query parameter `colection`; the nearest one is `collection`"),
        ("Collection=visitors", "there is no query parameter `Collection`; the nearest one is `collection`"),
        ("collection=a&collection=a", "is given 2 times, and only one value can count; give it once"),
        ("X-API-Key=fsk_1", "`X-API-Key` belongs in a header, not in the query, after the `?`"),
        ("id=2", "`id` belongs in the path, not in the query, after the `?`"),
        ("_=1", "there is no query parameter `_`; the operation takes `collection`"),
        ("%F0%9F%92%A9%00=1", "there is no query parameter `\N{PILE OF POO}\N{REPLACEMENT CHARACTER}`"),
    ],
)
async def test_nothing_is_deleted_from_the_wrong_list(client: httpx.AsyncClient, query: str, told: str) -> None:
    entry = (await enroll(client, "Ada", photo(RED)))["id"]
    for answer in (
        await client.delete(f"/blacklist/{entry}/?{query}"),
        await client.delete(f"/blacklist/{entry}?{query}"),
    ):
        (fault,) = answer.json()["errors"]
        assert fault["detail"].startswith(told)
        assert fault["detail"] in answer.json()["detail"]
    assert (await client.get(f"/blacklist/{entry}/")).is_success


@pytest.mark.parametrize(
    ("fields", "query", "told"),
    [
        (
            {"reject_duplicate": "true"},
            "",
            "body.reject_duplicate: there is no form field `reject_duplicate`; the nearest one is ",
        ),
        ({"expire_at": "2099-01-01T00:00:00Z"}, "", "the nearest one is `expires_at`"),
        ({"collection": "visitors"}, "", "`collection` belongs in the query, after the `?`, not in the form"),
        ({}, "?reject_duplicates=true", "`reject_duplicates` belongs in the form, not in the query"),
        ({}, "?reject_duplicate=true", "; the nearest one is the form field `reject_duplicates`"),
        ({"reason": ["a", "b"]}, "", "body.reason: is given 2 times"),
    ],
)
async def test_nobody_is_enrolled_otherwise_than_was_asked(
    client: httpx.AsyncClient, fields: dict[str, Any], query: str, told: str
) -> None:
    before = (await client.get("/blacklist/")).headers["x-total-count"]
    files = [("images", ("a.png", photo(RED), "image/png")), ("images", ("b.png", photo(GREEN), "image/png"))]
    answer = await client.post(f"/blacklist/{query}", data={"name": "Ada", **fields}, files=files)
    assert answer.status_code == 422
    assert told in answer.json()["detail"]
    assert (await client.get("/blacklist/")).headers["x-total-count"] == before


async def test_results_of_several_verdicts_entries_and_collections(client: httpx.AsyncClient) -> None:
    await client.post("/collections/", json={"name": "night"})
    entry = (await enroll(client, "Ada", photo(GREEN)))["id"]
    for collection, colour in (("default", GREEN), ("default", RED), ("night", GREEN)):
        body = {"images": [inline(photo(colour))], "collection": collection, "review_threshold": 0.05}
        assert (await client.post("/process/process-images", json=body)).is_success

    async def found(query: str) -> int:
        return int((await client.get(f"/processed-images/?{query}")).json()["total_items"])

    default = await found("collection=default")
    assert (
        await found("verdict=match") + await found("verdict=clear") == await found("verdict=match&verdict=CLEAR") == 3
    )
    assert await found("collection=default&collection=night") == default + 1
    assert await found(f"entry={entry}&entry=999999") == await found(f"entry={entry}") == 1
    many = "&".join(f"entry={number}" for number in range(1, 102))
    assert (await client.get(f"/processed-images/?{many}")).status_code == 422
