"""The server that stands for Rekognition, seen through the client that it is for."""

import io
import itertools
import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from uuid import uuid4

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from botocore.validate import ParamValidator
from PIL import Image

from tests.painted import BLUE, GREEN, RED, YELLOW, photo
from tests.rekognition_server import (
    ACCESS_DENIED,
    EXPIRED_CREDENTIALS,
    MALFORMED,
    MAX_BYTES,
    SERVER_ERROR,
    THROTTLED,
    THROUGHPUT_EXCEEDED,
    UNAVAILABLE,
    UNRECOGNIZED_CLIENT,
    Partial,
    RekognitionServer,
    Reply,
    Silence,
    similarity,
    squares,
)

LIST = "blacklist"
NOBODY = str(uuid4())


def connect(server: RekognitionServer, *, attempts: int = 1, read_timeout: float = 30) -> Any:
    """A client; every answer that it reads is checked against the service model."""
    client = boto3.client(
        "rekognition",
        endpoint_url=server.url,
        region_name="eu-central-1",
        aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key="made up",
        config=Config(retries={"total_max_attempts": attempts}, read_timeout=read_timeout, proxies={}),
    )
    client.meta.events.register("after-call.rekognition", _conforms)
    return client


def _conforms(http_response: Any, parsed: dict[str, Any], model: Any, **_: object) -> None:
    if http_response.status_code == 200 and http_response.content != MALFORMED.body:
        members = {name: value for name, value in parsed.items() if name != "ResponseMetadata"}
        assert not ParamValidator().validate(members, model.output_shape).has_errors()
        # botocore leaves out what the model does not know.
        assert _names(json.loads(http_response.content)) == _names(members)


def _names(value: object) -> object:
    if isinstance(value, dict):
        return {name: _names(member) for name, member in value.items()}
    return [_names(member) for member in value] if isinstance(value, list) else None


@pytest.fixture
def server() -> Iterator[RekognitionServer]:
    with RekognitionServer() as started:
        yield started


@pytest.fixture
def client(server: RekognitionServer) -> Iterator[Any]:
    with closing(connect(server)) as connected:
        connected.create_collection(CollectionId=LIST)
        yield connected


def index(client: Any, *colours: tuple[int, int, int], **parameters: object) -> list[str]:
    answer = client.index_faces(CollectionId=LIST, Image={"Bytes": photo(*colours)}, **parameters)
    return [record["Face"]["FaceId"] for record in answer["FaceRecords"]]


def refused(code: str) -> Any:
    return pytest.raises(ClientError, match=rf"\({code}\)")


def test_collections_are_created_described_listed_and_deleted(client: Any, server: RekognitionServer) -> None:
    with refused("ResourceAlreadyExistsException"):
        client.create_collection(CollectionId=LIST)
    index(client, RED, GREEN)
    client.create_user(CollectionId=LIST, UserId="ada")
    described = client.describe_collection(CollectionId=LIST)
    assert (described["FaceCount"], described["UserCount"], described["FaceModelVersion"]) == (2, 1, "7.0")
    for name in ("a", "z"):
        client.create_collection(CollectionId=name)
    pages = list(client.get_paginator("list_collections").paginate())
    assert [page["CollectionIds"] for page in pages] == [["a", LIST], ["z"]]
    client.delete_collection(CollectionId=LIST)
    assert server.collections.keys() == {"a", "z"}
    for operation in (client.describe_collection, client.delete_collection, client.list_faces, client.list_users):
        with refused("ResourceNotFoundException"):
            operation(CollectionId=LIST)


def test_faces_are_detected_where_they_are_the_largest_first(client: Any) -> None:
    canvas = Image.new("RGB", (400, 200), (128, 128, 128))
    canvas.paste(BLUE, (20, 40, 60, 80))
    canvas.paste(RED, (200, 50, 300, 150))
    canvas.paste(GREEN, (100, 20, 139, 59))  # a pixel too small
    encoded = io.BytesIO()
    canvas.save(encoded, "PNG")
    red, blue = client.detect_faces(Image={"Bytes": encoded.getvalue()})["FaceDetails"]
    assert red["BoundingBox"] == {"Left": 0.5, "Top": 0.25, "Width": 0.25, "Height": 0.5}
    assert blue["BoundingBox"] == {"Left": 0.05, "Top": 0.2, "Width": 0.1, "Height": 0.2}
    at = {landmark["Type"]: (landmark["X"], landmark["Y"]) for landmark in red["Landmarks"]}
    assert at["nose"] == (0.625, 0.5)
    assert at["eyeLeft"][0] < at["nose"][0] < at["eyeRight"][0]
    assert at["eyeLeft"][1] < at["nose"][1] < at["mouthLeft"][1]


