"""What is said of a value or a name that does not fit: in words for people, with what was probably meant."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from enum import EnumType
from functools import partial
from typing import Any, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_before_validator_function

_LONGEST_NAME = 100
"""Characters of a name that are compared: comparing takes the square of them, and callers make up names."""


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that this one was probably meant to be, ``None`` if there is none like it."""
    by_folded = {each.casefold(): each for each in known}
    found = get_close_matches(name[:_LONGEST_NAME].casefold(), by_folded, n=1)
    return by_folded[found[0]] if found else None


class AnyCase:
    """Annotation of a literal or an enumeration of names: they may be written in capitals, in small letters or both.

    Any other text is refused with the names, which Pydantic would quote as Python writes them.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        names: list[str] = list(source) if isinstance(source, EnumType) else list(get_args(source))
        return no_info_before_validator_function(partial(_chosen, names), handler(source))


def _chosen(names: Collection[str], value: object) -> object:
    text = value.strip() if isinstance(value, str) else ""
    by_folded = {name.casefold(): name for name in names}
    if (name := by_folded.get(text.casefold())) is not None:
        return name
    likely = nearest(text, names)
    hint = f"; the nearest one is {likely}" if likely else ""
    raise PydanticCustomError("enum", "must be one of {names}{hint}", {"names": ", ".join(names), "hint": hint})


def said(fault: Mapping[str, Any]) -> str:
    """What Pydantic says of a value, without what it says of Python."""
    is_no_object = fault["type"] == "model_attributes_type"
    return "must be a JSON object" if is_no_object else str(fault["msg"]).removeprefix("Value error, ")
