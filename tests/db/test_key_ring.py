"""The keys of encryption at rest.

``CRASH_ROUNDS=200 pytest tests/db/test_key_ring.py`` kills a rotation at every step instead of every fifth.
"""

import multiprocessing
import os
import shutil
import signal
import sqlite3
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from facescreen.db.key_ring import KeyRing
from facescreen.domain.sealing import seal, unseal
from facescreen.errors import DatabaseBusyError, StartupError, StorageFullError

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "8"))
STRIDE = 1 if ROUNDS >= 100 else 5
NAMES = [f"blacklist/ada/{number}.jpg" for number in range(5)]

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def ring(folder: Path) -> Iterator[KeyRing]:
    with opened(folder) as made:
        yield made


def opened(folder: Path) -> closing[KeyRing]:
    return closing(KeyRing(folder, apart_from=[]))


def sealed(ring: KeyRing) -> dict[str, bytes]:
    return {name: seal(key, name.encode(), b"") for name, key in ring.make(NAMES).items()}


def check(ring: KeyRing, ciphertexts: dict[str, bytes]) -> None:
    keys = ring.find(ciphertexts)
    assert {name: unseal(keys[name], value, b"") for name, value in ciphertexts.items()} == {
        name: name.encode() for name in ciphertexts
    }


def masters(folder: Path) -> list[Path]:
    return sorted(folder.glob("master-*.key"))


def test_keys_are_made_once_found_by_everybody_and_dropped_for_good(ring: KeyRing, folder: Path) -> None:
    ciphertexts = sealed(ring)
    with opened(folder) as other:
        check(other, ciphertexts)
        other.make(NAMES)
        check(ring, ciphertexts)
        other.drop(NAMES[:2])
        assert ring.names() == other.names() == set(NAMES[2:])
        assert not ring.find(NAMES[:2])
        ring.make(NAMES)
        check(ring, {name: ciphertexts[name] for name in NAMES[2:]})
        with pytest.raises(FileNotFoundError):
            check(ring, ciphertexts)


def test_a_dropped_key_is_in_no_file(ring: KeyRing, folder: Path) -> None:
    ring.make(NAMES)
    with closing(sqlite3.connect(folder / "keys.db")) as database:
        (wrapped,) = database.execute("SELECT wrapped FROM keys WHERE name = ?", NAMES[:1]).fetchone()
    assert any(wrapped in path.read_bytes() for path in folder.iterdir())
    ring.drop(NAMES[:1])
    assert not any(wrapped in path.read_bytes() or NAMES[0].encode() in path.read_bytes() for path in folder.iterdir())


def test_the_folder_is_for_this_user_alone(ring: KeyRing, folder: Path) -> None:
    ring.make(NAMES)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    ring.close()
    assert {path.name for path in folder.iterdir()} == {"keys.db", "turn.lock", masters(folder)[0].name}


@pytest.mark.parametrize("name", [".", "keys.db", "master-*.key"])
def test_a_folder_that_others_may_read_is_refused(ring: KeyRing, folder: Path, name: str) -> None:
    ring.make(NAMES)
    (path,) = folder.glob(name) if name != "." else [folder]
    path.chmod(path.stat().st_mode | stat.S_IRGRP)
    with pytest.raises(StartupError, match="ENCRYPTION_KEY_DIR: only this user"), opened(folder):
        pass


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="ENCRYPTION_KEY_DIR: the folder cannot be used"), opened(tmp_path / "file"):
        pass


def test_damaged_keys_are_refused(ring: KeyRing, folder: Path) -> None:
    ring.make(NAMES)
    ring.close()
    (folder / "keys.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StartupError, match=r"ENCRYPTION_KEY_DIR: keys\.db is damaged"), opened(folder):
        pass


def test_a_master_key_without_its_keys_is_refused_and_stays(ring: KeyRing, folder: Path) -> None:
    ring.make(NAMES)
    ring.close()
    (folder / "keys.db").unlink()
    before = masters(folder)
    for _ in range(2):
        with pytest.raises(StartupError, match=r"ENCRYPTION_KEY_DIR: keys\.db is missing"), opened(folder):
            pass
        assert masters(folder) == before
        (folder / "keys.db").touch(mode=0o600)  # as SQLite leaves it


def test_keys_that_cannot_be_opened_are_refused(folder: Path) -> None:
    (folder / "keys.db").mkdir(mode=0o700, parents=True)
    folder.chmod(0o700)
    with pytest.raises(StartupError, match=r"ENCRYPTION_KEY_DIR: keys\.db cannot be opened"), opened(folder):
        pass
    handles = [path.resolve().name for path in Path("/proc/self/fd").iterdir()]
    assert "turn.lock" not in handles


def test_a_master_key_is_made_when_it_is_needed(folder: Path) -> None:
    with opened(folder) as ring, opened(folder) as other:
        assert not ring.find(NAMES)
        assert masters(folder) == []
        ciphertexts = sealed(other)
        check(ring, ciphertexts)
        assert len(masters(folder)) == 1


def test_a_new_folder_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = set()
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").resolve())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    folder = tmp_path / "volume" / "facescreen" / "keys"
    with opened(folder) as ring:
        assert synced == {tmp_path, folder.parent.parent, folder.parent}
        ring.make(NAMES)
    assert synced > {folder, *masters(folder)}


def test_keys_that_somebody_holds_are_waited_for_and_refused_in_the_end(ring: KeyRing, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "keys.db", isolation_level=None)) as other:
        ring._connection.execute("PRAGMA busy_timeout=50")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseBusyError):
            ring.make(NAMES)
        other.execute("ROLLBACK")
        assert ring.make(NAMES)


