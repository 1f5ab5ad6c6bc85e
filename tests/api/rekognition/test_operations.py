"""The real boto3 over a real socket, on the collections that the REST API works on."""

import asyncio
import base64
import io
import socket
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import httpx
import numpy as np
import pytest
import uvicorn
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from PIL import Image
from sqlalchemy import Engine, event

from facescreen.config import DetectorName, Settings
from facescreen.db import blacklist
from facescreen.db.connection import Database
from facescreen.domain.distances import Metric, distances
from facescreen.domain.faces import Face, Pixels, Vectors
from facescreen.errors import StartupError
from facescreen.factory import open_services
from facescreen.main import create_app
from facescreen.recognition.catalog import similarity
from tests.loopback_aws import CREDENTIALS, s3_server
from tests.painted import BLUE, GREEN, RED, UNMEASURED, YELLOW, Colour, PaintedBackend, inline, photo
from tests.rekognition_server import RekognitionServer

KEY_ID, SECRET = "AKIDEXAMPLE", "a-made-up-secret"
BUCKET = "photos"
REGION = "eu-west-1"
NOBODY = "00000000-0000-4000-8000-000000000000"

# Reds that are one person's, less and less.
REDDISH, ORANGE = (230, 130, 20), (230, 210, 20)


@dataclass(frozen=True)
class Running:
    """A server, its settings, and clients of both of its faces; ``rest`` is below ``/api/v1``."""

    settings: Settings
    rekognition: Any
    rest: httpx.Client


def settings_in(folder: Path, **more: Any) -> Settings:
    made = Settings(
        _env_file=None,
        blacklist_db_path=folder / "blacklist_db",
        processed_images_output_dir=folder / "processed",
        database_url=f"sqlite+aiosqlite:///{folder / 'data' / 'facescreen.db'}",
        **{
            "deepface_home": folder / "home",
            "match_threshold": 0.05,
            "max_queued_requests": 1000,
            "rekognition_access_keys": (f"{KEY_ID}:{SECRET}",),
            **more,
        },
    )
    asyncio.run(Database(made.database_url).migrate())
    return made


@contextmanager
def listening(settings: Settings, backend: PaintedBackend | None) -> Iterator[str]:
    """The application on a port of this machine, in a thread."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        app = create_app(settings, backend)
        server = uvicorn.Server(uvicorn.Config(app, lifespan="on", access_log=False, log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def client_of(url: str, **more: Any) -> Any:
    return boto3.client(
        "rekognition",
        endpoint_url=f"{url}/rekognition",
        region_name=REGION,
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
        config=Config(retries={"total_max_attempts": 1}, max_pool_connections=20).merge(more.get("config", Config())),
    )


@contextmanager
def running(settings: Settings, backend: PaintedBackend | None = None) -> Iterator[Running]:
    with listening(settings, backend or PaintedBackend()) as url:
        rekognition = client_of(url)
        with httpx.Client(base_url=f"{url}/api/v1", trust_env=False, timeout=60) as rest:
            try:
                yield Running(settings, rekognition, rest)
            finally:
                rekognition.close()


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as environment, s3_server() as url:
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="red.png", Body=photo(RED))
        s3.put_object(Bucket=BUCKET, Key="text.txt", Body=b"no image")
        s3.put_object(Bucket=BUCKET, Key="large.png", Body=photo(RED) + bytes(15 * 1024 * 1024))
        s3.close()
        yield url


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, s3_url: str) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("facescreen")
    with running(settings_in(folder, aws_region="us-east-1", aws_endpoint_url_s3=s3_url)) as server:
        yield server


@pytest.fixture(scope="module")
def second(first: Running) -> Iterator[Running]:
    """Another worker on the same database."""
    with running(first.settings) as server:
        yield server


@pytest.fixture
def aws(first: Running) -> Any:
    return first.rekognition


@pytest.fixture
def rest(first: Running) -> httpx.Client:
    return first.rest


_numbers = count()


@pytest.fixture
def faces(aws: Any) -> str:
    """A new collection."""
    name = f"faces-{next(_numbers)}"
    aws.create_collection(CollectionId=name)
    return name


def painted(*colours: Colour, side: int = 64) -> dict[str, bytes]:
    return {"Bytes": photo(*colours, side=side)}


def index(aws: Any, faces: str, *colours: Colour, side: int = 64, **more: Any) -> list[str]:
    """Ids of the faces, from left to right."""
    answer = aws.index_faces(CollectionId=faces, Image=painted(*colours, side=side), **more)
    records = sorted(answer["FaceRecords"], key=lambda record: record["Face"]["BoundingBox"]["Left"])
    assert len(records) == len(colours)
    return [record["Face"]["FaceId"] for record in records]


def person(aws: Any, faces: str, user_id: str, *colours: Colour, **more: Any) -> list[str]:
    """Ids of the faces of a new person."""
    aws.create_user(CollectionId=faces, UserId=user_id)
    ids = index(aws, faces, *colours, **more)
    answer = aws.associate_faces(CollectionId=faces, UserId=user_id, FaceIds=ids, UserMatchThreshold=0)
    assert [each["FaceId"] for each in answer["AssociatedFaces"]] == ids
    return ids


def resemblance(one: Colour, other: Colour) -> float:
    """What the service says of the two: the painted backend's embedding of a colour is its place around mid-grey."""
    a, b = ((np.array(colour) / 255 - 0.5).astype(np.float32) for colour in (one, other))
    return similarity("SFace", float(distances(Metric.COSINE, a, b[np.newaxis])[0]))


def matched(answer: dict[str, Any]) -> list[str]:
    return [match["Face"]["FaceId"] for match in answer["FaceMatches"]]


def users(answer: dict[str, Any]) -> list[str]:
    return [match["User"]["UserId"] for match in answer["UserMatches"]]


