"""The service on a Rekognition that is another facescreen, on real photos: neither keeps what the other forgot."""

import asyncio
import io
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import httpx
import pytest
from PIL import Image, ImageOps

from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.services.audit import FindingKind
from tests.api.test_blacklist import enroll, files, matches, upload
from tests.at_rest import check_disk
from tests.backends.test_gallery_contract import beside, pixels
from tests.loopback_aws import CREDENTIALS
from tests.painted import inline
from tests.painted_server import HANGING, ServerProcess
from tests.rekognition.agreement import check_sides, rows
from tests.rekognition.facade_proxy import FacadeProxy
from tests.rekognition.s3_proxy import S3Proxy
from tests.rekognition.sides import COLLECTION, Aws, audit, serving
from tests.rekognition.test_audit import repaired
from tests.rekognition.test_faults import check_refused
from tests.rekognition.test_service import screen
from tests.rekognition_server import (
    EXPIRED_CREDENTIALS,
    SERVER_ERROR,
    THROTTLED,
    UNAVAILABLE,
    Fault,
    Partial,
    Reply,
    Silence,
)

SAMPLES = Path(__file__).parents[2] / "samples"
EILEEN, GRACE = ((SAMPLES / name).read_bytes() for name in ("astronaut.jpg", "grace_hopper.jpg"))


def encoded(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


MIRRORED = encoded(ImageOps.mirror(Image.open(io.BytesIO(EILEEN))))
BOTH = encoded(Image.fromarray(beside(pixels(EILEEN), pixels(GRACE))))


NOTHING_DONE = Reply(200, b'{"DisassociatedFaces": [], "UnsuccessfulFaceDisassociations": []}')
"""Of a DisassociateFaces that has no effect, whereupon DeleteFaces refuses."""

Check = Callable[..., Awaitable[dict[str, int]]]


@dataclass(frozen=True)
class Second:
    """The facescreen behind: where it is, what is its own, and a client of its Rekognition that nothing fails for."""

    url: str
    settings: Settings
    client: Any


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Second]:
    folder = tmp_path_factory.mktemp("second")
    key_id, secret = CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
    settings = Settings(
        _env_file=None,
        blacklist_db_path=folder / "blacklist_db",
        processed_images_output_dir=folder / "processed",
        database_url=f"sqlite+aiosqlite:///{folder / 'data' / 'facescreen.db'}",
        deepface_home=folder,
        rekognition_access_keys=(f"{key_id}:{secret}",),
    )
    # One loop for all of it: a connection belongs to the loop that it was made in.
    with asyncio.Runner() as runner:
        runner.run(Database(settings.database_url).migrate())
        server = ServerProcess(settings, backend=None)
        try:
            runner.run(server.started())
            client = boto3.client(
                "rekognition",
                endpoint_url=f"{server.url}/rekognition",
                region_name="us-east-1",
                aws_access_key_id=key_id,
                aws_secret_access_key=secret,
            )
            with closing(client):
                yield Second(server.url, settings, client)
        finally:
            runner.run(server.aclose())


@pytest.fixture
def proxy(second: Second) -> Iterator[FacadeProxy]:
    """The second facescreen, which knows nobody, failing as it is told."""
    with FacadeProxy(f"{second.url}/rekognition") as proxy:
        yield proxy
    for name in second.client.list_collections()["CollectionIds"]:
        if name != "default":
            second.client.delete_collection(CollectionId=name)


