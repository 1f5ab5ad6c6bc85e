"""Rights that everybody has: what permissions forbid is forbidden, also where the tests are run by root."""

import asyncio
import ctypes
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

_VERSION_3 = 0x20080522
_FILE_RIGHTS = 1 << 1 | 1 << 2
"""``CAP_DAC_OVERRIDE`` and ``CAP_DAC_READ_SEARCH``; all of this is from linux/capability.h."""


@contextmanager
def ordinary_rights() -> Iterator[None]:
    """For this thread, and for those of the running loop's executor."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    effective = data[0]
    data[0] = effective & ~_FILE_RIGHTS
    libc.capset(header, data)
    loop = asyncio.get_running_loop()
    try:
        with ThreadPoolExecutor() as threads:  # which begin with the rights of this one
            loop.set_default_executor(threads)
            yield
    finally:
        loop.set_default_executor(ThreadPoolExecutor())
        data[0] = effective
        libc.capset(header, data)
