"""The contract of every image store."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facescreen.aws import AwsClient
from facescreen.db.key_ring import KeyRing
from facescreen.images.folder_store import FolderStore
from facescreen.images.s3_store import S3Store
from facescreen.images.sealed_store import SealedStore
from facescreen.images.store import ImageStore, name_parts
from tests.loopback_aws import CREDENTIALS, access, s3_server

BAD_NAMES = [
    "",
    "/",
    "/a.jpg",
    "a//b.jpg",
    "a/",
    "./a.jpg",
    "../a.jpg",
    "a/../b.jpg",
    "a/..",
    ".hidden",
    "a/.b.jpg",
    "a\0.jpg",
]


@pytest.fixture(scope="module")
def s3() -> Iterator[AwsClient]:
    with s3_server() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        client = AwsClient("s3", access({"s3": url}))
        yield client
        asyncio.run(client.aclose())


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyRing]:
    with closing(KeyRing(tmp_path / "keys", apart_from=[])) as made:
        yield made


@pytest.fixture(params=["folder", "s3", "sealed folder", "sealed s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> ImageStore:
    plain: ImageStore
    if request.param.endswith("folder"):
        plain = FolderStore(tmp_path / "not" / "yet" / "there")
    else:
        bucket, client = f"bucket-{uuid4()}", request.getfixturevalue("s3")
        await client.call("create_bucket", Bucket=bucket)
        plain = S3Store(client, bucket)
    return SealedStore(plain, "any", request.getfixturevalue("keys")) if request.param.startswith("sealed") else plain


async def test_what_is_put_can_be_got_and_listed(store: ImageStore) -> None:
    names = ["ada/1.jpg", "ada/2.PNG", "b.webp", "deep/er/still.jpeg", "Zoë Ångström/ü.bmp", "李明/1.gif"]
    for name in names:
        await store.put(name, name.encode())
    assert await store.list() == sorted(names)
    for folder in {name.partition("/")[0] for name in names if "/" in name}:
        assert await store.list(folder) == sorted(name for name in names if name.startswith(f"{folder}/"))
    assert await store.list("nothing-here") == []
    assert [await store.get(name) for name in names] == [name.encode() for name in names]


async def test_an_empty_store(store: ImageStore) -> None:
    assert await store.list() == []
    await store.delete("a/b.jpg")
    with pytest.raises(FileNotFoundError):
        await store.get("a/b.jpg")


async def test_names_do_not_tell_what_an_image_is(store: ImageStore) -> None:
    names = ["ada/1.HEIC", "ada/2", "ada/3.pjpeg", "ada/notes.txt"]
    for name in names:
        await store.put(name, b"any")
    assert await store.list() == names


async def test_put_replaces(store: ImageStore) -> None:
    await store.put("a/b.jpg", b"the first, longer one")
    await store.put("a/b.jpg", b"second")
    assert await store.get("a/b.jpg") == b"second"
    assert await store.list() == ["a/b.jpg"]


async def test_deleted_is_gone_and_the_neighbour_stays(store: ImageStore) -> None:
    await store.put("a/b.jpg", b"b")
    await store.put("a/c.jpg", b"c")
    await store.delete("a/b.jpg")
    await store.delete("a/b.jpg")
    assert await store.list() == ["a/c.jpg"]
    with pytest.raises(FileNotFoundError):
        await store.get("a/b.jpg")


async def test_a_folder_is_no_image(store: ImageStore) -> None:
    await store.put("a/b.jpg", b"b")
    for name in ("a", "a/b.jpg/c.jpg", "a/" + "x" * 300 + ".jpg"):
        with pytest.raises(FileNotFoundError):
            await store.get(name)
    await store.delete("a/b.jpg/c.jpg")
    assert await store.list() == ["a/b.jpg"]


@pytest.mark.parametrize("name", BAD_NAMES)
async def test_names_outside_of_the_store_are_refused(store: ImageStore, name: str) -> None:
    for attempt in (store.put(name, b"x"), store.get(name), store.delete(name)):
        with pytest.raises(ValueError, match="name"):
            await attempt
    assert await store.list() == []


async def test_concurrent_puts_and_deletes_in_one_folder_all_succeed(store: ImageStore) -> None:
    async def come_and_go(number: int) -> None:
        for _ in range(20):
            await store.put(f"a/b/{number}.jpg", b"x")
            await store.delete(f"a/b/{number}.jpg")
        await store.put(f"a/b/{number}.jpg", b"stays")

    await asyncio.gather(*(come_and_go(number) for number in range(4)))
    assert await store.list() == [f"a/b/{number}.jpg" for number in range(4)]


async def test_a_reader_sees_one_version_or_the_other(store: ImageStore) -> None:
    versions = {bytes([number]) * 100_000 for number in range(4)}
    await store.put("a.jpg", min(versions))

    async def write() -> None:
        for _ in range(5):
            for version in versions:
                await store.put("a.jpg", version)

    writing = asyncio.create_task(write())
    while not writing.done():
        assert await store.get("a.jpg") in versions
    await writing


@given(st.text(alphabet="ab./\0é", max_size=12))
def test_a_name_is_its_parts_or_refused(name: str) -> None:
    try:
        parts = name_parts(name)
    except ValueError:
        return
    assert "/".join(parts) == name
    assert not any(part.startswith(".") or part == "" or "\0" in part for part in parts)
