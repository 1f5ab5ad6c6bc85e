"""Which processes work on the data: each holds the lock of one byte of a file beside the database until it ends.

Whoever shares the folder sees it, as with SQLite's own locks: in other containers too, where process ids and host
names mean nothing. Locks are the process's: there is one :class:`Presence` of a database in it, and it is never
:func:`alone` beside it.
"""

import asyncio
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from facescreen.db.connection import Database, path_of
from facescreen.domain.sealing import DataKeys
from facescreen.errors import DataInUseError, StartupError

_LOOK_AGAIN_SECONDS = 0.2
"""How long to wait until it is tried again to be the only process that does something."""


class Presence:
    """This process among those that work on the data of a database.

    Attributes:
        owner: its name among all that ever were.

    Raises:
        StartupError: another process holds all of them off, or the database's folder cannot be written.
    """

    def __init__(self, database: Path) -> None:
        self._file = _opened(database)
        self._byte = secrets.randbits(62)
        self.owner = str(self._byte)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._byte)
        except OSError:
            os.close(self._file)
            raise StartupError("a backup is being restored at this moment; start again when that is done") from None

    def is_alive(self, owner: str) -> bool:
        """Whether the process of this name may still be at work."""
        if owner == self.owner:
            return True
        byte = int(owner)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            return True
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, byte)
        return False

    def close(self) -> None:
        os.close(self._file)


@asynccontextmanager
async def at_work(url: str, keys: DataKeys | None = None) -> AsyncIterator[tuple[Database, Presence]]:
    """A database whose schema is at head, opened by a process that is present before that and until it is closed.

    Raises:
        StartupError: as :class:`Presence` and :meth:`facescreen.db.connection.Database.require_head` do.
    """
    with closing(Presence(path_of(url))) as presence:
        database = Database(url, keys)
        try:
            await database.require_head()
            yield database, presence
        finally:
            await database.aclose()


@contextmanager
def alone(database: Path, *, wait: bool = False) -> Iterator[None]:
    """Nobody else works on the data of this database, or begins to, inside of the block.

    Args:
        wait: until those who do have ended.

    Raises:
        DataInUseError: somebody does.
    """
    file = _opened(database)
    try:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            raise DataInUseError("a service or a command works on these data; stop it first") from None
        yield
    finally:
        os.close(file)


@asynccontextmanager
async def one_at_a_time(lock: Path, stopping: asyncio.Event) -> AsyncIterator[None]:
    """Wait until no other process is in such a block of this lock file, or this process stops."""
    with _private(lock) as file:
        while not (stopping.is_set() or is_locked(file)):
            await pause(_LOOK_AGAIN_SECONDS, stopping)
        yield


async def pause(seconds: float, stopping: asyncio.Event) -> None:
    """Wait so long, or until this process stops."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()


def _private(path: Path) -> IO[Any]:
    """A file of this user's alone."""
    return open(path, "wb", opener=partial(os.open, mode=0o600))


def is_locked(file: IO[Any]) -> bool:
    """Whether this process has the file for itself, which it then keeps until the file is closed. It does not wait."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _opened(database: Path) -> int:
    try:
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(f"{database}-writers", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode=0o600)
    except OSError:
        raise StartupError("the folder of the database cannot be written: it is read-only or another user's") from None
