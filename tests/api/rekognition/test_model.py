"""The service model: valid requests pass, broken ones are refused by the member, no answer loses anything."""

import base64
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.model import OperationNotFoundError, Shape
from botocore.parsers import create_parser
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from facescreen.api.rekognition.faults import RekognitionFault
from facescreen.api.rekognition.model import operation_model

OPERATIONS = (
    "AssociateFaces",
    "CompareFaces",
    "CreateCollection",
    "CreateUser",
    "DeleteCollection",
    "DeleteFaces",
    "DeleteUser",
    "DescribeCollection",
    "DetectFaces",
    "DisassociateFaces",
    "IndexFaces",
    "ListCollections",
    "ListFaces",
    "ListUsers",
    "SearchFaces",
    "SearchFacesByImage",
    "SearchUsers",
    "SearchUsersByImage",
)
UUID = "0123abcd-0000-1111-2222-0123456789ab"

each_operation = pytest.mark.parametrize("operation", OPERATIONS)


def texts(shape: Shape) -> st.SearchStrategy[str]:
    limits = shape.metadata
    least, most = limits.get("min", 0), limits.get("max", 40)
    if shape.enum:
        return st.sampled_from(shape.enum)
    if r"\p{" in limits.get("pattern", ""):
        allowed = st.text(st.characters(categories=["L", "N", "Z"], include_characters="_.:/=+-@"), max_size=40)
        return allowed.filter(lambda text: len(text) >= least and not text.startswith("aws:"))
    if "pattern" in limits:
        matching = st.from_regex(limits["pattern"], fullmatch=True)
        return matching.filter(lambda text: least <= len(text) <= limits.get("max", math.inf))
    return st.text(min_size=least, max_size=min(most, 40))


def structures(shape: Shape) -> st.SearchStrategy[dict[str, Any]]:
    members = {name: values(member) for name, member in shape.members.items()}
    required = {name: members.pop(name) for name in shape.required_members}
    return st.fixed_dictionaries(required, optional=members)


def lists(shape: Shape) -> st.SearchStrategy[list[Any]]:
    least = shape.metadata.get("min", 0)
    return st.lists(values(shape.member), min_size=least, max_size=max(least, 2))


def integers(shape: Shape) -> st.SearchStrategy[int]:
    return st.integers(shape.metadata.get("min", 0), shape.metadata.get("max", 2**31 - 1))


STRATEGIES: dict[str, Callable[[Any], st.SearchStrategy[Any]]] = {
    "structure": structures,
    "list": lists,
    "map": lambda shape: st.dictionaries(values(shape.key), values(shape.value), max_size=2),
    "string": texts,
    "blob": lambda _: st.binary(min_size=1, max_size=30).map(lambda data: base64.b64encode(data).decode()),
    "integer": integers,
    "long": integers,
    "float": lambda shape: st.floats(shape.metadata.get("min", -1000), shape.metadata.get("max", 1000)),
    "boolean": lambda _: st.booleans(),
    "timestamp": lambda _: st.integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
}


def values(shape: Shape) -> st.SearchStrategy[Any]:
    """What the shape allows: in JSON for a request, in Python for an answer."""
    return STRATEGIES[shape.type_name](shape)


def same(shape: Shape, value: Any) -> Any:
    """What should be decoded of a JSON value: the same, with blobs as bytes."""
    match shape.type_name:
        case "structure":
            return {name: same(shape.members[name], item) for name, item in value.items()}
        case "blob":
            return base64.b64decode(value)
    return value


@dataclass(frozen=True)
class Fault:
    """A broken value in the place of a good one."""

    where: str
    value: Any
    name: str
    constraint: str = ""


