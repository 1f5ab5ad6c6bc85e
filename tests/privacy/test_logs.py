"""Values that anybody would recognise are put wherever a caller or an admin can put one, and sought in all output.

The server is a process of its own, started as with ``uvicorn main:app``, whose own access log is on by default.
"""

import asyncio
import base64
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from sqlalchemy.exc import IntegrityError

from facescreen.config import Settings
from facescreen.db import collections
from facescreen.db.connection import Database
from facescreen.domain.access import Scope
from facescreen.logs import JsonFormatter
from facescreen.main import create_app
from facescreen.services.keys import KeyService
from tests.api.test_blacklist import upload
from tests.loopback_aws import CREDENTIALS
from tests.painted import GREEN, RED, Colour, PaintedBackend, inline, photo
from tests.painted_server import HANGING
from tests.privacy.loud import BREAKING, SECRET

ROOT = Path(__file__).parents[2]
ODD: Colour = (213, 37, 22)
"""A colour whose embedding has no value that would be anywhere by chance."""


def planted(where: str) -> str:
    return f"{SECRET}-{where}"


@contextmanager
def upstream() -> Iterator[str]:
    """A server that has pictures, errors and redirects, all of which tell too much."""

    class Talkative(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "redirect" in self.path:
                self.send_response(302)
                self.send_header("Location", f"http://{planted('u')}:{planted('p')}@10.0.0.1/{planted('location')}")
                self.end_headers()
                return
            self.send_response(200 if "good" in self.path else 403, planted("phrase"))
            self.send_header(planted("header"), planted("value"))
            self.end_headers()
            self.wfile.write(photo(RED) if "good" in self.path else planted("body").encode())

        def do_PUT(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Nothing: this server's output is not what is looked at."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Talkative)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def server(settings: Settings, host: str, output: Path) -> Iterator[str]:
    """The service's address; whatever it writes goes to ``output``."""
    environment = {
        **os.environ,
        **CREDENTIALS,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "BLACKLIST_DB_PATH": str(settings.blacklist_db_path),
        "PROCESSED_IMAGES_OUTPUT_DIR": str(settings.processed_images_output_dir),
        "DATABASE_URL": settings.database_url,
        "DEEPFACE_HOME": str(settings.deepface_home),
        "IMAGE_INPUT_ROOTS": str(settings.image_input_roots[0]),
        "URL_ALLOWED_HOSTS": "localhost",
        "FETCH_TIMEOUT_SECONDS": "2",
        "MATCH_THRESHOLD": "0.05",
        "REVIEW_THRESHOLD": "0.08",
        "LOG_LEVEL": "debug",
        "MAX_BODY_BYTES": "1000000",
        "REKOGNITION_ALLOW_UNSIGNED": "true",
        "RETENTION_SWEEP_SECONDS": "0.2",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}",
        "AWS_DEADLINE_SECONDS": "2",
    }
    with socket.create_server(("127.0.0.1", 0)) as listening, output.open("wb") as file:
        # h11 lets every method pass.
        command = [sys.executable, "-m", "uvicorn", "tests.privacy.loud:app", "--log-level", "debug", "--http", "h11"]
        process = subprocess.Popen(
            [*command, "--fd", str(listening.fileno())],
            cwd=settings.deepface_home.parent,
            env=environment,
            pass_fds=[listening.fileno()],
            stdout=file,
            stderr=file,
        )
        port = listening.getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=HANGING)


def telling_png(colour: Colour) -> bytes:
    """A picture whose file talks: text, a colour profile that is none, and EXIF."""
    image = Image.open(io.BytesIO(photo(colour)))
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", planted("comment"))
    exif = Image.Exif()
    exif[0x010E] = planted("description")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=texts, icc_profile=planted("profile").encode(), exif=exif)
    return buffer.getvalue()


def identifying(data: bytes, colours: list[Colour], key: str) -> dict[str, bytes]:
    """What must be nowhere, by what it is; in lower case."""
    found = {
        "a planted value": SECRET.lower().encode(),
        "the secret of a key": key.split("_", 2)[2].lower().encode(),
        "image data": base64.b64encode(data)[40:80].lower(),
        "a digest of an image": hashlib.sha256(data).hexdigest().encode(),
        "a name in base64": base64.b64encode(SECRET.encode())[:10].lower(),
        "a header in base64": base64.b64encode(photo(ODD))[:24].lower(),
    }
    for colour in colours:
        vector = (np.array(colour) / 255 - 0.5).astype("<f4")
        found |= {f"{value} of an embedding": str(value)[:8].encode() for value in vector}
        found |= {"an embedding": vector.tobytes(), "an embedding in hex": vector.tobytes().hex().encode()}
    return found


