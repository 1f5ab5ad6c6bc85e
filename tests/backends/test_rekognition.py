"""The Rekognition backend against a server that keeps faces, and fails as it is told."""

import asyncio
import io
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import botocore.session
import numpy as np
import pytest
from PIL import Image

from facescreen.aws import AwsClient
from facescreen.backends.base import GalleryBackend, GalleryPhoto
from facescreen.backends.rekognition import RekognitionBackend
from facescreen.domain.faces import Box, Landmarks, Pixels, Point
from facescreen.errors import (
    AwsCollectionMissingError,
    AwsError,
    AwsQuotaError,
    AwsServiceError,
    AwsUnreachableError,
    FacescreenError,
    FaceUnusableError,
    NoFaceError,
)
from facescreen.pool import WorkPool
from tests.loopback_aws import CREDENTIALS, access
from tests.painted import BLUE, GREEN, RED, YELLOW, Colour, photo
from tests.rekognition_server import (
    EXPIRED_CREDENTIALS,
    MALFORMED,
    Partial,
    RekognitionServer,
    Reply,
    Silence,
    refusal,
)

LIST = "default"
NOBODY = np.full((200, 300, 3), 90, np.uint8)


def pixels(*colours: Colour) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(photo(*colours))).convert("RGB"))


def photos(*colours: Colour) -> list[GalleryPhoto]:
    return [GalleryPhoto(f"1:photo-{number}", pixels(colour)) for number, colour in enumerate(colours)]


def keys(given: list[GalleryPhoto]) -> list[str]:
    return [each.key for each in given]


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[RekognitionServer, AwsClient]]:
    with RekognitionServer() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        client = AwsClient("rekognition", access({"rekognition": server.url}))
        yield server, client
        asyncio.run(client.aclose())


@pytest.fixture
def server(running: tuple[RekognitionServer, AwsClient]) -> RekognitionServer:
    server, _ = running
    server.heal()
    server.collections.clear()
    return server


@pytest.fixture
async def backend(
    running: tuple[RekognitionServer, AwsClient], server: RekognitionServer
) -> AsyncIterator[GalleryBackend]:
    pool = WorkPool(threads=2)
    made: GalleryBackend = RekognitionBackend(running[1], "ours", pool)
    await made.load()
    server.calls.clear()
    yield made
    pool.close()


async def state(backend: GalleryBackend, collection: str = LIST) -> tuple[set[tuple[str | None, str | None]], set[str]]:
    """Keys and people of all faces, and all people."""
    inventory = await backend.inventory(collection)
    return {(face.key, face.person) for face in inventory.faces}, set(inventory.people)


async def test_loading_makes_the_collection_once(backend: GalleryBackend, server: RekognitionServer) -> None:
    assert set(server.collections) == {"ours"}
    assert backend.face_model == "rekognition-7.0"
    await backend.enroll(LIST, "1", photos(RED))
    await backend.load()
    assert len(server.collections["ours"].faces) == 1


async def test_loading_beside_another_process(backend: GalleryBackend, server: RekognitionServer) -> None:
    server.fail("DescribeCollection", refusal("ResourceNotFoundException"))
    await backend.load()
    assert backend.face_model == "rekognition-7.0"


async def test_collections_are_named_after_the_configured_one(
    backend: GalleryBackend, server: RekognitionServer
) -> None:
    for _ in range(2):
        await backend.create_collection("staff")
        await backend.create_collection(LIST)
    assert set(server.collections) == {"ours", "ours.staff"}
    await backend.enroll("staff", "1", photos(RED))
    assert (len(server.collections["ours"].faces), len(server.collections["ours.staff"].faces)) == (0, 1)
    for _ in range(2):
        await backend.delete_collection("staff")
    assert set(server.collections) == {"ours"}
    for attempt in (backend.enroll("staff", "1", photos(RED)), backend.inventory("staff")):
        with pytest.raises(AwsCollectionMissingError):
            await attempt
    with pytest.raises(AwsCollectionMissingError):
        await backend.search("staff", pixels(RED), similarity=80)


async def test_faces_and_their_points_are_in_our_pixels(backend: GalleryBackend) -> None:
    image = np.full((400, 600, 3), 90, np.uint8)
    image[100:200, 50:130] = RED
    image[30:300, 300:500] = BLUE
    large, small = await backend.detect(image, "centerface")
    assert (large.box, small.box) == (Box(300, 30, 200, 270), Box(50, 100, 80, 100))
    assert small.confidence == pytest.approx(0.995)
    points = Landmarks(Point(106, 130), Point(74, 130), Point(90, 150), Point(102, 175), Point(78, 175))
    for name in points.__slots__:
        assert getattr(small.landmarks, name) == pytest.approx(getattr(points, name))
    assert await backend.detect(NOBODY, "centerface") == ()


