"""Rekognition's service model, as botocore ships it: what requests must be, and what answers are.

botocore's own validator is for clients and looks at types and lower limits only. Here a request is held to everything
that the model says, in AWS's words, and an answer to what lets a client read all of it. To AWS too, image bytes above
5 MB are a violation at ``image.bytes`` like any other; its ImageTooLargeException is for images in S3.
"""

import base64
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape

from facescreen.api.rekognition.faults import RekognitionFault, invalid, not_serializable

_LISTED = 10
"""Violations that one message lists, as many as AWS does."""
_ECHOED = 64
"""Characters of a refused value that its message repeats."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_JSON_TYPES = {
    str: "STRING_VALUE",
    int: "NUMBER_VALUE",
    float: "DECIMAL_VALUE",
    bool: "BOOLEAN_VALUE",
    list: "LIST_VALUE",
    dict: "STRUCTURE_VALUE",
    type(None): "NULL_VALUE",
}
_JAVA_CLASSES = {
    r"\p{L}": r"\w",
    r"\p{N}": "",
    r"\p{Z}": "\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
}
"""Character classes that Python's patterns lack. The model has all three and ``_`` side by side: ``\\w`` is L, N, _."""


@dataclass(frozen=True, slots=True)
class OperationModel:
    """One operation of the service model."""

    input: Shape
    output: Shape

    def decode(self, document: object) -> dict[str, Any]:
        """The request in a JSON document: blobs as bytes, without members that are null or that the model lacks.

        Raises:
            RekognitionFault: ``SerializationException`` for a value of another type than the member's, else
                ``ValidationException`` with all violations.
        """
        violations: list[str] = []
        request: dict[str, Any] = _decode(self.input, document, _Place("", violations))
        if violations:
            raise invalid(violations)
        return request

    def encode(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The answer as a JSON document: moments as seconds since 1970, without members that are None.

        Raises:
            TypeError: a member is not in the model, or its value is not of its type or enumeration.
        """
        document: dict[str, Any] = _encode(self.output, answer, self.output.name)
        return document


@cache
def operation_model(name: str) -> OperationModel:
    """The model of an operation. The first call reads the service model from botocore's files.

    Raises:
        botocore.model.OperationNotFoundError: Rekognition has no such operation.
    """
    operation = _service_model().operation_model(name)
    return OperationModel(operation.input_shape, operation.output_shape)


@cache
def _service_model() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("rekognition", "service-2"), "rekognition")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a request a value stands, as AWS writes it, and what is wrong with the whole request so far."""

    path: str
    violations: list[str]

    def within(self, name: str) -> "_Place":
        return _Place(f"{self.path}.{name}".lstrip("."), self.violations)

    def member(self, name: str) -> "_Place":
        return self.within(name[0].lower() + name[1:])

    def violated(self, value: object, constraint: str) -> None:
        if len(self.violations) < _LISTED:
            self.violations.append(f"Value{_shown(value)} at '{self.path}' failed to satisfy constraint: {constraint}")

    def mistyped(self, value: object, wanted: str) -> RekognitionFault:
        where = f" at '{self.path}'" if self.path else ""
        return not_serializable(f"{_JSON_TYPES[type(value)]} can not be converted to {wanted}{where}")


def _decode(shape: Shape, value: object, place: _Place) -> Any:  # noqa: ANN401 - whatever the shape says
    decoded = _DECODERS[shape.type_name](shape, value, place)
    for constraint in _broken(shape, decoded):
        place.violated(decoded, constraint)
    return decoded


def _structure(shape: Shape, value: object, place: _Place) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise place.mistyped(value, "a Structure")
    given = {name: value[name] for name in shape.members if value.get(name) is not None}
    for name in shape.required_members:
        if name not in given:
            place.member(name).violated(None, "Member must not be null")
    return {name: _decode(shape.members[name], item, place.member(name)) for name, item in given.items()}


def _list(shape: Shape, value: object, place: _Place) -> list[Any]:
    if not isinstance(value, list):
        raise place.mistyped(value, "a List")
    return [_decode(shape.member, item, place.within(f"{number}.member")) for number, item in enumerate(value, start=1)]


def _map(shape: Shape, value: object, place: _Place) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise place.mistyped(value, "a Map")
    return {
        _decode(shape.key, key, place.within("key")): _decode(shape.value, item, place.within("value"))
        for key, item in value.items()
    }


def _string(_shape: Shape, value: object, place: _Place) -> str:
    # Half a surrogate pair is JSON, and no text: nothing behind this could store it.
    if not isinstance(value, str) or _SURROGATE.search(value):
        raise place.mistyped(value, "a String")
    return value


def _blob(_shape: Shape, value: object, place: _Place) -> bytes:
    if not isinstance(value, str):
        raise place.mistyped(value, "a Blob")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        raise place.mistyped(value, "a Blob") from None


def _integer(_shape: Shape, value: object, place: _Place) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**31) <= value < 2**31:
        raise place.mistyped(value, "an Integer")
    return value


def _float(_shape: Shape, value: object, place: _Place) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise place.mistyped(value, "a Float")
    return float(value)


_DECODERS: Mapping[str, Callable[[Shape, object, _Place], Any]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
    "string": _string,
    "blob": _blob,
    "integer": _integer,
    "float": _float,
}
"""By the kinds of shape that the inputs have."""


def _broken(shape: Shape, value: Any) -> Iterator[str]:  # noqa: ANN401 - whatever the shape says
    """The constraints of a shape that a value of the right type breaks."""
    limits = shape.metadata
    measure, size = ("value", value) if isinstance(value, (int, float)) else ("length", len(value))
    if "pattern" in limits and not _compiled(limits["pattern"]).fullmatch(value):
        yield f"Member must satisfy regular expression pattern: {limits['pattern']}"
    if "enum" in limits and value not in limits["enum"]:
        yield f"Member must satisfy enum value set: [{', '.join(limits['enum'])}]"
    if size < limits.get("min", size):
        yield f"Member must have {measure} greater than or equal to {limits['min']}"
    if size > limits.get("max", size):
        yield f"Member must have {measure} less than or equal to {limits['max']}"


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    for java, python in _JAVA_CLASSES.items():
        pattern = pattern.replace(java, python)
    return re.compile(pattern)


def _shown(value: object) -> str:
    """A refused value for its message; nothing of a blob, nor of what holds other values."""
    if value is None:
        return " null"
    if not isinstance(value, (str, int, float)):
        return ""
    text = str(value)
    return f" '{text}'" if len(text) <= _ECHOED else f" '{text[:_ECHOED]}…'"


def _encode(shape: Shape, value: Any, path: str) -> Any:  # noqa: ANN401 - whatever the shape says
    match shape.type_name, value:
        case "structure", Mapping():
            given = {name: item for name, item in value.items() if item is not None}
            if unknown := given.keys() - shape.members.keys():
                raise TypeError(f"{path}: the model has no members {sorted(unknown)}")
            return {name: _encode(shape.members[name], item, f"{path}.{name}") for name, item in given.items()}
        case "list", list() | tuple():
            return [_encode(shape.member, item, f"{path}[{index}]") for index, item in enumerate(value)]
        case "string", str() if value in shape.metadata.get("enum", (value,)):
            return value
        case ("boolean", bool()) | ("integer" | "long" | "float", int()) | ("float", float()) if (
            isinstance(value, bool) is (shape.type_name == "boolean") and abs(value) <= sys.float_info.max
        ):
            return value
        case "timestamp", datetime() if value.tzinfo:
            return value.timestamp()
    raise TypeError(f"{path}: {type(value).__name__} is not the {shape.type_name} of the model")
