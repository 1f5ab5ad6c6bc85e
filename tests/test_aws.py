import asyncio
import math
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import botocore.exceptions
import pytest
import urllib3.exceptions

from facescreen import aws
from facescreen.aws import CONNECTIONS, AwsAccess, AwsClient, AwsRefusal
from facescreen.config import Settings
from facescreen.errors import (
    AwsAccessDeniedError,
    AwsBucketMissingError,
    AwsCredentialsError,
    AwsError,
    AwsQuotaError,
    AwsServiceError,
    AwsThrottledError,
    AwsTimeoutError,
    AwsUnreachableError,
)
from tests.loopback_aws import CREDENTIALS, access, s3_server
from tests.rekognition_server import (
    ACCESS_DENIED,
    EXPIRED_CREDENTIALS,
    MALFORMED,
    SERVER_ERROR,
    THROTTLED,
    THROUGHPUT_EXCEEDED,
    UNAVAILABLE,
    UNRECOGNIZED_CLIENT,
    Fault,
    RekognitionServer,
    Reply,
    Silence,
    refusal,
)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[RekognitionServer]:
    with RekognitionServer() as started:
        yield started


@pytest.fixture
async def client(server: RekognitionServer) -> AsyncIterator[AwsClient]:
    made = AwsClient("rekognition", access({"rekognition": server.url}))
    yield made
    await made.aclose()


async def test_a_call_is_answered(client: AwsClient) -> None:
    await client.call("create_collection", CollectionId="a")
    assert (await client.call("list_collections"))["CollectionIds"] == ["a"]


async def test_more_calls_than_connections_all_succeed(client: AwsClient, server: RekognitionServer) -> None:
    calls = 3 * CONNECTIONS
    answers = await asyncio.gather(*(client.call("list_collections") for _ in range(calls)))
    assert len(answers) == len(server.calls) == calls


FAULTS: dict[str, tuple[Fault, type[AwsError]]] = {
    "CreateCollection": (THROTTLED, AwsThrottledError),
    "DescribeCollection": (THROUGHPUT_EXCEEDED, AwsThrottledError),
    "ListCollections": (SERVER_ERROR, AwsServiceError),
    "DeleteCollection": (UNAVAILABLE, AwsServiceError),
    "ListFaces": (EXPIRED_CREDENTIALS, AwsCredentialsError),
    "ListUsers": (UNRECOGNIZED_CLIENT, AwsCredentialsError),
    "DeleteUser": (ACCESS_DENIED, AwsAccessDeniedError),
    "CreateUser": (refusal("ServiceQuotaExceededException"), AwsQuotaError),
    "DetectFaces": (Silence.DROP, AwsUnreachableError),
    "IndexFaces": (Silence.HANG, AwsTimeoutError),
}
COLLECTION = {"CollectionId": "secret-list"}
IMAGE = {"Image": {"Bytes": b"secret"}}
CALLS: dict[str, tuple[str, Mapping[str, object]]] = {
    "CreateCollection": ("create_collection", COLLECTION),
    "DescribeCollection": ("describe_collection", COLLECTION),
    "ListCollections": ("list_collections", {}),
    "DeleteCollection": ("delete_collection", COLLECTION),
    "ListFaces": ("list_faces", COLLECTION),
    "ListUsers": ("list_users", COLLECTION),
    "DeleteUser": ("delete_user", COLLECTION | {"UserId": "ada"}),
    "CreateUser": ("create_user", COLLECTION | {"UserId": "ada"}),
    "DetectFaces": ("detect_faces", IMAGE),
    "IndexFaces": ("index_faces", {**COLLECTION, **IMAGE}),
}


async def test_every_fault_that_stays_has_its_error(server: RekognitionServer) -> None:
    client = AwsClient("rekognition", access({"rekognition": server.url}, read_timeout_seconds=0.3))
    for operation, (fault, _) in FAULTS.items():
        server.fail(operation, fault, times=math.inf)
    raised = await asyncio.gather(
        *(client.call(method, **parameters) for method, parameters in CALLS.values()), return_exceptions=True
    )
    await client.aclose()
    assert {operation: type(error) for operation, error in zip(CALLS, raised, strict=True)} == {
        operation: error for operation, (_, error) in FAULTS.items()
    }
    for error in raised:
        assert "Rekognition" in str(error)
        assert not any(secret in str(error) for secret in ("secret-list", "ada", *CREDENTIALS.values()))


@pytest.mark.parametrize("fault", [SERVER_ERROR, UNAVAILABLE, Silence.DROP, Silence.DROP_AFTER])
async def test_a_fault_that_passes_is_not_noticed(client: AwsClient, server: RekognitionServer, fault: Fault) -> None:
    server.fail("ListCollections", fault)
    await client.call("list_collections")
    assert len(server.calls) == 2


@pytest.mark.parametrize("body", [MALFORMED.body, b"[]", b"null", b"\xff", b"<html></html>", b'{"CollectionIds": 7}'])
async def test_a_success_that_says_nothing_is_a_fault(
    client: AwsClient, server: RekognitionServer, body: bytes
) -> None:
    server.fail("ListCollections", Reply(200, body))
    with pytest.raises(AwsServiceError):
        await client.call("list_collections")


@pytest.mark.parametrize(
    ("status", "error"), [(401, AwsCredentialsError), (403, AwsAccessDeniedError), (502, AwsServiceError)]
)
async def test_a_proxy_that_knows_no_codes(
    client: AwsClient, server: RekognitionServer, status: int, error: type[AwsError]
) -> None:
    server.fail("ListCollections", Reply(status, b"[]" if status == 502 else b"go away"), times=math.inf)
    with pytest.raises(error):
        await client.call("list_collections")


