"""A disk that refuses to be written whenever a test says so, for SQLite and Python alike.

The server's process is put under a seccomp filter, so that the kernel asks the test's process about each system call
that would change what is on a disk: a thread there lets it through, or has it fail.
"""

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Self

from starlette.types import ASGIApp

SYNCING = frozenset({"fsync", "fdatasync"})
_BY_DESCRIPTOR = SYNCING | {"write", "pwrite64", "writev", "ftruncate", "fallocate"}
_NUMBERS = {
    "x86_64": {
        "write": 1, "open": 2, "pwrite64": 18, "writev": 20, "fsync": 74, "fdatasync": 75, "ftruncate": 77,
        "rename": 82, "mkdir": 83, "rmdir": 84, "unlink": 87, "openat": 257, "mkdirat": 258, "unlinkat": 263,
        "renameat": 264, "fallocate": 285, "renameat2": 316, "seccomp": 317,
    },
    "aarch64": {
        "mkdirat": 34, "unlinkat": 35, "renameat": 38, "ftruncate": 46, "fallocate": 47, "openat": 56, "write": 64,
        "writev": 66, "pwrite64": 68, "fsync": 82, "fdatasync": 83, "renameat2": 276, "seccomp": 277,
    },
}  # fmt: skip
"""System calls by machine."""

_NO_NEW_PRIVILEGES, _SET_FILTER, _WITH_LISTENER = 38, 1, 8
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_RECEIVE, _SEND, _GO_ON = 0xC0502100, 0xC0182101, 1
_QUESTION, _ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
"""``struct seccomp_notif`` and ``struct seccomp_notif_resp``; the rest is from linux/seccomp.h and linux/filter.h."""


class FailingDisk:
    """Stands between a server and what it keeps below a folder.

    Attributes:
        around: for :class:`tests.painted_server.ServerProcess`.
        refused: how many calls failed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = f"{folder}/"
        self._error = 0
        self._calls: Collection[str] = ()
        self._spare = 0
        self.refused = 0
        self._ours, self._theirs = socket.socketpair()
        self.around = partial(_asking, self._theirs)
        Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._theirs.close()

    @staticmethod
    def is_possible() -> bool:
        actions = Path("/proc/sys/kernel/seccomp/actions_avail")
        return platform.machine() in _NUMBERS and actions.exists() and "user_notif" in actions.read_text()

    @contextmanager
    def refusing(self, error: int, calls: Collection[str] | None = None, *, spare: int = 0) -> Iterator[None]:
        """Let these calls fail with this error number, by default every one that writes, but not the first ones."""
        self._spare = spare
        self._calls = _NUMBERS[platform.machine()] if calls is None else calls
        self._error = error
        try:
            yield
        finally:
            self._error = 0

    def _listen(self) -> None:
        _, (listener,), *_ = socket.recv_fds(self._ours, 1, 1)
        names = {number: name for name, number in _NUMBERS[platform.machine()].items()}
        questions = select.poll()
        questions.register(listener, select.POLLIN)
        while not questions.poll()[0][1] & select.POLLHUP:
            question = bytearray(_QUESTION.size)
            with suppress(FileNotFoundError):  # whoever asked was killed meanwhile
                fcntl.ioctl(listener, _RECEIVE, question)
                id_, pid, _, number, _, _, *arguments = _QUESTION.unpack(question)
                error = self._error if self._is_refused(pid, names[number], arguments) else 0
                fcntl.ioctl(listener, _SEND, bytearray(_ANSWER.pack(id_, 0, -error, 0 if error else _GO_ON)))
        os.close(listener)

    def _is_refused(self, pid: int, call: str, arguments: list[int]) -> bool:
        if not self._error or call not in self._calls:
            return False
        flags = {"open": 1, "openat": 2}.get(call)
        if flags is not None and not arguments[flags] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return False
        if not _path(pid, call, arguments).startswith(self._folder):
            return False
        self._spare -= 1
        self.refused += self._spare < 0
        return self._spare < 0


def _path(pid: int, call: str, arguments: list[int]) -> str:
    """What the call is about."""
    if call in _BY_DESCRIPTOR:
        return str(Path(f"/proc/{pid}/fd/{arguments[0]}").readlink())
    is_relative = call.endswith(("at", "at2"))
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123 - no file
        memory.seek(arguments[1 if is_relative else 0])
        name = memory.read(4096).partition(b"\0")[0].decode()
    if name.startswith("/"):
        return name
    folder = ctypes.c_int(arguments[0] & 0xFFFFFFFF).value if is_relative else -1
    return f"{Path(f'/proc/{pid}/fd/{folder}' if folder >= 0 else f'/proc/{pid}/cwd').readlink()}/{name}"


def _asking(channel: socket.socket, app: ASGIApp) -> ASGIApp:
    """The application, in a process that asks from now on."""
    numbers = dict(_NUMBERS[platform.machine()])
    seccomp = numbers.pop("seccomp")
    count = len(numbers)
    steps = [(_LOAD, 0, 0, 0)]
    steps += [(_IF_EQUAL, count - index, 0, number) for index, number in enumerate(numbers.values())]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ASK)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("HP", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    listener = libc.syscall(seccomp, _SET_FILTER, _WITH_LISTENER, program)
    if listener < 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {errno.errorcode[ctypes.get_errno()]}")
    socket.send_fds(channel, [b"x"], [listener])
    os.close(listener)
    return app