def test_faces_are_found_upright_and_must_be_larger_in_large_images() -> None:
    lying, large = io.BytesIO(), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise shows it upright
    canvas = Image.new("RGB", (400, 200), (128, 128, 128))
    canvas.paste(RED, (0, 0, 100, 50))
    canvas.save(lying, "JPEG", quality=95, exif=exif)
    assert squares(lying.getvalue())[0].box == pytest.approx((0.75, 0, 0.25, 0.25), abs=0.02)
    canvas = Image.new("RGB", (3840, 200), (128, 128, 128))
    canvas.paste(RED, (0, 0, 79, 79))
    canvas.paste(BLUE, (200, 0, 280, 80))
    canvas.save(large, "PNG")
    assert [square.box[0] for square in squares(large.getvalue())] == [200 / 3840]


def test_the_same_colour_is_similar_after_jpeg_and_two_colours_are_not() -> None:
    for colour in (RED, GREEN, BLUE, YELLOW):
        (png,), (jpeg,) = squares(photo(colour)), squares(photo(colour, side=80, image_format="JPEG"))
        assert 99 < similarity(png.vector, jpeg.vector) <= 100
    for one, other in itertools.combinations(squares(photo(RED, GREEN, BLUE, YELLOW)), 2):
        assert 0 <= similarity(one.vector, other.vector) < 50


def test_images_that_aws_would_not_take_are_refused(client: Any) -> None:
    for image, code in (
        ({"Bytes": photo(RED) + bytes(MAX_BYTES)}, "ImageTooLargeException"),
        ({"Bytes": photo(RED, side=39)}, "InvalidParameterException"),
        ({"Bytes": photo(RED, image_format="BMP")}, "InvalidImageFormatException"),
        ({"Bytes": photo(RED)[:100]}, "InvalidImageFormatException"),
        ({"S3Object": {"Bucket": "bucket", "Name": "photo.jpg"}}, "InvalidS3ObjectException"),
    ):
        with refused(code):
            client.detect_faces(Image=image)
    assert client.detect_faces(Image={"Bytes": photo()})["FaceDetails"] == []
    with pytest.raises(ClientError, match="There are no faces in the image"):
        client.search_faces_by_image(CollectionId=LIST, Image={"Bytes": photo()})


def test_what_the_model_does_not_allow_is_refused(client: Any, server: RekognitionServer) -> None:
    before = len(server.calls)
    with refused("ValidationException"):
        client.create_user(CollectionId=LIST, UserId="Ada Lovelace")
    with refused("ValidationException"):
        client.index_faces(CollectionId=LIST, Image={"Bytes": photo(RED)}, QualityFilter="BEST")
    with refused("ValidationException"):
        client.delete_faces(CollectionId=LIST, FaceIds=[NOBODY] * 4097)
    with refused("UnknownOperationException"):
        client.detect_labels(Image={"Bytes": photo(RED)})
    headers = {"X-Amz-Target": "RekognitionService.ListCollections"}
    answer = httpx.post(server.url, headers=headers, content="{}", trust_env=False)
    assert (answer.status_code, answer.json()["__type"]) == (400, "MissingAuthenticationTokenException")
    assert len(server.calls) == before


def test_indexing_takes_the_largest_and_stores_an_image_once(client: Any, server: RekognitionServer) -> None:
    image = {"Bytes": photo(RED, GREEN)}
    first = client.index_faces(CollectionId=LIST, Image=image, MaxFaces=1, ExternalImageId="a:1")
    assert [face["Reasons"] for face in first["UnindexedFaces"]] == [["EXCEEDS_MAX_FACES"]]
    again = client.index_faces(CollectionId=LIST, Image=image, ExternalImageId="a:1")
    assert again["FaceRecords"][0] == first["FaceRecords"][0]
    assert len({record["Face"]["ImageId"] for record in again["FaceRecords"]}) == 1
    assert len(server.collections[LIST].faces) == 2
    client.index_faces(CollectionId=LIST, Image=image, ExternalImageId="a:2")
    assert len(server.collections[LIST].faces) == 4
    assert not set(index(client, BLUE)) & set(index(client, BLUE))


