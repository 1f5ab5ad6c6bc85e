"""Answers that are files: pictures, and the audit trail."""

from typing import Any

from starlette.requests import Request

_BYTES = "application/octet-stream"
"""Generators of clients skip operations that answer only with media types that they do not know. They all know this."""


def file_response(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    """The answer 200 of an operation that answers with a file, for the OpenAPI document."""
    content = {name: {"schema": {"type": "string", "format": "binary"}} for name in (media_type, _BYTES)}
    return {200: {"description": description, "content": content}}


def accepted_type(request: Request, media_type: str) -> str:
    """The file's media type, or plain bytes for a client that takes these and not the file's type."""
    accepted = {part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "").split(",")}
    is_taken = accepted & {media_type, f"{media_type.partition('/')[0]}/*", "*/*"}
    return _BYTES if _BYTES in accepted and not is_taken else media_type
