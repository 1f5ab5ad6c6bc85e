"""The only table from errors to HTTP: status, body (RFC 9457) and OpenAPI responses all come from it."""

from collections import defaultdict
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match

from facescreen import errors, metrics
from facescreen.api.examples import with_empty_forms
from facescreen.domain.access import Scope
from facescreen.errors import (
    DuplicateEntryError,
    EnrollmentRejectedError,
    EntryNotFoundError,
    FacescreenError,
    UnavailableError,
)
from facescreen.wording import said

STATUS: Mapping[type[FacescreenError], HTTPStatus] = {
    errors.InputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.UrlNotAllowedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FetchFailedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FetchTimeoutError: HTTPStatus.GATEWAY_TIMEOUT,
    errors.PathNotAllowedError: HTTPStatus.FORBIDDEN,
    errors.InvalidBase64Error: HTTPStatus.BAD_REQUEST,
    errors.ImageTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.ImageUndecodableError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.UnsupportedFormatError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.TooManyImagesError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.BodyTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UnsupportedMediaTypeError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.InvalidThresholdError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ThresholdRequiredError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NoFaceError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.SeveralFacesError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FaceUnusableError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.PhotoQualityError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ExpiryInPastError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.OptionNotAvailableError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.DuplicateImageError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.EnrollmentRejectedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NotInPersonFolderError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FileNameUnusableError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.PhotoUnreadableError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.HiddenFileError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NotAFileError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RecycleBinError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FileUnfinishedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FolderWithoutPhotosError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FileNotListedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FolderEmptyError: HTTPStatus.CONFLICT,
    errors.CalibrationEvidenceError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.CalibrationNotFoundError: HTTPStatus.NOT_FOUND,
    errors.CollectionNotFoundError: HTTPStatus.NOT_FOUND,
    errors.CollectionExistsError: HTTPStatus.CONFLICT,
    errors.DefaultCollectionError: HTTPStatus.CONFLICT,
    errors.DuplicateEntryError: HTTPStatus.CONFLICT,
    errors.EntryPendingError: HTTPStatus.CONFLICT,
    errors.EntryChangedError: HTTPStatus.CONFLICT,
    errors.PictureGoneError: HTTPStatus.CONFLICT,
    errors.EntryNotFoundError: HTTPStatus.NOT_FOUND,
    errors.ReferenceImageNotFoundError: HTTPStatus.NOT_FOUND,
    errors.ResultNotFoundError: HTTPStatus.NOT_FOUND,
    errors.FaceNotFoundError: HTTPStatus.NOT_FOUND,
    errors.MatchNotFoundError: HTTPStatus.NOT_FOUND,
    errors.ClearanceNotFoundError: HTTPStatus.NOT_FOUND,
    errors.UnauthenticatedError: HTTPStatus.UNAUTHORIZED,
    errors.ScopeMissingError: HTTPStatus.FORBIDDEN,
    errors.LocalOnlyError: HTTPStatus.FORBIDDEN,
    errors.RateLimitedError: HTTPStatus.TOO_MANY_REQUESTS,
    errors.IdempotencyKeyInvalidError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.IdempotencyKeyReusedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.IdempotencyInProgressError: HTTPStatus.CONFLICT,
    errors.IdempotencyOutcomeUnknownError: HTTPStatus.CONFLICT,
    errors.DeadlineExceededError: HTTPStatus.GATEWAY_TIMEOUT,
    errors.UnreadyError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.WeightsMissingError: HTTPStatus.FAILED_DEPENDENCY,
    errors.PackageMissingError: HTTPStatus.FAILED_DEPENDENCY,
    errors.EmbeddingsMissingError: HTTPStatus.FAILED_DEPENDENCY,
    errors.EmbeddingsUnreadableError: HTTPStatus.FAILED_DEPENDENCY,
    errors.OverloadedError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DatabaseBusyError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageFullError: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.AwsThrottledError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.AwsTimeoutError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.AwsUnreachableError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.AwsServiceError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.AwsCredentialsError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.AwsAccessDeniedError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.AwsBucketMissingError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.AwsCollectionMissingError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.AwsQuotaError: HTTPStatus.SERVICE_UNAVAILABLE,
}

ACCESS_ERRORS = (errors.UnauthenticatedError, errors.ScopeMissingError, errors.LocalOnlyError, errors.RateLimitedError)
"""What every operation that needs a key can answer."""