def test_faces_are_listed_in_pages(client: Any) -> None:
    faces = index(client, RED, GREEN, BLUE, YELLOW, RED)
    pages = list(client.get_paginator("list_faces").paginate(CollectionId=LIST))
    assert [len(page["Faces"]) for page in pages] == [2, 2, 1]
    assert {face["FaceId"] for page in pages for face in page["Faces"]} == set(faces)
    assert len(client.list_faces(CollectionId=LIST, MaxResults=1)["Faces"]) == 1
    (one,) = client.list_faces(CollectionId=LIST, FaceIds=[faces[0], NOBODY])["Faces"]
    assert one["FaceId"] == faces[0]
    with refused("InvalidPaginationTokenException"):
        client.list_faces(CollectionId=LIST, NextToken="made up")


def test_a_page_follows_although_what_it_follows_was_deleted(client: Any) -> None:
    index(client, RED, GREEN, BLUE)
    first = client.list_faces(CollectionId=LIST)
    listed = [face["FaceId"] for face in first["Faces"]]
    assert client.delete_faces(CollectionId=LIST, FaceIds=listed)["DeletedFaces"] == listed
    assert len(client.list_faces(CollectionId=LIST, NextToken=first["NextToken"])["Faces"]) == 1


def test_a_search_looks_for_the_largest_face_only(client: Any) -> None:
    red, *_ = index(client, RED, BLUE, ExternalImageId="both")
    second = index(client, RED)
    canvas = Image.new("RGB", (400, 200), (128, 128, 128))
    canvas.paste(RED, (200, 50, 300, 150))
    canvas.paste(BLUE, (20, 20, 80, 80))
    encoded = io.BytesIO()
    canvas.save(encoded, "PNG")
    image = {"Bytes": encoded.getvalue()}
    answer = client.search_faces_by_image(CollectionId=LIST, Image=image)
    assert answer["SearchedFaceBoundingBox"] == {"Left": 0.5, "Top": 0.25, "Width": 0.25, "Height": 0.5}
    assert {match["Face"]["FaceId"] for match in answer["FaceMatches"]} == {red, *second}
    assert answer["FaceMatches"][0]["Similarity"] > 99
    everyone = client.search_faces_by_image(CollectionId=LIST, Image=image, FaceMatchThreshold=0)["FaceMatches"]
    scores = [match["Similarity"] for match in everyone]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert len(client.search_faces_by_image(CollectionId=LIST, Image=image, MaxFaces=1)["FaceMatches"]) == 1


def test_users_gather_faces(client: Any, server: RekognitionServer) -> None:
    first, second, blue = (*index(client, RED), *index(client, RED, ExternalImageId="2"), *index(client, BLUE))
    for user in ("ada", "bob", "cy"):
        client.create_user(CollectionId=LIST, UserId=user)
    with refused("ConflictException"):
        client.create_user(CollectionId=LIST, UserId="ada")
    added = client.associate_faces(CollectionId=LIST, UserId="ada", FaceIds=[first])
    assert (added["AssociatedFaces"], added["UserStatus"]) == ([{"FaceId": first}], "ACTIVE")
    client.associate_faces(CollectionId=LIST, UserId="bob", FaceIds=[blue])
    mixed = client.associate_faces(CollectionId=LIST, UserId="ada", FaceIds=[first, second, blue, NOBODY])
    assert mixed["AssociatedFaces"] == [{"FaceId": second}]
    assert mixed["UnsuccessfulFaceAssociations"] == [
        {"FaceId": blue, "UserId": "bob", "Reasons": ["ASSOCIATED_TO_A_DIFFERENT_USER"]},
        {"FaceId": NOBODY, "Reasons": ["FACE_NOT_FOUND"]},
    ]
    (green,) = index(client, GREEN)
    unlike = client.associate_faces(CollectionId=LIST, UserId="ada", FaceIds=[green])
    assert unlike["UnsuccessfulFaceAssociations"] == [{"FaceId": green, "Reasons": ["LOW_MATCH_CONFIDENCE"]}]
    assert len(client.list_faces(CollectionId=LIST, UserId="ada")["Faces"]) == 2

    pages = list(client.get_paginator("list_users").paginate(CollectionId=LIST))
    listed = [(user["UserId"], user["UserStatus"]) for page in pages for user in page["Users"]]
    assert (len(pages), listed) == (2, [("ada", "ACTIVE"), ("bob", "ACTIVE"), ("cy", "CREATED")])

    found = client.search_users_by_image(CollectionId=LIST, Image={"Bytes": photo(RED, BLUE)})
    assert [match["User"]["UserId"] for match in found["UserMatches"]] == ["ada"]
    assert [face["Reasons"] for face in found["UnsearchedFaces"]] == [["FACE_NOT_LARGEST"]]
    nobody = client.search_users_by_image(CollectionId=LIST, Image={"Bytes": photo()})
    assert nobody["UserMatches"] == []
    assert "SearchedFace" not in nobody

    removed = client.disassociate_faces(CollectionId=LIST, UserId="ada", FaceIds=[second, green, blue])
    assert removed["DisassociatedFaces"] == [{"FaceId": second}]
    assert removed["UnsuccessfulFaceDisassociations"] == [
        {"FaceId": blue, "UserId": "bob", "Reasons": ["ASSOCIATED_TO_A_DIFFERENT_USER"]}
    ]
    kept = client.delete_faces(CollectionId=LIST, FaceIds=[first, NOBODY])
    assert "DeletedFaces" not in kept
    assert kept["UnsuccessfulFaceDeletions"] == [
        {"FaceId": first, "UserId": "ada", "Reasons": ["ASSOCIATED_TO_AN_EXISTING_USER"]},
        {"FaceId": NOBODY, "Reasons": ["FACE_NOT_FOUND"]},
    ]
    client.delete_user(CollectionId=LIST, UserId="ada")
    assert server.collections[LIST].users == {"bob", "cy"}
    assert client.delete_faces(CollectionId=LIST, FaceIds=[first, second])["DeletedFaces"] == [first, second]
    with refused("ResourceNotFoundException"):
        client.delete_user(CollectionId=LIST, UserId="ada")