class Driver:
    """Asks, with telling headers, and keeps every answer."""

    def __init__(self, url: str, key: str) -> None:
        self.answers: list[httpx.Response] = []
        headers = {
            "X-API-Key": key,
            "User-Agent": planted("agent"),
            "Referer": f"https://{planted('referer')}/",
            "X-Request-ID": planted("request"),
            "X-Amzn-Trace-Id": planted("trace"),
            "Traceparent": planted("traceparent"),
            "X-Forwarded-For": planted("forwarded"),
            "Cookie": f"session={planted('cookie')}",
            planted("header"): planted("value"),
        }
        self.client = httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=HANGING, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def ask(self, method: str, path: str, **more: Any) -> Any:
        answer = self.client.request(method, path, **more)
        self.answers.append(answer)
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.json() if is_json and answer.content else {}


COLLECTION = planted("list")
WITHIN = {"collection": COLLECTION}
NAMED = [("images", (f"{planted('file')}.png", telling_png(RED), "image/png"))]


def person(where: str) -> dict[str, str]:
    return {"name": planted(where), "reason": planted("reason"), "quality_override": planted("override")}


def manage(driver: Driver, settings: Settings) -> None:
    """Lists, entries, photos and the folder."""
    ask, once = driver.ask, {"Idempotency-Key": planted("idempotency")}
    ask("POST", "/collections/", json={"name": COLLECTION}, headers=once)
    ask("POST", "/collections/", json={"name": COLLECTION}, headers=once)
    ask("POST", "/collections/", json={"name": COLLECTION})
    ask("GET", "/collections/")
    ask("GET", f"/collections/{COLLECTION}/")
    ask("GET", f"/collections/{COLLECTION}/calibration")
    ask("DELETE", f"/collections/{COLLECTION}/calibration")
    ask("POST", "/blacklist/", data=person("elsewhere"), files=NAMED, params=WITHIN)
    ask("POST", "/blacklist/", data=person("no face"), files=upload(photo()))
    ask("POST", "/blacklist/", data=person("broken"), files=upload(planted("bytes").encode()))
    ask("POST", "/blacklist/", data=person("breaking"), files=upload(photo(BREAKING)))
    ask("POST", "/blacklist/", data={**person("x"), "expires_at": planted("moment")}, files=NAMED)
    folder = settings.blacklist_db_path
    (folder / planted("folder")).mkdir()
    (folder / planted("folder") / f"{planted('dropped')}.png").write_bytes(telling_png(GREEN))
    (folder / planted("folder") / f"{planted('bad')}.png").write_bytes(b"nothing")
    (folder / f"{planted('lost')}.png").write_bytes(photo(GREEN))
    ask("POST", "/blacklist/sync")
    ask("GET", "/blacklist/", params={"q": planted("query"), **WITHIN})
    ask("GET", "/blacklist/", params={"q": planted("query"), "limit": planted("limit")})
    ask("GET", "/blacklist/report")
    ask("GET", "/blacklist/report", params={"collection": planted("no list")})
    eva = ask("POST", "/blacklist/", data=person("eva"), files=upload(photo(ODD)))
    entry = f"/blacklist/{eva['id']}"
    ask("GET", f"{entry}/")
    ask("PUT", f"{entry}/", json={"name": planted("renamed"), "reason": planted("because")})
    ask("PUT", f"{entry}/", json={planted("field"): planted("value")})
    ask("PUT", f"{entry}/", content=planted("no json"), headers={"Content-Type": "application/json"})
    ask("POST", f"{entry}/images", files=upload(photo(ODD, side=80)), data={"quality_override": planted("o")})
    ask("POST", f"{entry}/images", files=upload(photo(ODD, side=80)))
    image = f"{entry}/images/{eva['images'][0]['id']}"
    ask("GET", image)
    ask("DELETE", image)
    ask("DELETE", f"{entry}/")
    ask("DELETE", f"/collections/{COLLECTION}/")
    ask("DELETE", f"/collections/{planted('no list')}/")


