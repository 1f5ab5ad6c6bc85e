"""Was it asked before: an ``Idempotency-Key`` gives the first answer again."""

import asyncio
import json
import re
from collections import deque
from collections.abc import Iterable
from itertools import chain
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from facescreen import acting
from facescreen.api.bodies import MAX_FORM_PARTS
from facescreen.api.problems import responses
from facescreen.errors import (
    IdempotencyInProgressError,
    IdempotencyKeyInvalidError,
    IdempotencyKeyReusedError,
    IdempotencyOutcomeUnknownError,
)
from facescreen.factory import Services
from facescreen.services.idempotency import KeyedRequest, Outcome

_HEADER = b"idempotency-key"
_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
_NOT_STORED = b'"stored":false'
"""In an answer to a screening whose result the disk did not take. In no text of it: quotes in one are escaped."""

KEY_HEADER: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": (
        "1 to 255 visible ASCII characters of your choice, new for each thing to be done. The request may then be sent "
        "again: it is done once, and answered as the first time, with `Idempotency-Replayed: true`."
    ),
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
"""The header as OpenAPI has it."""

REPLAY_RESPONSES = responses(
    IdempotencyKeyInvalidError,
    IdempotencyKeyReusedError,
    IdempotencyInProgressError,
    IdempotencyOutcomeUnknownError,
)
"""What a POST can be answered because of it."""


class Replay:
    """Answers a POST that is sent again with its key as the first time. Without a key nothing is held back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        keys = [value for name, value in scope["headers"] if name == _HEADER]
        if scope["method"] != "POST" or not keys:
            await self._app(scope, receive, send)
            return
        if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
            raise IdempotencyKeyInvalidError("Idempotency-Key: must be one of 1 to 255 visible ASCII characters")
        body = await _body(receive)
        if body is None:
            return
        try:
            payload = await asyncio.to_thread(_payload, dict(scope["headers"]).get(b"content-type", b""), body)
        except HTTPException as error:
            # Told to the operation as it reads, so that it is answered and recorded as without a key.
            await self._app(scope, _refusing(error), send)
            return
        request = KeyedRequest(
            actor=acting.actor.get(),
            operation=f"POST {scope['path']}?{scope['query_string'].decode('latin-1')}",
            key=keys[0].decode(),
            payload=payload,
        )

        async def work() -> Outcome:
            return await _outcome(self._app, scope, _again(body, receive))

        services: Services = scope["app"].state.services
        answer, is_replayed = await services.idempotency.answered(request, work)
        status, headers, content = _unpacked(answer)
        if is_replayed:
            headers.append((b"idempotency-replayed", b"true"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


async def _body(receive: Receive) -> deque[bytes] | None:
    """The whole body in the pieces that it came in, ``None`` if the caller went away before it was whole."""
    chunks = deque[bytes]()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return chunks


def _again(body: deque[bytes], receive: Receive) -> Receive:
    """Gives the body once more, and keeps nothing of what was given."""

    async def given() -> Message:
        if not body:
            return await receive()
        await asyncio.sleep(0)  # others have their turn between the pieces, as while they came in
        return {"type": "http.request", "body": body.popleft(), "more_body": bool(body)}

    return given


def _refusing(error: HTTPException) -> Receive:
    async def refused() -> Message:
        raise error

    return refused


async def _outcome(app: ASGIApp, scope: Scope, receive: Receive) -> Outcome:
    start: Message = {}
    content = []

    async def hold(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            content.append(message.get("body", b""))

    await app(scope, receive, hold)
    body = b"".join(content)
    # What was refused did nothing: it is as well asked anew, and answered anew should the reason have gone.
    is_done = 200 <= start["status"] < 300 and _NOT_STORED not in body
    return Outcome(_packed(start, body), is_final=is_done)


def _packed(start: Message, content: bytes) -> bytes:
    headers = [[part.decode("latin-1") for part in header] for header in start["headers"]]
    return json.dumps([start["status"], headers]).encode() + b"\n" + content


def _unpacked(answer: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    start, _, content = answer.partition(b"\n")
    status, headers = json.loads(start)
    return status, [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers], content


def _payload(content_type: bytes, chunks: Iterable[bytes]) -> bytes:
    """Type and body as the same bytes whenever the same is sent: a form has another boundary each time.

    Raises:
        HTTPException: the form has more parts than any operation takes.
    """
    body = b"".join(chunks)
    media_type, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not media_type.startswith(b"multipart/") or not boundary:
        return content_type + b"\0" + body
    most = MAX_FORM_PARTS + 2  # with what is before the first and after the last
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary, most)
    if len(parts) > most:
        raise HTTPException(400, f"the form has more than {MAX_FORM_PARTS:,} parts")
    # With their lengths, because a part may hold anything.
    framed = chain.from_iterable((b"%d:" % len(part), part) for part in parts)
    return b"".join(chain((media_type, b"\0"), framed))
