import os
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from facescreen.images.beneath import open_beneath


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "people").mkdir(parents=True)
    (root / "people" / "ada.jpg").write_bytes(b"ada")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    return root


def test_reads_a_file_at_any_depth(root: Path) -> None:
    (root / "top.jpg").write_bytes(b"top")
    for parts, content in ((["top.jpg"], b"top"), (["people", "ada.jpg"], b"ada")):
        with open_beneath(root, parts) as file:
            assert file.read() == content


def test_the_root_itself_may_be_a_link(root: Path) -> None:
    link = root.with_name("link")
    link.symlink_to(root)
    with open_beneath(link, ["people", "ada.jpg"]) as file:
        assert file.read() == b"ada"


def test_links_lead_nowhere(root: Path) -> None:
    (root / "file.jpg").symlink_to("../secret.jpg")
    (root / "inside.jpg").symlink_to("people/ada.jpg")
    (root / "folder").symlink_to("..")
    for parts in (["file.jpg"], ["inside.jpg"], ["folder", "secret.jpg"]):
        with pytest.raises(OSError, match=r".*"):
            open_beneath(root, parts)


def test_what_is_no_regular_file_is_refused_without_waiting(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        for name in ("fifo", "socket", "people", "missing"):
            with pytest.raises(OSError, match=r".*"):
                open_beneath(root, [name])


def test_what_is_swapped_for_a_link_all_the_time_leads_nowhere(root: Path) -> None:
    (root.parent / "outside").mkdir()
    (root.parent / "outside" / "ada.jpg").write_bytes(b"secret")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            for path, target in ((root / "people", "../outside"), (root / "people" / "ada.jpg", "../../secret.jpg")):
                path.rename(root / "kept")
                path.symlink_to(target)
                path.unlink()
                (root / "kept").rename(path)

    swapping = threading.Thread(target=swap)
    swapping.start()
    found = set()
    try:
        for _ in range(3_000):
            with suppress(OSError), open_beneath(root, ["people", "ada.jpg"]) as file:
                found.add(file.read())
    finally:
        over.set()
        swapping.join()
    with open_beneath(root, ["people", "ada.jpg"]) as file:
        assert found | {file.read()} == {b"ada"}


@pytest.mark.parametrize("parts", [[], ["."], [".."], ["people", "..", "..", "secret.jpg"], ["", "x"], ["a\0b"]])
def test_names_that_are_none_are_refused(root: Path, parts: list[str]) -> None:
    with pytest.raises(ValueError, match=r".*"):
        open_beneath(root, parts)


def test_nothing_stays_open(root: Path) -> None:
    (root / "file.jpg").symlink_to("../secret.jpg")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for parts in (["people", "ada.jpg"], ["file.jpg"], ["people"], ["missing", "x"], ["people", "missing"]):
        try:
            open_beneath(root, parts).close()
        except OSError:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before