async def test_every_face_of_a_picture_is_searched(backend: GalleryBackend) -> None:
    red, blue, green = [await backend.enroll(LIST, f"{n}", photos(c)) for n, c in enumerate((RED, BLUE, GREEN))]
    image = pixels(BLUE, YELLOW, RED)
    probe = await backend.prepare(image, await backend.detect(image, "centerface"), "SFace")
    found = await asyncio.gather(*(backend.search(LIST, crop, similarity=90) for crop in probe.crops))
    by_place = [hits for _, hits in sorted(zip(probe.faces, found, strict=True), key=lambda pair: pair[0].box.x)]
    assert [[hit.face_id for hit in hits or ()] for hits in by_place] == [blue, [], red]
    assert all(90 <= hit.similarity <= 100 for hits in found for hit in hits or ())
    everybody = await backend.search(LIST, pixels(GREEN), similarity=0) or ()
    assert {hit.face_id for hit in everybody} == {*red, *blue, *green}


async def test_a_search_without_a_face_says_so(backend: GalleryBackend, server: RekognitionServer) -> None:
    await backend.enroll(LIST, "1", photos(RED))
    assert await backend.search(LIST, NOBODY, similarity=0) is None
    server.fail("SearchFacesByImage", refusal("InvalidParameterException", "Request has invalid parameters"))
    with pytest.raises(AwsServiceError):
        await backend.search(LIST, pixels(RED), similarity=0)


async def test_several_photos_make_one_person_and_again_the_same(backend: GalleryBackend) -> None:
    given = photos(RED, GREEN, BLUE)
    face_ids = await backend.enroll(LIST, "1", given)
    assert len(set(face_ids)) == 3
    assert await backend.enroll(LIST, "1", given) == face_ids
    inventory = await backend.inventory(LIST)
    assert {face.face_id: face.key for face in inventory.faces} == dict(zip(face_ids, keys(given), strict=True))
    assert await state(backend) == ({(key, "1") for key in keys(given)}, {"1"})


async def test_the_largest_face_of_a_photo_is_the_persons(backend: GalleryBackend) -> None:
    image = np.full((300, 300, 3), 90, np.uint8)
    image[20:80, 20:80] = RED
    image[100:260, 100:260] = BLUE
    face_ids = await backend.enroll(LIST, "1", [GalleryPhoto("1:group", image)])
    assert [hit.face_id for hit in await backend.search(LIST, pixels(BLUE), similarity=90) or ()] == face_ids
    assert await backend.search(LIST, pixels(RED), similarity=90) == []


async def test_more_faces_than_one_call_takes_and_than_one_person_may_have(
    backend: GalleryBackend, server: RekognitionServer
) -> None:
    given = photos(*[RED] * 101)
    with pytest.raises(AwsQuotaError):
        await backend.enroll(LIST, "1", given)
    associated = [len(call.parameters["FaceIds"]) for call in server.calls if call.operation == "AssociateFaces"]
    assert associated == [100, 1]
    await backend.withdraw(LIST, "1", keys(given), whole=True)
    assert await state(backend) == (set(), set())


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("EXTREME_POSE", "from the front"),
        ("LOW_BRIGHTNESS", "too dark"),
        ("LOW_SHARPNESS", "too blurred"),
        ("LOW_CONFIDENCE", "not certain"),
        ("SMALL_BOUNDING_BOX", "too small"),
        ("LOW_FACE_QUALITY", "clearer photo"),
    ],
)
async def test_why_a_face_cannot_be_used(
    backend: GalleryBackend, server: RekognitionServer, reason: str, words: str
) -> None:
    server.fail("IndexFaces", Partial(reason), after=1)
    given = photos(RED, GREEN)
    with pytest.raises(FaceUnusableError, match=words):
        await backend.enroll(LIST, "1", given)
    await backend.withdraw(LIST, "1", keys(given), whole=True)
    assert await state(backend) == (set(), set())


async def test_a_photo_without_a_face(backend: GalleryBackend) -> None:
    with pytest.raises(NoFaceError):
        await backend.enroll(LIST, "1", [GalleryPhoto("1:a", NOBODY)])


async def test_a_bystander_is_not_taken_for_the_person(backend: GalleryBackend, server: RekognitionServer) -> None:
    def of(width: float) -> dict[str, Any]:
        return {"BoundingBox": {"Left": 0, "Top": 0, "Width": width, "Height": width}}

    answer = {
        "FaceRecords": [{"Face": {"FaceId": "00000000-0000-0000-0000-000000000000", **of(0.1)}}],
        "UnindexedFaces": [
            {"Reasons": ["LOW_SHARPNESS", "EXTREME_POSE"], "FaceDetail": of(0.5)},
            {"Reasons": ["SMALL_BOUNDING_BOX"], "FaceDetail": of(0.05)},
        ],
    }
    server.fail("IndexFaces", Reply(200, json.dumps(answer).encode()))
    with pytest.raises(FaceUnusableError, match=r"too blurred.*; .*from the front"):
        await backend.enroll(LIST, "1", photos(RED))


