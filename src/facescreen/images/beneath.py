"""Opening files and folders below a folder without following a link on the way."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def open_beneath(root: Path, parts: Sequence[str]) -> BinaryIO:
    """The regular file at ``root/parts[0]/parts[1]/...``, opened for reading.

    Each component is opened from the one before, so nothing that is swapped for a link meanwhile leads out of ``root``.
    ``root`` itself may be a link. Opening never blocks, neither on a FIFO.

    Raises:
        OSError: it is missing, unreadable, a link, behind a link, or no regular file.
        ValueError: a component cannot be a file name.
    """
    if not parts or not {"", ".", ".."}.isdisjoint(parts):
        raise ValueError("not a path to a file below the folder")
    with folder_beneath(root, parts[:-1]) as folder:
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise FileNotFoundError(errno.ENOENT, "not a regular file")
    return os.fdopen(file, "rb")


@contextmanager
def folder_beneath(root: Path, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """A descriptor of the folder ``root/parts[0]/parts[1]/...``, each opened from the one before as above.

    Args:
        create: make what is missing below ``root``, for this user only, so that it is still there after a power cut.

    Raises:
        OSError: it is missing, no folder, a link, or behind a link.
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(part, mode=0o700, dir_fd=folder)
                    os.fsync(folder)
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)
