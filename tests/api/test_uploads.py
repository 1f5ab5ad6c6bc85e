"""Images that are uploaded for detection and screening: the same as in JSON, with the same limits."""

import json
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest

from facescreen.api.admission import Room
from facescreen.config import Settings
from facescreen.domain.access import Scope
from facescreen.errors import OverloadedError
from facescreen.main import create_app
from tests.api.test_access import Body, application, bearer, key
from tests.api.test_blacklist import enroll, files
from tests.api.test_process import process
from tests.at_rest import events
from tests.conftest import serving
from tests.painted import BLUE, GREEN, RED, inline, photo

PROCESS, DETECT = "/process/process-images", "/detect/detect-face"
NONE: dict[str, str] = {}


def uploads(*images: bytes, field: str = "images") -> list[tuple[str, tuple[str, bytes, str]]]:
    return [(field, (f"{index}.png", image, "image/png")) for index, image in enumerate(images)]


async def screen(client: httpx.AsyncClient, *images: bytes, **fields: str) -> list[dict[str, Any]]:
    response = await client.post(PROCESS, files=uploads(*images), data=fields)
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()
    return results


def without_moment(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    moment = {"id", "created_at", "image_path_or_identifier"}
    return [{name: value for name, value in result.items() if name not in moment} for result in results]


async def test_uploads_give_what_base64_gives(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED))
    images = photo(RED, BLUE), photo(), photo(GREEN)
    options: dict[str, Any] = {
        "model_name": "Dlib",
        "detector_backend": "dlib",
        "distance_metric": "euclidean_l2",
        "threshold": 0.2,
        "review_threshold": 0.3,
        "collection": "default",
    }
    for chosen in (NONE, options):
        uploaded = await screen(client, *images, **{name: str(value) for name, value in chosen.items()})
        assert without_moment(uploaded) == without_moment(await process(client, *map(inline, images), **chosen))
        assert [result["image_path_or_identifier"] for result in uploaded] == ["0.png", "1.png", "2.png"]
    stored = (await client.get("/processed-images/", params={"limit": 3, "offset": 3})).json()["items"]
    assert without_moment(stored[::-1]) == without_moment(uploaded)
    every = await client.post(PROCESS, files=uploads(*images), params={"all_references": "true"})
    assert every.status_code == 200

    faces = await client.post(DETECT, files=uploads(images[0], field="image"), data={"detector_backend": "dlib"})
    same = await client.post(DETECT, json={"image": inline(images[0]), "detector_backend": "dlib"})
    assert faces.json() == same.json() != []


async def test_an_empty_field_is_not_given(client: httpx.AsyncClient) -> None:
    empty = dict.fromkeys(
        ("collection", "model_name", "detector_backend", "distance_metric", "threshold", "review_threshold"), ""
    )
    (given,), (plain,) = await screen(client, photo(RED), **empty), await screen(client, photo(RED))
    assert without_moment([given]) == without_moment([plain])


async def test_a_file_without_a_name_is_known_by_its_digest(client: httpx.AsyncClient) -> None:
    (inlined,) = await process(client, inline(photo(RED)))
    part = b'--x\r\nContent-Disposition: form-data; name="images"; filename=""\r\n\r\n%s\r\n--x--\r\n' % photo(RED)
    response = await client.post(PROCESS, content=part, headers={"content-type": "multipart/form-data; boundary=x"})
    assert response.json()[0]["image_path_or_identifier"] == inlined["image_path_or_identifier"]