@pytest.fixture
def aws(proxy: FacadeProxy, moto: str, buckets: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """That and an empty bucket, and credentials."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid4()}"
    buckets.create_bucket(Bucket=bucket)
    with S3Proxy(moto) as s3:
        yield Aws(proxy, s3, buckets, bucket)


@pytest.fixture
async def there(second: Second) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the second facescreen's own API."""
    async with httpx.AsyncClient(base_url=f"{second.url}/api/v1", timeout=HANGING, trust_env=False) as client:
        yield client


@pytest.fixture
def check(settings: Settings, aws: Aws, proxy: FacadeProxy, second: Second, there: httpx.AsyncClient) -> Check:
    """Asserts that all sides hold the same and nothing else; how many photos everybody has."""

    async def check(settings: Settings = settings) -> dict[str, int]:
        proxy.look(second.client)
        for name, collection in proxy.collections.items():
            people = {user_id: len(collection.faces_of(user_id)) for user_id in collection.users}
            records = (await there.get("/blacklist/", params={"collection": name})).json()
            assert {record["user_id"]: len(record["images"]) for record in records} == people
        check_disk(second.settings)
        return check_sides(settings, aws, foreign={"default"})

    return check


async def knows_eileen(client: httpx.AsyncClient, **options: str) -> bool:
    """Whether the one who is in the mirrored photo is found, in a collection if one is named."""
    (result,) = await screen(client, MIRRORED, **options)
    (face,) = result["faces"]
    return bool(face["blacklist_matches"])


async def test_two_people_beside_each_other_are_told_apart_here_and_there(
    client: httpx.AsyncClient, there: httpx.AsyncClient, check: Check
) -> None:
    async def verdicts(client: httpx.AsyncClient, **options: str) -> list[tuple[str, list[str]]]:
        """Verdict and names of each face, from left to right."""
        (result,) = await screen(client, BOTH, **options)
        faces = sorted(result["faces"], key=lambda face: face["facial_area"]["x"])
        for match in (match for face in faces for match in face["blacklist_matches"]):
            assert (match["similarity"] or match["confidence"]) > 95
        return [(face["verdict"], [match["name"] for match in face["blacklist_matches"]]) for face in faces]

    assert await verdicts(client) == [("clear", []), ("clear", [])]
    eileen = await enroll(client, "Eileen Collins", EILEEN)
    assert await verdicts(client) == [("match", ["Eileen Collins"]), ("clear", [])]
    grace = await enroll(client, "Grace Hopper", GRACE)
    assert await verdicts(client) == [("match", ["Eileen Collins"]), ("match", ["Grace Hopper"])]
    # There, a person who was made through Rekognition is named by the id that was given.
    named = [("match", [eileen["user_id"]]), ("match", [grace["user_id"]])]
    assert await verdicts(there, collection=COLLECTION) == named
    assert await verdicts(there) == [("clear", []), ("clear", [])]
    assert await check() == {"Eileen Collins": 1, "Grace Hopper": 1}
    assert await audit(client) == []


async def test_photos_and_people_come_and_go_on_both(
    client: httpx.AsyncClient, there: httpx.AsyncClient, check: Check
) -> None:
    record = await enroll(client, "Eileen", EILEEN)
    added = await client.post(f"/blacklist/{record['id']}/images", files=upload(MIRRORED))
    assert added.status_code == 200, added.text
    await enroll(client, "Grace", GRACE)
    assert await check() == {"Eileen": 2, "Grace": 1}
    params = {"collection": COLLECTION}
    (known,) = (await there.get("/blacklist/", params={**params, "q": record["user_id"]})).json()
    for image in known["images"]:
        shown = await there.get(f"/blacklist/{known['id']}/images/{image['id']}", params=params)
        assert shown.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(shown.content)).size == (512, 512)

    url = f"/blacklist/{record['id']}"
    assert (await client.delete(f"{url}/images/{record['images'][0]['id']}")).status_code == 200
    assert await check() == {"Eileen": 1, "Grace": 1}
    assert await knows_eileen(client)
    assert await knows_eileen(there, collection=COLLECTION)
    assert (await client.delete(f"{url}/")).status_code == 200
    assert await check() == {"Grace": 1}
    assert not await knows_eileen(client)
    assert not await knows_eileen(there, collection=COLLECTION)


async def test_collections_come_and_go_on_both(
    client: httpx.AsyncClient, there: httpx.AsyncClient, proxy: FacadeProxy, check: Check
) -> None:
    for operation in ("CreateCollection", "DeleteCollection"):
        proxy.fail(operation, Silence.DROP_AFTER)
    assert (await client.post("/collections/", json={"name": "staff"})).status_code == 201
    into = {"collection": "staff"}
    enrolled = await client.post("/blacklist/", params=into, data={"name": "Eileen"}, files=upload(EILEEN))
    assert enrolled.status_code == 201, enrolled.text
    assert await check() == {"Eileen": 1}
    for each, collection, known in (
        (client, "staff", True),
        (client, "default", False),
        (there, f"{COLLECTION}.staff", True),
        (there, COLLECTION, False),
    ):
        assert await knows_eileen(each, collection=collection) == known
    assert (await client.delete("/collections/staff/")).status_code == 204
    assert await check() == {}
    names = {found["name"] for found in (await there.get("/collections/")).json()}
    assert names == {"default", COLLECTION}


async def test_a_lost_answer_is_asked_for_again_and_nothing_is_done_twice(
    client: httpx.AsyncClient, proxy: FacadeProxy, check: Check
) -> None:
    lost = [proxy.fail(operation, Silence.DROP_AFTER) for operation in ("CreateUser", "IndexFaces", "AssociateFaces")]
    record = await enroll(client, "Eileen", EILEEN, MIRRORED)
    assert await check() == {"Eileen": 2}
    removal = ("DisassociateFaces", "DeleteFaces", "DeleteUser")
    lost += [proxy.fail(operation, Silence.DROP_AFTER) for operation in removal]
    assert (await client.delete(f"/blacklist/{record['id']}/")).status_code == 200
    assert await check() == {}
    assert all(struck.is_set() for struck in lost)