@pytest.mark.parametrize(
    ("reason", "error"), [("LOW_MATCH_CONFIDENCE", FaceUnusableError), ("FACE_NOT_FOUND", AwsServiceError)]
)
async def test_a_face_that_is_not_given_to_the_person(
    backend: GalleryBackend, server: RekognitionServer, reason: str, error: type[FacescreenError]
) -> None:
    server.fail("AssociateFaces", Partial(reason))
    with pytest.raises(error):
        await backend.enroll(LIST, "1", photos(RED, GREEN))
    await backend.withdraw(LIST, "1", keys(photos(RED, GREEN)), whole=True)
    assert await state(backend) == (set(), set())


async def test_some_photos_are_withdrawn_and_then_the_person(backend: GalleryBackend) -> None:
    given = photos(RED, GREEN, BLUE)
    await backend.enroll(LIST, "1", given)
    await backend.enroll(LIST, "2", [GalleryPhoto("2:a", pixels(YELLOW))])
    for _ in range(2):
        await backend.withdraw(LIST, "1", ["1:photo-1", "1:never"], whole=False)
        assert await state(backend) == ({("1:photo-0", "1"), ("1:photo-2", "1"), ("2:a", "2")}, {"1", "2"})
    for _ in range(2):
        await backend.withdraw(LIST, "1", [], whole=True)
        assert await state(backend) == ({("2:a", "2")}, {"2"})
    await backend.withdraw("never-made", "1", ["1:photo-1"], whole=True)


async def test_all_faces_are_looked_at_only_for_those_that_are_not_the_persons(
    backend: GalleryBackend, server: RekognitionServer
) -> None:
    server.fail("AssociateFaces", EXPIRED_CREDENTIALS)
    with pytest.raises(AwsError):
        await backend.enroll(LIST, "1", photos(RED))
    assert await state(backend) == ({("1:photo-0", None)}, {"1"})
    await backend.withdraw(LIST, "1", ["1:photo-0"], whole=False)
    assert await state(backend) == (set(), {"1"})

    await backend.enroll(LIST, "1", photos(RED))
    server.calls.clear()
    await backend.withdraw(LIST, "1", ["1:photo-0"], whole=True)
    assert [call.parameters["UserId"] for call in server.calls if call.operation == "ListFaces"] == ["1"]


async def test_faces_of_a_person_whom_the_service_does_not_know_are_withdrawn(
    backend: GalleryBackend, server: RekognitionServer
) -> None:
    (face_id,) = await backend.enroll(LIST, "1", photos(RED))
    server.collections["ours"].faces[face_id].user_id = None
    server.collections["ours"].users.clear()
    server.fail("ListFaces", refusal("ResourceNotFoundException"))
    await backend.withdraw(LIST, "1", ["1:photo-0"], whole=True)
    assert await state(backend) == (set(), set())


async def test_faces_are_removed_whosever_they_are(backend: GalleryBackend, server: RekognitionServer) -> None:
    theirs = await backend.enroll(LIST, "1", photos(RED, GREEN))
    others = await backend.enroll(LIST, "2", [GalleryPhoto("2:a", pixels(YELLOW))])
    unknown = "00000000-0000-0000-0000-000000000000"
    for _ in range(2):
        await backend.remove_faces(LIST, [theirs[0], *others, unknown])
        assert await state(backend) == ({("1:photo-1", "1")}, {"1", "2"})
    server.calls.clear()
    await backend.remove_faces(LIST, [])
    assert server.calls == []


async def test_an_earlier_change_that_takes_effect_later_is_waited_for(
    backend: GalleryBackend, server: RekognitionServer
) -> None:
    server.fail("AssociateFaces", refusal("ConflictException"), times=2)
    await backend.enroll(LIST, "1", photos(RED))
    server.fail("DisassociateFaces", refusal("ConflictException"))
    server.fail("DeleteFaces", Partial("ASSOCIATED_TO_AN_EXISTING_USER"))
    server.fail("DeleteUser", refusal("ConflictException"))
    await backend.withdraw(LIST, "1", [], whole=True)
    assert await state(backend) == (set(), set())


async def test_nothing_is_waited_for_without_end(backend: GalleryBackend, server: RekognitionServer) -> None:
    (face_id,) = await backend.enroll(LIST, "1", photos(RED))
    server.fail("AssociateFaces", refusal("ConflictException"), times=math.inf)
    server.fail("DeleteFaces", Partial("ASSOCIATED_TO_AN_EXISTING_USER"), times=math.inf)
    errors = await asyncio.gather(
        backend.enroll(LIST, "2", photos(GREEN)), backend.remove_faces(LIST, [face_id]), return_exceptions=True
    )
    assert [type(error) for error in errors] == [AwsServiceError, AwsServiceError]


