"""The service as load balancers ask it, and below a path of a proxy."""

import re
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr, ValidationError

from facescreen.cli.service import server_config
from facescreen.config import OWN_PATHS, Settings
from facescreen.main import create_app
from tests.api.test_access import operations
from tests.api.test_blacklist import enroll
from tests.api.test_process import process
from tests.conftest import serving
from tests.painted import RED, inline, photo
from tests.painted_server import server_process

PROXY = "http://127.0.0.1"
CHANGING = {"x-request-id", "content-length"}
"""Headers that no two answers need to have in common: some answers hold counters and moments."""


async def test_head_is_answered_as_get_without_a_body(client: httpx.AsyncClient, settings: Settings) -> None:
    await enroll(client, "Ada", photo(RED))
    await process(client, inline(photo(RED)))
    pages = ["/", "/docs", "/redoc", "/openapi.json", "/metrics", "/static-offline-docs/swagger-ui.css", "/nothing"]
    paths = [asked.filled for asked in operations(settings) if asked.method == "get"]
    pictures = ["/api/v1/blacklist/1/images/1", "/api/v1/processed-images/1/image"]
    assert len(paths) > 10
    for path in [*pages, *paths, *pictures]:
        url = f"{PROXY}{path.replace('{image_id}', '1')}"
        full, head = await client.get(url), await client.head(url)
        assert head.status_code == full.status_code, path
        assert set(head.headers) == set(full.headers), path
        assert {*head.headers.items()} ^ {*full.headers.items()} <= {
            (name, answer.headers.get(name)) for name in CHANGING for answer in (head, full)
        }, path
        assert head.content == b""


@pytest.mark.parametrize("path", ["/blacklist/1/images", "/detect/detect-face", "/blacklist/sync"])
async def test_head_is_refused_where_there_is_no_get(client: httpx.AsyncClient, path: str) -> None:
    refused = await client.head(path)
    assert refused.status_code == 405
    assert "HEAD" not in refused.headers["allow"]


async def test_head_of_a_real_server_leaves_the_connection_to_the_next_request(settings: Settings) -> None:
    async with server_process(settings) as server:
        for path in ("/live", "/models", "/blacklist/", "/audit/", "/blacklist/7/"):
            full, head = await server.client.get(path), await server.client.head(path)
            assert (head.status_code, head.content) == (full.status_code, b"")
            assert head.headers.get("content-length") == full.headers.get("content-length")


async def test_head_is_logged_and_counted_as_head(client: httpx.AsyncClient) -> None:
    await client.head("/ready")
    counted = (await client.get(f"{PROXY}/metrics")).text
    assert re.search(r'requests_total\{method="HEAD",route="/api/v1/ready",status="200"\}', counted)


@pytest.mark.parametrize("passed_on", ["/faces", ""])
async def test_everything_is_served_below_the_path_of_a_proxy(settings: Settings, passed_on: str) -> None:
    """The proxy cuts the prefix off or not; what the caller is told begins with it."""
    async with serving(settings.model_copy(update={"root_path": "/faces"})) as client:
        proxy = f"{PROXY}{passed_on}"
        for page in ("/docs", "/redoc"):
            html = (await client.get(f"{proxy}{page}")).text
            asked = re.findall(r"""["'](/[^"']*(?:openapi\.json|\.js|\.css|\.png))["']""", html)
            assert "/faces/openapi.json" in asked
            for url in asked:
                assert url.startswith("/faces/")
                answer = await client.get(f"{proxy}{url.removeprefix('/faces')}")
                assert answer.status_code == 200, url
        document = (await client.get(f"{proxy}/openapi.json")).json()
        assert document["servers"] == [{"url": "/faces"}]
        assert (await client.get(f"{proxy}/", follow_redirects=False)).headers["location"] == "/faces/docs"
        made = await client.post(f"{proxy}/api/v1/collections", json={"name": f"gate{passed_on[1:]}"})
        assert made.headers["location"] == f"/faces/api/v1/collections/gate{passed_on[1:]}/"
        await check_location_of_an_entry(client, proxy)
        assert (await client.head(f"{proxy}/api/v1/ready/")).status_code == 200
        assert (await client.get(f"{proxy}/api/v1/facesx")).status_code == 404
        allowed = await client.request("PATCH", f"{proxy}/api/v1/blacklist")
        assert (allowed.status_code, allowed.headers["allow"]) == (405, "GET, HEAD, POST")


async def check_location_of_an_entry(client: httpx.AsyncClient, proxy: str) -> None:
    files = [("images", ("a.png", photo(RED), "image/png"))]
    created = await client.post(f"{proxy}/api/v1/blacklist", data={"name": "Ada"}, files=files)
    assert created.headers["location"] == f"/faces/api/v1/blacklist/{created.json()['id']}/"


@pytest.mark.parametrize("passed_on", ["/faces", ""])
async def test_signatures_cover_the_path_that_the_client_knows(settings: Settings, passed_on: str) -> None:
    behind = {"root_path": "/faces", "rekognition_access_keys": (SecretStr("local:a-made-up-secret"),)}
    async with serving(settings.model_copy(update=behind)) as client:
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": "RekognitionService.ListCollections",
        }
        request = AWSRequest("POST", "http://faces.example/faces/rekognition", data=b"{}", headers=headers)
        SigV4Auth(Credentials("local", "a-made-up-secret"), "rekognition", "eu-west-1").add_auth(request)
        sent = {**dict(request.headers.items()), "host": "faces.example"}
        answer = await client.post(f"{PROXY}{passed_on}/rekognition", content=b"{}", headers=sent)
        assert (answer.status_code, answer.json()["CollectionIds"]) == (200, ["default"]), answer.text


def settings_of(**given: Any) -> Settings:
    return Settings(_env_file=None, **given)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("", ""), ("/", ""), ("/faces", "/faces"), ("/faces/", "/faces"), ("faces", "/faces"), ("a/b-c.d/", "/a/b-c.d")],
)
def test_the_path_of_the_proxy_may_be_written_in_several_ways(given: str, meant: str) -> None:
    assert settings_of(root_path=given).root_path == meant


@pytest.mark.parametrize(
    "given", ["https://x.example/faces", "/a b", "/../x", "/a//b", "/a?b", "/é", "/api", "docs/faces", "/metrics/"]
)
def test_a_path_that_no_proxy_can_have_is_refused(given: str) -> None:
    with pytest.raises(ValidationError, match="must"):
        settings_of(root_path=given)


def test_the_paths_of_the_service_itself_are_known(settings: Settings) -> None:
    paths = [route.path or "/" for route in iter_route_contexts(create_app(settings).routes)]
    assert {path.split("/")[1] for path in paths} - {""} == OWN_PATHS - {"rekognition"}  # which the start adds


def test_connections_are_kept_longer_than_proxies_keep_theirs(settings: Settings) -> None:
    kept = server_config(settings).timeout_keep_alive
    assert kept == settings.keep_alive_seconds > 60