def test_a_user_has_at_most_a_hundred_faces(client: Any) -> None:
    client.create_user(CollectionId=LIST, UserId="ada")
    hundred = [face for number in range(50) for face in index(client, RED, RED, ExternalImageId=str(number))]
    client.associate_faces(CollectionId=LIST, UserId="ada", FaceIds=hundred)
    with refused("ServiceQuotaExceededException"):
        client.associate_faces(CollectionId=LIST, UserId="ada", FaceIds=index(client, RED))


def test_a_token_makes_a_repeated_request_one(client: Any) -> None:
    for _ in range(2):
        client.create_user(CollectionId=LIST, UserId="ada", ClientRequestToken="1")
    with refused("IdempotentParameterMismatchException"):
        client.create_user(CollectionId=LIST, UserId="bob", ClientRequestToken="1")


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        (THROTTLED, "ThrottlingException", 400),
        (THROUGHPUT_EXCEEDED, "ProvisionedThroughputExceededException", 400),
        (SERVER_ERROR, "InternalServerError", 500),
        (UNAVAILABLE, "503", 503),
        (EXPIRED_CREDENTIALS, "ExpiredTokenException", 400),
        (UNRECOGNIZED_CLIENT, "UnrecognizedClientException", 400),
        (ACCESS_DENIED, "AccessDeniedException", 400),
    ],
)
def test_a_scripted_error_takes_the_place_of_the_work(
    client: Any, server: RekognitionServer, fault: Reply, code: str, status: int
) -> None:
    struck = server.fail("CreateUser", fault)
    client.list_users(CollectionId=LIST)
    assert not struck.is_set()
    with refused(code) as caught:
        client.create_user(CollectionId=LIST, UserId="ada")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert struck.is_set()
    assert not server.collections[LIST].users
    client.create_user(CollectionId=LIST, UserId="ada")
    assert server.collections[LIST].users == {"ada"}


def test_faults_strike_as_often_and_as_late_as_they_are_told(client: Any, server: RekognitionServer) -> None:
    server.fail("ListUsers", THROTTLED, after=1, times=2)
    server.fail("*", SERVER_ERROR, after=1, times=math.inf)
    client.list_users(CollectionId=LIST)
    for code in ("ThrottlingException", "ThrottlingException", "InternalServerError"):
        with refused(code):
            client.list_users(CollectionId=LIST)
    with refused("InternalServerError"):
        client.list_faces(CollectionId=LIST)
    server.heal()
    client.list_users(CollectionId=LIST)
    assert [operation for operation, _ in server.calls[1:]] == ["ListUsers"] * 4 + ["ListFaces", "ListUsers"]
    assert server.calls[-1].parameters == {"CollectionId": LIST}


def test_a_fault_that_could_not_strike_is_not_scripted(server: RekognitionServer) -> None:
    with pytest.raises(ValueError, match="IndexFace cannot fail like this"):
        server.fail("IndexFace", THROTTLED)
    with pytest.raises(ValueError, match="ListFaces cannot fail like this"):
        server.fail("ListFaces", Partial("FACE_NOT_FOUND"))


