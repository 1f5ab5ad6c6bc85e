"""Bodies, parameters and headers that are anything but what the schema says."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest
import pytest_asyncio

from facescreen.api.admission import Room
from facescreen.api.bodies import MAX_FORM_FIELD_BYTES, MAX_FORM_FIELDS, MAX_FORM_FILES, MAX_JSON_VALUES
from facescreen.config import Settings
from facescreen.errors import OverloadedError
from facescreen.main import create_app
from tests.api.test_access import Body, application, operations, reach
from tests.api.test_blacklist import enroll
from tests.conftest import fresh_settings, serving
from tests.painted import GREEN, RED, inline, photo
from tests.painted_server import HANGING

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROCESS = "/process/process-images"
JSON = {"content-type": "application/json"}
FORM_TYPE = "multipart/form-data; boundary=x"
PICTURE = b'Content-Disposition: form-data; name="images"; filename="a.png"\r\nContent-Type: image/png'


def field(name: str, value: bytes) -> tuple[bytes, bytes]:
    return f'Content-Disposition: form-data; name="{name}"'.encode(), value


def form(*parts: tuple[bytes, bytes]) -> bytes:
    return b"".join(b"--x\r\n" + head + b"\r\n\r\n" + body + b"\r\n" for head, body in parts) + b"--x--\r\n"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return fresh_settings(tmp_path_factory.mktemp("bodies"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """One service for all that is tried here."""
    async with serving(settings) as started:
        yield started


async def sent(client: httpx.AsyncClient, body: bytes) -> httpx.Response:
    return await client.post("/blacklist/", content=body, headers={"content-type": FORM_TYPE})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"null", 422),
        (b"[]", 422),
        (b'"x.jpg"', 422),
        (b"{", 422),
        (b'{"images": ["x.jpg"]} {}', 422),
        (b'{"images": ["\xff\xfe"]}', 400),
        (b'{"images": ["x.jpg"], "threshold": NaN}', 422),
        (b'{"images": ["x.jpg"], "threshold": -Infinity}', 422),
        (b'{"images": ["x.jpg"], "threshold": 1e400}', 422),
        (b'{"images": ["x.jpg"], "threshold": %s}' % (b"9" * 400), 422),
        (b'{"images": ["x.jpg"], "threshold": %s}' % (b"9" * 5_000), 400),
        (b'{"images": ["x.jpg"], "threshold": "0.1"}', 422),
        (b'{"images": ["x.jpg"], "threshold": true}', 422),
        (b'{"images": "x.jpg"}', 422),
        (b'{"images": {"0": "x.jpg"}}', 422),
        (b'{"images": ["\\ud800.jpg"]}', 422),
        (b'{"images": ["x.jpg"], "collection": "\\udfff"}', 422),
        (b'{"images": ["x.jpg"], "\\ud800": 1}', 422),
        (b'{"images": ["x.jpg"], "__proto__": {}}', 422),
        (b'{"images": %s%s}' % (b"[" * 900, b"]" * 900), 422),
        (b'{"images": %s%s}' % (b"[" * 100_000, b"]" * 100_000), 400),
        (b'{"a": ' * 100_000, 400),
        (b'{"images": ["x.jpg"], "images": ["y.jpg"]}', 422),
    ],
)
async def test_json(client: httpx.AsyncClient, body: bytes, status: int) -> None:
    response = await client.post(PROCESS, content=body, headers=JSON)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == {400: "malformed_request", 422: "invalid_request"}[status]


WRONG_BODIES: list[tuple[str, list[tuple[str, str]], str]] = [
    *(
        (path, [("content-type", given)] if given else [], said)
        for path in (PROCESS, "/detect/detect-face", "/collections/", "/blacklist/", "/blacklist/1/images")
        for given, said in {
            "": "does not say in one `Content-Type`",
            "text/json": "the body is text/json;",
            "text/plain": "the body is text/plain;",
            "application/json5": "the body is application/json5;",
            "application/x-www-form-urlencoded": "the body is application/x-www-form-urlencoded;",
            "multipart/mixed; boundary=x": "the body is multipart/mixed;",
            ";;;=": "`Content-Type",
        }.items()
    ),
    ("/collections/", [("content-type", FORM_TYPE)], "the body is multipart/form-data; send JSON"),
    ("/blacklist/", [("content-type", "application/json")], "the body is application/json; send a form"),
    (PROCESS, [("content-type", "application/json")] * 2, "does not say in one `Content-Type`"),
    *(
        (path, [("content-type", f"{own}; charset={charset}")], f"in the charset {charset};")
        for path, own in ((PROCESS, "application/json"), (PROCESS, FORM_TYPE), ("/blacklist/", FORM_TYPE))
        for charset in ("iso-8859-1", "UTF-16", "windows-1252", "undefined", "unicode_escape", "utf-7", "zlib")
    ),
    *(
        (path, [("content-type", own), ("content-encoding", coding)], f"compressed (Content-Encoding: {coding})")
        for path, own in ((PROCESS, "application/json"), ("/blacklist/", FORM_TYPE))
        for coding in ("gzip", "deflate", "br", "zstd", "identity, gzip")
    ),
]


@pytest.mark.parametrize(("path", "headers", "said"), WRONG_BODIES)
@pytest.mark.parametrize("keyed", [[], [("idempotency-key", "k")]], ids=["", "keyed"])
async def test_a_body_that_cannot_be_read_is_refused_unread_with_what_to_send(
    client: httpx.AsyncClient, path: str, headers: list[tuple[str, str]], said: str, keyed: list[tuple[str, str]]
) -> None:
    body = Body()
    response = await client.post(path, content=body.stream(), headers=[*headers, *keyed])
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type"), response.text
    detail = response.json()["detail"]
    takes_form = "collections" not in path
    is_form = path == PROCESS and any(value.startswith("multipart/form-data") for _, value in headers)
    takes_json = "blacklist" not in path and not is_form
    assert said in detail
    assert ("`Content-Type: application/json`" in detail) == takes_json
    assert ("`Content-Type: multipart/form-data`" in detail) == takes_form
    assert not body.is_read


@pytest.mark.parametrize(
    "given",
    [
        "application/json",
        "Application/JSON; charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/vnd.gate+json",
        "application/json; charset=us-ascii",
    ],
)
async def test_spellings_of_json_that_are_taken(client: httpx.AsyncClient, given: str) -> None:
    headers = {"content-type": given, "content-encoding": "identity"}
    response = await client.post(PROCESS, content=b'{"images": ["x.jpg"]}', headers=headers)
    assert response.status_code == 200, response.text


async def test_json_that_cannot_be_parsed_is_told_why(client: httpx.AsyncClient) -> None:
    for body, said in (
        ('{"images": ["josé.jpg"]}'.encode("latin-1"), "not in UTF-8"),
        (b"[" * 9_000, "nested too deeply"),
        (b"9" * 5_000, "too many digits"),
    ):
        response = await client.post(PROCESS, content=body, headers=JSON)
        assert (response.status_code, response.json()["code"]) == (400, "malformed_request")
        assert said in response.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"images": [1] * (MAX_JSON_VALUES - 100)},
        {"images": ["x.jpg"], **{f"unknown{number}": 1 for number in range(MAX_JSON_VALUES - 100)}},
        {"images": ["x.jpg"], "u" * 1_000_000: 1},
        {"images": ["x.jpg"], "threshold": "u" * 1_000_000},
    ],
)
async def test_an_answer_does_not_grow_with_what_is_wrong(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    response = await client.post(PROCESS, json=body)
    assert response.status_code == 422
    assert 1 <= len(response.json()["errors"]) <= 100
    assert len(response.content) < 100_000


@pytest.mark.parametrize("value", [b"1", b'"x.jpg"', b"[]", b"{}", b'{"a":1}'])
async def test_documents_of_too_many_values_are_not_looked_at(client: httpx.AsyncClient, value: bytes) -> None:
    body = b'{"images": [%s]}' % b",".join([value] * (MAX_JSON_VALUES + 1))
    response = await client.post(PROCESS, content=body, headers=JSON)
    assert (response.status_code, response.json()["code"]) == (400, "malformed_request")


@pytest.mark.parametrize("nest", [b"[" * 500 + b"]" * 500, b'{"a":' * 500 + b"1" + b"}" * 500])
async def test_values_in_each_other_count_as_much_as_side_by_side(client: httpx.AsyncClient, nest: bytes) -> None:
    body = b'{"images": [%s]}' % b",".join([nest] * (MAX_JSON_VALUES // 500))
    response = await client.post(PROCESS, content=body, headers=JSON)
    assert (response.status_code, response.json()["code"]) == (400, "malformed_request")


@pytest.mark.parametrize(
    "parts",
    [
        [field("name", b"x")] * (MAX_FORM_FIELDS + 1),
        [(PICTURE, b"x")] * (MAX_FORM_FILES + 1),
        [field("reason", b"x" * (MAX_FORM_FIELD_BYTES + 1))],
        [(b"X-A: a\r\n" * 9 + PICTURE, b"x")],
        [(b"X-A: " + b"a" * 10_000 + b"\r\n" + PICTURE, b"x")],
        [(b"Content-Disposition: form-data", b"x")],
        [(b"X-A: a", b"x")],
    ],
    ids=["fields", "files", "bytes", "headers", "header", "no name", "no disposition"],
)
async def test_forms_of_too_much_or_too_little(client: httpx.AsyncClient, parts: list[tuple[bytes, bytes]]) -> None:
    response = await sent(client, form(field("name", b"Ada"), *parts))
    assert (response.status_code, response.json()["code"]) == (400, "malformed_request")


@pytest.mark.parametrize(
    "body", [b"", b"--x", b"--x--", b"--y\r\n\r\n", form(field("name", b"Ada"))[:-20], b"\r\n" * 1_000, b"{}"]
)
async def test_forms_that_are_none(client: httpx.AsyncClient, body: bytes) -> None:
    assert (await sent(client, body)).status_code in {400, 422}


async def test_a_form_that_does_not_say_where_its_parts_begin(client: httpx.AsyncClient) -> None:
    for content_type in ("multipart/form-data", f"multipart/form-data; boundary={'x' * 5_000}", "multipart/mixed"):
        response = await client.post("/blacklist/", content=b"--x--", headers={"content-type": content_type})
        assert response.status_code in {400, 415, 422}


async def test_what_cannot_be_shown_in_the_name_of_a_file_is_replaced(client: httpx.AsyncClient) -> None:
    body = form(field("name", b"Ada"), (PICTURE.replace(b"a.png", b"\x01\x7f.png"), b"no picture"))
    response = await sent(client, body)
    assert response.json()["code"] == "enrollment_rejected"
    assert response.json()["errors"][0]["location"] == "\N{REPLACEMENT CHARACTER}" * 2 + ".png"


@pytest.mark.parametrize("name", ["name", "reason", "quality_override"])
async def test_nobody_takes_a_nul(client: httpx.AsyncClient, name: str) -> None:
    parts = {"name": b"Ada", name: b"a\0b"}
    body = form(*(field(key, value) for key, value in parts.items()), (PICTURE, photo(RED)))
    response = await sent(client, body)
    assert (response.status_code, response.json()["errors"][0]["location"]) == (422, f"body.{name}")
    entry = (await enroll(client, "Ada", photo(GREEN)))["id"]
    for path, note in ((f"/blacklist/{entry}/", "reason"), ("/processed-images/1/faces/0/clear", "note")):
        ask = client.put if note == "reason" else client.post
        for text in ("a\0b", "\ud800"):
            content = json.dumps({"entry_id": entry, note: text} if note == "note" else {note: text})
            assert (await ask(path, content=content, headers=JSON)).status_code == 422


@pytest.mark.parametrize(
    "query",
    [
        "from=0.5",
        "from=99999999999",
        "to=NaN",
        "from=0001-01-01T00:00:00%2B23:59",
        "to=9999-12-31T23:59:59-23:59",
        "from=2026-02-30T00:00:00",
        f"from={'9' * 5_000}",
        f"offset={'9' * 5_000}",
        "offset=9223372036854775808",
        "offset=-1",
        "limit=1e3",
        "limit=%F0%9D%9F%97",
        "entry=0",
        "collection=%00",
        "collection=%ed%a0%80",
        "verdict=%ff",
        "matched_only=perhaps",
    ],
)
async def test_parameters(client: httpx.AsyncClient, query: str) -> None:
    response = await client.get(f"/processed-images/?{query}")
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert len(response.content) < 1_000


@pytest.mark.parametrize("query", ["from=0001-01-01", "to=9999-12-31T23:59:59", "from=2026-01-01T00:00:00.123456789Z"])
async def test_moments_that_are_taken(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/processed-images/?{query}")).status_code == 200


@pytest.mark.parametrize("text", ["%", "_", "'", "' OR 1=1 --", "\\", "%ff", "a" * 200, "{0}"])
async def test_searches_are_for_the_text_itself(client: httpx.AsyncClient, text: str) -> None:
    await enroll(client, "Ada", photo(RED))
    assert (await client.get("/blacklist/", params={"q": text})).json() == []


@pytest.mark.parametrize(
    "path",
    [
        "/blacklist/99999999999999999999/",
        "/blacklist/%00/",
        "/blacklist/-1/",
        "/blacklist/1/images/%ff",
        f"/blacklist/{'9' * 5_000}/",
        "/collections/%ed%a0%80/",
        "/collections/a%0a/",
        f"/collections/{'a' * 256}/",
        "/processed-images/1e3",
        "/processed-images/0x10",
    ],
)
async def test_paths(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 422


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/blacklist/..%2f", "/a" * 5_000])
async def test_paths_of_nothing(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code in {404, 422}


async def test_what_else_is_allowed_is_told(client: httpx.AsyncClient) -> None:
    for path, methods in {
        "/blacklist/": "GET, HEAD, POST",
        "/blacklist": "GET, HEAD, POST",
        "/blacklist/1/": "DELETE, GET, HEAD, PUT",
        "/collections/a/calibration": "DELETE, GET, HEAD",
        "/models": "GET, HEAD",
    }.items():
        response = await client.request("PATCH", path)
        assert (response.status_code, response.headers["allow"]) == (405, methods)


@pytest.mark.parametrize("length", [b"9" * 5_000, b"9" * 19, b"100000001"])
async def test_a_declared_length_above_the_limit_is_refused_unread(client: httpx.AsyncClient, length: bytes) -> None:
    class Unread(httpx.AsyncByteStream):
        def __aiter__(self) -> AsyncIterator[bytes]:
            raise AssertionError("the body was read")

    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    response = await client.post(PROCESS, content=Unread(), headers=headers)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


async def test_a_body_is_counted_whatever_it_says_of_its_length(settings: Settings) -> None:
    async def endless(start: bytes) -> Any:
        yield start
        while True:
            yield b" " * 10_000

    async with serving(settings.model_copy(update={"max_body_bytes": 50_000})) as client:
        picture = b"--x\r\n" + PICTURE + b"\r\n\r\n"
        for path, start, headers in (
            (PROCESS, b"{", [(b"content-type", b"application/json"), (b"content-length", b"10")]),
            (PROCESS, b"{", [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]),
            (
                "/blacklist/",
                picture,
                [(b"content-type", b"multipart/form-data; boundary=x"), (b"content-length", b"10")],
            ),
        ):
            response = await client.post(path, content=endless(start), headers=headers)
            assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


async def test_every_body_that_is_read_takes_a_place_and_nothing_else_does(settings: Settings) -> None:
    documented = create_app(settings).openapi()["paths"]
    async with serving(settings) as client:
        room: Room = application(client).state.room
        with ExitStack() as places:
            with suppress(OverloadedError):
                while True:
                    places.enter_context(room.reading("127.0.0.1"))
            for asked in operations(settings):
                sent, operation = Body(), documented[asked.path][asked.method]
                url = f"http://127.0.0.1{asked.filled}"
                response = await client.request(asked.method, url, content=sent.stream(), headers=JSON)
                is_refused = response.status_code == 503 and response.json()["code"] == "overloaded"
                is_documented = "overloaded" in str(operation["responses"].get("503"))
                assert is_refused == is_documented, asked
                assert is_refused or "requestBody" not in operation, asked
                if is_refused:
                    assert int(response.headers["retry-after"]) >= 1
                    assert not sent.is_read
        assert (await client.post("/collections/", json={"name": "afterwards"})).status_code == 201


async def test_slow_uploads_of_one_address_leave_room_for_others(settings: Settings) -> None:
    arrived = 0
    rest = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        nonlocal arrived
        arrived += 1
        yield b'{"name": '
        await rest.wait()
        yield b"1}"

    for_all = settings.model_copy(update={"auth_mode": "none"})
    async with asyncio.timeout(HANGING), serving(for_all) as client:
        uploads = [
            asyncio.create_task(client.post("/collections/", content=slowly(), headers=JSON)) for _ in range(200)
        ]
        while arrived + sum(upload.done() for upload in uploads) < len(uploads):  # noqa: ASYNC110 - nothing tells it
            await asyncio.sleep(0)
        assert 0 < arrived < len(uploads)
        assert (await client.get("/collections/")).status_code == 200
        async with reach(client, "192.0.2.1") as other:
            assert (await other.post("/collections/", json={"name": "others"})).status_code == 201
        rest.set()
        answers = await asyncio.gather(*uploads)
        assert sorted(answer.status_code for answer in answers) == [422] * arrived + [503] * (200 - arrived)


async def test_ids_of_requests_that_are_none_are_replaced(client: httpx.AsyncClient) -> None:
    for given in (b"a" * 65, b"a b", b"\xff", b"a\tb", b""):
        response = await client.get("/", headers=[(b"x-request-id", given)])
        assert response.headers["x-request-id"].isalnum()
        assert response.headers["x-request-id"] != given.decode("latin-1")


async def test_the_service_is_none_the_worse(client: httpx.AsyncClient) -> None:
    response = await client.post(PROCESS, json={"images": [inline(photo(RED))]})
    assert response.status_code == 200


async def test_no_upload_is_written_to_a_temporary_folder(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")  # where nothing can be made
    answer = await sent(client, form(field("name", b"Ada"), (PICTURE, bytes(3_000_000))))
    assert (answer.status_code, answer.json()["code"]) == (422, "enrollment_rejected")
