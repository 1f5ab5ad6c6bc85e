"""What a request gives is taken or refused: no parameter that is unknown, misplaced or repeated is passed over."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self, get_origin

from fastapi import params
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.datastructures import ImmutableMultiDict
from starlette.requests import Request

from facescreen.images.sources import printable
from facescreen.wording import nearest

_SHOWN = 60
"""Characters of a made-up name that an answer repeats."""
_CREDENTIALS = ("Authorization", "X-API-Key")


class Place(StrEnum):
    """Where a parameter is given, as FastAPI names it in what it finds wrong."""

    PATH = "path"
    QUERY = "query"
    FORM = "form"
    JSON = "json"
    HEADER = "header"


_WORDS: Mapping[Place, tuple[str, str]] = {
    Place.PATH: ("a part of the path", "in the path"),
    Place.QUERY: ("the query parameter", "in the query, after the `?`"),
    Place.FORM: ("the form field", "in the form"),
    Place.JSON: ("the field", "in the JSON body"),
    Place.HEADER: ("the header", "in a header"),
}
"""What a parameter of each place is called, and where it belongs."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What an operation takes.

    Attributes:
        places: of each name; a name may be in several.
        repeatable: names that may be given several times.
        body: ``FORM``, ``JSON``, or ``None`` where the operation reads no body.
    """

    places: Mapping[str, Collection[Place]]
    repeatable: Collection[str]
    body: Place | None

    @classmethod
    def of(cls, route: APIRoute) -> Self:
        """Those that the route declares."""
        places: dict[str, set[Place]] = {name: {Place.HEADER} for name in _CREDENTIALS}
        repeatable = set()

        def add(name: str, place: Place, annotation: object) -> None:
            places.setdefault(name, set()).add(place)
            if get_origin(annotation) is list:
                repeatable.add(name)

        for field in get_flat_params(route.dependant):
            place = Place(field.field_info.in_.value)  # type: ignore[attr-defined]  # of parameters that are no bodies
            add(field.alias, place, field.field_info.annotation)
        for header in (route.openapi_extra or {}).get("parameters", ()):
            add(header["name"], Place(header["in"]), None)
        body = None
        for field in route.dependant.body_params:
            body = Place.FORM if isinstance(field.field_info, params.Form) else Place.JSON
            model = field.field_info.annotation
            if isinstance(model, type) and issubclass(model, BaseModel):
                for name, part in model.model_fields.items():
                    add(name, body, part.annotation)
            else:
                add(field.alias, body, model)
        return cls(places, repeatable, body)

    def require_query(self, request: Request) -> None:
        """Check the query, and that there is no body where none is read.

        Raises:
            RequestValidationError: something was given that the operation would pass over.
        """
        faults = list(self._faults(request.query_params, Place.QUERY))
        if self.body is None and _has_body(request):
            faults.append(_fault(("body",), "misplaced_parameter", self._no_body()))
        if faults:
            raise RequestValidationError(faults)

    def require_form(self, form: ImmutableMultiDict[str, Any]) -> None:
        """Check the names in a form.

        Raises:
            RequestValidationError: as above.
        """
        if faults := list(self._faults(form, Place.FORM)):
            raise RequestValidationError(faults)

    def named(self, error: RequestValidationError) -> RequestValidationError:
        """The same fault, with the nearest name for each field of a JSON body that is unknown."""
        return RequestValidationError(
            [
                self._unfit(str(fault["loc"][-1]), Place.JSON) if fault["type"] == "extra_forbidden" else fault
                for fault in error.errors()
            ]
        )

    def _faults(self, given: ImmutableMultiDict[str, Any], place: Place) -> Iterator[dict[str, Any]]:
        for name, count in Counter(name for name, _ in given.multi_items()).items():
            if place not in self.places.get(name, ()):
                yield self._unfit(name, place)
            elif count > 1 and name not in self.repeatable:
                detail = f"is given {count} times, and only one value can count; give it once"
                yield _fault((_location(place), name), "repeated_parameter", detail)

    def _unfit(self, name: str, place: Place) -> dict[str, Any]:
        """What is wrong with a name that the operation does not take in this place."""
        shown = printable(name[:_SHOWN])
        location = _location(place), name
        if own := self.places.get(name):
            where = " or ".join(_WORDS[each][1] for each in sorted(own))
            return _fault(location, "misplaced_parameter", f"`{shown}` belongs {where}, not {_WORDS[place][1]}")
        here = [each for each, places in self.places.items() if place in places]
        unknown = f"there is no {_WORDS[place][0].removeprefix('the ')} `{shown}`"
        if likely := nearest(name, here):
            return _fault(location, "unknown_parameter", f"{unknown}; the nearest one is `{likely}`")
        if likely := nearest(name, self.places):
            called = _WORDS[min(self.places[likely])][0]
            return _fault(location, "unknown_parameter", f"{unknown}; the nearest one is {called} `{likely}`")
        takes = ", ".join(f"`{each}`" for each in here) or "none"
        return _fault(location, "unknown_parameter", f"{unknown}; the operation takes {takes}")

    def _no_body(self) -> str:
        here = ", ".join(f"`{name}`" for name, places in self.places.items() if Place.QUERY in places)
        return f"this operation reads no body; {f'{here} belong in the query' if here else 'it takes no parameters'}"


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _location(place: Place) -> str:
    return "body" if place in {Place.FORM, Place.JSON} else place


def _fault(location: tuple[str, ...], code: str, detail: str) -> dict[str, Any]:
    return {"type": code, "loc": location, "msg": detail, "input": None}