def test_a_file_that_was_moved_is_not_written_to(ring: KeyRing, folder: Path) -> None:
    ring.make(["photo"])
    ring.require_writable()
    (folder / "keys.db").rename(folder / "moved.db")
    for write in (ring.require_writable, lambda: ring.make(["another"]), lambda: ring.drop(["photo"])):
        with pytest.raises(StorageFullError, match="moved or removed"):
            write()
    shutil.copy(folder / "moved.db", folder / "keys.db")
    with pytest.raises(StorageFullError, match="moved or removed"):
        ring.require_writable()
    (folder / "moved.db").rename(folder / "keys.db")
    ring.require_writable()
    assert ring.names() == {"photo"}


def test_two_who_begin_at_once_have_one_master(folder: Path) -> None:
    found: list[str] = []

    def begin() -> None:
        with opened(folder) as ring:
            found.append(ring.masters().current)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == len(masters(folder)) == 1


def test_rotation_replaces_the_master_and_keeps_every_key(ring: KeyRing, folder: Path) -> None:
    ciphertexts = sealed(ring)
    before = masters(folder)
    told: list[tuple[int, int]] = []
    with opened(folder) as other:
        rotated = ring.rotate(lambda done, total: told.append((done, total)))
        assert rotated.wrapped == {rotated.current: len(NAMES)}
        assert told == [(len(NAMES), len(NAMES))]
        assert [path.name for path in masters(folder)] == [f"master-{rotated.current}.key"]
        assert masters(folder) != before
        check(other, ciphertexts)
        other.make(["blacklist/new.jpg"])
        assert other.masters() == ring.masters()
    with opened(folder) as again:
        check(again, ciphertexts)


def test_others_read_and_write_while_keys_are_rotated(ring: KeyRing, folder: Path) -> None:
    ciphertexts = sealed(ring)
    over = threading.Event()
    faults: list[Exception] = []

    def work(number: int) -> None:
        with opened(folder) as other:
            while not over.is_set():
                try:
                    check(other, ciphertexts)
                    name = f"processed/{number}.jpg"
                    value = seal(other.make([name])[name], name.encode(), b"")
                    check(other, {name: value})
                    other.drop([name])
                except Exception as error:  # noqa: BLE001 - the test is about it
                    faults.append(error)
                    return

    threads = [threading.Thread(target=work, args=[number]) for number in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(max(2, ROUNDS // 4)):
        ring.rotate()
    over.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(masters(folder)) == 1
    check(ring, ciphertexts)


def test_a_rotation_that_is_killed_at_any_step_loses_nothing_and_can_be_completed(folder: Path) -> None:
    with opened(folder) as ring:
        ciphertexts = sealed(ring)
    steps, exitcode = 0, -signal.SIGKILL
    while exitcode == -signal.SIGKILL:
        process = _processes.Process(target=_rotate_and_die, args=(folder, steps))
        process.start()
        process.join()
        assert process.exitcode is not None
        exitcode = process.exitcode
        with opened(folder) as ring:
            check(ring, ciphertexts)
            check(ring, sealed_anew(ring))
            if steps % 3 == 0:
                ring.rotate()
                assert len(masters(folder)) == 1
                check(ring, ciphertexts)
        steps += STRIDE
    assert exitcode == 0
    assert steps > 20


def sealed_anew(ring: KeyRing) -> dict[str, bytes]:
    """Something sealed by a key that is made now."""
    ring.drop(["blacklist/eve/1.jpg"])
    return {name: seal(key, name.encode(), b"") for name, key in ring.make(["blacklist/eve/1.jpg"]).items()}


def _rotate_and_die(folder: Path, steps: int) -> None:
    """Rotate, and be killed before the statement or change of a file with this number."""
    left = steps

    def step(*_: object) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def audit(name: str, _arguments: tuple[Any, ...]) -> None:
        if name in {"open", "os.remove"}:
            step()

    with opened(folder) as ring:
        trace: Callable[[str], None] = step
        ring._connection.set_trace_callback(trace)
        sys.addaudithook(audit)
        ring.rotate()
        ring._connection.set_trace_callback(None)
        os._exit(0)
