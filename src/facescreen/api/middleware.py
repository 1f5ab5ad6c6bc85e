"""Around every request: its id, its log line, its size, and either spelling of its path."""

import logging
import re
import secrets
import time
from http import HTTPStatus
from traceback import format_exception

from starlette.routing import Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from facescreen.api.problems import from_error, problem
from facescreen.errors import BodyTooLargeError, FacescreenError, StartupError

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestLog:
    """Gives the request an id (the caller's ``X-Request-ID`` if a plain word), logs it, answers the unforeseen."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        status = 0
        began = time.perf_counter()

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception:
            logger.exception("request_failed", extra={"request_id": request_id})
            if status:
                raise
            detail = f"unexpected error; it is logged as request {request_id}"
            await problem(HTTPStatus.INTERNAL_SERVER_ERROR, FacescreenError.code, detail)(scope, receive, answer)
        finally:
            logger.info(
                "request",
                extra={
                    "request_id": request_id,
                    "method": scope["method"],
                    "route": getattr(scope.get("route"), "path", None),
                    "status": status,
                    "milliseconds": round((time.perf_counter() - began) * 1000, 1),
                },
            )


class OneLineStartup:
    """Tells the server why the start was refused in one line instead of a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        failed = False

        async def held(message: Message) -> None:
            nonlocal failed
            failed = message["type"] == "lifespan.startup.failed"
            if not failed:
                await send(message)

        try:
            await self._app(scope, receive, held)
        except StartupError as error:
            await send({"type": "lifespan.startup.failed", "message": f"facescreen: {error}"})
        except BaseException as error:
            if failed:
                await send({"type": "lifespan.startup.failed", "message": "".join(format_exception(error))})
            raise


class BodyLimit:
    """Refuses a body above the limit: by its declared length before it is read, else while it streams in."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._refusal = from_error(BodyTooLargeError(f"the request body is larger than {max_bytes} bytes"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await self._refusal(scope, receive, send)
            return
        seen = 0
        answered = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                raise BodyTooLargeError
            return message

        async def answer(message: Message) -> None:
            nonlocal answered
            # Whatever the app makes of the broken stream, the caller is told its cause.
            if seen <= self._max_bytes:
                answered = True
                await send(message)

        try:
            await self._app(scope, counted, answer)
        except BodyTooLargeError:
            if answered:
                raise
        if seen > self._max_bytes and not answered:
            await self._refusal(scope, receive, send)


class EitherSlash:
    """Serves each path with and without its trailing slash, without a redirect that would send an upload twice."""

    def __init__(self, app: ASGIApp, router: Router) -> None:
        self._app = app
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/" and not self._is_known(scope):
            path = scope["path"]
            other = {**scope, "path": path[:-1] if path.endswith("/") else f"{path}/"}
            if self._is_known(other):
                scope = other
        await self._app(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is not Match.NONE for route in self._router.routes)