def test_a_dropped_request_is_done_or_not(client: Any, server: RekognitionServer) -> None:
    for fault, users in ((Silence.DROP, set()), (Silence.DROP_AFTER, {"ada"})):
        server.fail("CreateUser", fault)
        with pytest.raises(ConnectionClosedError):
            client.create_user(CollectionId=LIST, UserId="ada")
        assert server.collections[LIST].users == users
    with refused("ConflictException"):
        client.create_user(CollectionId=LIST, UserId="ada")


def test_a_retry_after_a_drop_is_one_request_with_it(client: Any, server: RekognitionServer) -> None:
    server.fail("CreateUser", Silence.DROP_AFTER)
    with closing(connect(server, attempts=2)) as retrying:
        retrying.create_user(CollectionId=LIST, UserId="ada")
    assert [operation for operation, _ in server.calls[1:]] == ["CreateUser", "CreateUser"]


def test_a_hanging_request_ends_when_the_client_gives_up(client: Any, server: RekognitionServer) -> None:
    hanging = server.fail("ListUsers", Silence.HANG)
    with closing(connect(server, read_timeout=0.05)) as impatient, pytest.raises(ReadTimeoutError):
        impatient.list_users(CollectionId=LIST)
    assert hanging.wait(30)
    client.list_users(CollectionId=LIST)


def test_a_hanging_request_ends_when_the_server_stops(client: Any, server: RekognitionServer) -> None:
    hanging = server.fail("ListUsers", Silence.HANG)
    with ThreadPoolExecutor() as pool:
        listing = pool.submit(client.list_users, CollectionId=LIST)
        assert hanging.wait(30)
        assert not listing.done()
        server.stop()
        with pytest.raises(ConnectionClosedError):
            listing.result()
    with pytest.raises(EndpointConnectionError):
        client.list_users(CollectionId=LIST)


def test_successes_in_part(client: Any, server: RekognitionServer) -> None:
    server.fail("IndexFaces", Partial("LOW_SHARPNESS"))
    answer = client.index_faces(CollectionId=LIST, Image={"Bytes": photo(RED, GREEN)}, MaxFaces=1)
    assert answer["FaceRecords"] == []
    assert [face["Reasons"] for face in answer["UnindexedFaces"]] == [["LOW_SHARPNESS"]] * 2
    assert not server.collections[LIST].faces

    first, second = index(client, RED, RED)
    client.create_user(CollectionId=LIST, UserId="ada")
    both = {"CollectionId": LIST, "FaceIds": [first, second]}
    server.fail("AssociateFaces", Partial("LOW_MATCH_CONFIDENCE"))
    associated = client.associate_faces(UserId="ada", **both)
    assert associated["UnsuccessfulFaceAssociations"] == [{"FaceId": first, "Reasons": ["LOW_MATCH_CONFIDENCE"]}]
    assert [face.face_id for face in server.collections[LIST].faces_of("ada")] == [second]

    server.fail("DisassociateFaces", Partial("FACE_NOT_FOUND"))
    disassociated = client.disassociate_faces(CollectionId=LIST, UserId="ada", FaceIds=[second])
    assert disassociated["DisassociatedFaces"] == []
    client.disassociate_faces(CollectionId=LIST, UserId="ada", FaceIds=[second])

    server.fail("DeleteFaces", Partial("FACE_NOT_FOUND"))
    deleted = client.delete_faces(**both)
    assert deleted["DeletedFaces"] == [second]
    assert deleted["UnsuccessfulFaceDeletions"] == [{"FaceId": first, "Reasons": ["FACE_NOT_FOUND"]}]
    assert server.collections[LIST].faces.keys() == {first}


def test_a_malformed_answer_has_no_members(client: Any, server: RekognitionServer) -> None:
    server.fail("IndexFaces", MALFORMED)
    answer = client.index_faces(CollectionId=LIST, Image={"Bytes": photo(RED)})
    assert answer.keys() == {"ResponseMetadata"}


def test_an_error_of_the_server_itself_is_not_taken_for_a_fault() -> None:
    def ask_for_nothing() -> None:
        headers = {"Authorization": "signed", "X-Amz-Target": "RekognitionService.ListFaces"}
        with RekognitionServer() as server, pytest.raises(httpx.RemoteProtocolError):
            httpx.post(server.url, headers=headers, content="{}", trust_env=False)

    with pytest.raises(ExceptionGroup, match="the Rekognition server failed"):
        ask_for_nothing()
