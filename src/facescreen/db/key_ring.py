"""Where encryption at rest keeps its keys: a folder of its own, apart from the data and from backups of them.

``master-<fingerprint>.key`` wraps one data key for each photo and each copy, which are rows of ``keys.db`` beside it.
Rows say which master wrapped them, so that a rotation can stop anywhere and go on while others read and write.
"""

import fcntl
import hashlib
import logging
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from facescreen.db.batches import batches
from facescreen.db.connection import BUSY_TIMEOUT_SECONDS
from facescreen.db.in_place import InPlace
from facescreen.domain.sealing import SealBrokenError, seal, unseal
from facescreen.errors import DatabaseBusyError, StartupError, StorageFullError

logger = logging.getLogger(__name__)

_KEY_BITS = 256
_REWRAPPED_AT_ONCE = 2000
"""Keys of a rotation in one transaction: others wait for some milliseconds."""
_LOOKS = 5
"""How often a key is looked up again whose master went in between; two rotations would have to."""

_SETUP = (
    f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_SECONDS * 1000)}",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA secure_delete=ON",
    "CREATE TABLE IF NOT EXISTS master (id INTEGER PRIMARY KEY CHECK (id = 1), fingerprint TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, master TEXT NOT NULL, wrapped BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS ix_keys_master ON keys (master)",
)


class _Row(NamedTuple):
    name: str
    master: str
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Masters:
    """Fingerprint of the master key for new keys, and how many keys each master wraps."""

    current: str
    wrapped: Mapping[str, int]