def entries(rest: httpx.Client, faces: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = rest.get("/blacklist", params={"collection": faces}).raise_for_status().json()
    return listed


@contextmanager
def refused(code: str, message: str = "") -> Iterator[None]:
    with pytest.raises(ClientError) as caught:
        yield
    error = caught.value.response["Error"]
    assert error["Code"] == code
    assert message in error["Message"]


# Collections


def test_a_collection_is_created_described_listed_and_deleted(aws: Any) -> None:
    created = aws.create_collection(CollectionId="life")
    assert created["StatusCode"] == 200
    assert created["CollectionArn"] == f"arn:aws:rekognition:{REGION}:000000000000:collection/life"
    assert set(created["FaceModelVersion"]) <= set("0123456789.")
    person(aws, "life", "alice", RED)
    described = aws.describe_collection(CollectionId="life")
    assert described["CollectionARN"] == created["CollectionArn"]
    assert (described["FaceCount"], described["UserCount"]) == (1, 1)
    assert described["CreationTimestamp"].tzinfo is not None
    listed = aws.list_collections()
    assert {"default", "life"} <= set(listed["CollectionIds"])
    assert listed["FaceModelVersions"] == [created["FaceModelVersion"]] * len(listed["CollectionIds"])
    assert aws.delete_collection(CollectionId="life")["StatusCode"] == 200
    with refused("ResourceNotFoundException"):
        aws.describe_collection(CollectionId="life")


def test_a_collection_is_there_once(aws: Any, faces: str) -> None:
    with refused("ResourceAlreadyExistsException"):
        aws.create_collection(CollectionId=faces)


def test_the_default_collection_cannot_be_deleted(aws: Any) -> None:
    with refused("InvalidParameterException", "default"):
        aws.delete_collection(CollectionId="default")


def test_tags_are_not_lost_silently(aws: Any) -> None:
    with refused("InvalidParameterException", "tags"):
        aws.create_collection(CollectionId="tagged", Tags={"team": "gate"})
    aws.create_collection(CollectionId="tagged", Tags={})


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("describe_collection", {}),
        ("delete_collection", {}),
        ("index_faces", {"Image": painted(RED)}),
        ("list_faces", {}),
        ("delete_faces", {"FaceIds": [NOBODY]}),
        ("search_faces", {"FaceId": NOBODY}),
        ("search_faces_by_image", {"Image": painted(RED)}),
        ("create_user", {"UserId": "alice"}),
        ("delete_user", {"UserId": "alice"}),
        ("list_users", {}),
        ("associate_faces", {"UserId": "alice", "FaceIds": [NOBODY]}),
        ("disassociate_faces", {"UserId": "alice", "FaceIds": [NOBODY]}),
        ("search_users", {"UserId": "alice"}),
        ("search_users", {"FaceId": NOBODY}),
        ("search_users_by_image", {"Image": painted(RED)}),
    ],
)
def test_a_collection_has_to_exist(aws: Any, operation: str, parameters: dict[str, Any]) -> None:
    with refused("ResourceNotFoundException", "collection"):
        getattr(aws, operation)(CollectionId="nowhere", **parameters)


# Faces in images


def test_ratios_come_back_as_the_pixels_that_they_were(aws: Any) -> None:
    (detail,) = aws.detect_faces(Image=painted(RED, side=67), Attributes=["ALL"])["FaceDetails"]
    width = height = 134
    box = detail["BoundingBox"]
    assert [box["Left"] * width, box["Top"] * height] == [33, 33]
    assert [box["Width"] * width, box["Height"] * height] == [67, 67]
    assert detail["Confidence"] == 99
    eyes = {mark["Type"]: (mark["X"] * width, mark["Y"] * height) for mark in detail["Landmarks"]}
    assert eyes["eyeLeft"] == pytest.approx((33 + 0.3 * 67, 33 + 0.3 * 67))
    assert eyes["eyeRight"] == pytest.approx((33 + 0.7 * 67, 33 + 0.3 * 67))
    assert detail["Pose"] == {"Roll": 0}
    assert 0 < detail["Quality"]["Brightness"] < 100
    assert 0 < detail["Quality"]["Sharpness"] <= 100


def test_faces_are_detected_the_largest_first(aws: Any) -> None:
    found = aws.detect_faces(Image={"Bytes": of_sizes(40, 90, 60)})["FaceDetails"]
    assert [round(face["BoundingBox"]["Width"] * 600) for face in found] == [90, 60, 40]
    assert aws.detect_faces(Image=painted())["FaceDetails"] == []


def of_sizes(*sizes: int, colour: Colour = RED) -> bytes:
    """A picture of 600 x 200 pixels with a face of each size, from left to right."""
    canvas = np.full((200, 600, 3), 128, np.uint8)
    for number, size in enumerate(sizes):
        canvas[20 : 20 + size, 20 + 200 * number : 20 + 200 * number + size] = colour
    return encoded(canvas)


def encoded(canvas: np.ndarray, image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, image_format)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("image", "code", "message"),
    [
        ({}, "InvalidParameterException", "Bytes or an S3Object"),
        ({"Bytes": b"x", "S3Object": {"Bucket": BUCKET, "Name": "red.png"}}, "InvalidParameterException", "either"),
        ({"S3Object": {"Bucket": BUCKET}}, "InvalidParameterException", "Name"),
        ({"Bytes": b"no image"}, "InvalidImageFormatException", ""),
        ({"Bytes": photo(RED, image_format="WEBP")}, "InvalidImageFormatException", ""),
        ({"Bytes": photo(RED)[:200]}, "InvalidImageFormatException", ""),
        ({"Bytes": photo(RED, side=39)}, "InvalidParameterException", "80 pixels"),
        ({"S3Object": {"Bucket": BUCKET, "Name": "text.txt"}}, "InvalidImageFormatException", ""),
        ({"S3Object": {"Bucket": BUCKET, "Name": "nowhere.png"}}, "InvalidS3ObjectException", "Check object key"),
        ({"S3Object": {"Bucket": "nobodys", "Name": "red.png"}}, "InvalidS3ObjectException", "Check object key"),
        ({"S3Object": {"Bucket": BUCKET, "Name": "large.png"}}, "ImageTooLargeException", ""),
    ],
)
def test_an_image_has_to_be_one(aws: Any, image: dict[str, Any], code: str, message: str) -> None:
    with refused(code, message):
        aws.detect_faces(Image=image)


def test_an_image_has_at_most_50_million_pixels(aws: Any) -> None:
    with refused("ImageTooLargeException"):
        aws.detect_faces(Image={"Bytes": encoded(np.zeros((7100, 7100, 3), np.uint8))})


def test_bytes_are_at_most_5_mb(aws: Any) -> None:
    with refused("ValidationException", "image.bytes"):
        aws.detect_faces(Image={"Bytes": bytes(5 * 1024 * 1024 + 1)})


def test_without_credentials_no_object_can_be_read(tmp_path: Path, s3_url: str, monkeypatch: Any) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    settings = settings_in(tmp_path, aws_region="us-east-1", aws_endpoint_url_s3=s3_url)
    with running(settings) as server, refused("InvalidS3ObjectException"):
        server.rekognition.detect_faces(Image={"S3Object": {"Bucket": BUCKET, "Name": "red.png"}})


