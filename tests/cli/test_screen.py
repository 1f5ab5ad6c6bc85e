"""What ``facescreen screen`` takes, and what it says of the rest."""

from pathlib import Path

import pytest

from facescreen.cli.screen import _read, _survey
from facescreen.errors import NothingToScreenError, RejectedFile
from tests.cli.test_cli import facescreen
from tests.painted import RED, photo


@pytest.mark.parametrize("made", [None, "notes.txt", ".a.png", "#recycle/a.png", "below/"])
def test_a_folder_without_images_is_nothing_to_screen(tmp_path: Path, made: str | None) -> None:
    share = tmp_path / "share"
    share.mkdir()
    if made is not None:
        (share / made).parent.mkdir(exist_ok=True)
        if made.endswith("/"):
            (share / made).mkdir()
        else:
            (share / made).write_bytes(b"a text" if made == "notes.txt" else photo(RED))
    with pytest.raises(NothingToScreenError, match="share"):
        _survey([share])


def test_a_missing_share_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    done = facescreen(tmp_path, "screen", "share")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["facescreen: there is no file or folder 'share'"]


def test_every_file_of_a_folder_is_taken_or_left_out_with_a_reason(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for name, image_format in (("a.HEIC", "HEIF"), ("b", "PNG"), ("deep/c.tif", "TIFF"), ("d.txt", "AVIF")):
        (folder / name).write_bytes(photo(RED, image_format=image_format))
    (folder / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0isommp42")
    (folder / "damaged.jpg").write_bytes(bytes(100))
    (folder / "link.png").symlink_to("b")
    (folder / "broken.png").symlink_to("nowhere")
    (folder / "elsewhere").symlink_to(tmp_path)
    (folder / ".DS_Store").touch()
    files, left_out = _survey([folder])
    taken = {"a.HEIC", "b", "deep/c.tif", "d.txt", "link.png", "damaged.jpg"}
    assert {file.relative_to(folder).as_posix() for file in files} == taken
    assert {Path(each.file).name: each.code for each in left_out} == {
        "film.mp4": "unsupported_format",
        "broken.png": "not_a_file",
        "elsewhere": "not_a_file",
    }
    assert _survey([folder / "film.mp4"]) == ([folder / "film.mp4"], [])
    with pytest.raises(NothingToScreenError):
        _survey([folder, tmp_path / "gone"])


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    left_out: list[RejectedFile] = []
    (tmp_path / "a.png").write_bytes(bytes(100))
    (image,) = _read([tmp_path / "a.png", tmp_path / "gone.png"], left_out, max_bytes=10)
    assert len(image.data) == 11
    assert [(Path(each.file).name, each.code) for each in left_out] == [("gone.png", "photo_unreadable")]
