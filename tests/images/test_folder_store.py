import asyncio
import fcntl
import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from facescreen.errors import StorageFullError
from facescreen.images.folder_store import FolderStore
from tests.ordinary import ordinary_rights


def everything(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")} - {".incoming"}


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def left_in_incoming(root: Path) -> list[str]:
    return [path.name for path in (root / ".incoming").iterdir()]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The kernel refuses to let a file of this process grow further, as a full disk would."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_a_full_disk_leaves_nothing_behind_and_recovers(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    await store.put("a/kept.jpg", b"before")
    with no_file_above(1_000):
        for name in ("a/kept.jpg", "a/new.jpg", "b/c/new.jpg"):
            with pytest.raises(StorageFullError):
                await store.put(name, bytes(100_000))
        assert everything(tmp_path) == {"a", "a/kept.jpg"}
        assert await store.get("a/kept.jpg") == b"before"
    await store.put("a/new.jpg", bytes(100_000))
    assert await store.list() == ["a/kept.jpg", "a/new.jpg"]


async def test_a_name_that_the_file_system_refuses_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        await FolderStore(tmp_path).put("new/folder/" + "x" * 300, b"x")
    assert everything(tmp_path) == set()


async def test_an_image_is_no_folder(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    await store.put("a/b.jpg", b"b")
    with pytest.raises(StorageFullError):
        await store.put("a/b.jpg/c.jpg", b"c")
    assert await store.list() == ["a/b.jpg"]


async def test_deleting_the_last_image_removes_its_folders(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "root")
    await store.put("a/b/c.jpg", b"c")
    await store.put("d.jpg", b"d")
    await store.delete("a/b/c.jpg")
    await store.delete("d.jpg")
    assert everything(tmp_path / "root") == set()
    assert (tmp_path / "root").is_dir()


async def test_hidden_files_and_links_are_not_part_of_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    store = FolderStore(root)
    await store.put("a/real.jpg", b"real")
    (tmp_path / "outside.jpg").write_bytes(b"outside")
    (root / "a" / ".hidden.jpg").write_bytes(b"hidden")
    (root / ".folder").mkdir()
    (root / ".folder" / "b.jpg").write_bytes(b"hidden")
    (root / "a" / "link.jpg").symlink_to("../../outside.jpg")
    (root / "up").symlink_to("..")
    assert await store.list() == ["a/real.jpg"]
    for name in ("a/link.jpg", "up/outside.jpg"):
        with pytest.raises(FileNotFoundError):
            await store.get(name)
    await store.delete("up/outside.jpg")
    with pytest.raises(StorageFullError):
        await store.put("up/new.jpg", b"new")
    assert await store.list("up") == []
    assert {name for name in everything(tmp_path) if "/" not in name} == {"root", "outside.jpg"}


async def test_no_folder_is_removed_through_a_link(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "root")
    await store.put("a/b.jpg", b"b")
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    (tmp_path / "root" / "up").symlink_to(tmp_path / "empty")
    await store.delete("up/inner/x.jpg")
    assert (tmp_path / "empty" / "inner").is_dir()


async def test_a_folder_that_is_swapped_for_a_link_all_the_time_leads_nowhere(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    store = FolderStore(root)
    await store.put("a/b.jpg", b"inside")
    for name in ("b.jpg", "c.jpg"):
        write(outside / name, b"outside")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            (root / "a").rename(root / "kept")
            (root / "a").symlink_to(outside)
            (root / "a").unlink()
            (root / "kept").rename(root / "a")

    swapping = asyncio.create_task(asyncio.to_thread(swap))
    found, listed = set(), set()
    try:
        for _ in range(300):
            with suppress(FileNotFoundError):
                found.add(await store.get("a/b.jpg"))
            await store.delete("a/c.jpg")
            listed |= set(await store.list())
    finally:
        over.set()
        await swapping
    assert found | {await store.get("a/b.jpg")} == {b"inside"}
    assert listed <= {"a/b.jpg", "kept/b.jpg"}
    assert everything(outside) == {"b.jpg", "c.jpg"}


async def test_names_that_are_no_text_are_told_apart(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    await store.put("a/b.jpg", b"b")
    for name in (b"a/\xff.jpg", b"\xc3\x28/c.jpg", b"a/two\nlines.jpg", b"a/\x1b[31m.jpg"):
        write(Path(os.fsdecode(bytes(tmp_path) + b"/" + name)), b"x")
    assert await store.list() == ["a/b.jpg"]
    left_out = (await store.survey()).left_out
    assert {rejected.code for rejected in left_out} == {"file_name_unusable"}
    assert sorted(rejected.file for rejected in left_out) == ["a/two�lines.jpg", "a/�.jpg", "a/�[31m.jpg", "�(/c.jpg"]


async def test_only_this_user_reads_the_files(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "root")
    await store.put("a/b.jpg", b"b")
    assert {path.stat().st_mode & 0o077 for path in [tmp_path / "root", *(tmp_path / "root").rglob("*")]} == {0}


WRITER = """
import asyncio, sys
from pathlib import Path
from facescreen.images.folder_store import FolderStore
async def write():
    store = FolderStore(Path(sys.argv[1]))
    number = 0
    while True:
        await store.put(f"a/{number}.jpg", bytes([number % 256]) * 2_000_000)
        print(number, flush=True)
        number += 1
asyncio.run(write())
"""


async def test_a_killed_writer_leaves_whole_images_only(tmp_path: Path) -> None:
    (tmp_path / ".incoming").mkdir()
    (tmp_path / ".incoming" / "left-by-an-earlier-one").write_bytes(b"half")
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    acknowledged = [int(await writer.stdout.readline()) for _ in range(5)]
    writer.kill()
    acknowledged += [int(line) for line in (await writer.stdout.read()).split()]
    await writer.wait()

    store = FolderStore(tmp_path)
    assert left_in_incoming(tmp_path) == []
    names = await store.list()
    assert set(names) >= {f"a/{number}.jpg" for number in acknowledged}
    for name in names:
        assert await store.get(name) == bytes([int(name[2:-4]) % 256]) * 2_000_000


async def test_a_new_store_spares_what_is_being_written(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    await store.put("a.jpg", b"a")
    (tmp_path / ".incoming" / "lost").write_bytes(b"half")
    with (tmp_path / ".incoming" / "being-written").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        FolderStore(tmp_path)
        assert left_in_incoming(tmp_path) == ["being-written"]
    FolderStore(tmp_path)
    assert left_in_incoming(tmp_path) == []


async def test_deleting_what_is_gone_already_removes_the_folder_that_a_killed_delete_left(tmp_path: Path) -> None:
    (tmp_path / "ada").mkdir()
    await FolderStore(tmp_path).delete("ada/1.jpg")
    assert everything(tmp_path) == set()


@contextmanager
def forbidden(path: Path, mode: int) -> Iterator[None]:
    """Nobody but root may do more with it than this."""
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        with ordinary_rights():
            yield
    finally:
        path.chmod(before)


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100], ids=oct)
async def test_photos_in_a_folder_that_cannot_be_read_are_never_left_out(tmp_path: Path, mode: int) -> None:
    store = FolderStore(tmp_path)
    for name in ("a/b.jpg", "c/d/e.jpg", "c/f.jpg"):
        await store.put(name, b"x")
    for folder in ("c", "c/d"):
        with forbidden(tmp_path / folder, mode):
            for names in (store.list(), store.list("c"), store.survey()):
                with pytest.raises(StorageFullError, match="cannot be read") as caught:
                    await names
                assert str(tmp_path) not in str(caught.value)
            assert await store.list("a") == ["a/b.jpg"]
            assert await store.get("a/b.jpg") == b"x"
    assert await store.list() == ["a/b.jpg", "c/d/e.jpg", "c/f.jpg"]


async def test_photos_of_another_user_are_refused_as_those_on_a_failing_disk(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for name in ("a/b.jpg", "a/c.jpg"):
        await store.put(name, b"x")
    with forbidden(tmp_path / "a" / "b.jpg", 0o000):
        with pytest.raises(StorageFullError, match="cannot be read"):
            await store.get("a/b.jpg")
        assert await store.get("a/c.jpg") == b"x"
    with forbidden(tmp_path / "a", 0o500):
        for change in (store.delete("a/b.jpg"), store.put("a/d.jpg", b"x")):
            with pytest.raises(StorageFullError, match="another user's"):
                await change
    assert everything(tmp_path) == {"a", "a/b.jpg", "a/c.jpg"}


async def test_what_is_another_users_by_nature_is_no_part_of_it(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for name in ("a/b.jpg", ".snapshot/b.jpg", "lost+found/b.jpg", "a/lost+found/b.jpg"):
        write(tmp_path / name, b"x")
    (tmp_path / "link").symlink_to(".snapshot")
    with forbidden(tmp_path / ".snapshot", 0), forbidden(tmp_path / "lost+found", 0):
        assert await store.list() == ["a/b.jpg", "a/lost+found/b.jpg"]


async def test_what_another_user_left_half_written_stops_no_start(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    await store.put("a/b.jpg", b"x")
    write(tmp_path / ".incoming" / "half", b"half")
    for path in (".incoming/half", ".incoming"):
        with forbidden(tmp_path / path, 0):
            assert await FolderStore(tmp_path).get("a/b.jpg") == b"x"
            await store.delete("a/gone.jpg")