async def test_what_only_the_caller_can_judge(client: AwsClient) -> None:
    with pytest.raises(AwsRefusal) as raised:
        await client.call("describe_collection", CollectionId="a")
    assert raised.value.code == "ResourceNotFoundException"
    assert "does not exist" in raised.value.message


async def test_the_deadline_holds_though_aws_may_take_longer(server: RekognitionServer) -> None:
    client = AwsClient(
        "rekognition", access({"rekognition": server.url}, read_timeout_seconds=600, deadline_seconds=0.5)
    )
    server.fail("*", Silence.HANG, times=math.inf)
    with pytest.raises(AwsTimeoutError):
        await client.call("list_collections")
    server.stop()
    await client.aclose()


async def test_nothing_is_sent_for_a_caller_who_has_gone(server: RekognitionServer) -> None:
    client = AwsClient("rekognition", access({"rekognition": server.url}, read_timeout_seconds=0.3))
    struck = server.fail("CreateCollection", Silence.HANG, times=math.inf)
    calls = [asyncio.create_task(client.call("create_collection", CollectionId=f"{n}")) for n in range(CONNECTIONS + 3)]
    await asyncio.to_thread(struck.wait)
    for call in calls:
        call.cancel()
    assert {type(each) for each in await asyncio.gather(*calls, return_exceptions=True)} == {asyncio.CancelledError}
    await client.aclose()
    assert len({call.parameters["CollectionId"] for call in server.calls}) == len(server.calls) <= CONNECTIONS


async def test_nobody_is_there(server: RekognitionServer, client: AwsClient) -> None:
    server.stop()
    with pytest.raises(AwsUnreachableError):
        await client.call("list_collections")


async def test_without_credentials_nothing_is_sent(
    server: RekognitionServer, client: AwsClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(AwsCredentialsError):
        await client.call("list_collections")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AwsCredentialsError):
        await client.call("list_collections")
    assert server.calls == []
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id=late\naws_secret_access_key=but here\n")
    await client.call("list_collections")


async def test_an_unknown_profile(client: AwsClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(AwsCredentialsError):
        await client.call("list_collections")


async def test_credentials_that_were_renewed_are_used(
    server: RekognitionServer, client: AwsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.call("list_collections")
    server.fail("*", EXPIRED_CREDENTIALS)
    with pytest.raises(AwsCredentialsError):
        await client.call("list_collections")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AwsCredentialsError):
        await client.call("list_collections")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "renewed")
    await client.call("list_collections")


@pytest.mark.parametrize(
    ("region", "url"), [(None, None), (None, "http://127.0.0.1:9"), ("no region", None), ("us-east-1", "nonsense")]
)
async def test_no_address(region: str | None, url: str | None) -> None:
    client = AwsClient(
        "rekognition",
        AwsAccess(
            region=region,
            endpoint_urls={"rekognition": url} if url else {},
            connect_timeout_seconds=1,
            read_timeout_seconds=1,
            deadline_seconds=10,
        ),
    )
    with pytest.raises(AwsUnreachableError, match="AWS_REGION"):
        await client.call("list_collections")
    await client.aclose()


async def test_objects_of_s3() -> None:
    with s3_server() as url:
        client = AwsClient("s3", access({"s3": url}))
        with pytest.raises(AwsBucketMissingError, match="AWS_S3_BUCKET_NAME"):
            await client.call("get_object", Bucket="absent", Key="a")
        await client.call("create_bucket", Bucket="present")
        with pytest.raises(FileNotFoundError):
            await client.call("get_object", Bucket="present", Key="a")
        await client.call("put_object", Bucket="present", Key="a", Body=bytes(100_000))
        assert (await client.call("get_object", Bucket="present", Key="a"))["Body"] == bytes(100_000)
        await client.aclose()


async def test_closing_without_a_call_and_twice() -> None:
    threads = threading.active_count()
    client = AwsClient("s3", access({}))
    await client.aclose()
    await client.aclose()
    assert threading.active_count() <= threads + 1  # the event loop's own


def test_settings_say_where_and_how_long() -> None:
    settings = Settings(
        _env_file=None,
        aws_region="eu-west-1",
        aws_endpoint_url="http://both",
        aws_endpoint_url_s3="http://s3",
        aws_connect_timeout_seconds=1,
        aws_read_timeout_seconds=2,
        aws_deadline_seconds=3,
    )
    assert AwsAccess.from_settings(settings) == AwsAccess(
        region="eu-west-1",
        endpoint_urls={"rekognition": "http://both", "s3": "http://s3"},
        connect_timeout_seconds=1,
        read_timeout_seconds=2,
        deadline_seconds=3,
    )
    assert AwsAccess.from_settings(Settings(_env_file=None)).endpoint_urls == {}


def test_there_are_exceptions_of_these_names() -> None:
    known = vars(urllib3.exceptions) | vars(botocore.exceptions)
    assert all(issubclass(known[name], Exception) for name in aws._BY_EXCEPTION)


def test_whoever_does_without_aws_does_not_load_boto3() -> None:
    look = "import sys, facescreen.aws, facescreen.images.s3_store; sys.exit('boto3' in sys.modules)"
    subprocess.run([sys.executable, "-c", look], check=True)
    look = "import sys, facescreen.backends.rekognition; sys.exit('botocore' in sys.modules)"
    subprocess.run([sys.executable, "-c", look], check=True)
