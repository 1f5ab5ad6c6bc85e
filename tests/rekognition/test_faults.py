"""Whatever fails outside: a stable code, nothing lost, and after the audit nothing half."""

import math
from collections.abc import Callable
from itertools import islice
from typing import Any

import httpx
import pytest

from facescreen.config import Settings
from facescreen.errors import StartupError
from facescreen.services.audit import FindingKind
from facescreen.services.matching import SEARCHES_AT_ONCE
from tests.api.test_blacklist import enroll, files, matches, upload
from tests.api.test_sync import drop, sync
from tests.crash.callers import all_colours
from tests.painted import BLUE, GREEN, RED, YELLOW, Colour, inline, photo
from tests.rekognition import s3_proxy
from tests.rekognition.agreement import check_sides
from tests.rekognition.sides import Aws, audit, serving
from tests.rekognition_server import (
    ACCESS_DENIED,
    EXPIRED_CREDENTIALS,
    MALFORMED,
    THROTTLED,
    THROUGHPUT_EXCEEDED,
    Fault,
    Partial,
    Silence,
    refusal,
)

S3_METHODS = {"GET", "PUT", "DELETE"}
LOST = {"aws_unreachable", "aws_timeout"}
"""Of a connection that breaks, the retries end with the deadline or before."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With little patience."""
    return settings.model_copy(update={"aws_read_timeout_seconds": 3, "aws_deadline_seconds": 8})


@pytest.fixture
async def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """A service that knows Bob, who is blue."""
    await enroll(client, "Bob", photo(BLUE))
    return client


def fail(aws: Aws, where: str, fault: Any, *, times: float = math.inf, after: int = 0) -> None:
    """Let calls of a Rekognition operation, or S3 requests of a method, meet a fault."""
    side: Any = aws.s3 if where in S3_METHODS else aws.rekognition
    side.fail(where, fault, times=times, after=after)


def post(client: httpx.AsyncClient, name: str, *colours: Colour) -> Any:
    return client.post("/blacklist/", data={"name": name}, files=upload(*map(photo, colours)))


def check_refused(response: httpx.Response, *codes: str) -> None:
    """A refusal for which the outside service is to blame."""
    assert response.status_code == 503, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] in codes, response.text
    assert int(response.headers["retry-after"]) > 0


async def is_unknown(client: httpx.AsyncClient, colour: Colour) -> bool:
    return not await matches(client, photo(colour))


ENROLLMENT: list[tuple[str, Any, set[str], int]] = [
    ("DetectFaces", ACCESS_DENIED, {"aws_access_denied"}, 1),
    ("CreateUser", EXPIRED_CREDENTIALS, {"aws_credentials_rejected"}, 0),
    ("CreateUser", refusal("ServiceQuotaExceededException"), {"aws_quota_exceeded"}, 0),
    ("IndexFaces", refusal("ResourceNotFoundException"), {"aws_collection_missing"}, 0),
    ("IndexFaces", THROUGHPUT_EXCEEDED, {"aws_throttled", "aws_timeout"}, 1),
    ("IndexFaces", MALFORMED, {"aws_service_error"}, 1),
    ("IndexFaces", Silence.HANG, {"aws_timeout"}, 0),
    ("IndexFaces", Silence.DROP_AFTER, LOST, 0),
    ("AssociateFaces", ACCESS_DENIED, {"aws_access_denied"}, 0),
    ("AssociateFaces", Partial("FACE_NOT_FOUND"), {"aws_service_error"}, 0),
    ("AssociateFaces", Silence.DROP_AFTER, LOST, 0),
    ("PUT", s3_proxy.EXPIRED_TOKEN, {"aws_credentials_rejected"}, 0),
    ("PUT", s3_proxy.DENIED, {"aws_access_denied"}, 1),
    ("PUT", s3_proxy.NO_BUCKET, {"aws_bucket_missing"}, 1),
    ("PUT", Silence.DROP_AFTER, LOST, 1),
]
"""Where it fails, how, what it is called, and how many calls are spared before."""