@pytest.mark.parametrize(
    ("operation", "fault"),
    [("DisassociateFaces", NOTHING_DONE), ("DeleteFaces", Partial("ASSOCIATED_TO_AN_EXISTING_USER"))],
    ids=["refused", "denied"],
)
async def test_a_face_that_is_not_deleted_at_once_is_deleted_again(
    client: httpx.AsyncClient, proxy: FacadeProxy, check: Check, *, operation: str, fault: Fault
) -> None:
    record = await enroll(client, "Eileen", EILEEN, MIRRORED)
    proxy.fail(operation, fault)
    url = f"/blacklist/{record['id']}/images/{record['images'][0]['id']}"
    assert (await client.delete(url)).status_code == 200
    assert sum(call.operation == "DeleteFaces" for call in proxy.calls) == 2
    assert await check() == {"Eileen": 1}


async def test_a_face_that_is_said_to_be_refused_and_is_kept_after_all(
    client: httpx.AsyncClient, proxy: FacadeProxy, check: Check
) -> None:
    proxy.fail("IndexFaces", Partial("LOW_SHARPNESS"), after=1)
    response = await client.post("/blacklist/", data={"name": "Eileen"}, files=upload(EILEEN, MIRRORED))
    assert (response.status_code, response.json()["code"]) == (422, "enrollment_rejected")
    assert [fault["code"] for fault in response.json()["errors"]] == ["face_unusable"]
    assert await check() == {}


ENROLLMENT: list[tuple[str, Fault, int, str]] = [
    ("IndexFaces", THROTTLED, 1, "aws_throttled"),
    ("IndexFaces", Silence.DROP_AFTER, 1, "aws_unreachable"),
    ("AssociateFaces", SERVER_ERROR, 0, "aws_service_error"),
    ("AssociateFaces", Partial("FACE_NOT_FOUND"), 0, "aws_service_error"),
    ("*", EXPIRED_CREDENTIALS, 7, "aws_credentials_rejected"),
    ("*", Silence.DROP, 6, "aws_unreachable"),
]
"""Which of two DetectFaces, two SearchFacesByImage, CreateUser, two IndexFaces and AssociateFaces fails, how, after how
many such calls, and what that is called. Where every call fails, nothing can be taken back, and S3 is up all the same.
"""


async def test_a_failed_enrollment_leaves_nothing(
    client: httpx.AsyncClient, aws: Aws, proxy: FacadeProxy, second: Second, check: Check, subtests: pytest.Subtests
) -> None:
    await enroll(client, "Grace", GRACE)
    for operation, fault, after, code in ENROLLMENT:
        with subtests.test(operation=operation, fault=fault):
            proxy.fail(operation, fault, times=math.inf, after=after)
            response = await client.post("/blacklist/", data={"name": "Eileen"}, files=upload(EILEEN, MIRRORED))
            check_refused(response, code)
            proxy.heal()
            assert not await knows_eileen(client)
            if operation == "*":
                proxy.look(second.client)
                assert (len(aws.users()), len(aws.faces()), len(aws.objects())) == (2, after - 4, 3)
                assert FindingKind.UNFINISHED in await repaired(client)
            assert await check() == {"Grace": 1}
            assert await audit(client, fix=True) == []
    await enroll(client, "Eileen", EILEEN, MIRRORED)
    assert await knows_eileen(client)
    assert await check() == {"Grace": 1, "Eileen": 2}


REMOVAL: list[tuple[str, Fault, int, str]] = [
    ("ListFaces", THROTTLED, 0, "aws_throttled"),
    ("DisassociateFaces", NOTHING_DONE, 0, "aws_service_error"),
    ("DeleteFaces", Silence.DROP_AFTER, 0, "aws_unreachable"),
    ("DeleteUser", UNAVAILABLE, 0, "aws_service_error"),
    ("*", EXPIRED_CREDENTIALS, 2, "aws_credentials_rejected"),
    ("*", Silence.DROP, 3, "aws_unreachable"),
]
"""The same of ListFaces, DisassociateFaces, DeleteFaces and DeleteUser."""


async def test_a_failed_removal_is_finished(
    client: httpx.AsyncClient, aws: Aws, proxy: FacadeProxy, check: Check, subtests: pytest.Subtests
) -> None:
    await enroll(client, "Grace", GRACE)
    for operation, fault, after, code in REMOVAL:
        with subtests.test(operation=operation, fault=fault):
            record = await enroll(client, "Eileen", EILEEN)
            proxy.fail(operation, fault, times=math.inf, after=after)
            check_refused(await client.delete(f"/blacklist/{record['id']}/"), code)
            proxy.heal()
            assert not await knows_eileen(client)
            assert len(aws.objects()) == 2
            assert await repaired(client) == [FindingKind.UNFINISHED]
            assert await check() == {"Grace": 1}