IMAGE_ERRORS = (
    errors.InvalidBase64Error,
    errors.PathNotAllowedError,
    errors.ImageTooLargeError,
    errors.UnsupportedFormatError,
    errors.ImageUndecodableError,
    errors.UrlNotAllowedError,
    errors.FetchFailedError,
    errors.FetchTimeoutError,
)
"""What can be wrong with an image that a request names."""

AWS_ERRORS = tuple(error for error in STATUS if issubclass(error, errors.AwsError))
"""What every call of Rekognition or S3 can meet, with ``FACE_PROCESSING_BACKEND=aws_rekognition``."""

_PASSING = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
    HTTPStatus.INSUFFICIENT_STORAGE,
}
"""What says when to try again."""

_HTTP_CODES = {
    HTTPStatus.BAD_REQUEST: "malformed_request",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
}
"""Codes of what the framework itself refuses."""

_FAULTS_OF_BODIES = (
    (HTTPStatus.BAD_REQUEST, _HTTP_CODES[HTTPStatus.BAD_REQUEST], "The body cannot be parsed."),
    *(
        (STATUS[error], error.code, (error.__doc__ or "").partition("\n")[0])
        for error in (errors.BodyTooLargeError, errors.UnsupportedMediaTypeError)
    ),
)

_MOST_FAULTS = 100
_LONGEST_LOCATION = 200
"""What is told of a request that does not fit the schema: an answer is never much larger than what it answers."""


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    location: str = Field(description="Where: a field of the request, or the name of an uploaded file.")
    code: str = Field(description="Stable code of the fault.")
    detail: str = Field(description="What is wrong, for people.")