def screen(driver: Driver, settings: Settings, host: str) -> None:
    """Images from everywhere, results, and reviews."""
    ask = driver.ask
    ada = ask("POST", "/blacklist/", data=person("ada"), files=NAMED)
    (settings.image_input_roots[0] / f"{planted('path')}.png").write_bytes(photo(RED))
    login, query = f"{planted('user')}:{planted('password')}", f"token={planted('token')}#{planted('fragment')}"
    images = [
        inline(telling_png(RED)),
        f"data:image/png;base64,{inline(photo(ODD))}",
        f"{planted('path')}.png",
        f"../{planted('traversal')}.png",
        f"/etc/{planted('absolute')}",
        f"http://{login}@{host}/good-{planted('url')}?{query}",
        f"http://{host}/{planted('missing')}?{planted('query')}",
        f"http://{host}/redirect-{planted('redirect')}",
        f"http://{planted('host')}.invalid/{planted('url')}",
        f"http://127.0.0.1/{planted('private')}",
        base64.b64encode(planted("base64").encode() * 4).decode(),
        planted("neither"),
    ]
    results = ask("POST", "/process/process-images", json={"images": images})
    ask("POST", "/process/process-images", json={"images": images[:1], "collection": planted("no list")})
    ask("POST", "/process/process-images", json={"images": images[:1], "model_name": planted("model")})
    ask("POST", "/process/process-images", json={"images": [inline(photo(BREAKING))]})
    ask("POST", "/process/process-images", content=b'{"images": ["' + SECRET.encode() * 200_000 + b'"]}')
    ask("POST", "/process/process-images", json={"images": images[:1]}, params={planted("p"): planted("v")})
    ask("POST", "/process/process-images", files=NAMED, data={"collection": planted("collection")})
    ask("POST", "/process/process-images", files=NAMED, data={planted("field"): planted("value")})
    ask("POST", "/process/process-images", files=NAMED, headers={"Content-Encoding": planted("coding")})
    ask("POST", "/process/process-images", content=planted("text"), headers={"Content-Type": planted("type")})
    for source in images:
        ask("POST", "/detect/detect-face", json={"image": source})
    ask("POST", "/detect/detect-face", json={"image": inline(photo(BREAKING))})
    ask("GET", "/processed-images/", params={**WITHIN, "verdict": planted("verdict")})
    ask("GET", "/processed-images/", params={"entry": ada["id"]})
    hit = f"/processed-images/{results[0]['id']}"
    ask("GET", hit)
    ask("GET", f"{hit}/image", params={"annotated": True})
    ask("POST", f"{hit}/faces/0/clear", json={"entry_id": ada["id"], "note": planted("note")})
    ask("DELETE", f"{hit}/faces/0/clear", params={"entry_id": ada["id"]})
    ask("DELETE", hit)
    ask("GET", hit)
    ask("GET", f"/processed-images/{planted('id')}")


def intrude(driver: Driver, key: str) -> None:
    """What needs no data: pages, wrong keys, wrong methods, wrong paths."""
    ask = driver.ask
    ask("GET", "/audit/", params={"limit": 5})
    ask("GET", "/audit/", params={"after_id": planted("after")})
    for path in ("/", "/live", "/ready", "/models", f"/{planted('nowhere')}"):
        ask("GET", path, params={planted("parameter"): planted("value")})
    basic = base64.b64encode(planted("basic").encode()).decode()
    for headers in (
        {"X-API-Key": planted("key")},
        {"X-API-Key": f"{key[:-8]}{SECRET[:8]}"},
        {"X-API-Key": "", "Authorization": f"Bearer {planted('bearer')}"},
        {"X-API-Key": "", "Authorization": f"Basic {basic}"},
    ):
        ask("GET", "/blacklist/", headers=headers)
    ask(SECRET.upper(), "/blacklist/")
    ask("GET", "/live", headers={"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": SECRET})


def rekognition(driver: Driver, url: str) -> None:
    """The facade's operations that take something of a caller."""

    def call(operation: str, body: dict[str, Any], **headers: str) -> None:
        described = {"X-Amz-Target": f"RekognitionService.{operation}", "Content-Type": "application/x-amz-json-1.1"}
        driver.ask("POST", f"{url}/rekognition", content=json.dumps(body), headers={**described, **headers})

    within = {"CollectionId": planted("aws")}
    picture = {"Image": {"Bytes": inline(photo(RED))}}
    stored = {"Image": {"S3Object": {"Bucket": SECRET.lower(), "Name": f"good-{planted('object')}"}}}
    call("CreateCollection", within)
    call("CreateUser", {**within, "UserId": planted("user"), "ClientRequestToken": planted("token")})
    call("CreateUser", {**within, "UserId": planted("other"), "ClientRequestToken": planted("token")})
    call("IndexFaces", {**within, **picture, "ExternalImageId": planted("external")})
    call("IndexFaces", {**within, **stored})
    call("DetectFaces", {"Image": {"S3Object": {"Bucket": SECRET.lower(), "Name": planted("none")}}})
    call("DetectFaces", {"Image": {"Bytes": inline(photo(BREAKING))}})
    call("SearchFaces", {**within, "FaceId": planted("face")})
    call("ListFaces", {**within, "NextToken": planted("page")})
    call("DeleteUser", {**within, "UserId": planted("nobody")})
    call(planted("Operation"), within)
    call("ListFaces", within, Authorization=f"AWS4-HMAC-SHA256 Credential={planted('credential')}")
    call("DeleteCollection", within)