def faults(shape: Shape, value: Any, where: str) -> Iterator[Fault]:
    """Every kind of fault that this one value can have, without those of what it holds."""
    limits, kind = shape.metadata, shape.type_name
    others: tuple[Any, ...] = ({"a": 1}, [[]], "no", 7, 1.5, True)
    for other in others:
        if kind not in kinds_of(other):
            yield Fault(where, other, "SerializationException")
    if kind == "blob":
        yield Fault(where, "no base64", "SerializationException")
        yield Fault(where, "YQ", "SerializationException")
    if kind == "string":
        yield Fault(where, "\ud800", "SerializationException")
    if kind == "integer":
        yield Fault(where, 2**31, "SerializationException")
    if "pattern" in limits:
        yield Fault(where, "\x00", "ValidationException", "regular expression pattern: ")
        yield Fault(where, f"{value}\n", "ValidationException", "regular expression pattern: ")
    if "enum" in limits:
        yield Fault(where, "OTHER", "ValidationException", f"enum value set: [{', '.join(limits['enum'])}]")
    measure = "value" if kind in {"integer", "float"} else "length"
    if "min" in limits and limits["min"] > (0 if measure == "length" else -math.inf):
        told = f"must have {measure} greater than or equal to {limits['min']}"
        yield Fault(where, sized(shape, value, limits["min"] - 1), "ValidationException", told)
    if "max" in limits:
        told = f"must have {measure} less than or equal to {limits['max']}"
        yield Fault(where, sized(shape, value, limits["max"] + 1), "ValidationException", told)


def kinds_of(value: Any) -> set[str]:
    by_type = {dict: {"structure", "map"}, list: {"list"}, str: {"string", "blob"}, int: {"integer", "float"}}
    return by_type.get(type(value), {"float"} if isinstance(value, float) else set())


def sized(shape: Shape, value: Any, size: int) -> Any:
    match shape.type_name:
        case "string":
            return "a" * size
        case "blob":
            return base64.b64encode(bytes(size)).decode()
        case "list":
            return [UUID] * size
        case "map":
            return {f"key {number}": "value" for number in range(size)}
    return size


def broken(shape: Shape, value: Any, where: str = "") -> Iterator[tuple[Fault, Any]]:
    """Every fault that a valid value can have, anywhere, and the value with it."""
    if where:
        yield from ((fault, fault.value) for fault in faults(shape, value, where))
    if shape.type_name == "structure":
        for name, item in value.items():
            member = f"{where}.{name[0].lower()}{name[1:]}".lstrip(".")
            for fault, other in broken(shape.members[name], item, member):
                yield fault, value | {name: other}
            if name in shape.required_members:
                without = {key: kept for key, kept in value.items() if key != name}
                fault = Fault(member, None, "ValidationException", "Member must not be null")
                yield fault, without
                yield fault, without | {name: None}
    if shape.type_name == "list" and value:
        for fault, other in broken(shape.member, value[-1], f"{where}.{len(value)}.member"):
            yield fault, [*value[:-1], other]
    if shape.type_name == "map" and value:
        key = min(value)
        for fault, other in broken(shape.value, value[key], f"{where}.value"):
            yield fault, value | {key: other}


def refusal(operation: str, document: object) -> RekognitionFault:
    with pytest.raises(RekognitionFault) as caught:
        operation_model(operation).decode(document)
    assert caught.value.status == 400
    return caught.value


@each_operation
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_what_the_model_allows_is_decoded(operation: str, data: st.DataObject) -> None:
    model = operation_model(operation)
    document = data.draw(values(model.input))
    expected = same(model.input, document)
    assert model.decode(document) == expected
    assert model.decode(document | {"FromTheFuture": {"a": 1}}) == expected
    assert model.decode(dict.fromkeys(model.input.members) | document) == expected
    assert not ParamValidator().validate(expected, model.input).has_errors()


@each_operation
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_what_the_model_forbids_is_refused_by_the_name_of_the_member(operation: str, data: st.DataObject) -> None:
    model = operation_model(operation)
    choices = list(broken(model.input, data.draw(values(model.input))))
    if not choices:
        assert not model.input.required_members
        return
    fault, document = data.draw(st.sampled_from(choices))
    refused = refusal(operation, document)
    assert refused.name == fault.name
    assert f"at '{fault.where}'" in refused.message
    assert fault.constraint in refused.message
    assert len(refused.message) < 2000


@each_operation
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_what_botocore_refuses_is_refused_here(operation: str, data: st.DataObject) -> None:
    model = operation_model(operation)
    choices = [document for _, document in broken(model.input, data.draw(values(model.input)))]
    theirs = [document for document in choices if ParamValidator().validate(document, model.input).has_errors()]
    assert theirs or not choices
    for document in theirs[:20]:
        refusal(operation, document)


