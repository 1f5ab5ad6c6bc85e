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
from facescreen.images.beneath import open_beneath
from facescreen.images.store import IMAGE_SUFFIXES, name_parts

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG}
_MEDIUM_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


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
        await asyncio.to_thread(self._put, self._root.joinpath(*name_parts(name)), data)

    async def get(self, name: str) -> bytes:
        return await asyncio.to_thread(self._get, name_parts(name))

    async def delete(self, name: str) -> None:
        await asyncio.to_thread(self._delete, self._root.joinpath(*name_parts(name)))

    async def list(self, folder: str | None = None) -> list[str]:
        top = self._root if folder is None else self._root.joinpath(*name_parts(folder))
        return await asyncio.to_thread(lambda: sorted(self._names(top)))

    def _put(self, path: Path, data: bytes) -> None:
        with _medium_faults_translated():
            _make_folder(self._incoming)
            temporary = self._incoming / secrets.token_hex(16)
            try:
                with _created(temporary) as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                    _move(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                self._remove_empty(path.parent)
                raise

    def _get(self, parts: tuple[str, ...]) -> bytes:
        try:
            with open_beneath(self._root, parts) as file:
                return file.read()
        except OSError as error:
            if error.errno in _ABSENT:
                raise FileNotFoundError("no image has this name") from None
            raise

    def _delete(self, path: Path) -> None:
        with _medium_faults_translated():
            try:
                # Synced through the same descriptor: another delete may remove the folder meanwhile.
                with _opened(path.parent) as folder:
                    os.unlink(path.name, dir_fd=folder)
                    os.fsync(folder)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
            # Also if the image is gone already: a process that was killed between the two leaves its folder.
            self._remove_empty(path.parent)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self._root:
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return
            folder = folder.parent

    def _names(self, top: Path) -> Iterator[str]:
        for folder, folders, files in os.walk(top):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                path = Path(folder, name)
                if path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".") and not path.is_symlink():
                    yield path.relative_to(self._root).as_posix()

    def _sweep(self) -> None:
        with suppress(FileNotFoundError):
            for path in self._incoming.iterdir():
                # Whoever writes a file holds a lock on it: one that can be had has lost its writer.
                with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


def _move(temporary: Path, path: Path) -> None:
    while True:
        try:
            _make_folder(path.parent)
            temporary.replace(path)
            break
        except FileNotFoundError:
            # A concurrent delete removed the folder that it had emptied. Without the file there is nothing to move.
            if not temporary.exists():
                raise
    # The folder may go again with the image, deleted by somebody else: then there is nothing to keep.
    with suppress(FileNotFoundError):
        _sync_folder(path.parent)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


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
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    with _opened(folder) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _medium_faults_translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _MEDIUM_FAULTS:
            raise StorageFullError("the image could not be written: the disk is full, read-only or failing") from error
        raise