async def test_a_bad_upload_never_fails_the_others(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"max_image_bytes": 5_000})) as client:
        results = await screen(client, photo(RED), b"no picture", b"", bytes(5_001), photo(GREEN)[:100], photo(GREEN))
        codes = [result["error"] and result["error"]["code"] for result in results]
        assert codes == [None, "unsupported_format", codes[2], "image_too_large", codes[4], None]
        assert {codes[2], codes[4]} <= {"unsupported_format", "image_undecodable"}
        for image, status, code in ((bytes(5_001), 413, "image_too_large"), (b"no", 415, "unsupported_format")):
            refused = await client.post(DETECT, files=uploads(image, field="image"))
            assert (refused.status_code, refused.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("path", "request_", "status", "location", "code"),
    [
        (PROCESS, {"files": uploads(b"x"), "data": {"thresold": "0.1"}}, 422, "body.thresold", None),
        (PROCESS, {"files": uploads(b"x"), "data": {"threshold": "nan"}}, 422, "body.threshold", None),
        (PROCESS, {"files": uploads(b"x"), "data": {"threshold": "-1"}}, 422, "body.threshold", None),
        (PROCESS, {"files": uploads(b"x"), "data": {"threshold": "near"}}, 422, "body.threshold", None),
        (PROCESS, {"files": uploads(b"x"), "data": {"model_name": "dlip"}}, 422, "body.model_name", None),
        (PROCESS, {"files": uploads(b"x"), "data": {"collection": "a b"}}, 422, "body.collection", None),
        (PROCESS, {"files": uploads(b"x", field="image")}, 422, "body.image", "unknown_parameter"),
        (PROCESS, {"files": {"images": (None, "samples/a.jpg")}}, 422, "body.images.0", "file_expected"),
        (PROCESS, {"files": [*uploads(b"x"), ("images", (None, ""))]}, 422, "body.images.1", "file_missing"),
        (DETECT, {"files": {"image": (None, "samples/a.jpg")}}, 422, "body.image", "file_expected"),
        (DETECT, {"files": uploads(b"x")}, 422, "body.images", "unknown_parameter"),
        ("/blacklist/", {"files": {"name": (None, "Ada"), "images": (None, "")}}, 422, "body.images.0", "file_missing"),
    ],
)
async def test_a_form_that_cannot_be_used_is_told_why_and_nothing_is_done(
    client: httpx.AsyncClient,
    settings: Settings,
    path: str,
    request_: dict[str, Any],
    *,
    status: int,
    location: str,
    code: str | None,
) -> None:
    response = await client.post(path, **request_)
    assert response.status_code == status, response.text
    faults = {fault["location"]: fault for fault in response.json()["errors"]}
    assert location in faults
    assert code is None or faults[location]["code"] == code
    assert "class '" not in response.text
    assert (await client.get("/processed-images/")).json()["total_items"] == 0
    assert files(settings.processed_images_output_dir) == []


async def test_limits_hold_for_uploads(settings: Settings) -> None:
    tight = settings.model_copy(update={"max_images_per_request": 2, "max_body_bytes": 20_000})
    async with serving(tight) as client:
        many = await client.post(PROCESS, files=uploads(*[photo(RED)] * 3))
        assert (many.status_code, many.json()["code"]) == (413, "too_many_images")
        large = await client.post(PROCESS, files=uploads(bytes(20_000)))
        assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
        missing = await client.post(PROCESS, files=uploads(photo(RED)), data={"collection": "nowhere"})
        assert (missing.status_code, missing.json()["code"]) == (404, "collection_not_found")
        outside = await client.post(PROCESS, files=uploads(photo(RED)), data={"threshold": "3"})
        assert (outside.status_code, outside.json()["code"]) == (422, "invalid_threshold")
        assert (await client.get("/processed-images/")).json()["total_items"] == 0
    assert [event["outcome"] for event in events(settings) if event["action"] == "screening"] == [
        "too_many_images",
        "collection_not_found",
        "invalid_threshold",
    ]