@each_operation
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_botocore_reads_all_of_an_answer(operation: str, data: st.DataObject) -> None:
    model = operation_model(operation)
    answer = data.draw(values(model.output))
    body = json.dumps(model.encode(answer)).encode()
    response = {"body": body, "headers": {"x-amzn-requestid": "1"}, "status_code": 200}
    parsed = create_parser("json").parse(response, model.output)
    assert parsed.pop("ResponseMetadata")["RequestId"] == "1"
    assert parsed == answer


@pytest.mark.parametrize("document", [None, [], "{}", 1, 1.5, True])
def test_a_request_is_a_structure(document: object) -> None:
    assert refusal("ListCollections", document).name == "SerializationException"


def test_violations_are_told_as_aws_tells_them() -> None:
    several = refusal("CreateCollection", {"CollectionId": "a collection/" * 20})
    assert several.message == (
        f"2 validation errors detected: Value '{('a collection/' * 20)[:64]}…' at 'collectionId' failed to satisfy "
        r"constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.\-]+; "
        f"Value '{('a collection/' * 20)[:64]}…' at 'collectionId' failed to satisfy "
        "constraint: Member must have length less than or equal to 255"
    )
    missing = refusal("CreateUser", {"UserId": "u"})
    assert missing.message == (
        "1 validation error detected: Value null at 'collectionId' failed to satisfy constraint: "
        "Member must not be null"
    )
    blob = refusal("DetectFaces", {"Image": {"Bytes": ""}})
    assert blob.message == (
        "1 validation error detected: Value at 'image.bytes' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1"
    )
    element = refusal("DeleteFaces", {"CollectionId": "c", "FaceIds": [UUID, "x"]})
    assert "Value 'x' at 'faceIds.2.member' failed to satisfy constraint" in element.message


def test_one_message_lists_ten_violations_at_most() -> None:
    refused = refusal("DeleteFaces", {"CollectionId": "c", "FaceIds": ["x"] * 4000})
    assert refused.message.startswith("10 validation errors detected: ")
    assert refused.message.count("failed to satisfy constraint") == 10


@pytest.mark.parametrize("secret", [base64.b64encode(b"a face of somebody").decode()[:-1], "not base64 of somebody"])
def test_bytes_of_an_image_are_never_repeated(secret: str) -> None:
    assert secret not in refusal("DetectFaces", {"Image": {"Bytes": secret}}).message


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan, 10**400])
def test_numbers_that_no_float_holds_are_refused(number: float) -> None:
    request = {"CollectionId": "c", "FaceId": UUID, "FaceMatchThreshold": number}
    assert refusal("SearchFaces", request).name == "SerializationException"


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        ("CreateCollection", {"StatusCode": "200"}),
        ("CreateCollection", {"StatusCode": True}),
        ("CreateCollection", {"StatusCode": 200, "CollectionId": "c"}),
        ("CreateCollection", {"CollectionArn": 1}),
        ("ListCollections", {"CollectionIds": "abc"}),
        ("ListCollections", {"CollectionIds": [None]}),
        ("DescribeCollection", {"CreationTimestamp": 1.0}),
        ("DescribeCollection", {"CreationTimestamp": datetime(2026, 1, 1)}),  # noqa: DTZ001 - nobody knows its zone
        ("DetectFaces", {"FaceDetails": [{"Confidence": math.nan}]}),
        ("DetectFaces", {"FaceDetails": [{"Smile": {"Value": 1}}]}),
        ("DetectFaces", {"FaceDetails": [{"Landmarks": [{"Type": "eye"}]}]}),
        ("ListUsers", {"Users": [{"UserStatus": "GONE"}]}),
    ],
)
def test_an_answer_that_a_client_could_not_read_is_never_given(operation: str, answer: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        operation_model(operation).encode(answer)


def test_members_that_are_none_are_left_out_of_an_answer() -> None:
    assert operation_model("ListFaces").encode({"Faces": [{"UserId": None}], "NextToken": None}) == {"Faces": [{}]}


def test_only_operations_of_rekognition_have_a_model() -> None:
    with pytest.raises(OperationNotFoundError):
        operation_model("ListBuckets")