class GatedBackend(PaintedBackend):
    """Looks at no image before its gate is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.is_looking, self.gate = threading.Event(), threading.Event()

    async def detect(self, image: Pixels, detector: DetectorName) -> tuple[Face, ...]:
        self.is_looking.set()
        await asyncio.to_thread(self.gate.wait)
        return await super().detect(image, detector)


def test_more_than_is_admitted_is_throttled(tmp_path: Path) -> None:
    backend = GatedBackend()
    with (
        running(settings_in(tmp_path, max_concurrent_requests=1, max_queued_requests=0), backend) as server,
        ThreadPoolExecutor() as threads,
    ):
        admitted = threads.submit(server.rekognition.detect_faces, Image=painted(RED))
        try:
            backend.is_looking.wait()
            with refused("ThrottlingException"):
                server.rekognition.detect_faces(Image=painted(RED))
        finally:
            backend.gate.set()
        assert len(admitted.result()["FaceDetails"]) == 1


def test_an_image_may_be_in_s3(aws: Any) -> None:
    answer = aws.detect_faces(Image={"S3Object": {"Bucket": BUCKET, "Name": "red.png"}})
    assert answer["FaceDetails"] == aws.detect_faces(Image=painted(RED))["FaceDetails"]


# Faces in collections


def test_faces_of_an_image_are_indexed(aws: Any, faces: str) -> None:
    answer = aws.index_faces(
        CollectionId=faces,
        Image={"Bytes": of_sizes(40, 90, 60)},
        ExternalImageId="queue:7",
        MaxFaces=2,
        DetectionAttributes=["DEFAULT"],
    )
    records = answer["FaceRecords"]
    assert [round(record["Face"]["BoundingBox"]["Width"] * 600) for record in records] == [90, 60]
    assert {record["Face"]["ExternalImageId"] for record in records} == {"queue:7"}
    assert len({record["Face"]["ImageId"] for record in records}) == 1
    assert len({record["Face"]["FaceId"] for record in records}) == 2
    assert all("UserId" not in record["Face"] for record in records)
    assert all(record["FaceDetail"]["BoundingBox"] == record["Face"]["BoundingBox"] for record in records)
    (left_out,) = answer["UnindexedFaces"]
    assert left_out["Reasons"] == ["EXCEEDS_MAX_FACES"]
    assert round(left_out["FaceDetail"]["BoundingBox"]["Width"] * 600) == 40
    listed = aws.list_faces(CollectionId=faces)
    assert listed["Faces"] == [record["Face"] for record in records]
    assert listed["FaceModelVersion"] == answer["FaceModelVersion"] == records[0]["Face"]["IndexFacesModelVersion"]


def test_an_image_without_faces_is_no_error(aws: Any, faces: str) -> None:
    answer = aws.index_faces(CollectionId=faces, Image=painted())
    assert (answer["FaceRecords"], answer["UnindexedFaces"]) == ([], [])


def test_an_image_is_indexed_once_under_one_name(aws: Any, second: Running, faces: str) -> None:
    def indexed(client: Any, most: int, name: dict[str, str]) -> list[Any]:
        answer = client.index_faces(CollectionId=faces, Image=painted(RED, BLUE), MaxFaces=most, **name)
        return [record["Face"] for record in answer["FaceRecords"]]

    one = indexed(aws, 1, {"ExternalImageId": "gate"})
    both = indexed(second.rekognition, 2, {"ExternalImageId": "gate"})
    assert both[:1] == one
    assert both[1]["ImageId"] == one[0]["ImageId"]
    assert indexed(aws, 2, {"ExternalImageId": "gate"}) == both
    nameless = indexed(aws, 1, {})
    assert indexed(aws, 1, {}) == nameless
    assert indexed(aws, 1, {"ExternalImageId": "door"}) not in (one, nameless)
    assert aws.describe_collection(CollectionId=faces)["FaceCount"] == 4


def test_the_same_image_at_the_same_time_is_indexed_once(aws: Any, second: Running, faces: str) -> None:
    def indexed(number: int) -> list[str]:
        return index((aws, second.rekognition)[number % 2], faces, RED, BLUE, ExternalImageId="rush")

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(indexed, range(8)))
    left = [face["FaceId"] for face in aws.list_faces(CollectionId=faces)["Faces"]]
    assert len(left) == 2
    assert all(sorted(ids) == sorted(left) for ids in found)


def test_pictures_of_faces_have_to_be_good_enough(aws: Any, faces: str) -> None:
    small, dark = of_sizes(24), of_sizes(64, colour=(110, 0, 0))
    noise = np.random.default_rng(7).integers(150, 256, (6, 6), np.uint8)
    canvas = np.full((200, 200, 3), 128, np.uint8)
    smooth = np.asarray(Image.fromarray(noise).resize((120, 120), Image.Resampling.BICUBIC))
    canvas[40:160, 40:160] = np.dstack([smooth, smooth // 8, smooth // 8])
    blurred = encoded(canvas)

    def outcome(data: bytes, quality: dict[str, str]) -> list[str] | None:
        answer = aws.index_faces(CollectionId=faces, Image={"Bytes": data}, **quality)
        if answer["FaceRecords"]:
            return None
        reasons: list[str] = answer["UnindexedFaces"][0]["Reasons"]
        return reasons

    assert outcome(small, {}) == ["SMALL_BOUNDING_BOX"]
    assert outcome(dark, {"QualityFilter": "MEDIUM"}) == ["LOW_BRIGHTNESS"]
    assert outcome(blurred, {"QualityFilter": "HIGH"}) == ["LOW_SHARPNESS"]
    assert aws.describe_collection(CollectionId=faces)["FaceCount"] == 0
    for data in (small, dark, blurred):
        assert outcome(data, {"QualityFilter": "NONE"}) is None
    for operation in (aws.search_faces_by_image, aws.search_users_by_image):
        assert operation(CollectionId=faces, Image={"Bytes": small})
    with refused("InvalidParameterException", "There are no faces in the image"):
        aws.search_faces_by_image(CollectionId=faces, Image={"Bytes": small}, QualityFilter="AUTO")


def test_faces_are_deleted_but_not_those_of_users(aws: Any, faces: str) -> None:
    red, blue = index(aws, faces, RED, BLUE)
    (green,) = person(aws, faces, "gina", GREEN)
    answer = aws.delete_faces(CollectionId=faces, FaceIds=[red, NOBODY, green, red])
    assert answer["DeletedFaces"] == [red]
    assert answer["UnsuccessfulFaceDeletions"] == [
        {"FaceId": green, "UserId": "gina", "Reasons": ["ASSOCIATED_TO_AN_EXISTING_USER"]},
        {"FaceId": NOBODY, "Reasons": ["FACE_NOT_FOUND"]},
    ]
    assert [face["FaceId"] for face in aws.list_faces(CollectionId=faces)["Faces"]] == [blue, green]
    again = aws.delete_faces(CollectionId=faces, FaceIds=[red])
    assert "DeletedFaces" not in again
    assert again["UnsuccessfulFaceDeletions"] == [{"FaceId": red, "Reasons": ["FACE_NOT_FOUND"]}]


def test_a_photo_goes_with_the_last_of_its_faces(first: Running, aws: Any, faces: str) -> None:
    before = stored(first)
    red, blue = index(aws, faces, RED, BLUE)
    (shared,) = stored(first) - before
    aws.delete_faces(CollectionId=faces, FaceIds=[red])
    assert shared in stored(first)
    aws.delete_faces(CollectionId=faces, FaceIds=[blue])
    assert stored(first) == before


def stored(server: Running) -> set[Path]:
    return set(server.settings.blacklist_db_path.rglob("*.jpg"))


def test_a_face_of_one_collection_is_not_in_another(aws: Any, faces: str) -> None:
    aws.create_collection(CollectionId=f"{faces}.other")
    (red,) = index(aws, faces, RED)
    other = f"{faces}.other"
    assert aws.delete_faces(CollectionId=other, FaceIds=[red])["UnsuccessfulFaceDeletions"]
    assert aws.search_faces_by_image(CollectionId=other, Image=painted(RED))["FaceMatches"] == []
    assert aws.list_faces(CollectionId=other, FaceIds=[red])["Faces"] == []
    with refused("ResourceNotFoundException"):
        aws.search_faces(CollectionId=other, FaceId=red)
    aws.create_user(CollectionId=other, UserId="alice")
    answer = aws.associate_faces(CollectionId=other, UserId="alice", FaceIds=[red])
    assert answer["UnsuccessfulFaceAssociations"] == [{"FaceId": red, "Reasons": ["FACE_NOT_FOUND"]}]


# Search


def test_a_face_is_searched_without_itself(aws: Any, faces: str) -> None:
    red, reddish, orange, blue = index(aws, faces, RED, REDDISH, ORANGE, BLUE)
    answer = aws.search_faces(CollectionId=faces, FaceId=red)
    assert answer["SearchedFaceId"] == red
    assert matched(answer) == [reddish, orange]
    alike = [match["Similarity"] for match in answer["FaceMatches"]]
    assert alike == sorted(alike, reverse=True)
    assert alike == pytest.approx([resemblance(RED, REDDISH), resemblance(RED, ORANGE)], abs=1e-3)
    assert matched(aws.search_faces(CollectionId=faces, FaceId=red, FaceMatchThreshold=99)) == [reddish]
    assert matched(aws.search_faces(CollectionId=faces, FaceId=red, MaxFaces=1)) == [reddish]
    everybody = aws.search_faces(CollectionId=faces, FaceId=red, FaceMatchThreshold=0)
    assert matched(everybody) == [reddish, orange, blue]
    with refused("ResourceNotFoundException"):
        aws.search_faces(CollectionId=faces, FaceId=NOBODY)


def test_the_largest_face_of_an_image_is_searched(aws: Any, faces: str) -> None:
    (red,), (blue,) = index(aws, faces, RED), index(aws, faces, BLUE)
    canvas = np.full((200, 400, 3), 128, np.uint8)
    canvas[20:80, 20:80], canvas[20:120, 220:320] = RED, BLUE
    answer = aws.search_faces_by_image(CollectionId=faces, Image={"Bytes": encoded(canvas)})
    assert answer["SearchedFaceBoundingBox"] == {"Left": 0.55, "Top": 0.1, "Width": 0.25, "Height": 0.5}
    assert answer["SearchedFaceConfidence"] == 99
    assert matched(answer) == [blue]
    assert answer["FaceMatches"][0]["Similarity"] == pytest.approx(similarity("SFace", 0.0), abs=1e-6)
    identical = aws.search_faces_by_image(CollectionId=faces, Image=painted(RED), FaceMatchThreshold=100)
    assert matched(identical) == [red]


@pytest.mark.parametrize("operation", ["search_faces_by_image", "compare_faces"])
def test_there_has_to_be_a_face(aws: Any, faces: str, operation: str) -> None:
    nobody, somebody = painted(), painted(RED)
    with refused("InvalidParameterException", "There are no faces in the image. Should be at least 1."):
        if operation == "search_faces_by_image":
            aws.search_faces_by_image(CollectionId=faces, Image=nobody)
        else:
            aws.compare_faces(SourceImage=nobody, TargetImage=somebody)
    with refused("InvalidParameterException", "There are no faces in the image. Should be at least 1."):
        aws.compare_faces(SourceImage=somebody, TargetImage=nobody)


def test_the_largest_face_is_compared_with_each_of_another_image(aws: Any) -> None:
    target = painted(ORANGE, BLUE, REDDISH)
    answer = aws.compare_faces(SourceImage=painted(RED), TargetImage=target)
    assert answer["SourceImageFace"] == {
        "BoundingBox": {"Left": 0.25, "Top": 0.25, "Width": 0.5, "Height": 0.5},
        "Confidence": 99,
    }
    alike = [match["Similarity"] for match in answer["FaceMatches"]]
    assert alike == pytest.approx([resemblance(RED, REDDISH), resemblance(RED, ORANGE)], abs=1e-3)
    lefts = [match["Face"]["BoundingBox"]["Left"] * 384 for match in answer["FaceMatches"]]
    assert lefts == [288, 32]
    (other,) = answer["UnmatchedFaces"]
    assert other["BoundingBox"]["Left"] * 384 == 160
    assert {mark["Type"] for mark in other["Landmarks"]} == {"eyeLeft", "eyeRight"}
    strict = aws.compare_faces(SourceImage=painted(RED), TargetImage=target, SimilarityThreshold=99)
    assert (len(strict["FaceMatches"]), len(strict["UnmatchedFaces"])) == (1, 2)
    dim = {"Bytes": of_sizes(20, 64)}
    assert len(aws.compare_faces(SourceImage=painted(RED), TargetImage=dim, QualityFilter="LOW")["FaceMatches"]) == 1


# Users


def test_users_are_created_listed_and_deleted(aws: Any, faces: str) -> None:
    person(aws, faces, "alice", RED)
    aws.create_user(CollectionId=faces, UserId="bob:2")
    with refused("ConflictException"):
        aws.create_user(CollectionId=faces, UserId="alice")
    assert aws.list_users(CollectionId=faces)["Users"] == [
        {"UserId": "alice", "UserStatus": "ACTIVE"},
        {"UserId": "bob:2", "UserStatus": "CREATED"},
    ]
    aws.delete_user(CollectionId=faces, UserId="bob:2")
    with refused("ResourceNotFoundException"):
        aws.delete_user(CollectionId=faces, UserId="bob:2")
    assert [user["UserId"] for user in aws.list_users(CollectionId=faces)["Users"]] == ["alice"]


def test_a_deleted_user_leaves_its_faces_behind(aws: Any, rest: httpx.Client, faces: str) -> None:
    red, blue = person(aws, faces, "alice", RED, BLUE)
    aws.create_user(CollectionId=faces, UserId="bob")
    aws.delete_user(CollectionId=faces, UserId="alice")
    aws.delete_user(CollectionId=faces, UserId="bob")
    assert [entry["name"] for entry in entries(rest, faces)] == ["alice"]
    assert all("UserId" not in face for face in aws.list_faces(CollectionId=faces)["Faces"])
    aws.create_user(CollectionId=faces, UserId="alice")
    answer = aws.associate_faces(CollectionId=faces, UserId="alice", FaceIds=[red])
    assert answer["AssociatedFaces"] == [{"FaceId": red}]
    assert aws.delete_faces(CollectionId=faces, FaceIds=[blue])["DeletedFaces"] == [blue]
    assert [face["FaceId"] for face in aws.list_faces(CollectionId=faces)["Faces"]] == [red]
    assert [entry["name"] for entry in entries(rest, faces)] == ["alice"]


def test_faces_become_and_cease_to_be_a_users(first: Running, aws: Any, rest: httpx.Client, faces: str) -> None:
    red, reddish, blue = index(aws, faces, RED, REDDISH, BLUE, ExternalImageId="three")
    (green,) = person(aws, faces, "gina", GREEN)
    aws.create_user(CollectionId=faces, UserId="alice")
    photos = stored(first)

    answer = aws.associate_faces(CollectionId=faces, UserId="alice", FaceIds=[red, NOBODY, green])
    assert answer["AssociatedFaces"] == [{"FaceId": red}]
    assert answer["UserStatus"] == "ACTIVE"
    assert answer["UnsuccessfulFaceAssociations"] == [
        {"FaceId": NOBODY, "Reasons": ["FACE_NOT_FOUND"]},
        {"FaceId": green, "UserId": "gina", "Reasons": ["ASSOCIATED_TO_A_DIFFERENT_USER"]},
    ]

    answer = aws.associate_faces(CollectionId=faces, UserId="alice", FaceIds=[red, reddish, blue])
    assert answer["AssociatedFaces"] == [{"FaceId": reddish}]
    (unlike,) = answer["UnsuccessfulFaceAssociations"]
    assert (unlike["FaceId"], unlike["Reasons"]) == (blue, ["LOW_MATCH_CONFIDENCE"])
    assert 0 <= unlike["Confidence"] < 75
    listed = aws.list_faces(CollectionId=faces, UserId="alice")["Faces"]
    assert [(face["FaceId"], face["UserId"]) for face in listed] == [(red, "alice"), (reddish, "alice")]
    assert sorted(entry["name"] for entry in entries(rest, faces)) == ["alice", "gina", "three"]

    answer = aws.disassociate_faces(CollectionId=faces, UserId="alice", FaceIds=[red, reddish, blue, green, NOBODY])
    assert answer["DisassociatedFaces"] == [{"FaceId": red}, {"FaceId": reddish}]
    assert answer["UnsuccessfulFaceDisassociations"] == [
        {"FaceId": green, "UserId": "gina", "Reasons": ["ASSOCIATED_TO_A_DIFFERENT_USER"]},
        {"FaceId": NOBODY, "Reasons": ["FACE_NOT_FOUND"]},
    ]
    assert answer["UserStatus"] == "CREATED"
    assert sorted(entry["name"] for entry in entries(rest, faces)) == ["alice", "gina", "three", "three", "three"]
    assert stored(first) == photos
    for operation in (aws.associate_faces, aws.disassociate_faces, aws.delete_user):
        ids = {} if operation == aws.delete_user else {"FaceIds": [red]}
        with refused("ResourceNotFoundException"):
            operation(CollectionId=faces, UserId="nobody", **ids)


def folder_entry(first: Running, faces: str, *colours: Colour, reason: str = "") -> tuple[int, str, Path]:
    """A person that REST enrolls and a user ceases to be: its entry, its face and its folder."""
    before = stored(first)
    enrolled = first.rest.post(
        "/blacklist",
        params={"collection": faces},
        data={"name": "Gina", "reason": reason},
        files=[("images", ("gina.png", photo(*colours)))],
    )
    entry = enrolled.raise_for_status().json()
    (kept,) = stored(first) - before
    (face,) = first.rekognition.list_faces(CollectionId=faces, UserId=entry["user_id"])["Faces"]
    first.rekognition.delete_user(CollectionId=faces, UserId=entry["user_id"])
    return entry["id"], face["FaceId"], kept.parent


def test_nothing_is_left_of_an_entry_whose_last_face_becomes_a_users(first: Running, aws: Any, faces: str) -> None:
    def readable(text: bytes) -> list[str]:
        database = Path(database_file(first.settings))
        return [file.name for file in database.parent.glob(f"{database.name}*") if text in file.read_bytes()]

    _, green, folder = folder_entry(first, faces, GREEN, reason="took-a-painting")
    assert readable(b"took-a-painting")
    (folder / "not enrolled.png").write_bytes(photo(GREEN, BLUE))
    aws.create_user(CollectionId=faces, UserId="gina")
    aws.associate_faces(CollectionId=faces, UserId="gina", FaceIds=[green])
    assert readable(b"took-a-painting") == []
    listed = entries(first.rest, "default")
    first.rest.post("/blacklist/sync").raise_for_status()
    assert entries(first.rest, "default") == listed
    assert [entry["name"] for entry in entries(first.rest, faces)] == ["gina"]
    assert len(list(folder.iterdir())) == 1


def test_a_repeated_association_removes_what_the_first_left(first: Running, aws: Any, faces: str) -> None:
    entry_id, green, _ = folder_entry(first, faces, GREEN)
    aws.create_user(CollectionId=faces, UserId="gina")
    columns = "id, collection_id, name, reason, folder, status, created_at, updated_at"
    (row,) = rows(first, f"SELECT {columns} FROM entries WHERE id = ?", entry_id)  # noqa: S608 - constant
    request = {"UserId": "gina", "FaceIds": [green], "ClientRequestToken": f"{faces}-crash"}
    done = aws.associate_faces(CollectionId=faces, **request)
    # As if the process had ended between the answer's transaction and the removal.
    rows(first, f"INSERT INTO entries ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *row)  # noqa: S608 - constant
    repeated = aws.associate_faces(CollectionId=faces, **request)
    assert repeated["AssociatedFaces"] == done["AssociatedFaces"] == [{"FaceId": green}]
    assert [entry["name"] for entry in entries(first.rest, faces)] == ["gina"]


def rows(server: Running, statement: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(database_file(server.settings))) as database, database:
        return database.execute(statement, values).fetchall()


def test_stored_matches_follow_the_face(aws: Any, rest: httpx.Client, faces: str) -> None:
    (red,) = index(aws, faces, RED, ExternalImageId="red")
    body = {"images": [inline(photo(RED))], "collection": faces}
    screened = rest.post("/process/process-images", json=body).raise_for_status().json()
    aws.create_user(CollectionId=faces, UserId="alice")
    aws.associate_faces(CollectionId=faces, UserId="alice", FaceIds=[red])
    (alice,) = entries(rest, faces)
    results = rest.get("/processed-images/", params={"entry": alice["id"]}).raise_for_status().json()["items"]
    assert [result["id"] for result in results] == [result["id"] for result in screened]


@pytest.mark.parametrize(("all_references", "kept"), [(False, ["orange"]), (True, ["orange", "red"])])
def test_a_result_names_nobody_twice_unless_it_was_asked_to(
    aws: Any, rest: httpx.Client, faces: str, all_references: bool, kept: list[str]
) -> None:
    (red,) = index(aws, faces, RED, ExternalImageId="red")
    (orange,) = index(aws, faces, ORANGE, ExternalImageId="orange")
    body = {"images": [inline(photo(ORANGE))], "collection": faces, "threshold": 0.6}
    options = {"all_references": all_references}
    (before,) = rest.post("/process/process-images", json=body, params=options).raise_for_status().json()
    assert [match["name"] for match in before["faces"][0]["blacklist_matches"]] == ["orange", "red"]
    aws.create_user(CollectionId=faces, UserId="alice")
    aws.associate_faces(CollectionId=faces, UserId="alice", FaceIds=[red, orange], UserMatchThreshold=0)
    (alice,) = entries(rest, faces)
    stored_results = rest.get("/processed-images/", params={"entry": alice["id"]}).raise_for_status().json()["items"]
    (after,) = (result for result in stored_results if result["id"] == before["id"])
    assert [match["name"] for match in after["faces"][0]["blacklist_matches"]] == kept


async def test_a_face_moves_without_a_look_at_all_matches(first: Running, aws: Any, faces: str) -> None:
    (red,) = index(aws, faces, RED)
    aws.create_user(CollectionId=faces, UserId="alice")
    ((image_id,),) = rows(first, "SELECT id FROM reference_images WHERE face_id = ?", red)
    ((alice,),) = rows(first, "SELECT id FROM entries WHERE user_id = 'alice' ORDER BY id DESC LIMIT 1")
    statements: list[tuple[str, Any]] = []
    database = Database(first.settings.database_url)
    async with database.write() as connection:
        with heard(statements, connection.sync_connection):
            await blacklist.move_images(connection, [image_id], alice)
    await database.aclose()
    about_matches = [each for each in statements if "matches" in each[0]]
    plans = [step for text, values in about_matches for *_, step in rows(first, f"EXPLAIN QUERY PLAN {text}", *values)]
    assert [step for step in plans if "matches" in step]
    assert not [step for step in plans if step.startswith("SCAN")]


@contextmanager
def heard(statements: list[tuple[str, Any]], of: Any) -> Iterator[None]:
    """Note statements and their values, of a connection or of every one that there is."""

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    event.listen(of, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(of, "before_cursor_execute", note)


def test_a_user_has_at_most_100_faces(aws: Any, faces: str) -> None:
    reds = [(230, 20 + shade, 20) for shade in range(51)]
    ids = index(aws, faces, *reds, side=40, QualityFilter="NONE")
    more = index(aws, faces, *reds, side=41, QualityFilter="NONE")
    aws.create_user(CollectionId=faces, UserId="alice")
    aws.associate_faces(CollectionId=faces, UserId="alice", FaceIds=ids)
    with refused("ServiceQuotaExceededException", "100"):
        aws.associate_faces(CollectionId=faces, UserId="alice", FaceIds=more)
    assert len(aws.list_faces(CollectionId=faces, UserId="alice")["Faces"]) == 51
    answer = aws.associate_faces(CollectionId=faces, UserId="alice", FaceIds=more[:49])
    assert len(answer["AssociatedFaces"]) == 49


def test_users_are_searched_by_their_nearest_face(aws: Any, faces: str) -> None:
    red, blue = person(aws, faces, "alice", RED, BLUE)
    person(aws, faces, "olga", ORANGE)
    person(aws, faces, "gina", GREEN)
    (reddish,) = index(aws, faces, REDDISH)

    by_face = aws.search_users(CollectionId=faces, FaceId=reddish, UserMatchThreshold=0)
    assert by_face["SearchedFace"] == {"FaceId": reddish}
    assert users(by_face) == ["olga", "alice", "gina"]
    alike = [match["Similarity"] for match in by_face["UserMatches"]]
    assert alike[:2] == sorted(alike[:2], reverse=True)
    assert alike[2] < 1
    assert all(match["User"]["UserStatus"] == "ACTIVE" for match in by_face["UserMatches"])
    assert users(aws.search_users(CollectionId=faces, FaceId=reddish, MaxUsers=1)) == ["olga"]
    assert users(aws.search_users(CollectionId=faces, FaceId=red)) == ["olga"]

    by_user = aws.search_users(CollectionId=faces, UserId="alice")
    assert by_user["SearchedUser"] == {"UserId": "alice"}
    assert users(by_user) == ["olga"]
    aws.create_user(CollectionId=faces, UserId="new")
    assert users(aws.search_users(CollectionId=faces, UserId="new")) == []

    for wrong in ({}, {"UserId": "alice", "FaceId": blue}):
        with refused("InvalidParameterException", "exactly one"):
            aws.search_users(CollectionId=faces, **wrong)
    for missing in ({"UserId": "nobody"}, {"FaceId": NOBODY}):
        with refused("ResourceNotFoundException"):
            aws.search_users(CollectionId=faces, **missing)


def test_users_are_searched_by_the_largest_face_of_an_image(aws: Any, faces: str) -> None:
    person(aws, faces, "alice", RED)
    index(aws, faces, RED, side=70)
    answer = aws.search_users_by_image(CollectionId=faces, Image={"Bytes": of_sizes(24, 64, 90)}, QualityFilter="AUTO")
    assert round(answer["SearchedFace"]["FaceDetail"]["BoundingBox"]["Width"] * 600) == 90
    assert users(answer) == ["alice"]
    assert [each["Reasons"] for each in answer["UnsearchedFaces"]] == [["FACE_NOT_LARGEST"], ["SMALL_BOUNDING_BOX"]]
    nobody = aws.search_users_by_image(CollectionId=faces, Image=painted())
    assert "SearchedFace" not in nobody
    assert (nobody["UserMatches"], nobody["UnsearchedFaces"]) == ([], [])


def crowd(server: Running, faces: str, size: int) -> None:
    """A collection of people of three faces each in every direction, and as many faces that are nobody's."""
    moment = "2026-01-01 00:00:00"
    ((within,),) = rows(server, "SELECT id FROM collections WHERE name = ?", faces)
    vectors = np.random.default_rng(5).normal(size=(2 * size, 3)).astype("<f4")
    with closing(sqlite3.connect(database_file(server.settings))) as database, database:
        for number, vector in enumerate(vectors):
            if number % 3 == 0 or number >= size:
                entry = database.execute(
                    "INSERT INTO entries (collection_id, name, reason, folder, user_id, status, created_at, updated_at)"
                    " VALUES (?, '', '', ?, ?, 'active', ?, ?)",
                    (within, f"{faces}-{number}", f"user-{number}" if number < size else None, moment, moment),
                ).lastrowid
            image = database.execute(
                "INSERT INTO reference_images (collection_id, entry_id, photo, status, face_id, image_id, sha256,"
                " width, height, x, y, w, h, landmarks, confidence, detector, created_at)"
                " VALUES (?, ?, ?, 'active', ?, ?, '', 9, 9, 0, 0, 9, 9, '{}', 1, 'centerface', ?)",
                (within, entry, f"{faces}-{number}", str(uuid.uuid4()), str(uuid.uuid4()), moment),
            ).lastrowid
            database.execute(
                "INSERT INTO embeddings (reference_image_id, space, collection_id, vector) VALUES (?, ?, ?, ?)",
                (image, "SFace/painted", within, vector.tobytes()),
            )


