"""A file that is held open, and whether it still is the one that its path names."""

import os
from contextlib import suppress
from pathlib import Path

from facescreen.errors import StorageFullError


class InPlace:
    """Looks whether a file was moved, removed or replaced since the first look.

    SQLite would go on with the file that is lost, and new connections with another one.
    """

    def __init__(self, path: Path, failure: str) -> None:
        self._path = path
        self._failure = failure
        self._file: os.stat_result | None = None

    def require(self) -> None:
        """Look.

        Raises:
            StorageFullError: it is not there any more, or another one; with the message ``failure``.
        """
        with suppress(OSError):
            there = self._path.stat()
            self._file = self._file or there
            if os.path.samestat(self._file, there):
                return
        raise StorageFullError(self._failure)
