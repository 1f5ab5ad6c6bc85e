"""Who is let in: every operation of the OpenAPI document with every kind of credentials, and what else is asked."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from facescreen import acting
from facescreen.api.operation import Operation, needs
from facescreen.api.rate_limits import address_of
from facescreen.config import Settings, load_settings
from facescreen.db.connection import Database
from facescreen.domain.access import Scope
from facescreen.errors import ConflictError, NotFoundError, StartupError, UnauthenticatedError
from facescreen.factory import Services
from facescreen.main import create_app
from facescreen.services.keys import KeyService
from tests.api.test_blacklist import enroll
from tests.at_rest import events
from tests.conftest import serving
from tests.painted import RED, inline, photo

EVERYTHING = frozenset(Scope)
KINDS = ("none", "malformed", "unknown", "revoked", "expired", "without the scope", "with the scope")
REQUEST_ID = "0123456789abcdef"
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Asked:
    """An operation, as the OpenAPI document has it; ``scopes`` is ``None`` where nobody needs a key."""

    method: str
    path: str
    scopes: frozenset[str] | None
    content_types: tuple[str, ...]

    @property
    def filled(self) -> str:
        return re.sub(r"\{(\w+)\}", lambda part: "park" if part[1] == "name" else "1", self.path)


def operations(settings: Settings) -> Iterator[Asked]:
    for path, item in create_app(settings).openapi()["paths"].items():
        for method, operation in item.items():
            scopes = {frozenset(needed) for each in operation.get("security", []) for needed in each.values()}
            assert len(scopes) <= 1, "one header must not need other scopes than the other"
            content = operation.get("requestBody", {}).get("content", {})
            yield Asked(method, path, scopes.pop() if scopes else None, tuple(content))


@dataclass
class Body:
    """A body that notes whether anybody read it."""

    is_read: bool = field(default=False)

    async def stream(self) -> AsyncIterator[bytes]:
        self.is_read = True
        yield b"{}"


def rows(settings: Settings) -> list[str]:
    """Everything in the database but the trail, which may note refusals too."""
    with closing(sqlite3.connect(Database(settings.database_url).path)) as database:
        return [line for line in database.iterdump() if "audit_" not in line]


def reach(client: httpx.AsyncClient, address: str = "127.0.0.1", **headers: str) -> httpx.AsyncClient:
    """Another client of the same application, at another address or with other headers."""
    transport = httpx.ASGITransport(application(client), raise_app_exceptions=False, client=(address, 50000))
    return httpx.AsyncClient(transport=transport, base_url=client.base_url, headers=headers)


def application(client: httpx.AsyncClient) -> FastAPI:
    app: FastAPI = client._transport.app  # type: ignore[attr-defined]
    return app


def services(client: httpx.AsyncClient) -> Services:
    made: Services = client.services  # type: ignore[attr-defined]
    return made


async def key(client: httpx.AsyncClient, *scopes: Scope, lives: timedelta | None = None) -> str:
    """The text of a new key, for everything unless told otherwise."""
    expires_at = datetime.now(UTC) + lives if lives else None
    return (await services(client).keys.create(scopes or EVERYTHING, expires_at=expires_at)).text


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


async def credentials(client: httpx.AsyncClient, kind: str, scopes: frozenset[str] | None) -> dict[str, str]:
    """Headers of this kind for an operation that needs these scopes; make all of them before the first request."""
    whole = await key(client, *(EVERYTHING - (scopes or set()) if kind == "without the scope" else EVERYTHING))
    match kind:
        case "none":
            return {}
        case "malformed":
            return bearer(whole[:-1])
        case "unknown":
            return bearer(whole[:-4] + ("AAAA" if whole[-4:] != "AAAA" else "BBBB"))
        case "revoked":
            await services(client).keys.revoke(whole.split("_")[1])
        case "expired":
            return bearer(await key(client, lives=timedelta(seconds=-1)))
        case "with the scope":
            return bearer(await key(client, *(Scope(scope) for scope in scopes or ())))
    return bearer(whole)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_operation_lets_in_only_whom_it_should(settings: Settings, kind: str) -> None:
    async with serving(settings) as client:
        await enroll(client, "Ada", photo(RED))
        await client.post("/process/process-images", json={"images": [inline(photo(RED))]})
        await client.post("/collections/", json={"name": "park"})
    async with serving(settings) as client:
        every = [(asked, await credentials(client, kind, asked.scopes)) for asked in operations(settings)]
        before, refusals, wrong = rows(settings), set(), []
        for asked, headers in every:
            body = Body()
            types = {"content-type": f"{asked.content_types[0]}; boundary=x"} if asked.content_types else {}
            response = await client.request(
                asked.method,
                f"http://127.0.0.1{asked.filled}",
                content=body.stream() if asked.content_types else None,
                headers={**headers, **types},
            )
            is_refused = response.status_code in {401, 403}
            if asked.scopes is None or kind == "with the scope":
                expected = not is_refused and response.status_code != 429
                expected &= body.is_read == bool(asked.content_types)
            elif kind == "without the scope":
                expected = not is_refused if not asked.scopes else response.status_code == 403 and not body.is_read
                if asked.scopes:
                    (scope,) = asked.scopes
                    expected &= response.json()["code"] == "scope_missing" and scope in response.json()["detail"]
            else:
                expected = response.status_code == 401 and not body.is_read
                refusals.add((response.headers["www-authenticate"], response.text))
            if not expected:
                wrong.append((asked, response.status_code, response.text))
        assert wrong == []
        if kind != "with the scope":
            assert rows(settings) == before
        if kind in KINDS[:5]:
            ((challenge, _),) = refusals
            assert challenge == "Bearer"


async def test_the_answer_is_one_and_the_same_whatever_is_wrong(settings: Settings) -> None:
    answers = set()
    async with serving(settings) as client:
        every = [await credentials(client, kind, frozenset({Scope.READ})) for kind in KINDS[:5]]
        for headers in every:
            response = await client.get("/blacklist/", headers={**headers, "x-request-id": REQUEST_ID})
            answers.add((response.status_code, response.text, str(sorted(response.headers.items()))))
    assert len(answers) == 1


async def test_either_header_carries_the_key_and_both_may_if_they_agree(settings: Settings) -> None:
    async with serving(settings) as client:
        one, other = await key(client), await key(client)
        for headers, status in (
            ({"Authorization": f"Bearer {one}"}, 200),
            ({"Authorization": f"bearer {one}"}, 200),
            ({"X-API-Key": one}, 200),
            ({"Authorization": f"Bearer {one}", "X-API-Key": one}, 200),
            ({"Authorization": f"Bearer {one}", "X-API-Key": other}, 401),
            ({"Authorization": "Basic YTpi", "X-API-Key": one}, 200),
            ({"Authorization": f"Basic {one}"}, 401),
            ({"Authorization": one}, 401),
            ({"Authorization": "Bearer"}, 401),
            ({"X-API-Key": ""}, 401),
            ({"X-API-Key": one.upper()}, 401),
            ({"X-API-Key": f"{one}\xe9"}, 401),
        ):
            encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
            response = await client.get("/blacklist/", headers=encoded)
            assert response.status_code == status, headers
        doubled = [("X-API-Key", one), ("X-API-Key", other)]
        assert (await client.get("/blacklist/", headers=doubled)).status_code == 401


async def test_who_asks_is_known_where_the_work_is_done(settings: Settings) -> None:
    async def who() -> list[str | None]:
        return [acting.actor.get(), acting.request_id.get()]

    async with serving(settings) as client:
        add = application(client).router.add_api_route
        add("/who", who, methods=["GET"], route_class_override=Operation, dependencies=needs(Scope.READ))
        add("/anybody", who, methods=["GET"], route_class_override=Operation)
        text = await key(client)
        headers = {**bearer(text), "x-request-id": REQUEST_ID}
        assert (await client.get("http://127.0.0.1/who", headers=headers)).json() == [text.split("_")[1], REQUEST_ID]
        assert (await client.get("http://127.0.0.1/anybody", headers=headers)).json() == [acting.ANYBODY, REQUEST_ID]
    assert (acting.actor.get(), acting.request_id.get()) == (acting.SERVICE, None)


async def test_neither_the_database_nor_a_record_holds_a_secret(settings: Settings) -> None:
    async with serving(settings) as client:
        made = await services(client).keys.create({Scope.READ}, label="gate")
        assert (await client.get("/blacklist/", headers=bearer(made.text))).status_code == 200
        secret = made.text.split("_", 2)[2]
        assert secret not in repr(made)
        assert secret not in repr(await services(client).keys.ring())
        folder = Database(settings.database_url).path.parent
        held = b"".join(file.read_bytes() for file in folder.iterdir())
        assert made.key.id.encode() in held
        assert secret.encode() not in held


async def test_a_rotated_key_ends_at_once_or_after_its_grace(settings: Settings) -> None:
    database = Database(settings.database_url)
    keys = KeyService(database)
    expires_at = datetime.now(UTC) + timedelta(days=1)
    old = await keys.create({Scope.READ, Scope.SCREEN}, label="gate", expires_at=expires_at)
    patient = await keys.rotate(old.key.id, grace=timedelta(minutes=5))
    ring = await KeyService(database).ring()
    assert ring.authenticate(patient.text) == patient.key
    assert (patient.key.label, patient.key.scopes) == (old.key.label, old.key.scopes)
    assert patient.key.expires_at == expires_at
    ending = ring.authenticate(old.text)
    assert ending.expires_at is not None
    assert ending.expires_at - datetime.now(UTC) <= timedelta(minutes=5)
    assert ending.is_valid(ending.expires_at - timedelta(microseconds=1))
    assert not ending.is_valid(ending.expires_at)
    with pytest.raises(ConflictError, match=patient.key.id):
        await keys.rotate(old.key.id)
    hasty = await keys.rotate(patient.key.id)
    ring = await KeyService(database).ring()
    assert ring.authenticate(hasty.text) == hasty.key
    with pytest.raises(UnauthenticatedError):
        ring.authenticate(patient.text)
    with pytest.raises(ConflictError):
        await keys.rotate(patient.key.id)
    revoked_at = (await keys.revoke(patient.key.id)).revoked_at
    assert (await keys.revoke(patient.key.id)).revoked_at == revoked_at
    with pytest.raises(NotFoundError):
        await keys.revoke("aaaaaaaa")
    await database.aclose()


async def test_a_key_may_be_used_so_often(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"rate_limit_per_key": "3/day"})) as client:
        one, other = await key(client), await key(client)
        answers = [await client.get("/blacklist/", headers=bearer(one)) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert answers[-1].json()["code"] == "rate_limited"
        assert 0 < int(answers[-1].headers["retry-after"]) <= 86400
        assert (await client.get("/blacklist/", headers=bearer(other))).status_code == 200


async def test_an_address_may_ask_so_often_whatever_it_asks(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"rate_limit_per_address": "3/day"})) as client:
        body = Body()
        assert [(await client.get("/models")).status_code for _ in range(3)] == [200] * 3
        refused = await client.post("/process/process-images", content=body.stream(), headers=JSON)
        assert (refused.status_code, body.is_read) == (429, False)
        assert 0 < int(refused.headers["retry-after"]) <= 86400
        target = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "RekognitionService.ListCollections"}
        throttled = await client.post("http://127.0.0.1/rekognition", content=body.stream(), headers=target)
        assert throttled.headers["x-amzn-errortype"] == "ThrottlingException"
        assert not body.is_read
        assert (await client.get("http://127.0.0.1/docs")).status_code == 200
        async with reach(client, "127.0.0.2") as other:
            assert (await other.get("/models")).status_code == 200


async def test_what_a_key_may_not_do_is_counted_too(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"rate_limit_per_key": "3/day"})) as client:
        headers = bearer(await key(client, Scope.READ))
        answers = [await client.delete("/blacklist/1/", headers=headers) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [403, 403, 403, 429, 429]
    assert [event["action"] for event in events(settings)].count("denied") == 3


async def test_a_limit_ends_with_its_window(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"rate_limit_per_address": "1/second"})) as client:
        statuses: list[int] = []
        async with asyncio.timeout(60):
            while statuses[-2:] != [429, 200]:
                statuses.append((await client.get("/models")).status_code)


async def test_nobody_guesses_for_long(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"rate_limit_failures": "3/day"})) as client:
        valid = await key(client)
        guesses = [client.get("/blacklist/", headers=bearer(f"{valid[:-20]}{guess:020}")) for guess in range(20)]
        statuses = sorted(response.status_code for response in await asyncio.gather(*guesses))
        assert statuses == [401] * 3 + [429] * 17
        refused = await client.get("/blacklist/")
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert (await client.get("/blacklist/", headers=bearer(valid))).status_code == 200
        async with reach(client, "10.1.2.3") as elsewhere:
            assert (await elsewhere.get("/blacklist/")).status_code == 401


def test_an_ipv6_caller_is_its_network() -> None:
    def address(host: str) -> str:
        return address_of(HTTPConnection({"type": "http", "client": (host, 1), "headers": []}))

    assert address("2001:db8:1:2:3:4:5:6") == address("2001:db8:1:2::1")
    assert address("2001:db8:1:2::1") != address("2001:db8:1:3::1")
    assert address("::ffff:192.0.2.1") == address("192.0.2.1") != address("192.0.2.2")


@pytest.mark.parametrize("limit", ["10", "10/fortnight", "0/minute", "-1/minute", "10/minute;1/second", "much"])
def test_a_wrong_limit_stops_the_start_in_one_line(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setenv("RATE_LIMIT_PER_KEY", limit)
    with pytest.raises(StartupError) as refused:
        load_settings()
    assert str(refused.value).startswith("RATE_LIMIT_PER_KEY: ")
    assert len(str(refused.value).splitlines()) == 1


async def test_without_keys_only_this_machine_is_served(settings: Settings) -> None:
    desk = "https://desk.example"
    async with serving(settings.model_copy(update={"cors_allowed_origins": (desk, "*")})) as client:
        for address, headers, is_taken in (
            ("127.0.0.1", {}, True),
            ("::1", {"host": "[::1]:8000"}, True),
            ("127.0.0.1", {"host": "localhost:8000", "origin": "http://localhost:8000"}, True),
            ("127.0.0.1", {"sec-fetch-site": "same-origin"}, True),
            ("127.0.0.1", {"sec-fetch-site": "none"}, True),
            ("127.0.0.1", {"origin": desk, "sec-fetch-site": "cross-site"}, True),
            ("192.168.0.7", {}, False),
            ("10.0.0.1", {"x-forwarded-for": "127.0.0.1"}, False),
            ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}, False),
            ("127.0.0.1", {"forwarded": "for=127.0.0.1"}, False),
            ("127.0.0.1", {"host": "rebound.example"}, False),
            ("127.0.0.1", {"host": "127.0.0.1.rebound.example"}, False),
            ("127.0.0.1", {"origin": "https://evil.example"}, False),
            ("127.0.0.1", {"origin": "null"}, False),
            ("127.0.0.1", {"origin": "http://127.0.0.1:3000"}, False),
            ("127.0.0.1", {"sec-fetch-site": "cross-site"}, False),
            ("127.0.0.1", {"sec-fetch-site": "same-site"}, False),
        ):
            body = Body()
            async with reach(client, address, **headers) as caller:
                response = await caller.post("/detect/detect-face", content=body.stream(), headers=JSON)
            expected = (422, "invalid_request", True) if is_taken else (403, "local_only", False)
            assert (response.status_code, response.json()["code"], body.is_read) == expected, (address, headers)


async def test_a_key_that_was_ever_made_closes_the_door_for_good(settings: Settings) -> None:
    async with serving(settings) as client:
        await services(client).keys.revoke((await key(client)).split("_")[1])
        assert (await client.get("/blacklist/")).status_code == 401


async def test_everybody_is_let_in_where_that_is_said_in_words(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"auth_mode": "none"})) as client:
        await key(client)
        async with reach(client, "203.0.113.9", host="facescreen.example") as stranger:
            assert (await stranger.get("/blacklist/")).status_code == 200


async def test_pages_of_other_sites_are_allowed_by_name_only(settings: Settings) -> None:
    asked = {"origin": "https://desk.example", "access-control-request-method": "DELETE"}
    asked |= {"access-control-request-headers": "x-api-key"}
    async with serving(settings) as client:
        assert (await client.options("/blacklist/1/", headers=asked)).status_code != 200
        headers = {"origin": "https://desk.example", "x-api-key": await key(client)}
        assert "access-control-allow-origin" not in (await client.get("/blacklist/", headers=headers)).headers
    async with serving(settings.model_copy(update={"cors_allowed_origins": ("https://desk.example",)})) as client:
        allowed = await client.options("/blacklist/1/", headers=asked)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://desk.example")
        refused = await client.options("/blacklist/1/", headers={**asked, "origin": "https://evil.example"})
        assert "access-control-allow-origin" not in refused.headers
        for answer in (await client.get("/blacklist/", headers=headers), await client.get("/models", headers=asked)):
            assert answer.headers["access-control-allow-origin"] == "https://desk.example"
            assert "X-Total-Count" in answer.headers["access-control-expose-headers"]


async def test_every_answer_tells_browsers_to_do_nothing_with_it(client: httpx.AsyncClient) -> None:
    for answer in (
        await client.get("/blacklist/"),
        await client.get("/nothing/here"),
        await client.post("/blacklist/"),
        await client.get("/blacklist/", headers={"host": "evil.example"}),
        await client.get("http://127.0.0.1/openapi.json"),
        await client.post("http://127.0.0.1/rekognition"),
    ):
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


async def test_documentation_pages_run_only_what_is_written_in_them(client: httpx.AsyncClient) -> None:
    for page, inline_scripts in (("/docs", 1), ("/redoc", 0), ("/docs/oauth2-redirect", 1)):
        response = await client.get(f"http://127.0.0.1{page}")
        assert response.text.rstrip().endswith("</html>")
        policy = response.headers["content-security-policy"]
        (scripts,) = re.findall(r"script-src ([^;]*)", policy)
        assert len(re.findall(r"'sha256-[A-Za-z0-9+/]{43}='", scripts)) == inline_scripts
        assert "unsafe" not in scripts
        assert "frame-ancestors 'none'" in policy
        assert (await client.head(f"http://127.0.0.1{page}")).status_code in {200, 405}
    asset = await client.get("http://127.0.0.1/static-offline-docs/swagger-ui.css")
    assert "no-store" not in asset.headers.get("cache-control", "")


async def test_documentation_can_be_closed(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"docs_enabled": False})) as client:
        for path in (
            "/",
            "/docs",
            "/redoc",
            "/docs/oauth2-redirect",
            "/openapi.json",
            "/static-offline-docs/favicon.png",
        ):
            assert (await client.get(f"http://127.0.0.1{path}")).status_code == 404
        assert (await client.get("/models")).status_code == 200
        assert application(client).openapi()["paths"]


def test_the_document_says_how_to_authorize_and_what_is_refused(settings: Settings) -> None:
    document = create_app(settings).openapi()
    schemes = document["components"]["securitySchemes"]
    assert {(scheme["type"], scheme.get("scheme"), scheme.get("name")) for scheme in schemes.values()} == {
        ("http", "bearer", None),
        ("apiKey", None, "X-API-Key"),
    }
    is_open = {path for path, item in document["paths"].items() if any("security" not in op for op in item.values())}
    assert is_open == {"/api/v1/live", "/api/v1/ready"}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if path in is_open:
                continue
            assert len(operation["security"]) == 2, (method, path)
            codes: dict[str, Any] = {
                status: response.get("content", {}).get("application/problem+json", {}).get("examples", {})
                for status, response in operation["responses"].items()
            }
            assert "unauthenticated" in codes["401"], (method, path)
            assert {"scope_missing", "local_only"} <= codes["403"].keys(), (method, path)
            assert "rate_limited" in codes["429"], (method, path)
            assert "database_busy" in codes["503"], (method, path)


async def test_swagger_keeps_what_was_authorized(client: httpx.AsyncClient) -> None:
    assert '"persistAuthorization": true' in (await client.get("http://127.0.0.1/docs")).text
