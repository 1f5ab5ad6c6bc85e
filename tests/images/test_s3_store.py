import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from facescreen.aws import AwsClient
from facescreen.errors import AwsBucketMissingError, AwsServiceError, AwsUnreachableError
from facescreen.images.s3_store import S3Store
from tests.loopback_aws import CREDENTIALS, access, s3_server


@pytest.fixture(scope="module")
def credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def client(credentials: None) -> Iterator[AwsClient]:
    with s3_server() as url:
        made = AwsClient("s3", access({"s3": url}))
        yield made
        asyncio.run(made.aclose())


@pytest.fixture
async def bucket(client: AwsClient) -> str:
    name = f"bucket-{uuid4()}"
    await client.call("create_bucket", Bucket=name)
    return name


async def test_a_bucket_is_required(client: AwsClient, bucket: str) -> None:
    await S3Store(client, bucket).require()
    for missing in ("nobody-made-this-one", "no name of a bucket"):
        store = S3Store(client, missing)
        for attempt in (store.require(), store.put("a.jpg", b"a"), store.get("a.jpg"), store.list()):
            with pytest.raises(AwsBucketMissingError, match="AWS_S3_BUCKET_NAME"):
                await attempt


async def test_images_carry_their_type_below_the_prefix(client: AwsClient, bucket: str) -> None:
    store = S3Store(client, bucket)
    types = {
        "7/a.jpg": "image/jpeg",
        "7/b.JPEG": "image/jpeg",
        "c.png": "image/png",
        "d.webp": "image/webp",
        "e": "application/octet-stream",
    }
    for name in types:
        await store.put(name, b"x")
    answers = {name: await client.call("get_object", Bucket=bucket, Key=f"blacklist/{name}") for name in types}
    assert {name: answer["ContentType"] for name, answer in answers.items()} == types


async def test_what_others_keep_in_the_bucket_is_not_part_of_it(client: AwsClient, bucket: str) -> None:
    store = S3Store(client, bucket)
    await store.put("a/real.jpg", b"real")
    others = ["logo.jpg", "blacklist/", "blacklist/a/", "blacklist/.trash/b.jpg", "blacklist/a/.b.jpg"]
    for key in (*others, "blacklist//c.jpg", "blacklist/a/../d.jpg", "blacklists/e.jpg"):
        await client.call("put_object", Bucket=bucket, Key=key, Body=b"x")
    assert await store.list() == ["a/real.jpg"]
    assert await store.list("a") == ["a/real.jpg"]
    assert await S3Store(client, bucket, prefix="").list("blacklist/a") == ["blacklist/a/real.jpg"]


async def test_every_page_is_listed(client: AwsClient, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    store = S3Store(client, bucket)
    names = [f"a/{number}.jpg" for number in range(5)]
    for name in names:
        await store.put(name, b"x")
    assert await store.list("a") == names


async def test_deleting_leaves_no_version_behind(client: AwsClient, bucket: str) -> None:
    await client.call("put_bucket_versioning", Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    store = S3Store(client, bucket)
    for data in (b"first", b"second"):
        await store.put("a/b.jpg", data)
    await store.put("a/b.jpg.png", b"other")
    await client.call("delete_object", Bucket=bucket, Key="blacklist/a/b.jpg")
    await store.delete("a/b.jpg")
    answer = await client.call("list_object_versions", Bucket=bucket)
    assert [version["Key"] for version in answer["Versions"]] == ["blacklist/a/b.jpg.png"]
    assert "DeleteMarkers" not in answer


@asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[AwsClient]:
    """A client of a server that says the same to everybody and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        client = AwsClient("s3", access({"s3": f"http://{host}:{port}"}))
        yield client
        await client.aclose()


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<html/>",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nno XML",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n<ListBucketResult>",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_what_is_no_listing_is_no_empty_bucket(credentials: None, reply: bytes) -> None:
    async with answering(reply) as client:
        with pytest.raises(AwsServiceError):
            await S3Store(client, "bucket").list()


async def test_half_an_image_is_none(credentials: None) -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf") as client:
        with pytest.raises(AwsUnreachableError):
            await S3Store(client, "bucket").get("a.jpg")