async def test_what_hangs_is_given_up(
    client: httpx.AsyncClient, settings: Settings, proxy: FacadeProxy, check: Check
) -> None:
    grace = await enroll(client, "Grace", GRACE)
    async with serving(settings.model_copy(update={"aws_deadline_seconds": 3, "aws_read_timeout_seconds": 4})) as hasty:
        for operation in ("AssociateFaces", "DisassociateFaces"):
            proxy.fail(operation, Silence.HANG, times=math.inf)
        responses = await asyncio.gather(
            hasty.post("/blacklist/", data={"name": "Eileen"}, files=upload(EILEEN)),
            hasty.delete(f"/blacklist/{grace['id']}/"),
        )
    for response in responses:
        check_refused(response, "aws_timeout")
    proxy.heal()
    assert await matches(client, BOTH) == []
    assert await repaired(client) == [FindingKind.UNFINISHED]
    assert await check() == {}


async def test_what_is_removed_there_is_found_missing_and_comes_back(
    client: httpx.AsyncClient, there: httpx.AsyncClient, check: Check
) -> None:
    await enroll(client, "Eileen", EILEEN, MIRRORED)
    within = {"collection": COLLECTION}
    (known,) = (await there.get("/blacklist/", params=within)).json()
    url = f"/blacklist/{known['id']}"
    for path, faces in ((f"{url}/images/{known['images'][0]['id']}", 1), (f"{url}/", 2)):
        assert (await there.delete(path, params=within)).status_code == 200
        assert await knows_eileen(client) == (faces == 1)
        assert await repaired(client) == [FindingKind.FACE_MISSING] * faces
        assert await knows_eileen(client)
        assert await check() == {"Eileen": 2}
    assert (await there.delete(f"/collections/{COLLECTION}/")).status_code == 204
    refused = await client.post("/process/process-images", json={"images": [inline(MIRRORED)]})
    check_refused(refused, "aws_collection_missing")
    assert await repaired(client) == [FindingKind.COLLECTION_MISSING, *[FindingKind.FACE_MISSING] * 2]
    assert await knows_eileen(client)
    assert await check() == {"Eileen": 2}


async def test_moving_from_this_machine_to_aws_and_back(
    settings: Settings, there: httpx.AsyncClient, check: Check
) -> None:
    here = settings.model_copy(update={"face_processing_backend": "deepface"})

    async def names(client: httpx.AsyncClient) -> set[str]:
        return {match["name"] for match in await matches(client, BOTH)}

    async with serving(here) as client:
        await enroll(client, "Eileen", EILEEN)
        assert await names(client) == {"Eileen"}
    folder = {path: path.read_bytes() for path in files(settings.blacklist_db_path)}

    async with serving(settings) as client:
        assert await names(client) == set()
        assert set(await repaired(client)) == {FindingKind.FACE_MISSING, FindingKind.PHOTO_MISSING}
        assert await names(client) == {"Eileen"}
        assert await knows_eileen(there, collection=COLLECTION)
        await enroll(client, "Grace", GRACE)
        assert await names(client) == {"Eileen", "Grace"}
        assert await check() == {"Eileen": 1, "Grace": 1}
    assert {path: path.read_bytes() for path in files(settings.blacklist_db_path)} == folder

    keeping = settings.model_copy(update={"aws_keep_local_copy": True})
    async with serving(keeping) as client:
        assert await repaired(client) == [FindingKind.PHOTO_MISSING]
        assert await check(keeping) == {"Eileen": 1, "Grace": 1}
    assert rows(settings, "SELECT count(*) FROM embeddings") == [(1,)]
    async with serving(here) as client:
        # Grace's photo was embedded by the start.
        assert rows(settings, "SELECT count(*) FROM embeddings") == [(2,)]
        assert await names(client) == {"Eileen", "Grace"}


async def test_who_was_enrolled_there_is_left_alone(client: httpx.AsyncClient, there: httpx.AsyncClient) -> None:
    await enroll(client, "Eileen", EILEEN)
    within = {"collection": COLLECTION}
    grace = await there.post("/blacklist/", params=within, data={"name": "Grace"}, files=upload(GRACE))
    assert grace.status_code == 201, grace.text
    for fix in (False, True):
        assert [finding.kind for finding in await audit(client, fix=fix)] == [FindingKind.FOREIGN] * 2
    assert [match["name"] for match in await matches(client, BOTH)] == ["Eileen"]
    records = (await there.get("/blacklist/", params=within)).json()
    assert [(record["name"], len(record["images"])) for record in records][1:] == [("Grace", 1)]
