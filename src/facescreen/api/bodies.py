"""What the body of a request may be made of; how many bytes it may have, ``api.middleware.BodyLimit`` says."""

import json
import sys
from collections import Counter
from typing import Any

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.requests import Request

from facescreen.images.sources import printable

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


class BoundedRequest(Request):
    """A request whose body is refused with 400 where it has more parts or values than any has that means well."""

    async def json(self) -> Any:  # noqa: ANN401 - JSON is anything
        if has_too_many_values(await self.body()):
            raise HTTPException(400, f"the JSON document has more than {MAX_JSON_VALUES:,} values")
        return json.loads(await self.body(), object_pairs_hook=_once)

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