def test_a_search_reads_no_more_than_it_answers(first: Running, aws: Any, faces: str) -> None:
    crowd(first, faces, 750)
    image = painted(RED)
    for operation, most, answered, alike in (
        (aws.search_faces_by_image, "MaxFaces", matched, "FaceMatchThreshold"),
        (aws.search_users_by_image, "MaxUsers", users, "UserMatchThreshold"),
    ):
        everybody = answered(operation(CollectionId=faces, Image=image, **{alike: 0}))
        assert len(everybody) == len(set(everybody)) == {"MaxFaces": 1500, "MaxUsers": 250}[most]
        for number in (1, 2, 240):
            statements: list[tuple[str, Any]] = []
            with heard(statements, Engine):
                found = answered(operation(CollectionId=faces, Image=image, **{alike: 0, most: number}))
            assert found == everybody[:number]
            asked = [len(values) for text, values in statements if "WHERE reference_images.id IN" in text]
            assert asked
            assert number > 2 or sum(asked) < 600


class OneByOneBackend(PaintedBackend):
    """Notes how many embeddings are sought at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sought: list[int] = []

    async def search(self, collection_id: int, vectors: Vectors, *more: Any, **named: Any) -> list[Any]:
        self.sought.append(len(vectors))
        return await super().search(collection_id, vectors, *more, **named)


def test_the_faces_of_a_user_are_searched_one_by_one(tmp_path: Path) -> None:
    backend = OneByOneBackend()
    with running(settings_in(tmp_path), backend) as server:
        person(server.rekognition, "default", "alice", RED, BLUE, YELLOW)
        person(server.rekognition, "default", "bob", BLUE, side=70)
        person(server.rekognition, "default", "olga", ORANGE)
        backend.sought.clear()
        answer = server.rekognition.search_users(CollectionId="default", UserId="alice")
    assert users(answer) == ["bob", "olga"]
    assert backend.sought == [1, 1, 1]


# Lists in parts


def in_parts(operation: Callable[..., Any], member: str, size: int, **query: Any) -> list[Any]:
    found: list[Any] = []
    token: dict[str, str] = {}
    while True:
        part = operation(MaxResults=size, **query, **token)
        assert len(part[member]) <= size
        found += part[member]
        if "NextToken" not in part:
            return found
        assert len(part[member]) == size
        assert len(part["NextToken"]) <= 255
        token = {"NextToken": part["NextToken"]}


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_lists_come_in_parts(aws: Any, faces: str, size: int) -> None:
    reds = [(230, 20 + 2 * shade, 20) for shade in range(7)]
    ids = person(aws, faces, "alice", *reds)
    for number in range(6):
        aws.create_user(CollectionId=faces, UserId=f"user-{number}")
    assert {face["FaceId"] for face in in_parts(aws.list_faces, "Faces", size, CollectionId=faces)} == set(ids)
    theirs = in_parts(aws.list_faces, "Faces", size, CollectionId=faces, UserId="alice")
    assert len(theirs) == 7
    some = in_parts(aws.list_faces, "Faces", size, CollectionId=faces, FaceIds=[*ids[:4], NOBODY])
    assert {face["FaceId"] for face in some} == set(ids[:4])
    listed = in_parts(aws.list_users, "Users", size, CollectionId=faces)
    assert [user["UserId"] for user in listed] == ["alice", *(f"user-{number}" for number in range(6))]
    every = in_parts(aws.list_collections, "CollectionIds", size)
    assert len(every) == len(set(every))
    assert {"default", faces} <= set(every)


def test_what_changes_in_between_moves_nothing_to_another_part(aws: Any, faces: str) -> None:
    ids = [face for colour in (RED, GREEN, BLUE) for face in index(aws, faces, colour)]
    part = aws.list_faces(CollectionId=faces, MaxResults=2)
    aws.delete_faces(CollectionId=faces, FaceIds=[ids[0]])
    (late,) = index(aws, faces, YELLOW)
    rest = aws.list_faces(CollectionId=faces, MaxResults=2, NextToken=part["NextToken"])
    assert [face["FaceId"] for face in rest["Faces"]] == [ids[2], late]


def test_a_token_belongs_to_its_list(aws: Any, faces: str) -> None:
    person(aws, faces, "alice", RED, BLUE)
    token = aws.list_faces(CollectionId=faces, MaxResults=1)["NextToken"]
    wrong = "InvalidPaginationTokenException"
    for query in ({"UserId": "alice"}, {"FaceIds": [NOBODY]}):
        with refused(wrong):
            aws.list_faces(CollectionId=faces, NextToken=token, **query)
    with refused(wrong):
        aws.list_users(CollectionId=faces, NextToken=token)
    with refused(wrong):
        aws.list_collections(NextToken=token)
    for text in ("", "?", "abc", base64.b64encode(b'["x", 1]').decode(), base64.b64encode(b"[" * 150).decode()):
        with refused(wrong):
            aws.list_faces(CollectionId=faces, NextToken=text)


# Requests that come twice


def test_a_repeated_request_gets_the_same_answer_from_every_worker(aws: Any, second: Running, faces: str) -> None:
    (red,) = index(aws, faces, RED)
    other = second.rekognition

    def twice(operation: str, **parameters: Any) -> Any:
        answers = [getattr(client, operation)(CollectionId=faces, **parameters) for client in (aws, other)]
        for answer in answers:
            del answer["ResponseMetadata"]
        assert answers[0] == answers[1]
        return answers[0]

    twice("create_user", UserId="alice", ClientRequestToken=f"{faces}-1")
    done = twice("associate_faces", UserId="alice", FaceIds=[red], ClientRequestToken=f"{faces}-2")
    assert done["AssociatedFaces"] == [{"FaceId": red}]
    done = twice("disassociate_faces", UserId="alice", FaceIds=[red], ClientRequestToken=f"{faces}-3")
    assert done["DisassociatedFaces"] == [{"FaceId": red}]
    twice("delete_user", UserId="alice", ClientRequestToken=f"{faces}-4")
    assert aws.list_users(CollectionId=faces)["Users"] == []

    for operation, number, parameters in (
        ("create_user", 1, {}),
        ("associate_faces", 2, {"FaceIds": [red]}),
        ("disassociate_faces", 3, {"FaceIds": [red]}),
        ("delete_user", 4, {}),
    ):
        with refused("IdempotentParameterMismatchException"):
            getattr(other, operation)(
                CollectionId=faces, UserId="bob", ClientRequestToken=f"{faces}-{number}", **parameters
            )


def test_a_refused_request_may_be_repeated(aws: Any, faces: str) -> None:
    token = f"{faces}-later"
    with refused("ResourceNotFoundException"):
        aws.delete_user(CollectionId=faces, UserId="alice", ClientRequestToken=token)
    aws.create_user(CollectionId=faces, UserId="alice")
    aws.delete_user(CollectionId=faces, UserId="alice", ClientRequestToken=token)


def test_a_request_that_comes_twice_at_once_is_done_once(aws: Any, second: Running, faces: str) -> None:
    def create(number: int) -> None:
        client = (aws, second.rekognition)[number % 2]
        client.create_user(CollectionId=faces, UserId="alice", ClientRequestToken=f"{faces}-rush")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(create, range(8)))
    assert len(aws.list_users(CollectionId=faces)["Users"]) == 1


def test_tokens_are_forgotten(first: Running, aws: Any, faces: str) -> None:
    aws.create_user(CollectionId=faces, UserId="alice", ClientRequestToken=f"{faces}-old")
    outdate_tokens(first)
    with refused("ConflictException"):
        aws.create_user(CollectionId=faces, UserId="alice", ClientRequestToken=f"{faces}-old")
    aws.create_user(CollectionId=faces, UserId="bob", ClientRequestToken=f"{faces}-new")
    assert rows(first, "SELECT token FROM request_tokens") == [(f"{faces}-new",)]
    aws.delete_collection(CollectionId=faces)
    assert rows(first, "SELECT token FROM request_tokens") == []


def outdate_tokens(server: Running) -> None:
    rows(server, "UPDATE request_tokens SET at = datetime('now', '-11 minutes')")


@pytest.mark.parametrize("by", ["a change without a token", "the start"])
async def test_tokens_are_forgotten_though_nobody_sends_another(first: Running, aws: Any, faces: str, by: str) -> None:
    aws.create_user(CollectionId=faces, UserId="alice", ClientRequestToken=f"{faces}-old")
    outdate_tokens(first)
    async with open_services(first.settings, PaintedBackend()) as services:
        assert services.facade is not None
        if by == "the start":
            await services.facade.people.forget_expired()
        else:
            await services.facade.people.create(faces, "bob", token=None)
    assert rows(first, "SELECT token FROM request_tokens") == []


def database_file(settings: Settings) -> str:
    return settings.database_url.removeprefix("sqlite+aiosqlite:///")


# One list for both


def test_an_indexed_face_is_found_by_rest_at_once(aws: Any, second: Running, rest: httpx.Client, faces: str) -> None:
    (red,) = index(aws, faces, RED, ExternalImageId="terminal-2")
    for server in (second.rest, rest):
        body = {"images": [inline(photo(RED))], "collection": faces}
        (result,) = server.post("/process/process-images", json=body).raise_for_status().json()
        (face,) = result["faces"]
        assert [match["name"] for match in face["blacklist_matches"]] == ["terminal-2"]
    aws.delete_faces(CollectionId=faces, FaceIds=[red])
    (result,) = second.rest.post("/process/process-images", json=body).raise_for_status().json()
    assert result["faces"][0]["blacklist_matches"] == []


def test_an_entry_of_rest_is_a_user(aws: Any, second: Running, rest: httpx.Client, faces: str) -> None:
    files = [("images", ("red.png", photo(RED))), ("images", ("reddish.png", photo(REDDISH)))]
    within = {"collection": faces}
    entry = rest.post("/blacklist", params=within, data={"name": "Alice"}, files=files).raise_for_status().json()
    (user,) = aws.list_users(CollectionId=faces)["Users"]
    assert user["UserStatus"] == "ACTIVE"
    answer = second.rekognition.search_faces_by_image(CollectionId=faces, Image=painted(RED))
    assert [match["Face"]["UserId"] for match in answer["FaceMatches"]] == [user["UserId"]] * 2
    assert users(aws.search_users_by_image(CollectionId=faces, Image=painted(ORANGE))) == [user["UserId"]]
    rest.delete(f"/blacklist/{entry['id']}", params=within).raise_for_status()
    assert second.rekognition.search_faces_by_image(CollectionId=faces, Image=painted(RED))["FaceMatches"] == []
    assert aws.list_users(CollectionId=faces)["Users"] == []


def test_rest_names_what_was_indexed(aws: Any, rest: httpx.Client, faces: str) -> None:
    index(aws, faces, RED)
    (entry,) = entries(rest, faces)
    path = f"/blacklist/{entry['id']}"
    rest.put(path, params={"collection": faces}, json={"name": "Alice"}).raise_for_status()
    assert [entry["name"] for entry in entries(rest, faces)] == ["Alice"]


# Who may ask, and where


def test_the_facade_is_not_in_the_openapi_document(first: Running) -> None:
    document = first.rest.get(str(first.rest.base_url).replace("/api/v1", "") + "openapi.json").json()
    assert not any("rekognition" in path for path in document["paths"])


def test_without_access_keys_nobody_may_ask(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, rekognition_access_keys=())
    with running(settings) as server:
        with refused("UnrecognizedClientException"):
            server.rekognition.list_collections()
        url = str(server.rest.base_url).removesuffix("/api/v1/")
        unsigned = client_of(url, config=Config(signature_version=UNSIGNED))
        with refused("MissingAuthenticationTokenException"):
            unsigned.list_collections()
        unsigned.close()


def test_the_switch_lets_this_machine_ask_unsigned(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, rekognition_access_keys=(), rekognition_allow_unsigned=True)
    target = {"X-Amz-Target": "RekognitionService.ListCollections", "Content-Type": "application/x-amz-json-1.1"}
    with listening(settings, PaintedBackend()) as url:
        for path in ("/rekognition", "/rekognition/"):
            answer = httpx.post(f"{url}{path}", headers=target, content=b"{}", trust_env=False)
            assert answer.raise_for_status().json()["CollectionIds"] == ["default"]


@pytest.mark.parametrize("more", [{}, {"rekognition_access_keys": (), "rekognition_allow_unsigned": True}])
def test_a_model_without_similarity_cannot_serve(tmp_path: Path, more: dict[str, Any]) -> None:
    settings = settings_in(tmp_path, model_name=UNMEASURED, **more)

    async def start() -> None:
        async with open_services(settings, PaintedBackend()):
            pytest.fail("it started")

    with pytest.raises(StartupError, match="MODEL_NAME"):
        asyncio.run(start())


def test_on_aws_there_is_no_facade(tmp_path: Path, s3_url: str) -> None:
    with RekognitionServer() as rekognition:
        settings = settings_in(
            tmp_path,
            face_processing_backend="aws_rekognition",
            aws_region="us-east-1",
            aws_s3_bucket_name=BUCKET,
            aws_endpoint_url_s3=s3_url,
            aws_endpoint_url_rekognition=rekognition.url,
        )
        with listening(settings, None) as url:
            assert httpx.post(f"{url}/rekognition", trust_env=False).status_code == 404


# Real faces


def test_people_are_told_apart(tmp_path: Path) -> None:
    samples = Path(__file__).parents[3] / "samples"
    astronaut, admiral = ({"Bytes": (samples / name).read_bytes()} for name in ("astronaut.jpg", "grace_hopper.jpg"))
    settings = settings_in(tmp_path, deepface_home=Path.home())
    with listening(settings, None) as url:
        aws = client_of(url)
        aws.create_collection(CollectionId="real")
        for name, image in (("astronaut", astronaut), ("admiral", admiral)):
            aws.index_faces(CollectionId="real", Image=image, ExternalImageId=name, QualityFilter="HIGH")
        answer = aws.search_faces_by_image(CollectionId="real", Image=astronaut)
        assert [match["Face"]["ExternalImageId"] for match in answer["FaceMatches"]] == ["astronaut"]
        assert answer["FaceMatches"][0]["Similarity"] > 99
        (detail,) = aws.detect_faces(Image=admiral)["FaceDetails"]
        marks = {mark["Type"]: mark for mark in detail["Landmarks"]}
        assert marks["eyeLeft"]["X"] < marks["nose"]["X"] < marks["eyeRight"]["X"]
        assert marks["mouthLeft"]["X"] < marks["mouthRight"]["X"]
        assert abs(detail["Pose"]["Roll"]) < 20
        aws.close()
