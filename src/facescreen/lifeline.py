"""Whether the work of a request is still wanted: it stops at the deadline, and when nobody waits for it any more.

Reading and computing stop at once. What has begun to change something is finished first, and then it is answered.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


class Lifeline:
    """Holds the work of the task that makes it, and of all tasks that come of it, until it is ended."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - there is a running loop
        self._task = task
        self._sections = 0
        self._is_cancelled = False
        self._error: Exception | None = None

    def end(self, error: Exception) -> None:
        """Stop the work for this reason; the first one counts."""
        if self._error is None:
            self._error = error
            if not self._sections:
                self._is_cancelled = True
                self._task.cancel()

    async def stop(self, error: Exception) -> NoReturn:
        """End the work from inside, also in a section and after another reason, which is then the one that counts."""
        self.end(error)
        await asyncio.sleep(0)  # where the task is told, if it has not been
        raise asyncio.CancelledError

    @contextmanager
    def holding(self) -> Iterator[None]:
        """The work that hangs on this; raises the reason if it was stopped for one."""
        others = self._task.cancelling()
        token = _present.set(self)
        try:
            yield
        except asyncio.CancelledError:
            if self._error is None or self._task.cancelling() > others + self._is_cancelled:
                raise
            raise self._error from None
        finally:
            _present.reset(token)
            if self._is_cancelled:
                self._task.uncancel()

    @property
    def is_ended(self) -> bool:
        """Whether what would begin now is to be left alone."""
        return self._error is not None and not self._sections

    @contextmanager
    def _section(self) -> Iterator[None]:
        # A task that came of the cancelled one and has not heard of it yet begins nothing.
        if self._is_cancelled and asyncio.current_task() is not self._task:
            raise asyncio.CancelledError
        self._sections += 1
        try:
            yield
        finally:
            self._sections -= 1


_present: ContextVar[Lifeline | None] = ContextVar("lifeline", default=None)
"""What the present task hangs on; work that is no request's is always wanted."""

_running: set[asyncio.Task[Any]] = set()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A section that is finished although its request has ended: something is half done in it.

    If the request ends in here, the work is not cancelled afterwards either, for it may be answered by now; only the
    next :func:`require_wanted` stops it.
    """
    lifeline = _present.get()
    if lifeline is None:
        yield
        return
    with lifeline._section():  # noqa: SLF001 - this module's
        yield


def require_wanted() -> None:
    """Cancel the present task if its request has ended, unless something is half done."""
    lifeline = _present.get()
    if lifeline is not None and lifeline.is_ended:
        raise asyncio.CancelledError


async def to_the_end(work: Coroutine[Any, Any, T], running: set[asyncio.Task[Any]] = _running) -> T:
    """Result of work that goes on though whoever began it is stopped, because others wait for it or build on it.

    Args:
        running: has the work in it while it goes on, for somebody who is to wait for it.
    """
    context = copy_context()
    context.run(_present.set, None)
    task = asyncio.create_task(work, context=context)
    running.add(task)
    task.add_done_callback(running.discard)
    return await asyncio.shield(task)
