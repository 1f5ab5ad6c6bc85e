"""What the body of a request may be made of; how many bytes it may have, ``api.middleware.BodyLimit`` says."""

import sys
from typing import Any

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.requests import Request

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

# Pictures of people never lie in a temporary folder; how much may be uploaded is limited, as of any other body.
MultiPartParser.spool_max_size = sys.maxsize


def has_too_many_values(document: bytes) -> bool:
    """Whether a JSON document may have more than ``MAX_JSON_VALUES``, told before any of them is made."""
    # The first value of a list or an object has a bracket before it, every other one a comma.
    return sum(map(document.count, (b",", b"[", b"{"))) >= MAX_JSON_VALUES


class BoundedRequest(Request):
    """A request whose body is refused with 400 where it has more parts or values than any has that means well."""

    async def json(self) -> Any:  # noqa: ANN401 - JSON is anything
        if has_too_many_values(await self.body()):
            raise HTTPException(400, f"the JSON document has more than {MAX_JSON_VALUES:,} values")
        return await super().json()

    async def _get_form(
        self,
        *,
        max_files: float = MAX_FORM_FILES,
        max_fields: float = MAX_FORM_FIELDS,
        max_part_size: int = MAX_FORM_FIELD_BYTES,
    ) -> FormData:
        return await super()._get_form(
            max_files=min(max_files, MAX_FORM_FILES),
            max_fields=min(max_fields, MAX_FORM_FIELDS),
            max_part_size=min(max_part_size, MAX_FORM_FIELD_BYTES),
        )