@pytest.mark.parametrize("path", [PROCESS, DETECT])
async def test_uploads_are_refused_unread_without_room_or_scope(settings: Settings, path: str) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    async with serving(settings) as client:
        room: Room = application(client).state.room
        with ExitStack() as places:
            with suppress(OverloadedError):
                while True:
                    places.enter_context(room.reading("127.0.0.1"))
            body = Body()
            refused = await client.post(path, content=body.stream(), headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
            assert not body.is_read
        reader = await key(client, Scope.READ)
    async with serving(settings) as client:
        for credentials, status in ((NONE, 401), (bearer(reader), 403)):
            body = Body()
            refused = await client.post(path, content=body.stream(), headers={**headers, **credentials})
            assert refused.status_code == status
            assert not body.is_read
    denied = [event["subject"] for event in events(settings) if event["action"] == "denied"]
    assert denied == ["process_images" if path == PROCESS else "detect_face"]


async def test_an_upload_that_is_sent_again_is_answered_as_the_first_time(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    headers = {"idempotency-key": "k"}
    first = await client.post(PROCESS, files=uploads(photo(RED)), headers=headers)
    again = await client.post(PROCESS, files=uploads(photo(RED)), headers=headers)
    assert first.request.headers["content-type"] != again.request.headers["content-type"]
    assert (again.headers["idempotency-replayed"], again.content) == ("true", first.content)
    for other in ({"files": uploads(photo(GREEN))}, {"json": {"images": [inline(photo(RED))]}}):
        reused = await client.post(PROCESS, headers=headers, **other)
        assert reused.json()["code"] == "idempotency_key_reused"
    assert (await client.get("/processed-images/")).json()["total_items"] == 1
    await client.post(DETECT, files=uploads(photo(RED), field="image"))
    done = [event["action"] for event in events(settings) if event["outcome"] == "done"]
    assert done == ["sync", "screening", "detect"]


def test_both_ways_are_documented(settings: Settings) -> None:
    document = create_app(settings).openapi()
    for path, field in ((PROCESS, "images"), (DETECT, "image")):
        content = document["paths"][f"/api/v1{path}"]["post"]["requestBody"]["content"]
        assert list(content) == ["application/json", "multipart/form-data"]
        form = content["multipart/form-data"]["schema"]
        model = document["components"]["schemas"][content["application/json"]["schema"]["$ref"].rpartition("/")[2]]
        assert set(form["properties"]) == set(model["properties"])
        assert form["required"] == model["required"] == [field]
        shown = form["properties"][field]
        assert shown.get("items", shown)["format"] == "binary"
        assert "$ref" not in json.dumps(form)


def test_swagger_fills_nothing_into_forms_that_nobody_meant(settings: Settings) -> None:
    """It takes an example, else a random value; an empty field is not given."""
    document = create_app(settings).openapi()
    forms = [
        operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        for item in document["paths"].values()
        for operation in item.values()
        if "multipart/form-data" in operation.get("requestBody", {}).get("content", {})
    ]
    assert len(forms) == 4
    for form in forms:
        schema = document["components"]["schemas"][form["$ref"].rpartition("/")[2]] if "$ref" in form else form
        for name, field in schema["properties"].items():
            filled = field["default"] if "default" in field else field.get("items", field)["examples"][0]
            assert filled in {"", "default", "single", False}, name


@pytest.mark.parametrize(
    ("method", "path", "filled"),
    [
        ("put", "/blacklist/{id}/", {}),
        ("post", "/processed-images/{id}/faces/{n}/clear", {"entry_id": 0, "note": ""}),
        ("post", "/collections/", {"name": ""}),
    ],
)
def test_swagger_fills_nothing_into_changes_that_nobody_meant(
    settings: Settings, method: str, path: str, filled: dict[str, Any]
) -> None:
    document = create_app(settings).openapi()
    content = document["paths"][f"/api/v1{path}"][method]["requestBody"]["content"]["application/json"]
    if examples := content.get("examples"):
        assert next(iter(examples.values()))["value"] == filled
        return
    schema = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
    assert filled == {
        name: field["examples"][0] if "examples" in field else field["default"]
        for name, field in schema["properties"].items()
    }
