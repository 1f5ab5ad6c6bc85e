"""AWS JSON 1.1 over HTTP: a request is recognized, authenticated, checked, given to its operation, and answered.

The endpoint knows the protocol and nothing of faces: operations are given to it. All of its answers, refusals included,
are such that botocore reads code, message and request id from them.
"""

import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address
from typing import Any
from uuid import uuid4

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from facescreen import errors
from facescreen.api.rekognition.faults import RekognitionFault, not_serializable, unknown_operation
from facescreen.api.rekognition.model import operation_model
from facescreen.api.rekognition.sigv4 import RawRequest, verify
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
    errors.DatabaseBusyError: "ThrottlingException",
    errors.AwsThrottledError: "ThrottlingException",
    errors.FacescreenError: "InternalServerError",
}
"""The only table from our errors to AWS's; the nearest class counts."""

_PROXY_HEADERS = (
    "forwarded",
    "x-forwarded-",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "via",
)
"""What proxies add: who asks through one is not on this machine, though the connection is."""
_LOCAL_HOST = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]+)?", re.IGNORECASE)


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
        allow_unsigned_on_loopback: whether a request without a signature is taken if it is from this machine.
    """

    def __init__(
        self,
        operations: Mapping[str, Operation],
        access_keys: Mapping[str, str],
        *,
        allow_unsigned_on_loopback: bool,
    ) -> None:
        self._operations = {
            TARGET_PREFIX + name: (operation, operation_model(name)) for name, operation in operations.items()
        }
        self._access_keys = access_keys
        self._allow_unsigned_on_loopback = allow_unsigned_on_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        request_id = str(uuid4())
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        try:
            response = _response(await self._answer(request, body), request_id)
        except RekognitionFault as fault:
            response = _refusal(fault, request_id)
        except FacescreenError as error:
            response = _refusal(_fault(error), request_id)
        except Exception:
            logger.exception("rekognition_request_failed", extra={"request_id": request_id})
            message = f"unexpected error; it is logged as request {request_id}"
            response = _refusal(RekognitionFault("InternalServerError", message), request_id)
        await response(scope, receive, send)

    async def _answer(self, request: Request, body: bytes) -> dict[str, Any]:
        # The content type comes first, for without it this is no request of the protocol, whatever else it says.
        content_type = request.headers.get("content-type", "").partition(";")[0]
        if request.method != "POST" or content_type.strip().lower() != CONTENT_TYPE:
            raise unknown_operation(status=404)
        raw = _raw(request, body)
        try:
            operation, model = self._operations[raw.header("x-amz-target") or ""]
        except KeyError:
            raise unknown_operation() from None
        caller = self._authenticate(request, raw)
        return model.encode(await operation(model.decode(_parsed(body)), caller))

    def _authenticate(self, request: Request, raw: RawRequest) -> Caller:
        if raw.header("authorization") is None and self._allow_unsigned_on_loopback and _is_local(request):
            return Caller(UNSIGNED_REGION, None)
        signer = verify(raw, self._access_keys, datetime.now(UTC))
        return Caller(signer.region, signer.access_key_id)


def _raw(request: Request, body: bytes) -> RawRequest:
    return RawRequest(
        method=request.method,
        path=request.scope["raw_path"],
        query=request.scope["query_string"],
        headers=request.scope["headers"],
        body=body,
    )


def _is_local(request: Request) -> bool:
    """Whether the request comes from this machine and no proxy passed it on.

    It also has to be addressed to this machine, and to nothing else: else a page of the internet could ask from a
    browser here, under a name of its own that it has turned to 127.0.0.1. A page of this machine, which has an origin
    too, is somebody else's program.
    """
    if any(name == "origin" or name.startswith(_PROXY_HEADERS) for name in request.headers):
        return False
    hosts = request.headers.getlist("host")
    addressed_here = len(hosts) == 1 and _LOCAL_HOST.fullmatch(hosts[0])
    return request.client is not None and _is_loopback(request.client.host) and bool(addressed_here)


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _parsed(body: bytes) -> object:
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
