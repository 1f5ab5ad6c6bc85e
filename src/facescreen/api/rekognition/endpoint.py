"""AWS JSON 1.1 over HTTP: a request is recognized, authenticated, checked, given to its operation, and answered.

Nothing of a body is read before the headers name an operation and a known access key. The endpoint knows the protocol
and nothing of faces: operations are given to it. All of its answers, refusals included, are such that botocore reads
code, message and request id from them.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from facescreen import errors
from facescreen.acting import ANYBODY, actor
from facescreen.api.bodies import MAX_JSON_VALUES, has_too_many_values
from facescreen.api.locality import is_from_this_machine
from facescreen.api.rate_limits import RateLimits, address_of
from facescreen.api.rekognition.faults import RekognitionFault, not_serializable, unknown_operation
from facescreen.api.rekognition.model import operation_model
from facescreen.api.rekognition.sigv4 import RawRequest, Signer, claimed, verify
from facescreen.errors import FacescreenError

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/x-amz-json-1.1"
TARGET_PREFIX = "RekognitionService."

UNSIGNED_REGION = "us-east-1"
"""The region of a request that names none."""

_FAULTS: Mapping[type[FacescreenError], str] = {
    errors.InputError: "InvalidParameterException",
    errors.ImageTooLargeError: "ImageTooLargeException",
    errors.UnsupportedFormatError: "InvalidImageFormatException",
    errors.ImageUndecodableError: "InvalidImageFormatException",
    errors.NotFoundError: "ResourceNotFoundException",
    errors.ConflictError: "ConflictException",
    errors.CollectionExistsError: "ResourceAlreadyExistsException",
    # Retried by SDKs, and with a longer pause than InternalServerError.
    errors.OverloadedError: "ThrottlingException",
    errors.RateLimitedError: "ThrottlingException",
    errors.DatabaseBusyError: "ThrottlingException",
    errors.AwsThrottledError: "ThrottlingException",
    errors.FacescreenError: "InternalServerError",
}
"""The only table from our errors to AWS's; the nearest class counts."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        region: that the request was signed for.
        access_key_id: None if it was not signed.
    """

    region: str
    access_key_id: str | None


Operation = Callable[[dict[str, Any], Caller], Awaitable[Mapping[str, Any]]]
"""From a valid request to the answer, both with the service model's member names; it may raise `RekognitionFault`."""


class RekognitionEndpoint:
    """An ASGI application for HTTP, to be routed with every method and either spelling of its path.

    Args:
        operations: by name; each has to be in the service model.
        access_keys: secret by access key id.
        rate_limits: of this process.
        allow_unsigned_on_loopback: whether a request without a signature is taken if it is from this machine.
        around: puts layers around what reads bodies and answers them; they are told ``attempted``, in the request's
            state, once it is known who asks, and every error.
    """

    def __init__(
        self,
        operations: Mapping[str, Operation],
        access_keys: Mapping[str, str],
        *,
        rate_limits: RateLimits,
        allow_unsigned_on_loopback: bool,
        around: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    ) -> None:
        self._operations = {
            TARGET_PREFIX + name: (operation, operation_model(name)) for name, operation in operations.items()
        }
        self._access_keys = access_keys
        self._rate_limits = rate_limits
        self._allow_unsigned_on_loopback = allow_unsigned_on_loopback
        self._inside = around(self._answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = str(uuid4())
        token = actor.set(ANYBODY)
        try:
            caller = await self._let_in(Request(scope))
            if caller.access_key_id is not None:
                actor.set(f"rekognition:{caller.access_key_id}")
            await self._inside(scope, receive, send)
        except ClientDisconnect:
            return
        except RekognitionFault as fault:
            response = _refusal(fault, request_id)
        except FacescreenError as error:
            response = _refusal(_fault(error), request_id)
        except Exception:
            logger.exception("rekognition_request_failed", extra={"request_id": request_id})
            message = f"unexpected error; it is logged as request {request_id}"
            response = _refusal(RekognitionFault("InternalServerError", message), request_id)
        else:
            return
        finally:
            actor.reset(token)
        await response(scope, receive, send)

    async def _let_in(self, request: Request) -> Caller:
        """Who says to ask for an operation."""
        await self._rate_limits.per_address.take(address_of(request))
        # The content type comes first, for without it this is no request of the protocol, whatever else it says.
        content_type = request.headers.get("content-type", "").partition(";")[0]
        if request.method != "POST" or content_type.strip().lower() != CONTENT_TYPE:
            message = f"a request here is a POST with Content-Type {CONTENT_TYPE} and X-Amz-Target {TARGET_PREFIX}…"
            raise unknown_operation(message, status=404)
        raw = _raw(request, b"")
        if _target(raw) not in self._operations:
            names = ", ".join(sorted(target.removeprefix(TARGET_PREFIX) for target in self._operations))
            raise unknown_operation(f"facescreen has none of this name; its operations are {names}")
        return await self._caller(request, raw, claimed)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        raw = _raw(request, await request.body())
        caller = await self._caller(request, raw, verify)
        request.state.attempted = _target(raw).removeprefix(TARGET_PREFIX)
        operation, model = self._operations[_target(raw)]
        # In a thread, because images are decoded from base64 on the way.
        asked = await asyncio.to_thread(lambda: model.decode(_parsed(raw.body)))
        document = model.encode(await operation(asked, caller))
        await _response(document, str(uuid4()))(scope, receive, send)

    async def _caller(
        self, request: Request, raw: RawRequest, signed_by: Callable[[RawRequest, Mapping[str, str], datetime], Signer]
    ) -> Caller:
        if raw.header("authorization") is None and self._allow_unsigned_on_loopback and _is_local(request):
            return Caller(UNSIGNED_REGION, None)
        try:
            signer = signed_by(raw, self._access_keys, datetime.now(UTC))
        except RekognitionFault:
            await self._rate_limits.failures.take(address_of(request))
            raise
        return Caller(signer.region, signer.access_key_id)


class TargetedRoute(Route):
    """A route for requests that name an operation of AWS's; all others are somebody else's at this path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or "x-amz-target" not in Headers(scope=scope):
            return Match.NONE, {}
        return super().matches(scope)


def _raw(request: Request, body: bytes) -> RawRequest:
    return RawRequest(
        method=request.method,
        path=request.scope["raw_path"],
        query=request.scope["query_string"],
        headers=request.scope["headers"],
        body=body,
    )


def _target(raw: RawRequest) -> str:
    return raw.header("x-amz-target") or ""


def _is_local(request: Request) -> bool:
    """Whether a program of this machine asks. A page, which has an origin, is somebody else's: none calls this."""
    return "origin" not in request.headers and is_from_this_machine(request)


def _parsed(body: bytes) -> object:
    if has_too_many_values(body):
        raise not_serializable(f"the request body has more than {MAX_JSON_VALUES:,} values")
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError):
        raise not_serializable("the request body is not JSON") from None


def _fault(error: FacescreenError) -> RekognitionFault:
    name = next(_FAULTS[kind] for kind in type(error).__mro__ if kind in _FAULTS)
    return RekognitionFault(name, str(error))


def _response(document: Mapping[str, Any], request_id: str, *, status: int = 200) -> Response:
    headers = {"Content-Type": CONTENT_TYPE, "x-amzn-RequestId": request_id}
    return Response(json.dumps(document), status, headers)


def _refusal(fault: RekognitionFault, request_id: str) -> Response:
    response = _response(fault.document(request_id), request_id, status=fault.status)
    response.headers["x-amzn-ErrorType"] = fault.name
    return response