ENROLLING = ["CreateUser", "IndexFaces", "AssociateFaces"]
WITHDRAWING = ["ListFaces", "DisassociateFaces", "DeleteFaces", "DeleteUser"]


@pytest.mark.parametrize("fault", [Silence.DROP, Silence.DROP_AFTER])
@pytest.mark.parametrize("operation", ENROLLING)
async def test_an_enrollment_that_broke_off_can_be_done_again_or_undone(
    backend: GalleryBackend, server: RekognitionServer, operation: str, fault: Silence
) -> None:
    given = photos(RED, GREEN)
    for person, finish in (("1", True), ("2", False)):
        server.fail(operation, fault, times=math.inf)
        with pytest.raises(AwsUnreachableError):
            await backend.enroll(LIST, person, given)
        server.heal()
        if finish:
            await backend.enroll(LIST, person, given)
            assert await state(backend) == ({(key, person) for key in keys(given)}, {person})
        await backend.withdraw(LIST, person, keys(given), whole=True)
        assert await state(backend) == (set(), set())


@pytest.mark.parametrize("fault", [Silence.DROP, Silence.DROP_AFTER])
@pytest.mark.parametrize("operation", WITHDRAWING)
async def test_a_withdrawal_that_broke_off_can_be_done_again(
    backend: GalleryBackend, server: RekognitionServer, operation: str, fault: Silence
) -> None:
    given = photos(RED, GREEN)
    await backend.enroll(LIST, "1", given)
    server.fail(operation, fault, times=math.inf)
    with pytest.raises(AwsUnreachableError):
        await backend.withdraw(LIST, "1", keys(given), whole=True)
    server.heal()
    await backend.withdraw(LIST, "1", keys(given), whole=True)
    assert await state(backend) == (set(), set())


Attempt = Callable[[GalleryBackend], Awaitable[object]]
ATTEMPTS: dict[str, Attempt] = {
    "load": lambda backend: backend.load(),
    "detect": lambda backend: backend.detect(pixels(RED), "centerface"),
    "enroll": lambda backend: backend.enroll(LIST, "1", photos(RED)),
    "withdraw": lambda backend: backend.withdraw(LIST, "1", ["1:photo-0", "1:never"], whole=True),
    "search": lambda backend: backend.search(LIST, pixels(RED), similarity=80),
    "inventory": lambda backend: backend.inventory(LIST),
    "remove_faces": lambda backend: backend.remove_faces(LIST, ["00000000-0000-0000-0000-000000000000"]),
    "create_collection": lambda backend: backend.create_collection("staff"),
    "delete_collection": lambda backend: backend.delete_collection("staff"),
}
CODES = {
    error.name
    for name in ("IndexFaces", "AssociateFaces", "SearchFacesByImage", "ListFaces", "CreateCollection")
    for error in botocore.session.get_session().get_service_model("rekognition").operation_model(name).error_shapes
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
async def test_whatever_the_service_refuses_is_an_error_of_ours_or_none(
    backend: GalleryBackend, server: RekognitionServer, attempt: Attempt
) -> None:
    for code in CODES - {"ThrottlingException", "ProvisionedThroughputExceededException"}:
        for after in range(3):
            server.fail("*", refusal(code, "the words of AWS"), after=after)
            (outcome,) = await asyncio.gather(attempt(backend), return_exceptions=True)
            assert isinstance(outcome, FacescreenError) or not isinstance(outcome, Exception)
            assert "the words of AWS" not in str(outcome)
            server.heal()


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
@pytest.mark.parametrize(
    "body",
    [
        MALFORMED.body,
        b"{}",
        b'{"FaceDetails": [{}], "FaceRecords": [{}], "FaceMatches": [{}], "Faces": [{}], "Users": [{}]}',
        b'{"FaceDetails": [{"BoundingBox": {}, "Landmarks": []}], "FaceRecords": [{"Face": {"FaceId": "0"}}]}',
    ],
)
async def test_an_answer_that_is_none_is_an_error_of_ours_or_without_need(
    backend: GalleryBackend, server: RekognitionServer, attempt: Attempt, body: bytes
) -> None:
    needless = {ATTEMPTS["create_collection"], ATTEMPTS["delete_collection"], ATTEMPTS["remove_faces"]}
    server.fail("*", Reply(200, body), times=math.inf)
    if attempt in needless and body != MALFORMED.body:
        await attempt(backend)
    else:
        with pytest.raises(AwsServiceError):
            await attempt(backend)
