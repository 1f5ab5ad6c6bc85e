"""A disk of a few megabytes of its own, in a namespace that only the server's process sees."""

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from facescreen.config import Settings

_NEW_MOUNTS, _NEW_USER = 0x20000, 0x10000000
_FOR_US_ALONE = 0x4000 | 0x40000
"""``MS_REC`` and ``MS_PRIVATE``: what is mounted here is mounted for no other process."""
BYTES = 4 << 20


def moved(settings: Settings, to: Path) -> Settings:
    """The same settings for a copy of the data in another folder."""
    return settings.model_copy(
        update={
            "blacklist_db_path": to / "blacklist_db",
            "processed_images_output_dir": to / "processed",
            "database_url": f"sqlite+aiosqlite:///{to}/data/facescreen.db",
        }
    )


def require_namespaces() -> None:
    """Skip the test where an ordinary user may not mount anything, as in most containers."""
    child = os.fork()
    if not child:
        os._exit(ctypes.CDLL(None).unshare(_NEW_USER | _NEW_MOUNTS) != 0)
    if os.waitpid(child, 0)[1]:
        pytest.skip("this machine lets nobody mount a disk of his own")


def on_small_disk(disk: Path, data: Path, app: ASGIApp) -> ASGIApp:
    """The application, in a process that sees a copy of the data on a small disk."""
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if not libc.unshare(_NEW_USER | _NEW_MOUNTS):
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    # Refused while a library keeps a thread; whoever may mount needs no namespace of users.
    elif ctypes.get_errno() != errno.EINVAL or libc.unshare(_NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "unshare")
    libc.mount(None, b"/", None, _FOR_US_ALONE, None)
    if libc.mount(b"tmpfs", bytes(disk), b"tmpfs", 0, f"size={BYTES}".encode()):
        raise OSError(ctypes.get_errno(), "mount")
    shutil.copytree(data, disk / "data")
    return app


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Not a byte is left on the disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 1):
            with pytest.raises(OSError, match="No space"):  # noqa: PT012
                while True:
                    file.write(bytes(size))
    try:
        yield
    finally:
        ballast.unlink()
