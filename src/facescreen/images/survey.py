"""What is in and below a folder: files that may be photos, and everything else with the reason why it is none."""

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from facescreen.errors import (
    FileNameUnusableError,
    FolderWithoutPhotosError,
    HiddenFileError,
    InputError,
    NotAFileError,
    PhotoUnreadableError,
    RecycleBinError,
    RejectedFile,
    UnsupportedFormatError,
)
from facescreen.images.beneath import folder_beneath
from facescreen.images.decode import UNSUPPORTED, format_of
from facescreen.images.sources import printable

HEAD_BYTES = 1_000
"""So many first bytes of a file tell its format."""

ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG}
"""Errors of opening what is not there, or is no file or folder of ours."""

UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters of names that are not UTF-8 or have control characters."""

_SYSTEM = re.compile(
    r"\.DS_Store|\._.*|\.localized|\.apdisk|Thumbs\.db|ehthumbs\.db|desktop\.ini|\.directory|\.nomedia|\.nfs[0-9a-f]+"
    r"|\.fuse_hidden.*|\.git(keep|ignore)|\.sync\.lock|\.incoming",
    re.IGNORECASE,
)
"""What operating systems and this service put into folders by themselves. Nothing is said of these."""

_BINS = re.compile(
    r"#recycle|\$recycle\.bin|recycler|recycled|@recycle|@recently-snapshot|#snapshot|~snapshot|@eadir"
    r"|system volume information|\.trash(es|-.*)?|\.recycle(d|\.bin)?|\.snapshots?|\.zfs|\.@__thumb",
    re.IGNORECASE,
)
"""Recycle bins, snapshots and thumbnails of Synology, QNAP, NetApp, ZFS, Samba, Windows, macOS and freedesktop.org."""

_PHOTO_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic",
    ".heif", ".hif", ".avif", ".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf",
}  # fmt: skip
"""How names of photos end, also of those that cannot be decoded."""

_OF_THE_DISK = ("lost+found",)
"""At the top of a file system; for root alone."""


@dataclass(slots=True)
class Survey:
    """What was found. Names are relative to the surveyed folder, with forward slashes.

    Attributes:
        files: regular files with usable names; whether they are photos, their bytes tell.
        binned: the same in recycle bins, snapshots and folders of thumbnails.
        left_out: everything else, with the reason; their names as they can be printed.
        fault: the first folder that could not be read, if there is one; its files are missing above.
    """

    files: list[str] = field(default_factory=list)
    binned: list[str] = field(default_factory=list)
    left_out: list[RejectedFile] = field(default_factory=list)
    fault: OSError | None = None

    def add(self, path: tuple[str, ...], mode: int, *, is_binned: bool) -> None:
        """Put a file where it belongs; of folders only those that are not looked into, and bins."""
        name = "/".join(path)
        if is_binned:
            if stat.S_ISREG(mode) and _reason_against(path, mode) is None:
                self.binned.append(name)
        elif stat.S_ISDIR(mode) and (_BINS.fullmatch(path[-1]) or path == _OF_THE_DISK):
            self.leave_out(name, RecycleBinError())
        elif (reason := _reason_against(path, mode)) is not None:
            self.leave_out(name, reason)
        elif stat.S_ISREG(mode):
            self.files.append(name)

    def leave_out(self, name: str, reason: InputError) -> None:
        """Add a file or folder to those that are left out."""
        self.left_out.append(RejectedFile(printable(name), reason.code, str(reason)))


def survey(root: Path, within: Sequence[str] = (), *, follow_links: bool = False) -> Survey:
    """Everything in and below ``root/within[0]/within[1]/...``, sorted; nothing where there is no such folder.

    Links to folders are never followed.

    Args:
        follow_links: take links to files for files.
    """
    found = Survey()
    folders = [tuple(within)]
    while folders:
        parts = folders.pop()
        is_binned = any(map(_BINS.fullmatch, parts))
        is_empty = True
        try:
            for path, mode in _entries(root, parts, follow_links=follow_links):
                is_empty = False
                if stat.S_ISDIR(mode) and not path[-1].startswith(".") and path != _OF_THE_DISK:
                    folders.append(path)
                found.add(path, mode, is_binned=is_binned)
        except OSError as error:
            if error.errno in ABSENT:
                continue
            found.fault = found.fault or error
            found.leave_out("/".join(parts) or ".", PhotoUnreadableError(f"cannot be read: {error.strerror}"))
        else:
            if is_empty and parts and not is_binned:
                found.leave_out("/".join(parts), FolderWithoutPhotosError())
    for names in (found.files, found.binned):
        names.sort()
    found.left_out.sort(key=lambda rejected: rejected.file)
    return found


def photos_below(root: Path) -> Survey:
    """The files in and below the folder that begin like a picture, or are named like one and must be told as damaged.

    Links to files are followed.
    """
    found = survey(root, follow_links=True)
    names, found.files = found.files, []
    for name in names:
        try:
            head = head_of(root / name)
        except OSError as error:
            found.leave_out(name, PhotoUnreadableError(f"cannot be read: {error.strerror}"))
            continue
        if format_of(head) is None and Path(name).suffix.lower() not in _PHOTO_SUFFIXES:
            found.leave_out(name, UnsupportedFormatError(UNSUPPORTED))
        else:
            found.files.append(name)
    return found


def head_of(path: Path) -> bytes:
    """The first bytes of a file, by which ``format_of`` tells what it is."""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _entries(root: Path, parts: tuple[str, ...], *, follow_links: bool) -> Iterator[tuple[tuple[str, ...], int]]:
    """Path and mode of everything in one folder that people put there."""
    with folder_beneath(root, parts) as folder, os.scandir(folder) as entries:
        for name in sorted(entry.name for entry in entries):
            if not _SYSTEM.fullmatch(name):
                mode = _mode_of(name, folder, follow_links=follow_links)
                if mode is not None:
                    yield (*parts, name), mode


def _mode_of(name: str, folder: int, *, follow_links: bool) -> int | None:
    """The mode of what has the name in the folder, or of the file that it is a link to; ``None`` if it is gone."""
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    if follow_links and stat.S_ISLNK(mode):
        with suppress(OSError):
            target = os.stat(name, dir_fd=folder).st_mode
            return target if stat.S_ISREG(target) else mode
    return mode


def _reason_against(path: tuple[str, ...], mode: int) -> InputError | None:
    """Why a file cannot be a photo that is taken; ``None`` if it can, and for folders that are looked into."""
    name = path[-1]
    if name.startswith("."):
        return HiddenFileError()
    if stat.S_ISDIR(mode):
        return None
    if stat.S_ISLNK(mode):
        return NotAFileError("it is a link, which is not followed; put the photos themselves there")
    if not stat.S_ISREG(mode):
        return NotAFileError("it is a pipe, a socket or a device")
    if UNUSABLE.search("/".join(path)):
        return FileNameUnusableError("the name is not UTF-8 or has control characters; rename the file or its folder")
    return None
