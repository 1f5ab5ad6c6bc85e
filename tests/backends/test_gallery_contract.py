"""What every backend promises that keeps its faces in an outside service, on each kind of service."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facescreen.aws import AwsClient
from facescreen.backends.base import GalleryBackend, GalleryPhoto, Inventory
from facescreen.backends.rekognition import RekognitionBackend
from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.domain.faces import Pixels
from facescreen.errors import AwsCollectionMissingError, NoFaceError
from facescreen.pool import WorkPool
from tests.backends.promises import check_detection
from tests.loopback_aws import CREDENTIALS, access
from tests.painted import BLUE, RED, photo
from tests.painted_server import ServerProcess
from tests.rekognition_server import RekognitionServer

SAMPLES = Path(__file__).parents[2] / "samples"
LIST = "default"


@dataclass(frozen=True)
class Service:
    """An address that Rekognition is at, and a photo each of two people."""

    url: str
    one: Pixels
    other: Pixels


@dataclass(frozen=True)
class Case:
    """A started backend, a photo each of two people, both of them in one picture, and a picture of nobody."""

    backend: GalleryBackend
    one: Pixels
    other: Pixels
    both: Pixels
    nobody: Pixels


def pixels(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def beside(left: Pixels, right: Pixels) -> Pixels:
    """Both pictures in one, the lower one filled up with grey."""
    height = max(left.shape[0], right.shape[0])
    padded = [np.pad(p, ((0, height - p.shape[0]), (0, 0), (0, 0)), constant_values=128) for p in (left, right)]
    return np.ascontiguousarray(np.hstack(padded))


@contextmanager
def facade(folder: Path) -> Iterator[str]:
    """Another facescreen with the embedded models."""
    settings = Settings(
        _env_file=None,
        blacklist_db_path=folder / "blacklist_db",
        processed_images_output_dir=folder / "processed",
        database_url=f"sqlite+aiosqlite:///{folder / 'data' / 'facescreen.db'}",
        deepface_home=folder,
        rekognition_access_keys=(":".join((CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])),),
    )
    # One loop for all of it: a connection belongs to the loop that it was made in.
    with asyncio.Runner() as runner:
        runner.run(Database(settings.database_url).migrate())
        server = ServerProcess(settings, backend=None)
        try:
            runner.run(server.started())
            yield f"{server.url}/rekognition"
        finally:
            runner.run(server.aclose())


@pytest.fixture(scope="module", params=["a small server", "facescreen"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    if request.param == "a small server":
        with RekognitionServer() as server:
            yield Service(server.url, pixels(photo(RED)), pixels(photo(BLUE)))
        return
    with facade(tmp_path_factory.mktemp("facade")) as url:
        one, other = (pixels((SAMPLES / name).read_bytes()) for name in ("astronaut.jpg", "grace_hopper.jpg"))
        yield Service(url, one, other)


@pytest.fixture
async def case(service: Service, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    pool = WorkPool(threads=2)
    backend = RekognitionBackend(AwsClient("rekognition", access({"rekognition": service.url})), "contract", pool)
    await backend.load()
    nobody = np.full((200, 300, 3), 90, np.uint8)
    yield Case(backend, service.one, service.other, beside(service.one, service.other), nobody)
    await backend.delete_collection(LIST)
    await backend.aclose()
    pool.close()


async def searched(case: Case, image: Pixels, *, collection: str = LIST, similarity: float = 80) -> list[list[str]]:
    """For each face of the image, from left to right, the ids of the faces that it resembles."""
    faces = await case.backend.detect(image, "centerface")
    probe = await case.backend.prepare(image, faces, "SFace")
    hits = [await case.backend.search(collection, crop, similarity=similarity) for crop in probe.crops]
    ordered = sorted(zip(faces, hits, strict=True), key=lambda pair: pair[0].box.x)
    return [[hit.face_id for hit in near or ()] for _, near in ordered]


async def test_faces_lie_inside_of_the_image_with_the_persons_own_left_on_the_right(case: Case) -> None:
    await check_detection(case.backend, one=case.one, nobody=case.nobody)


async def test_the_service_names_its_face_model(case: Case) -> None:
    service, _, version = case.backend.face_model.partition("-")
    assert service == "rekognition"
    assert all(part.isdecimal() for part in version.split("."))


async def test_every_face_of_a_picture_is_found_by_itself_until_withdrawn(case: Case) -> None:
    (one,) = await case.backend.enroll(LIST, "fs-one", [GalleryPhoto("fs-one.1", case.one)])
    (other,) = await case.backend.enroll(LIST, "fs-other", [GalleryPhoto("fs-other.2", case.other)])
    assert await searched(case, np.ascontiguousarray(case.one[:, ::-1])) == [[one]]
    assert await searched(case, case.both) == [[one], [other]]
    await case.backend.withdraw(LIST, "fs-one", ["fs-one.1"], whole=True)
    assert await searched(case, case.both) == [[], [other]]
    assert await case.backend.search(LIST, case.nobody, similarity=0) is None


async def test_similarity_is_a_percentage_and_the_threshold_one_too(case: Case) -> None:
    await case.backend.enroll(LIST, "fs-one", [GalleryPhoto("fs-one.1", case.one)])
    same = await case.backend.search(LIST, case.one, similarity=0)
    different = await case.backend.search(LIST, case.other, similarity=0)
    assert [99 < hit.similarity <= 100 for hit in same or ()] == [True]
    assert [0 <= hit.similarity < 50 for hit in different or ()] == [True]
    assert await case.backend.search(LIST, case.other, similarity=80) == []


async def test_enrolling_again_changes_nothing(case: Case) -> None:
    photos = [GalleryPhoto("fs-one.1", case.one), GalleryPhoto("fs-one.2", np.ascontiguousarray(case.one[:, ::-1]))]
    first = await case.backend.enroll(LIST, "fs-one", photos)
    before = await case.backend.inventory(LIST)
    assert await case.backend.enroll(LIST, "fs-one", photos) == first
    assert await case.backend.inventory(LIST) == before
    assert {(face.face_id, face.key, face.person) for face in before.faces} == {
        (first[0], "fs-one.1", "fs-one"),
        (first[1], "fs-one.2", "fs-one"),
    }
    assert before.people == {"fs-one"}


async def test_one_photo_of_a_person_is_withdrawn_and_the_others_stay(case: Case) -> None:
    mirrored = np.ascontiguousarray(case.one[:, ::-1])
    photos = [GalleryPhoto("fs-one.1", case.one), GalleryPhoto("fs-one.2", mirrored)]
    _, second = await case.backend.enroll(LIST, "fs-one", photos)
    for _ in range(2):
        await case.backend.withdraw(LIST, "fs-one", ["fs-one.1"], whole=False)
        left = await case.backend.inventory(LIST)
        assert [(face.face_id, face.person) for face in left.faces] == [(second, "fs-one")]
        assert left.people == {"fs-one"}
    for _ in range(2):
        await case.backend.withdraw(LIST, "fs-one", [], whole=True)
        assert await case.backend.inventory(LIST) == Inventory((), frozenset())


async def test_faces_can_be_removed_whosever_they_are(case: Case) -> None:
    (face_id,) = await case.backend.enroll(LIST, "fs-one", [GalleryPhoto("fs-one.1", case.one)])
    for _ in range(2):
        await case.backend.remove_faces(LIST, [face_id])
        assert (await case.backend.inventory(LIST)).faces == ()
    assert await searched(case, case.one) == [[]]


async def test_collections_are_apart(case: Case) -> None:
    for _ in range(2):
        await case.backend.create_collection("second")
    try:
        await case.backend.enroll("second", "fs-one", [GalleryPhoto("fs-one.1", case.one)])
        assert len(*await searched(case, case.one, collection="second")) == 1
        assert await searched(case, case.one) == [[]]
    finally:
        for _ in range(2):
            await case.backend.delete_collection("second")
    with pytest.raises(AwsCollectionMissingError):
        await case.backend.inventory("second")
    with pytest.raises(AwsCollectionMissingError):
        await case.backend.search("second", case.one, similarity=80)


async def test_a_photo_without_a_face_is_refused(case: Case) -> None:
    with pytest.raises(NoFaceError):
        await case.backend.enroll(LIST, "fs-nobody", [GalleryPhoto("fs-nobody.1", case.nobody)])
    await case.backend.withdraw(LIST, "fs-nobody", ["fs-nobody.1"], whole=True)
    assert await case.backend.inventory(LIST) == Inventory((), frozenset())


async def test_pictures_below_and_above_the_limits_are_taken(case: Case) -> None:
    (face_id,) = await case.backend.enroll(LIST, "fs-one", [GalleryPhoto("fs-one.1", case.one)])
    (face,) = await case.backend.detect(case.one, "centerface")
    left, top = max(0, face.box.x - face.box.w // 2), max(0, face.box.y - face.box.h // 2)
    close = Image.fromarray(case.one[top : top + 2 * face.box.h, left : left + 2 * face.box.w])
    (small,) = await case.backend.detect(np.asarray(close.resize((75, 75))), "centerface")
    assert 0 <= small.box.x < small.box.x + small.box.w <= 75
    noise = np.random.default_rng(0).integers(-20, 21, (2400, 2400, 3))
    large = np.clip(np.asarray(close.resize((2400, 2400))) + noise, 0, 255).astype(np.uint8)
    hits = await case.backend.search(LIST, large, similarity=80)
    assert [hit.face_id for hit in hits or ()] == [face_id]
