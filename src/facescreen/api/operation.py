"""What a request passes before its body is read, and what each operation asks of it."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import APIRouter, Security
from fastapi.exceptions import RequestValidationError
from fastapi.params import Body, Depends
from fastapi.params import Security as SecurityParam
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from facescreen.api.access import Access
from facescreen.api.admission import Admission
from facescreen.api.attempts import Attempts
from facescreen.api.bodies import FORM, BoundedRequest, MediaTypes, media_type
from facescreen.api.parameters import Parameters, Place
from facescreen.api.problems import ACCESS_ERRORS, UNFIT, merged, responses
from facescreen.api.replay import KEY_HEADER, REPLAY_RESPONSES, Replay
from facescreen.domain import access
from facescreen.errors import OverloadedError

_bearer = HTTPBearer(auto_error=False, description="An API key: `fsk_…`.")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same key.")


def needs(*scopes: access.Scope, work: bool = False) -> Sequence[Depends]:
    """Dependencies of an operation, which say what it needs; FastAPI writes them into the OpenAPI document.

    Args:
        scopes: that a key must have; without one any valid key will do.
        work: it computes with images, and has to be admitted.
    """
    marks: list[Depends] = [Security(_bearer, scopes=scopes), Security(_header, scopes=scopes)]
    return [*marks, _WORK] if work else marks


async def _computes() -> None:
    """Mark of an operation that computes with images."""


_WORK = Depends(_computes)


class Operation(APIRoute):
    """A route whose requests are let in first: who asks, is there room, was it asked before.

    An operation without :func:`needs` is open to everybody.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - APIRoute's
        asked = [mark for mark in kwargs.get("dependencies") or () if isinstance(mark, SecurityParam)]
        kwargs["responses"] = merged(kwargs.get("responses") or {}, UNFIT)
        if asked:
            kwargs["responses"] = merged(kwargs["responses"], responses(*ACCESS_ERRORS))
        if "POST" in kwargs["methods"]:
            kwargs["responses"] = merged(kwargs["responses"], REPLAY_RESPONSES)
            kwargs["openapi_extra"] = {**(kwargs.get("openapi_extra") or {}), "parameters": [KEY_HEADER]}
        super().__init__(*args, **kwargs)
        scopes = frozenset(access.Scope(scope) for mark in asked for scope in mark.scopes or ())
        typed = MediaTypes(Replay(super().handle), self._media_types(), methods=self.methods or ())
        admission = Admission(typed, is_work=_WORK in self.dependencies, reads_body=self.body_field is not None)
        if admission.takes_room:
            self.responses = merged(self.responses, responses(OverloadedError))
        self._entrance = Access(Attempts(admission, operation=self.name), scopes=scopes if asked else None)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        parameters = Parameters.of(self)

        async def strict(request: Request) -> Response:
            bounded = BoundedRequest(request.scope, request.receive)
            parameters.require_query(bounded)
            try:
                if parameters.body is Place.FORM:
                    parameters.require_form(await bounded.form())
                return await handler(bounded)
            except RequestValidationError as error:
                raise parameters.named(error) from None
            finally:
                await bounded.close()

        return strict

    def _media_types(self) -> list[str]:
        """What the body may be: what this route reads, and what it documents of an :class:`UploadOperation`."""
        documented = (self.openapi_extra or {}).get("requestBody", {}).get("content", {})
        body = self.body_field.field_info if self.body_field else None
        return [body.media_type, *documented] if isinstance(body, Body) else []

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._entrance(scope, receive, send)


class UploadOperation(Operation):
    """The same operation for a form with files. It stands before the one for JSON, which documents both."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        return (match, child_scope) if media_type(Headers(scope=scope)) == FORM else (Match.NONE, {})


def add_upload(
    router: APIRouter, path: str, endpoint: Callable[..., Coroutine[Any, Any, Any]], *, named_as: str
) -> None:
    """Let an operation for JSON that screens take a form, too; call it before that one is added.

    Args:
        named_as: the name of that operation, for metrics and replays.
    """
    router.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        name=named_as,
        dependencies=needs(access.Scope.SCREEN, work=True),
        include_in_schema=False,
        route_class_override=UploadOperation,
    )


def also_form(model: type[BaseModel]) -> dict[str, Any]:
    """``openapi_extra`` of an operation for JSON that an :class:`UploadOperation` takes a form for."""
    return {"requestBody": {"content": {FORM: {"schema": model.model_json_schema()}}}}
