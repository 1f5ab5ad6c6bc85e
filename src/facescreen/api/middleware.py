"""Around every request: its id, its log line, its size, and either spelling of its path."""

import logging
import re
import secrets
import time
from base64 import b64encode
from hashlib import sha256
from http import HTTPMethod, HTTPStatus

from fastapi.routing import iter_route_contexts
from starlette.datastructures import MutableHeaders
from starlette.routing import Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from facescreen import acting, metrics
from facescreen.api.problems import from_error, problem
from facescreen.errors import BodyTooLargeError, FacescreenError

logger = logging.getLogger(__name__)

_METHODS = {*HTTPMethod}
_REQUEST_ID = re.compile(rb"[0-9A-Fa-f-]{16,64}")
"""UUIDs and trace ids: what is logged and recorded must not be able to say who somebody is."""
_MAX_DIGITS = 18
"""Of a length in bytes, an exabyte; nobody sends it with more zeros before."""


_SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


class RequestLog:
    """Gives the request an id (the caller's ``X-Request-ID`` if hexadecimal), logs it, answers the unforeseen."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        token = acting.request_id.set(request_id)
        status = 0
        began = time.perf_counter()
        metrics.requests_in_progress.inc()

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
            acting.request_id.reset(token)
            metrics.requests_in_progress.dec()
            seconds = time.perf_counter() - began
            route = _route_of(scope)
            # Callers make up methods and paths.
            method = scope["method"] if scope["method"] in _METHODS else "other"
            labels = method, route or "other"
            metrics.requests.labels(*labels, str(status)).inc()
            metrics.request_seconds.labels(*labels).observe(seconds)
            logger.info(
                "request",
                extra={
                    "request_id": request_id,
                    "method": method,
                    "route": route,
                    "status": status,
                    "milliseconds": round(seconds * 1000, 1),
                },
            )


def _route_of(scope: Scope) -> str | None:
    """Template of the path, ``None`` if there is no such route; with its prefix, which FastAPI keeps apart."""
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    return getattr(route, "path", None)


class SecurityHeaders:
    """Says to browsers what an answer is for: nothing may be run, framed or guessed from it, or kept of it.

    The pages of the documentation, which alone are HTML, may run the scripts that are written in them and those of
    this service, and send requests to this service.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        page: Message | None = None
        content = b""

        async def answer(message: Message) -> None:
            nonlocal page, content
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_SECURITY_HEADERS)
                if "etag" not in headers:  # those of files that come with facescreen
                    headers.setdefault("Cache-Control", "no-store")
                if headers.get("content-type", "").startswith("text/html"):
                    page = message
                    return
            elif page is not None:
                content += message.get("body", b"")
                if message.get("more_body"):
                    return
                MutableHeaders(scope=page)["Content-Security-Policy"] = _page_policy(content)
                await send(page)
                message["body"] = content
            await send(message)

        await self._app(scope, receive, answer)


def _page_policy(page: bytes) -> str:
    """What Swagger UI and ReDoc need: their styles are written by script, and ReDoc searches in a worker."""
    hashes = (b64encode(sha256(script).digest()).decode() for script in _INLINE_SCRIPT.findall(page))
    scripts = " ".join(["'self'", *(f"'sha256-{digest}'" for digest in hashes)])
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "font-src 'self' data:; connect-src 'self'; worker-src blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
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
        except FacescreenError as error:
            await send({"type": "lifespan.startup.failed", "message": f"facescreen: {error}"})
        except BaseException as error:
            if failed:
                # Whatever was at work may have quoted a name or a file; the place that it came from does not.
                logger.exception("start_failed")
                detail = f"facescreen: the start failed with {type(error).__name__}; the log says where"
                await send({"type": "lifespan.startup.failed", "message": detail})
            raise


class BodyLimit:
    """Refuses a body above the limit: by its declared length before it is read, else while it streams in."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._error = BodyTooLargeError(f"the request body is larger than {max_bytes} bytes")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        # Python reads no number of thousands of digits.
        if declared.isdigit() and (len(declared) > _MAX_DIGITS or int(declared) > self._max_bytes):
            await from_error(self._error)(scope, receive, send)
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
            await from_error(self._error)(scope, receive, send)


class BelowRootPath:
    """Serves everything below ``ROOT_PATH``, whether the proxy in front cuts it off the path or passes it on.

    Inside, path and raw path begin with it and ``root_path`` names it, as ASGI has it. Signatures of Rekognition's
    clients, which cover the path that the client knows, can thus be verified.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            prefix = "" if f"{scope['path']}/".startswith(f"{self._root_path}/") else self._root_path
            scope = {
                **scope,
                "root_path": self._root_path,
                "path": prefix + scope["path"],
                "raw_path": prefix.encode() + scope["raw_path"],
            }
        await self._app(scope, receive, send)


class HeadAsGet:
    """Lets the routes answer HEAD as GET. The server sends no body, as in every answer to HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        as_get = {**scope, "method": "GET"}
        try:
            await self._app(as_get, receive, send)
        finally:
            scope.update(as_get, method="HEAD")  # the log is told the route


class EitherSlash:
    """Serves each path with and without its trailing slash, without a redirect that would send an upload twice."""

    def __init__(self, app: ASGIApp, router: Router) -> None:
        self._app = app
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["path"] = self._known(scope)  # in place, so that the log is told the route
        await self._app(scope, receive, send)

    def _known(self, scope: Scope) -> str:
        """The spelling that is of the first route with either, else the given one.

        Whichever was given, a name such as ``sync`` is thus found before the route that takes any name in its place.
        """
        path = scope["path"]
        other = path[:-1] if path.endswith("/") else f"{path}/"
        spellings = [{**scope, "path": spelling} for spelling in (path, other)]
        for route in iter_route_contexts(self._router.routes):
            for spelling in spellings:
                if route.matches(spelling)[0] is not Match.NONE:
                    return str(spelling["path"])
        return str(path)
