"""Bounded execution of CPU work beside the event loop."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from facescreen.errors import FacescreenError
from facescreen.lifeline import require_wanted

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
    """Threads for pixel and model work.

    Args:
        threads: how much runs at the same time; native code that releases the GIL makes them real cores.
    """

    def __init__(self, *, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="facescreen")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Result of ``work`` from one of the threads. What is not wanted any more before it began never begins."""
        require_wanted()
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(work, *args, **kwargs))

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