@pytest.fixture
def key(settings: Settings) -> str:
    """A key that may do everything."""

    async def create() -> str:
        database = Database(settings.database_url)
        made = await KeyService(database).create(list(Scope), label=planted("label"))
        await database.aclose()
        return made.text

    return asyncio.run(create())


def test_nothing_planted_is_logged_or_counted_or_told_in_an_error(settings: Settings, key: str, tmp_path: Path) -> None:
    output = tmp_path / "output"
    settings.deepface_home.mkdir()
    with upstream() as host, server(settings, host, output) as url, Driver(url, key) as driver:
        document = driver.ask("GET", f"{url}/openapi.json")
        manage(driver, settings)
        screen(driver, settings, host)
        intrude(driver, key)
        rekognition(driver, url)
        metrics = driver.client.get(f"{url}/metrics")
    answers = driver.answers
    log = output.read_bytes()
    assert metrics.status_code == 200
    # That it was all driven, and went wrong where it should.
    assert {(m, p) for p, item in document["paths"].items() for m in item} - asked(answers, document) == set()
    assert {200, 201, 204, 401, 404, 409, 413, 422, 500} <= {answer.status_code for answer in answers}
    lines = [json.loads(line) for line in log.splitlines()]
    told = {"request", "request_failed", "message_withheld", "library_warning", "library_output_withheld"}
    assert told <= {line["event"] for line in lines}
    withheld = {line["logger"] for line in lines if line["event"] == "message_withheld"}
    assert {"botocore.endpoint", "httpcore.http11", "urllib3.connectionpool", "asyncio"} <= withheld
    refused = [answer for answer in answers if answer.status_code >= 500]
    wanted = identifying(telling_png(RED), [ODD], key)
    for kind, haystack in {
        "the log": log,
        "the metrics": metrics.content,
        **{f"the answer to {a.request.method} {a.request.url.path}": a.content for a in refused},
    }.items():
        for what, needle in wanted.items():
            found = haystack.lower().find(needle)
            assert found < 0, f"{what} in {kind}: {haystack[max(0, found - 300) : found + 100]!r}"


def asked(answers: list[httpx.Response], document: dict[str, Any]) -> set[tuple[str, str]]:
    """The operations of the document that were asked for and let in."""
    paths = list(document["paths"])

    def matching(path: str) -> list[str]:
        parts = path.rstrip("/").split("/")
        return [
            known
            for known in paths
            if len(known.rstrip("/").split("/")) == len(parts)
            and all(a == b or a.startswith("{") for a, b in zip(known.rstrip("/").split("/"), parts, strict=True))
        ]

    return {
        (answer.request.method.lower(), path)
        for answer in answers
        if answer.status_code < 500
        for path in matching(answer.request.url.path)
    }


async def test_a_start_that_breaks_tells_where_and_not_what(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: PaintedBackend) -> None:
        raise RuntimeError(planted("start"))

    monkeypatch.setattr(PaintedBackend, "load", broken)
    sent: list[str] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message["message"])

    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    with pytest.raises(RuntimeError):
        await create_app(settings, PaintedBackend())(scope, receive, send)
    written = [JsonFormatter().format(record) for record in caplog.records]
    assert "RuntimeError" in sent[0]
    assert any("test_logs.py" in line and "start_failed" in line for line in written)
    assert not any(SECRET in text for text in [*sent, *written])


async def test_an_error_of_the_database_does_not_quote_what_was_to_be_stored(settings: Settings) -> None:
    database = Database(settings.database_url)
    async with database.write() as connection:
        await collections.insert_collection(connection, planted("twice"))
        with pytest.raises(IntegrityError) as error:
            await collections.insert_collection(connection, planted("twice"))
    await database.aclose()
    assert SECRET not in str(error.value)
