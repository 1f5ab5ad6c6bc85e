"""Bounded execution of CPU work beside the event loop, and admission before work."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar

from facescreen.errors import FacescreenError, OverloadedError

P = ParamSpec("P")
T = TypeVar("T")


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order. The first error of ours ends the others and is raised by itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(each) for each in work]
    except* FacescreenError as group:
        raise group.exceptions[0] from None
    return [task.result() for task in running]


class WorkPool:
    """Threads for pixel and model work, and a count of what was admitted and is not yet answered.

    Args:
        threads: how much runs at the same time; native code that releases the GIL makes them real cores.
        capacity: how many images may be admitted at once.
    """

    def __init__(self, *, threads: int, capacity: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="facescreen")
        self._capacity = capacity
        self._admitted = 0

    @contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Hold room for so many images.

        Raises:
            OverloadedError: there is none; nothing was begun.
        """
        if self._admitted and self._admitted + images > self._capacity:
            raise OverloadedError("more images are waiting than this service admits; try again shortly")
        self._admitted += images
        try:
            yield
        finally:
            self._admitted -= images

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Result of ``work`` from one of the threads. Work that was cancelled before it began never begins."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(work, *args, **kwargs))

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