class Problem(BaseModel):
    """An error as RFC 9457 has it; `code` is stable and meant to be branched on."""

    type: str = Field(examples=["urn:facescreen:problem:entry_not_found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    code: str = Field(examples=["entry_not_found"])
    detail: str = Field(examples=["there is no blacklist entry 7"])
    errors: list[Fault] = Field(default=[], description="Every single fault, where there can be several.")


def problem(
    status: HTTPStatus,
    code: str,
    detail: str,
    *,
    faults: list[Fault] | None = None,
    retry_after: int | None = None,
    extension: Mapping[str, object] | None = None,
) -> JSONResponse:
    """An ``application/problem+json`` response; ``extension`` are members that only this kind of problem has."""
    metrics.problems.labels(code).inc()
    body = Problem(
        type=f"urn:facescreen:problem:{code}",
        title=status.phrase,
        status=status,
        code=code,
        detail=detail,
        errors=faults or [],
    )
    headers = {"Retry-After": str(retry_after)} if retry_after is not None else None
    content = {**body.model_dump(), **(extension or {})}
    return JSONResponse(content, status_code=status, headers=headers, media_type="application/problem+json")


def from_error(error: FacescreenError, *, may_read: bool = False) -> JSONResponse:
    """The response to one of our own errors.

    Args:
        may_read: the caller may see every list, so it is told which one has what this one lacks.
    """
    status = STATUS[type(error)]
    detail = str(error)
    if may_read and isinstance(error, EntryNotFoundError) and error.elsewhere is not None:
        detail += f"; the collection {error.elsewhere} has it: add ?collection={quote(error.elsewhere)}"
    seconds = (error if isinstance(error, UnavailableError) else UnavailableError).retry_after_seconds
    response = problem(
        status,
        error.code,
        detail,
        faults=[Fault(location=file.file, code=file.code, detail=file.detail) for file in error.files]
        if isinstance(error, EnrollmentRejectedError | DuplicateEntryError)
        else None,
        retry_after=seconds if status in _PASSING else None,
    )
    if isinstance(error, errors.UnauthenticatedError):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def responses(*possible: type[FacescreenError], work: bool = True) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses of an operation that can fail in these ways, an example for each code.

    Args:
        work: it does anything at all, which takes the database and time.
    """
    examples: dict[HTTPStatus, dict[str, Any]] = defaultdict(dict)
    always = (errors.DatabaseBusyError, errors.DeadlineExceededError) if work else ()
    for error in (*possible, *always):
        status = STATUS[error]
        summary = (error.__doc__ or "").partition("\n")[0]
        examples[status][error.code] = {"summary": summary, "value": _example(status, error.code, summary)}
    return {int(status): _described(status, by_code) for status, by_code in examples.items()}


def merged(
    first: Mapping[int | str, dict[str, Any]], second: Mapping[int | str, dict[str, Any]]
) -> dict[int | str, Any]:
    """OpenAPI responses of both, with the examples of both where a status is in both."""
    union = {**second, **first}
    for status in first.keys() & second.keys():
        examples = {
            code: example
            for each in (first, second)
            for code, example in each[status]["content"]["application/problem+json"]["examples"].items()
        }
        union[status] = {**union[status], "content": {"application/problem+json": {"examples": examples}}}
    return union


def install(app: FastAPI) -> None:
    """Answer every error with a problem; what nobody foresaw is left to the outermost middleware."""

    async def on_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, FacescreenError)  # noqa: S101 - registered for this type only
        request.state.code = error.code
        return from_error(error, may_read=Scope.READ in getattr(request.state, "scopes", ()))

    async def on_validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type only
        request.state.code = errors.InputError.code
        faults = [_fault(fault) for fault in error.errors()[:_MOST_FAULTS]]
        detail = "; ".join(f"{fault.location}: {fault.detail}" for fault in faults)
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, errors.InputError.code, detail, faults=faults)

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type only
        status = HTTPStatus(error.status_code)
        request.state.code = _HTTP_CODES.get(status, "http_error")
        response = problem(status, request.state.code, str(error.detail))
        response.headers.update(error.headers or {})
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = ", ".join(_allowed(request))
        return response

    def document() -> dict[str, Any]:
        return with_empty_forms(_as_problems(generate()))

    generate = app.openapi
    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way
    app.add_exception_handler(FacescreenError, on_error)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)


def _fault(found: Mapping[str, Any]) -> Fault:
    detail = f"no JSON that is taken: {found['ctx']['error']}" if found["type"] == "json_invalid" else said(found)
    return Fault(location=".".join(map(str, found["loc"]))[:_LONGEST_LOCATION], code=found["type"], detail=detail)


def _allowed(request: Request) -> list[str]:
    """The methods of this path, of all routes; Starlette knows the first one only."""
    scope = {key: value for key, value in request.scope.items() if key not in {"route", "endpoint", "fastapi"}}
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        for routed in ("GET" if method == "HEAD" else method,)
        if any(route.matches({**scope, "method": routed})[0] is Match.FULL for route in request.app.router.routes)
    ]


def _as_problems(document: dict[str, Any]) -> dict[str, Any]:
    """Adds what FastAPI does not know of problems.

    It files the model of every response under the media type of successes; ours belongs to the problem's. And every
    body can be of another type, one that nobody can parse, or too large. A form takes no fields but those that are
    named.
    """
    schemas = document["components"]["schemas"]
    for item in document["paths"].values():
        for operation in item.values():
            if "requestBody" in operation:
                for media_type, body in operation["requestBody"]["content"].items():
                    if media_type == "multipart/form-data" and "$ref" in body["schema"]:
                        schemas[body["schema"]["$ref"].rpartition("/")[2]]["additionalProperties"] = False
                for status, code, summary in _FAULTS_OF_BODIES:
                    response = operation["responses"].setdefault(
                        str(int(status)),
                        {"description": status.phrase, "content": {"application/problem+json": {"examples": {}}}},
                    )
                    content = response["content"]["application/problem+json"]
                    content.setdefault("schema", {"$ref": "#/components/schemas/Problem"})
                    example = {"summary": summary, "value": _example(status, code, summary)}
                    content["examples"].setdefault(code, example)
            for response in operation["responses"].values():
                content = response.get("content", {})
                if "application/problem+json" in content and "application/json" in content:
                    content["application/problem+json"] |= content.pop("application/json")
    return document


def _described(status: HTTPStatus, by_code: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": Problem,
        "description": status.phrase,
        "content": {"application/problem+json": {"examples": by_code}},
    }


def _example(status: HTTPStatus, code: str, detail: str) -> dict[str, Any]:
    return {
        "type": f"urn:facescreen:problem:{code}",
        "title": status.phrase,
        "status": int(status),
        "code": code,
        "detail": detail,
        "errors": [],
    }


UNFIT: Mapping[int | str, dict[str, Any]] = {
    int(STATUS[errors.InputError]): _described(
        STATUS[errors.InputError],
        {
            errors.InputError.code: {
                "summary": "The request does not fit the schema.",
                "value": _example(STATUS[errors.InputError], errors.InputError.code, "body.images: Field required"),
            }
        },
    )
}
"""What every operation answers to a request that does not fit its schema."""
