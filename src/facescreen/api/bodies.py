"""What the body of a request may be made of; how many bytes it may have, ``api.middleware.BodyLimit`` says."""

import json
import sys
from collections import Counter
from collections.abc import Collection
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from facescreen.errors import UnsupportedMediaTypeError
from facescreen.images.sources import printable

JSON = "application/json"
FORM = "multipart/form-data"
_HOW_TO_SEND = {
    JSON: "JSON with `Content-Type: application/json`",
    FORM: "a form with `Content-Type: multipart/form-data` (curl: -F)",
}
_CHARSETS = {"utf-8", "utf8", "us-ascii"}
_LONGEST_QUOTE = 100
"""Characters of a header that an answer repeats."""

MAX_JSON_VALUES = 10_000
"""A hundred megabytes can hold fifty million numbers, which take gigabytes and each a message of what is wrong."""

MAX_FORM_FILES = 1_000
"""The most that MAX_IMAGES_PER_REQUEST can allow."""

MAX_FORM_FIELDS = 100
"""Fields that are no files; no form has ten."""

MAX_FORM_PARTS = MAX_FORM_FILES + MAX_FORM_FIELDS
"""Of either kind."""

MAX_FORM_FIELD_BYTES = 64_000
"""Of one field that is no file. The longest texts are of 2,000 characters."""

NO_FILE = "must be a file, sent with a file name, as in: curl -F images=@photo.jpg"
"""What is said of a part of a form that is meant to be a file and has no name of one."""

_PART_TOO_LARGE = "Part exceeded maximum size"
"""How Starlette begins to say so."""

# Pictures of people never lie in a temporary folder; how much may be uploaded is limited, as of any other body.
MultiPartParser.spool_max_size = sys.maxsize


def has_too_many_values(document: bytes) -> bool:
    """Whether a JSON document may have more than ``MAX_JSON_VALUES``, told before any of them is made."""
    # The first value of a list or an object has a bracket before it, every other one a comma.
    return sum(map(document.count, (b",", b"[", b"{"))) >= MAX_JSON_VALUES


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON document, whose names may not come twice: which one was meant, nobody can tell."""
    found = dict(pairs)
    if len(found) < len(pairs):
        name = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise json.JSONDecodeError(f"`{printable(name[:60])}` is given more than once", "", 0)
    return found


def media_type(headers: Headers) -> str:
    """The media type of the body in lower case, without its parameters; empty if there is none, or several."""
    given = headers.getlist("content-type")
    return parse_options_header(given[0])[0].decode("latin-1") if len(given) == 1 else ""


class MediaTypes:
    """Refuses a body that the operation cannot read, before a byte of it is read.

    Args:
        taken: the media types that the operation reads; empty: it reads no body, whatever is sent.
        methods: of the operation; others are refused elsewhere, whatever their body is.
    """

    def __init__(self, app: ASGIApp, taken: Collection[str], *, methods: Collection[str]) -> None:
        self._app = app
        self._taken = taken
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_asked = bool(self._taken) and scope["method"] in self._methods
        if is_asked and (wrong := _unreadable(Headers(scope=scope), self._taken)):
            how = " or ".join(_HOW_TO_SEND[taken] for taken in self._taken)
            raise UnsupportedMediaTypeError(f"{wrong}; send {how}, in UTF-8 and not compressed")
        await self._app(scope, receive, send)


def _unreadable(headers: Headers, taken: Collection[str]) -> str | None:
    """What is wrong with the body by its headers."""
    codings = ",".join(headers.getlist("content-encoding")).strip()
    if codings.lower() not in {"", "identity"}:
        return f"the body is compressed (Content-Encoding: {codings[:_LONGEST_QUOTE]})"
    given = media_type(headers)
    if not given:
        return "the request does not say in one `Content-Type` what its body is"
    is_json = given == JSON or (given.startswith("application/") and given.endswith("+json"))
    if given not in taken and not (is_json and JSON in taken):
        return f"the body is {given[:_LONGEST_QUOTE]}"
    _, options = parse_options_header(headers["content-type"])
    charset = options.get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in _CHARSETS:
        return f"the body is in the charset {charset[:_LONGEST_QUOTE]}"
    return None


class BoundedRequest(Request):
    """A request whose body is refused with 400 where it has more parts or values than any has that means well."""

    async def json(self) -> Any:  # noqa: ANN401 - JSON is anything
        if has_too_many_values(await self.body()):
            raise HTTPException(400, f"the JSON document has more than {MAX_JSON_VALUES:,} values")
        try:
            return json.loads(await self.body(), object_pairs_hook=_once)
        except json.JSONDecodeError:
            raise
        except UnicodeDecodeError:
            raise HTTPException(400, "the JSON document is not in UTF-8") from None
        except RecursionError:
            raise HTTPException(400, "the JSON document is nested too deeply") from None
        except ValueError:
            raise HTTPException(400, "a number in the JSON document has too many digits") from None

    async def _get_form(
        self,
        *,
        max_files: float = MAX_FORM_FILES,
        max_fields: float = MAX_FORM_FIELDS,
        max_part_size: int = MAX_FORM_FIELD_BYTES,
    ) -> FormData:
        try:
            return await super()._get_form(
                max_files=min(max_files, MAX_FORM_FILES),
                max_fields=min(max_fields, MAX_FORM_FIELDS),
                max_part_size=min(max_part_size, MAX_FORM_FIELD_BYTES),
            )
        except (ValueError, LookupError):  # of the codec that the form names
            raise HTTPException(400, "the form is not written in the character set that it names") from None
        except HTTPException as error:
            if not error.detail.startswith(_PART_TOO_LARGE):
                raise
            large = f"a part of the form has more than {MAX_FORM_FIELD_BYTES:,} bytes and no file name"
            detail = f"{large}: a text must be shorter, and a photo {NO_FILE}"
            raise HTTPException(error.status_code, detail) from None
