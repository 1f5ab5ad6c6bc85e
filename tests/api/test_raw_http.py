"""Bytes that are hardly HTTP, on a real socket: whoever sends them is refused or dropped, and nobody else notices."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psutil
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from facescreen.api.server import BoundedHttp
from facescreen.config import Settings
from tests.painted_server import HANGING, ServerProcess, server_process

HOST = b"Host: 127.0.0.1\r\n"
JSON = HOST + b"Content-Type: application/json\r\n"
DETECT = b"POST /api/v1/detect/detect-face HTTP/1.1\r\n"
ENROLL = b"POST /api/v1/blacklist/ HTTP/1.1\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
BODY = b'{"image": "AAAA"}'
MOST_MEMORY = 60_000_000
"""Bytes that the server grows by at most while it is sent more than that."""

ODDITIES = {
    "nothing": b"",
    "an empty line": b"\r\n",
    "no HTTP": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /api/v1/\r\n",
    "HTTP/9.9": b"GET /api/v1/ HTTP/9.9\r\n" + HOST + b"\r\n",
    "no host": b"GET /api/v1/ HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /api/v1/ HTTP/1.1\r\n" + HOST * 2 + b"\r\n",
    "another's address": b"GET http://169.254.169.254/latest HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tunnel": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n" + HOST + b"\r\n",
    "an unknown method": b"EVIL /api/v1/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "a path that is no ASCII": b"GET /\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n",
    "a path with a NUL": b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a path up": b"GET /../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n",
    "no path": b"GET  HTTP/1.1\r\n" + HOST + b"\r\n",
    "a header without a name": b"GET /api/v1/ HTTP/1.1\r\n" + HOST + b": x\r\n\r\n",
    "a header with a NUL": b"GET /api/v1/ HTTP/1.1\r\n" + HOST + b"X-A: a\0b\r\n\r\n",
    "a header in two lines": b"GET /api/v1/ HTTP/1.1\r\n" + HOST + b"X-A: a\r\n b\r\n\r\n",
    "a request id that splits the answer": b"GET /api/v1/ HTTP/1.1\r\n"
    + HOST
    + b"X-Request-ID: a\rSet-Cookie: b\r\n\r\n",
    "a length of -1": DETECT + JSON + b"Content-Length: -1\r\n\r\n" + BODY,
    "a length of letters": DETECT + JSON + b"Content-Length: many\r\n\r\n" + BODY,
    "a length of 5,000 digits": DETECT + JSON + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n" + BODY,
    "a length of 2^64": DETECT + JSON + b"Content-Length: 18446744073709551616\r\n\r\n" + BODY,
    "a length that is too small": DETECT + JSON + b"Content-Length: 3\r\n\r\n" + BODY,
    "a length that is too large": DETECT + JSON + b"Content-Length: 300\r\n\r\n" + BODY,
    "a length far above the limit": DETECT + JSON + b"Content-Length: 999999999999\r\n\r\n" + BODY,
    "two lengths": DETECT + JSON + b"Content-Length: 17\r\nContent-Length: 18\r\n\r\n" + BODY,
    "a length and chunks": DETECT + JSON + CHUNKED + b"Content-Length: 17\r\n\r\n11\r\n" + BODY + b"\r\n0\r\n\r\n",
    "an unknown encoding": DETECT + JSON + b"Transfer-Encoding: evil\r\n\r\n" + BODY,
    "a chunk of no size": DETECT + JSON + CHUNKED + b"\r\n\r\n" + BODY,
    "a chunk of letters": DETECT + JSON + CHUNKED + b"\r\nxyz\r\n" + BODY,
    "a chunk of -1": DETECT + JSON + CHUNKED + b"\r\n-1\r\n" + BODY,
    "a chunk of 2^64": DETECT + JSON + CHUNKED + b"\r\nffffffffffffffffff\r\n" + BODY,
    "a chunk that goes on": DETECT + JSON + CHUNKED + b"\r\n3\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunks without an end": DETECT + JSON + CHUNKED + b"\r\n11\r\n" + BODY + b"\r\n",
    "a form without an end": ENROLL + HOST + b"Content-Type: multipart/form-data; boundary=x\r\n"
    b'Content-Length: 70\r\n\r\n--x\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n',
    "a body that goes away": ENROLL + HOST + b"Content-Type: multipart/form-data; boundary=x\r\n"
    b"Content-Length: 1000000\r\n\r\n--x",
    "a body that is waited for": DETECT + JSON + b"Expect: 100-continue\r\nContent-Length: 17\r\n\r\n",
    "a WebSocket": b"GET /api/v1/ HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "a thousand requests at once": (b"GET /api/v1/models HTTP/1.1\r\n" + HOST + b"\r\n") * 1_000,
    "two requests in one": DETECT
    + JSON
    + b"Content-Length: 17\r\n\r\n"
    + BODY
    + b"DELETE /api/v1/blacklist/1/ HTTP/1.1\r\n\r\n",
}


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[ServerProcess]:
    async with server_process(settings.model_copy(update={"max_body_bytes": 1_000_000})) as started:
        yield started


async def connected(server: ServerProcess) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    assert server.client.base_url.port
    return await asyncio.open_connection("127.0.0.1", server.client.base_url.port)


async def is_well(server: ServerProcess) -> bool:
    answer = await server.client.post("/detect/detect-face", json=json.loads(BODY))
    return answer.status_code == 403


async def dropped(reader: asyncio.StreamReader) -> bytes:
    """What is answered before the server hangs up."""
    with suppress(ConnectionError):
        async with asyncio.timeout(HANGING):
            return await reader.read()
    return b""


async def test_oddities(server: ServerProcess) -> None:
    for name, sent in ODDITIES.items():
        reader, writer = await connected(server)
        writer.write(sent)
        with suppress(ConnectionError):
            await writer.drain()
            writer.write_eof()
        answer = await dropped(reader)
        writer.close()
        assert b"HTTP/1.1 5" not in answer, name
        assert b"Set-Cookie" not in answer, name
        assert b"Traceback" not in answer, name
        assert await is_well(server), name


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"GET /api/v1/ HTTP/1.1\r\n" + HOST, b"X-A: " + b"a" * 10_000 + b"\r\n"),
        (b"GET /api/v1/ HTTP/1.1\r\n" + HOST + b"X-A: ", b"a" * 10_000),
        (b"GET /", b"a" * 10_000),
        (DETECT + JSON + CHUNKED + b"\r\n3\r\n{  \r\n0\r\n", b"X-A: " + b"a" * 10_000 + b"\r\n"),
        (DETECT + JSON + CHUNKED + b"\r\n3;a=", b"a" * 10_000),
        (DETECT + JSON + CHUNKED + b"\r\n", b"2710\r\n" + b" " * 10_000 + b"\r\n"),
        (DETECT + JSON + b"Content-Length: 1000000000\r\n\r\n", b" " * 10_000),
    ],
    ids=["headers", "header", "path", "trailers", "chunk extension", "chunks", "lying length"],
)
async def test_what_never_ends_is_cut_off(server: ServerProcess, begin: bytes, piece: bytes) -> None:
    worker = psutil.Process(server.pid)
    before = worker.memory_info().rss
    reader, writer = await connected(server)
    with suppress(ConnectionError):
        writer.write(begin)
        for _ in range(12_000):
            writer.write(piece)
            await writer.drain()
    writer.close()
    await dropped(reader)
    assert worker.memory_info().rss - before <= MOST_MEMORY
    assert await is_well(server)


async def test_those_who_say_nothing_keep_nobody_waiting(server: ServerProcess) -> None:
    """Half of them hold their heads back, half their bodies."""
    silent = [await connected(server) for _ in range(100)]
    for number, (_, writer) in enumerate(silent):
        writer.write(b"GET / HT" if number % 2 else DETECT + JSON + b"Content-Length: 17\r\n\r\n{")
        await writer.drain()
    assert (await server.client.get("/")).is_success
    for _, writer in silent:
        writer.close()
    assert await is_well(server)


class Impatient(BoundedHttp):
    head_seconds = 0.05


async def no_content(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@asynccontextmanager
async def listening(http: type[BoundedHttp]) -> AsyncIterator[tuple[str, int]]:
    """Address of a server that answers before it has read anything."""
    config = uvicorn.Config(no_content, http=http, lifespan="off", log_level="warning", timeout_keep_alive=3_600)
    running = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(running.serve(sockets=[listener]))
        yield listener.getsockname()
        running.should_exit = True
        await serving


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (b"", 0),
        (b"GET / HT", 0),
        (b"GET / HTTP/1.1\r\n" + HOST, 0),
        (b"GET / HTTP/1.1\r\n" + HOST + b"\r\nGET / HT", 1),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\n{", 1),
        (b"POST / HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n1\r\n{\r\n", 1),
    ],
)
async def test_what_does_not_come_is_not_waited_for(sent: bytes, answers: int) -> None:
    async with listening(Impatient) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(sent)
        assert (await dropped(reader)).count(b"HTTP/1.1 204") == answers
        writer.close()


async def test_who_is_answered_early_may_send_the_rest() -> None:
    async with listening(BoundedHttp) as address:
        reader, writer = await asyncio.open_connection(*address)
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5000000\r\n\r\n")
            async with asyncio.timeout(HANGING):
                answer = await reader.readuntil(b"\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 204")
                writer.write(bytes(5_000_000))
                await writer.drain()
        writer.close()
