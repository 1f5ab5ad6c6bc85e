"""Images as files below a folder."""

import asyncio
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from facescreen.errors import StorageFullError
from facescreen.images.beneath import folder_beneath, open_beneath
from facescreen.images.store import name_parts
from facescreen.images.survey import ABSENT, HEAD_BYTES, Survey, survey

_MEDIUM_FAULTS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ENOTDIR, errno.ELOOP, errno.EACCES,
    errno.EPERM,
}  # fmt: skip
_NOT_WRITTEN = (
    "the image could not be written: the disk is full, read-only or failing, or its folder is none or another user's"
)
_NOT_READ = "a folder of photos or one of its files cannot be read: the disk is failing, or it is another user's"
_BLOCK = 4096
"""Bytes that a file system keeps in no smaller place than a block of its own, which a full one has not got."""


class FolderStore:
    """An ``ImageStore`` of files that only this user may read.

    Files are written in a hidden folder inside ``root`` and then moved to their place. What a killed process left there
    is removed when the next store on the folder is made.

    Args:
        root: created with the first image.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / ".incoming"
        self._sweep()

    async def put(self, name: str, data: bytes) -> None:
        await asyncio.to_thread(self._put, name_parts(name), data)

    async def get(self, name: str) -> bytes:
        return await asyncio.to_thread(self._get, name_parts(name))

    async def delete(self, name: str) -> None:
        await asyncio.to_thread(self._delete, name_parts(name))

    async def list(self, folder: str | None = None) -> list[str]:
        parts = () if folder is None else name_parts(folder)
        found = await asyncio.to_thread(self._survey, parts)
        return sorted((*found.files, *found.binned))

    async def require_writable(self) -> None:
        """Write a file and remove it again.

        Raises:
            StorageFullError: the disk is full, read-only or failing, or the folder another user's.
        """
        await asyncio.to_thread(self._try)

    async def survey(self) -> Survey:
        """The images, those in recycle bins apart, and everything that is none.

        Raises:
            StorageFullError: not all of them can be listed.
        """
        return await asyncio.to_thread(self._survey, ())

    async def head(self, name: str) -> bytes:
        """The first bytes of the image; raises as ``get`` does."""
        return await asyncio.to_thread(self._get, name_parts(name), HEAD_BYTES)

    def _try(self) -> None:
        with medium_faults_translated():
            _make_folder(self._incoming)
            temporary = self._incoming / secrets.token_hex(16)
            try:
                with _created(temporary) as file:
                    file.write(bytes(_BLOCK))
                    file.flush()
                    os.fsync(file.fileno())
            finally:
                temporary.unlink(missing_ok=True)

    def _put(self, parts: tuple[str, ...], data: bytes) -> None:
        with medium_faults_translated():
            _make_folder(self._incoming)
            temporary = self._incoming / secrets.token_hex(16)
            try:
                with _created(temporary) as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                    self._move(temporary, parts)
            except BaseException:
                temporary.unlink(missing_ok=True)
                self._remove_empty(parts[:-1])
                raise

    def _move(self, temporary: Path, parts: tuple[str, ...]) -> None:
        while True:
            with suppress(FileNotFoundError), folder_beneath(self._root, parts[:-1], create=True) as folder:
                os.replace(temporary, parts[-1], dst_dir_fd=folder)
                # Through the same descriptor: the folder may go again with the image, deleted by somebody else.
                os.fsync(folder)
                return
            # A concurrent delete removed the folder that it had emptied. Without the file there is nothing to move.
            if not temporary.exists():
                raise FileNotFoundError(errno.ENOENT, "the temporary file is gone")

    def _get(self, parts: tuple[str, ...], size: int = -1) -> bytes:
        with medium_faults_translated(_NOT_READ):
            try:
                with open_beneath(self._root, parts) as file:
                    return file.read(size)
            except OSError as error:
                if error.errno in ABSENT:
                    raise FileNotFoundError("no image has this name") from None
                raise

    def _delete(self, parts: tuple[str, ...]) -> None:
        with medium_faults_translated():
            try:
                # Synced through the same descriptor: another delete may remove the folder meanwhile.
                with folder_beneath(self._root, parts[:-1]) as folder:
                    os.unlink(parts[-1], dir_fd=folder)
                    os.fsync(folder)
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
            # And what it was to be made of, if the disk that refused to take the image refused to remove that too.
            self._sweep()
            # Also if the image is gone already: a process that was killed between the two leaves its folder.
            self._remove_empty(parts[:-1])

    def _remove_empty(self, parts: tuple[str, ...]) -> None:
        for depth in range(len(parts), 0, -1):
            try:
                with folder_beneath(self._root, parts[: depth - 1]) as parent:
                    os.rmdir(parts[depth - 1], dir_fd=parent)
            except FileNotFoundError:
                pass
            except OSError:
                return

    def _survey(self, parts: tuple[str, ...]) -> Survey:
        """Never without the files of a folder that cannot be read, whose photos would be taken for removed."""
        with medium_faults_translated(_NOT_READ):
            found = survey(self._root, parts)
            if found.fault is not None:
                raise found.fault
            return found

    def _sweep(self) -> None:
        with medium_faults_translated(_NOT_READ), suppress(FileNotFoundError, PermissionError):
            for path in self._incoming.iterdir():
                # Whoever writes a file holds a lock on it: one that can be had has lost its writer. Another user's
                # keeps nobody from working, and whatever has to be written says so.
                with suppress(FileNotFoundError, BlockingIOError, PermissionError), path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


def _created(path: Path) -> BinaryIO:
    """A new file that no sweep takes."""
    while True:
        file = open(path, "xb", opener=_private)  # noqa: SIM115 - the caller closes it
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # a sweep came between the two


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, mode=0o600)


def _make_folder(folder: Path) -> None:
    """Create the folder, parents first, so that it is still there after a power cut."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    # Not `exist_ok`, which looks again and complains if a concurrent delete was faster than the look.
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    with folder_beneath(folder.parent, ()) as parent:
        os.fsync(parent)


@contextmanager
def medium_faults_translated(failure: str = _NOT_WRITTEN) -> Iterator[None]:
    """Raise :class:`facescreen.errors.StorageFullError` where the block finds the disk full, read-only or failing.

    As well where a folder is none, or it or a file another user's.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _MEDIUM_FAULTS:
            raise StorageFullError(failure) from error
        raise
