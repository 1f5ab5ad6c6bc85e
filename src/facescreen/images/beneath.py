"""Opening a file below a folder without following a link on the way."""

import errno
import os
import stat
from collections.abc import Sequence
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
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise FileNotFoundError(errno.ENOENT, "not a regular file")
    return os.fdopen(file, "rb")