class KeyRing:
    """Implements ``DataKeys`` on a folder that only this user may read. Processes may share it.

    Args:
        folder: made where there is none; its first master key is made with its first data key.
        apart_from: the files and folders that hold what is encrypted.

    Raises:
        StartupError: the folder is not apart from the data, is open to others, or lacks the right master key or the
            keys that it wraps.
    """

    def __init__(self, folder: Path, *, apart_from: Iterable[Path]) -> None:
        self._folder = folder.resolve()
        self._lock = Lock()
        self._masters: dict[str, AESGCM] = {}
        self._in_place = InPlace(
            self._folder / "keys.db",
            "the keys cannot be written: keys.db was moved or removed; start the service again",
        )
        _require_apart(self._folder, [path.resolve() for path in apart_from])
        try:
            _make_private(self._folder)
            _require_keys_of_masters(self._folder)
            # Not opened if it is there: to close it again would end the locks that SQLite has on it in this process.
            with suppress(FileExistsError):
                os.close(os.open(self._folder / "keys.db", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode=0o600))
            (self._folder / "turn.lock").touch(mode=0o600)
            self._turn = (self._folder / "turn.lock").open("rb")
        except OSError as error:
            raise StartupError(f"ENCRYPTION_KEY_DIR: the folder cannot be used: {error.strerror}") from None
        with ExitStack() as opened:
            opened.callback(self._turn.close)
            try:
                with _translated():
                    self._connection = sqlite3.connect(
                        self._folder / "keys.db",
                        timeout=BUSY_TIMEOUT_SECONDS,
                        isolation_level=None,
                        check_same_thread=False,
                    )
                    opened.callback(self._connection.close)
                self._open()
            except StorageFullError as error:
                raise StartupError(
                    "ENCRYPTION_KEY_DIR: keys.db cannot be opened or written: it is no file, another user's, or the "
                    "disk is full, read-only or failing"
                ) from error
            self._opened = opened.pop_all()

    def close(self) -> None:
        self._opened.close()

    def find(self, names: Iterable[str]) -> Mapping[str, AESGCM]:
        wanted = list(names)
        for _ in range(_LOOKS):
            with self._reading():
                rows = self._rows(wanted)
            try:
                return self._unwrapped(rows)
            except FileNotFoundError:  # rotated between the two
                continue
        raise StartupError("ENCRYPTION_KEY_DIR: a master key that data keys need is gone")

    def make(self, names: Iterable[str]) -> Mapping[str, AESGCM]:
        wanted = list(dict.fromkeys(names))
        found = self.find(wanted)
        if len(found) == len(wanted):
            return found
        with self._writing():
            there = self._unwrapped(self._rows(wanted))
            fingerprint = self._current()
            fresh = {name: AESGCM.generate_key(_KEY_BITS) for name in wanted if name not in there}
            self._connection.executemany(
                "INSERT OR REPLACE INTO keys VALUES (?, ?, ?)",  # replaced: what the master does not open any more
                [(name, fingerprint, self._wrapped(fingerprint, name, key)) for name, key in fresh.items()],
            )
        return {**there, **{name: AESGCM(key) for name, key in fresh.items()}}

    def drop(self, names: Iterable[str]) -> None:
        with self._writing(erase=True):
            self._connection.executemany("DELETE FROM keys WHERE name = ?", [(name,) for name in names])

    def names(self) -> set[str]:
        """Of every key."""
        with self._reading():
            return {name for (name,) in self._connection.execute("SELECT name FROM keys")}

    def masters(self) -> Masters:
        """Which master keys are in use. There are several after a rotation that was interrupted."""
        with self._writing():
            counts = self._connection.execute("SELECT master, count(*) FROM keys GROUP BY master").fetchall()
            current = self._current()
        return Masters(current, {current: 0, **dict(counts)})

    def require_writable(self) -> None:
        """Write something that changes nothing.

        Raises:
            DatabaseBusyError, StorageFullError: as every write does.
        """
        with self._writing():
            self._connection.execute("UPDATE master SET fingerprint = fingerprint")

    def rotate(self, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Masters:
        """Wrap every key with a new master key and remove the ones before it.

        Others may read and write meanwhile. Interrupted anywhere, every key can still be read, and rotating again
        completes it.
        """
        with self._writing():
            self._begin_with_new_master()
            total: int = self._connection.execute("SELECT count(*) FROM keys").fetchone()[0]
        done = 0
        while some := self._rewrap_some():
            done += some
            progress(min(done, total), total)
        with self._writing():
            self._remove_unused_masters()
        return self.masters()

    def _open(self) -> None:
        with _translated():
            for statement in _SETUP:
                self._connection.execute(statement)
        with self._writing():
            needed = "SELECT master FROM keys UNION SELECT fingerprint FROM master"
            try:
                for (fingerprint,) in self._connection.execute(needed):
                    self._master(fingerprint)
            except FileNotFoundError:
                raise StartupError("ENCRYPTION_KEY_DIR: the master key of the keys in this folder is missing") from None

    def _begin_with_new_master(self) -> str:
        key = AESGCM.generate_key(_KEY_BITS)
        fingerprint = _fingerprint(key)
        with _translated():
            descriptor = os.open(
                self._path(fingerprint), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode=0o600
            )
            with os.fdopen(descriptor, "wb") as file:
                file.write(key)
                file.flush()
                os.fsync(file.fileno())
            _sync_folder(self._folder)
        self._connection.execute("INSERT OR REPLACE INTO master VALUES (1, ?)", (fingerprint,))
        return fingerprint

    def _rewrap_some(self) -> int:
        with self._writing():
            current = self._current()
            rows = self._connection.execute(
                "SELECT name, master, wrapped FROM keys WHERE master != ? LIMIT ?", (current, _REWRAPPED_AT_ONCE)
            ).fetchall()
            rewrapped = []
            for row in map(_Row._make, rows):
                try:
                    key = unseal(self._master(row.master), row.wrapped, row.name.encode())
                except SealBrokenError:  # it opens nothing, and would keep its master here forever
                    self._connection.execute("DELETE FROM keys WHERE name = ?", (row.name,))
                else:
                    rewrapped.append((current, self._wrapped(current, row.name, key), row.name))
            self._connection.executemany("UPDATE keys SET master = ?, wrapped = ? WHERE name = ?", rewrapped)
            return len(rows)

    def _remove_unused_masters(self) -> None:
        used = {name for (name,) in self._connection.execute("SELECT DISTINCT master FROM keys")} | {self._current()}
        with _translated():
            for path in self._folder.glob("master-*.key"):
                if path not in map(self._path, used):
                    path.unlink()
            _sync_folder(self._folder)
        self._masters = {fingerprint: key for fingerprint, key in self._masters.items() if fingerprint in used}

    def _rows(self, names: Iterable[str]) -> list[_Row]:
        rows: list[_Row] = []
        for some in batches(names):
            marks = ",".join("?" * len(some))
            statement = f"SELECT name, master, wrapped FROM keys WHERE name IN ({marks})"  # noqa: S608 - marks only
            rows += map(_Row._make, self._connection.execute(statement, some))
        return rows

    def _unwrapped(self, rows: Iterable[_Row]) -> dict[str, AESGCM]:
        """The keys; one that its master does not open is none."""
        keys = {}
        for row in rows:
            try:
                keys[row.name] = AESGCM(unseal(self._master(row.master), row.wrapped, row.name.encode()))
            except SealBrokenError:
                continue
        return keys

    def _wrapped(self, fingerprint: str, name: str, key: bytes) -> bytes:
        return seal(self._master(fingerprint), key, name.encode())

    def _current(self) -> str:
        """Fingerprint of the master key for new keys; the first one is made now, not before anything needs it."""
        row: tuple[str] | None = self._connection.execute("SELECT fingerprint FROM master").fetchone()
        return self._begin_with_new_master() if row is None else row[0]

    def _master(self, fingerprint: str) -> AESGCM:
        """The master key, or FileNotFoundError."""
        if (known := self._masters.get(fingerprint)) is not None:
            return known
        path = self._path(fingerprint)
        _require_private(path)
        key = path.read_bytes()
        if _fingerprint(key) != fingerprint:
            raise StartupError("ENCRYPTION_KEY_DIR: the master key is not the one that the keys were wrapped with")
        self._masters[fingerprint] = AESGCM(key)
        return self._masters[fingerprint]

    def _path(self, fingerprint: str) -> Path:
        return self._folder / f"master-{fingerprint}.key"

    @contextmanager
    def _writing(self, *, erase: bool = False) -> Iterator[None]:
        # SQLite lets any waiter go first, and one that is unlucky for five seconds is refused; the kernel wakes all.
        with self._lock:
            fcntl.flock(self._turn, fcntl.LOCK_EX)
            try:
                self._in_place.require()
                with self._transaction("IMMEDIATE"):
                    yield
                if erase:  # from the write-ahead log, too
                    with _translated():
                        ((is_busy, *_),) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    if is_busy:
                        logger.warning("wal_not_truncated")
            finally:
                fcntl.flock(self._turn, fcntl.LOCK_UN)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, self._transaction("DEFERRED"):
            yield

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        with _translated():
            self._connection.execute(f"BEGIN {kind}")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _fingerprint(key: bytes) -> str:
    return hashlib.sha256(b"facescreen master key" + key).hexdigest()[:16]


def _require_apart(folder: Path, data: Iterable[Path]) -> None:
    for path in data:
        if folder.is_relative_to(path) or path.is_relative_to(folder):
            raise StartupError("ENCRYPTION_KEY_DIR: must be a folder outside of the data, and not hold them")


def _make_private(folder: Path) -> None:
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in reversed(made):  # a power cut must not take the folder and leave what its keys encrypted
        _sync_folder(path.parent)
    for path in (folder, *folder.iterdir()):
        with suppress(FileNotFoundError):  # the log goes with the last who has it open
            _require_private(path)


def _require_keys_of_masters(folder: Path) -> None:
    # In this order: whoever makes a master key has made the database before.
    has_masters = any(folder.glob("master-*.key"))
    keys = folder / "keys.db"
    if has_masters and not (keys.exists() and keys.stat().st_size):
        raise StartupError("ENCRYPTION_KEY_DIR: keys.db is missing beside its master key; restore it from its backup")


def _require_private(path: Path) -> None:
    found = path.stat()
    if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid != os.geteuid():
        raise StartupError("ENCRYPTION_KEY_DIR: only this user may own and read the folder; run: chmod -R go= <folder>")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise DatabaseBusyError("the keys are held by another process; try again shortly") from error
        raise StorageFullError("the keys cannot be written: the disk is full, read-only or failing") from error
    except sqlite3.DatabaseError as error:
        raise StartupError("ENCRYPTION_KEY_DIR: keys.db is damaged; restore the folder from its backup") from error
