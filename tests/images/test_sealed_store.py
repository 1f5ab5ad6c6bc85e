"""What is promised of encrypted images beyond the contract of every store."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facescreen.db.key_ring import KeyRing
from facescreen.domain.sealing import SealBrokenError, seal, unseal
from facescreen.images.folder_store import FolderStore
from facescreen.images.sealed_store import SealedStore
from tests.painted import RED, photo

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/."), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyRing]:
    with closing(KeyRing(tmp_path_factory.mktemp("apart") / "keys", apart_from=[])) as made:
        yield made


@pytest.fixture
def plain(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "data")


@pytest.fixture
def store(plain: FolderStore, keys: KeyRing, tmp_path: Path) -> SealedStore:
    return SealedStore(plain, tmp_path.name, keys)


@given(name=NAMES, data=st.binary(max_size=300), other=NAMES)
def test_what_is_sealed_opens_for_what_it_was_sealed_for_alone(
    keys: KeyRing, name: str, data: bytes, other: str
) -> None:
    key = keys.make([name])[name]
    sealed = seal(key, data, name.encode())
    assert unseal(keys.find([name])[name], sealed, name.encode()) == data
    assert seal(key, data, name.encode()) != sealed
    if other != name:
        for wrong in ((key, other), (keys.make([other])[other], name)):
            with pytest.raises(SealBrokenError):
                unseal(wrong[0], sealed, wrong[1].encode())


async def test_a_file_shows_nothing_of_its_image(store: SealedStore, plain: FolderStore) -> None:
    data = photo(RED, image_format="JPEG")
    await store.put("ada/1.jpg", data)
    stored = await plain.get("ada/1.jpg")
    assert not any(data[at : at + 16] in stored for at in range(0, len(data) - 16, 16))
    await store.put("ada/1.jpg", data)
    assert await plain.get("ada/1.jpg") != stored


async def test_any_changed_bit_is_noticed(store: SealedStore, plain: FolderStore) -> None:
    data = photo(RED, image_format="JPEG")
    await store.put("ada/1.jpg", data)
    stored = await plain.get("ada/1.jpg")
    header = len(stored) - len(data) - 28  # without nonce and tag
    random = Random(5)  # noqa: S311 - can be repeated
    for at in (*range(header * 8), *(random.randrange(header * 8, len(stored) * 8) for _ in range(100))):
        changed = bytes(byte ^ (index == at // 8) << at % 8 for index, byte in enumerate(stored))
        await plain.put("ada/1.jpg", changed)
        with pytest.raises(SealBrokenError):
            await store.get("ada/1.jpg")
    for shorter in (b"", stored[:10], stored[:header], stored[: header + 5], stored[:-1], stored + b"\0"):
        await plain.put("ada/1.jpg", shorter)
        with pytest.raises(SealBrokenError):
            await store.get("ada/1.jpg")


async def test_images_cannot_change_places(store: SealedStore, plain: FolderStore) -> None:
    for name in ("ada/1.jpg", "eve/1.jpg"):
        await store.put(name, photo(RED))
    await plain.put("eve/1.jpg", await plain.get("ada/1.jpg"))
    with pytest.raises(SealBrokenError):
        await store.get("eve/1.jpg")


async def test_a_copy_of_what_was_deleted_cannot_be_read(store: SealedStore, plain: FolderStore) -> None:
    await store.put("ada/1.jpg", photo(RED))
    copy = await plain.get("ada/1.jpg")
    await store.delete("ada/1.jpg")
    await plain.put("ada/1.jpg", copy)
    with pytest.raises(SealBrokenError):
        await store.get("ada/1.jpg")
    await store.delete("ada/1.jpg")
    await store.put("ada/1.jpg", b"another")
    await plain.put("ada/1.jpg", copy)
    with pytest.raises(SealBrokenError):
        await store.get("ada/1.jpg")


async def test_what_is_not_sealed_is_read_as_it_is_and_can_be_sealed(store: SealedStore, plain: FolderStore) -> None:
    await plain.put("ada/1.png", photo(RED))
    assert await store.get("ada/1.png") == photo(RED)
    assert not await store.is_sealed("ada/1.png")
    for _ in range(2):
        assert await store.seal("ada/1.png") == photo(RED)
        assert await store.is_sealed("ada/1.png")
    assert await store.get("ada/1.png") == photo(RED)


async def test_without_keys_images_stay_as_they_are_and_sealed_ones_are_not_handed_out(
    store: SealedStore, plain: FolderStore, tmp_path: Path
) -> None:
    without = SealedStore(plain, tmp_path.name, None)
    await without.put("ada/1.png", photo(RED))
    assert await plain.get("ada/1.png") == await without.get("ada/1.png") == photo(RED)
    await store.put("ada/2.png", photo(RED))
    with pytest.raises(SealBrokenError):
        await without.get("ada/2.png")


async def test_a_moved_image_is_sealed_under_its_new_name_while_its_key_is_there(
    store: SealedStore, plain: FolderStore
) -> None:
    await store.put("ada/1.png", photo(RED))
    moved = await plain.get("ada/1.png")
    for name in ("eve/1.png", "joe/1.png"):
        await plain.put(name, moved)
        await store.adopt(name)
        if name == "eve/1.png":
            await store.delete("ada/1.png")
    assert await store.get("eve/1.png") == photo(RED)
    with pytest.raises(SealBrokenError):
        await store.get("joe/1.png")
