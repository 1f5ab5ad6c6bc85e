"""Names to addresses, in threads that nothing else waits for: a lookup cannot be ended, only left alone."""

import asyncio
import socket
from collections import Counter
from concurrent.futures import Future
from threading import Lock, Thread

from facescreen import acting
from facescreen.errors import FetchTimeoutError

LOOKUPS_AT_ONCE = 256
"""Threads, which only wait. The system's resolver gives a name up after 30 seconds (resolv.conf(5): at most three name
servers, asked twice for five seconds each), so a request that fetches four images at a time and leaves each alone after
ten seconds has twelve: enough for twenty such requests at the same time."""
LOOKUPS_OF_ONE = 16
"""Of these for one request, which are no more than the above where the deadline of a fetch is shorter."""


class Resolver:
    """Looks names up. What still waits for an answer when nobody wants it any more keeps no process from ending."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running = Counter[str | None]()

    async def addresses(self, host: str, port: int) -> list[str]:
        """All that the name stands for, none where it does not resolve.

        Raises:
            FetchTimeoutError: too many lookups wait for an answer, of this request or of all.
        """
        request = acting.request_id.get()
        found: Future[list[str]] = Future()
        found.set_running_or_notify_cancel()
        with self._lock:
            if self._running.total() >= LOOKUPS_AT_ONCE or self._running[request] >= LOOKUPS_OF_ONE:
                raise FetchTimeoutError("too many names of images' servers wait for an answer; try again shortly")
            Thread(target=self._look_up, args=(host, port, request, found), daemon=True).start()
            self._running[request] += 1
        return await asyncio.wrap_future(found)

    def _look_up(self, host: str, port: int, request: str | None, found: Future[list[str]]) -> None:  # noqa: PLR0917
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, ValueError):
            answers = []
        with self._lock:
            self._running -= Counter([request])  # which keeps no zeros
        found.set_result(list(dict.fromkeys(str(answer[4][0]) for answer in answers)))