async def test_a_failed_enrollment_leaves_nothing(
    client: httpx.AsyncClient, settings: Settings, aws: Aws, subtests: pytest.Subtests
) -> None:
    for where, fault, codes, after in ENROLLMENT:
        with subtests.test(where=where, fault=fault):
            fail(aws, where, fault, after=after)
            check_refused(await post(client, "Ada", RED, GREEN), *codes)
            assert check_sides(settings, aws) == {"Bob": 1}
            aws.heal()
    assert (await post(client, "Ada", RED, GREEN)).status_code == 201
    assert not await is_unknown(client, RED)
    assert check_sides(settings, aws) == {"Bob": 1, "Ada": 2}


async def test_a_lost_answer_is_asked_for_again_and_nothing_is_done_twice(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    for where in ("CreateUser", "IndexFaces", "AssociateFaces", "PUT"):
        fail(aws, where, Silence.DROP_AFTER, times=1)
    assert (await post(client, "Ada", RED, GREEN)).status_code == 201
    assert check_sides(settings, aws) == {"Bob": 1, "Ada": 2}


async def test_what_was_taken_back_can_be_asked_for_again_with_the_same_key(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    key = {"Idempotency-Key": "k"}

    async def enrolled() -> httpx.Response:
        return await client.post("/blacklist/", data={"name": "Ada"}, files=upload(photo(RED)), headers=key)

    async def collection() -> httpx.Response:
        return await client.post("/collections/", json={"name": "other"}, headers=key)

    for where, ask in (("IndexFaces", enrolled), ("CreateCollection", collection)):
        fail(aws, where, ACCESS_DENIED)
        check_refused(await ask(), "aws_access_denied")
        aws.heal()
        first = await ask()
        assert first.status_code == 201, first.text
        assert (await ask()).headers["idempotency-replayed"] == "true"
    assert check_sides(settings, aws) == {"Bob": 1, "Ada": 1}


@pytest.mark.parametrize(
    ("where", "reason", "words"),
    [("IndexFaces", "LOW_SHARPNESS", "too blurred"), ("AssociateFaces", "LOW_MATCH_CONFIDENCE", "does not look like")],
)
async def test_a_face_that_the_service_refuses(
    client: httpx.AsyncClient, settings: Settings, aws: Aws, *, where: str, reason: str, words: str
) -> None:
    fail(aws, where, Partial(reason), times=1)
    response = await post(client, "Ada", RED, GREEN)
    assert (response.status_code, response.json()["code"]) == (422, "enrollment_rejected")
    assert [fault["code"] for fault in response.json()["errors"]] == ["face_unusable"]
    assert words in response.json()["detail"]
    assert check_sides(settings, aws) == {"Bob": 1}


@pytest.mark.parametrize("where", ["IndexFaces", "PUT"])
async def test_more_photos_that_fail_leave_the_others(
    client: httpx.AsyncClient, settings: Settings, aws: Aws, where: str
) -> None:
    (bob,) = (await client.get("/blacklist/")).json()
    url = f"/blacklist/{bob['id']}"
    fail(aws, where, ACCESS_DENIED if where == "IndexFaces" else s3_proxy.DENIED, after=1)
    check_refused(await client.post(f"{url}/images", files=upload(photo(RED), photo(GREEN))), "aws_access_denied")
    aws.heal()
    assert (await client.get(f"{url}/")).json()["images"] == bob["images"]
    assert await is_unknown(client, RED)
    assert not await is_unknown(client, BLUE)
    assert check_sides(settings, aws) == {"Bob": 1}


async def recovered(settings: Settings, client: httpx.AsyncClient, *, by_audit: bool) -> None:
    """Let an audit or another start repair what is unfinished; files that are on no list stay as they are."""
    if by_audit:
        assert FindingKind.UNFINISHED in {finding.kind for finding in await audit(client)}
        repaired = await audit(client, fix=True)
        assert all(finding.repaired or finding.kind is FindingKind.FOREIGN for finding in repaired)
        assert {finding.kind for finding in await audit(client)} <= {FindingKind.FOREIGN}
    else:
        async with serving(settings):
            pass


async def test_an_outage_from_any_call_of_an_enrollment_on(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    calls = 0
    while True:
        aws.rekognition.fail("*", ACCESS_DENIED, times=math.inf, after=calls)
        response = await post(client, "Ada", RED, GREEN)
        aws.heal()
        if response.status_code == 201:
            break
        check_refused(response, "aws_access_denied")
        known = {record["name"]: record["status"] for record in (await client.get("/blacklist/")).json()}
        assert known.pop("Bob") == "active"
        assert "active" not in known.values()
        assert await is_unknown(client, RED)
        assert await is_unknown(client, GREEN)
        if known:
            await recovered(settings, client, by_audit=calls % 2 == 0)
        assert check_sides(settings, aws) == {"Bob": 1}
        calls += 1
    assert calls == 8
    assert check_sides(settings, aws) == {"Bob": 1, "Ada": 2}


async def test_neither_service_can_be_reached_while_it_is_taken_back(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    fail(aws, "IndexFaces", ACCESS_DENIED, after=1)
    fail(aws, "ListFaces", ACCESS_DENIED)
    fail(aws, "DELETE", s3_proxy.DENIED)
    check_refused(await post(client, "Ada", RED, GREEN), "aws_access_denied")
    (record,) = (await client.get("/blacklist/", params={"q": "Ada"})).json()
    check_refused(await client.delete(f"/blacklist/{record['id']}/"), "aws_access_denied")
    aws.rekognition.heal()
    check_refused(await client.delete(f"/blacklist/{record['id']}/"), "aws_access_denied")
    assert await is_unknown(client, RED)
    aws.heal()
    assert (await client.delete(f"/blacklist/{record['id']}/")).status_code == 200
    assert check_sides(settings, aws) == {"Bob": 1}


Removal = Callable[[httpx.AsyncClient, dict[str, Any]], Any]


def whole(client: httpx.AsyncClient, record: dict[str, Any]) -> Any:
    return client.delete(f"/blacklist/{record['id']}/")


def one_photo(client: httpx.AsyncClient, record: dict[str, Any]) -> Any:
    return client.delete(f"/blacklist/{record['id']}/images/{record['images'][0]['id']}")


@pytest.mark.parametrize("remove", [whole, one_photo])
async def test_an_outage_from_any_call_of_a_removal_on(
    client: httpx.AsyncClient, settings: Settings, aws: Aws, remove: Removal
) -> None:
    left = {"Bob": 1} | ({"Ada": 1} if remove is one_photo else {})
    calls = 0
    while True:
        record = await enroll(client, "Ada", photo(RED), photo(GREEN))
        aws.rekognition.fail("*", ACCESS_DENIED, times=math.inf, after=calls)
        response = await remove(client, record)
        aws.heal()
        if response.status_code == 200:
            break
        check_refused(response, "aws_access_denied")
        assert await is_unknown(client, RED)
        assert await is_unknown(client, GREEN) == (remove is whole)
        if calls % 3 == 0:
            assert (await remove(client, record)).status_code == 200
        else:
            await recovered(settings, client, by_audit=calls % 3 == 1)
        assert check_sides(settings, aws) == left
        await client.delete(f"/blacklist/{record['id']}/")
        calls += 1
    assert calls >= 3
    assert check_sides(settings, aws) == left


REMOVAL: list[tuple[str, Any, set[str]]] = [
    ("DisassociateFaces", Silence.DROP_AFTER, LOST),
    ("DeleteFaces", Silence.DROP_AFTER, LOST),
    ("DeleteFaces", Partial("ASSOCIATED_TO_AN_EXISTING_USER"), {"aws_service_error"}),
    ("DeleteUser", Silence.HANG, {"aws_timeout"}),
    ("DeleteUser", EXPIRED_CREDENTIALS, {"aws_credentials_rejected"}),
    ("DELETE", s3_proxy.DENIED, {"aws_access_denied"}),
    ("DELETE", Silence.DROP_AFTER, LOST),
]


async def test_a_failed_removal_goes_on_when_it_is_done_again(
    client: httpx.AsyncClient, settings: Settings, aws: Aws, subtests: pytest.Subtests
) -> None:
    for where, fault, codes in REMOVAL:
        with subtests.test(where=where, fault=fault):
            record = await enroll(client, "Ada", photo(RED), photo(GREEN))
            fail(aws, where, fault)
            check_refused(await whole(client, record), *codes)
            aws.heal()
            assert (await client.get(f"/blacklist/{record['id']}/")).json()["status"] == "withdrawing"
            assert await is_unknown(client, RED)
            more = await client.post(f"/blacklist/{record['id']}/images", files=upload(photo(YELLOW)))
            assert (more.status_code, more.json()["code"]) == (409, "entry_pending")
            assert (await whole(client, record)).status_code == 200
            assert check_sides(settings, aws) == {"Bob": 1}


async def test_a_photo_that_is_still_being_removed_is_not_taken_for_a_new_one(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    record = await enroll(client, "Ada", photo(RED), photo(GREEN))
    fail(aws, "DELETE", s3_proxy.DENIED)
    check_refused(await one_photo(client, record), "aws_access_denied")
    again = await client.post(f"/blacklist/{record['id']}/images", files=upload(photo(RED)))
    assert (again.status_code, again.json()["code"]) == (409, "entry_pending")
    aws.heal()
    assert (await one_photo(client, record)).status_code == 200
    assert (await client.post(f"/blacklist/{record['id']}/images", files=upload(photo(RED)))).status_code == 200
    assert check_sides(settings, aws) == {"Bob": 1, "Ada": 2}


SCREENING: list[tuple[str, Any, set[str]]] = [
    ("DetectFaces", refusal("InvalidParameterException"), {"aws_service_error"}),
    ("DetectFaces", Silence.HANG, {"aws_timeout"}),
    ("SearchFacesByImage", THROTTLED, {"aws_throttled", "aws_timeout"}),
    ("SearchFacesByImage", EXPIRED_CREDENTIALS, {"aws_credentials_rejected"}),
    ("SearchFacesByImage", MALFORMED, {"aws_service_error"}),
    ("SearchFacesByImage", Silence.DROP, LOST),
    ("SearchFacesByImage", refusal("ResourceNotFoundException"), {"aws_collection_missing"}),
]


async def test_a_failed_screening_is_no_result(
    client: httpx.AsyncClient, settings: Settings, aws: Aws, subtests: pytest.Subtests
) -> None:
    body = {"images": [inline(photo(RED, BLUE)), inline(photo(GREEN))]}
    for where, fault, codes in SCREENING:
        with subtests.test(where=where, fault=fault):
            fail(aws, where, fault)
            check_refused(await client.post("/process/process-images", json=body), *codes)
            aws.heal()
            assert (await client.get("/processed-images/")).json()["total_items"] == 0
            assert files(settings.processed_images_output_dir) == []
    fail(aws, "DetectFaces", EXPIRED_CREDENTIALS, times=1)
    response = await client.post("/detect/detect-face", json={"image": inline(photo(RED))})
    check_refused(response, "aws_credentials_rejected")
    assert not await is_unknown(client, BLUE)


async def test_no_more_faces_are_searched_at_once_than_there_are_connections_for(
    client: httpx.AsyncClient, aws: Aws
) -> None:
    fail(aws, "SearchFacesByImage", Silence.HANG)
    before = len(aws.rekognition.calls)
    picture = photo(*islice(all_colours(), 3 * SEARCHES_AT_ONCE))
    check_refused(await client.post("/process/process-images", json={"images": [inline(picture)]}), "aws_timeout")
    calls = aws.rekognition.calls[before:]
    asked = [call.parameters["Image"]["Bytes"] for call in calls if call.operation == "SearchFacesByImage"]
    assert 0 < len(set(asked)) <= SEARCHES_AT_ONCE


async def test_a_photo_that_cannot_be_read(client: httpx.AsyncClient, aws: Aws) -> None:
    (bob,) = (await client.get("/blacklist/")).json()
    url = f"/blacklist/{bob['id']}/images/{bob['images'][0]['id']}"
    fail(aws, "GET", s3_proxy.DENIED, times=1)
    check_refused(await client.get(url), "aws_access_denied")
    assert (await client.get(url)).status_code == 200
    for key in aws.objects():
        aws.remove(key)
    gone = await client.get(url)
    assert (gone.status_code, gone.json()["code"]) == (404, "image_not_found")


@pytest.mark.parametrize("fault", [ACCESS_DENIED, Partial("EXTREME_POSE")], ids=["outage", "refusal"])
async def test_dropped_photos_stay_where_they_are_until_they_can_be_enrolled(
    client: httpx.AsyncClient, settings: Settings, aws: Aws, fault: Fault
) -> None:
    dropped = ["person_A/a.png", "person_A/b.png"]
    for name, colour in zip(dropped, (RED, GREEN), strict=True):
        drop(settings, name, photo(colour))
    aws.rekognition.fail("IndexFaces", fault, times=math.inf)
    response = await client.post("/blacklist/sync")
    if fault is ACCESS_DENIED:
        check_refused(response, "aws_access_denied")
        with pytest.raises(StartupError, match="IAM"):
            async with serving(settings):
                pass
    else:
        assert [skipped["code"] for skipped in response.json()["skipped"]] == ["face_unusable"] * 2
    assert check_sides(settings, aws, dropped=dropped) == {"Bob": 1}
    aws.heal()
    assert len((await sync(client))["added"]) == 2
    assert check_sides(settings, aws) == {"Bob": 1, "person_A": 2}


@pytest.mark.parametrize("by_audit", [True, False])
async def test_dropped_photos_of_an_abandoned_enrollment_stay(
    client: httpx.AsyncClient, settings: Settings, aws: Aws, *, by_audit: bool
) -> None:
    path = drop(settings, "person_A/a.png", photo(RED))
    for operation in ("IndexFaces", "ListFaces"):
        fail(aws, operation, ACCESS_DENIED)
    check_refused(await client.post("/blacklist/sync"), "aws_access_denied")
    aws.heal()
    await recovered(settings, client, by_audit=by_audit)
    assert path.exists()
    await sync(client)
    assert check_sides(settings, aws) == {"Bob": 1, "person_A": 1}


async def test_dropped_photos_of_an_abandoned_deletion_go(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    drop(settings, "person_A/a.png", photo(RED))
    drop(settings, "person_A/group.png", photo(RED, GREEN))
    await sync(client)
    (record,) = (await client.get("/blacklist/", params={"q": "person_A"})).json()
    fail(aws, "DeleteFaces", ACCESS_DENIED)
    check_refused(await whole(client, record), "aws_access_denied")
    aws.heal()
    await recovered(settings, client, by_audit=False)
    assert check_sides(settings, aws) == {"Bob": 1}
    assert files(settings.blacklist_db_path) == []


async def test_a_collection_that_cannot_be_created(client: httpx.AsyncClient, settings: Settings, aws: Aws) -> None:
    for fault in (Silence.DROP_AFTER, ACCESS_DENIED):
        fail(aws, "CreateCollection", fault)
        check_refused(await client.post("/collections/", json={"name": "staff"}), "aws_access_denied", *LOST)
        assert [found["name"] for found in (await client.get("/collections/")).json()] == ["default"]
        assert check_sides(settings, aws) == {"Bob": 1}
        aws.heal()
    for operation in ("CreateCollection", "DeleteCollection"):
        fail(aws, operation, ACCESS_DENIED)
    check_refused(await client.post("/collections/", json={"name": "staff"}), "aws_access_denied")
    assert [found["name"] for found in (await client.get("/collections/")).json()] == ["default"]
    aws.heal()
    assert await audit(client) == []
    assert check_sides(settings, aws) == {"Bob": 1}


async def test_a_collection_that_cannot_be_deleted(client: httpx.AsyncClient, settings: Settings, aws: Aws) -> None:
    into = {"collection": "staff"}
    for where, fault in (
        ("DeleteCollection", ACCESS_DENIED),
        ("DeleteCollection", Silence.DROP_AFTER),
        ("DELETE", s3_proxy.DENIED),
    ):
        await client.post("/collections/", json={"name": "staff"})
        ada = await client.post("/blacklist/", params=into, data={"name": "Ada"}, files=upload(photo(RED)))
        assert ada.status_code == 201
        fail(aws, where, fault)
        check_refused(await client.delete("/collections/staff/"), "aws_access_denied", *LOST)
        aws.heal()
        (record,) = (await client.get("/blacklist/", params=into)).json()
        assert record["status"] == "withdrawing"
        if fault is not ACCESS_DENIED:
            await recovered(settings, client, by_audit=True)
            assert check_sides(settings, aws) == {"Bob": 1}
        assert (await client.delete("/collections/staff/")).status_code == 204
        assert check_sides(settings, aws) == {"Bob": 1}
