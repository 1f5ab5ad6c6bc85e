"""Names that nobody answers for, with the system's resolver replaced: loopback has none that hangs."""

import asyncio
import contextvars
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from facescreen import acting
from facescreen.errors import FetchTimeoutError
from facescreen.images.fetch import Fetcher
from facescreen.images.resolver import LOOKUPS_AT_ONCE, LOOKUPS_OF_ONE
from tests.images.test_fetch import always, fetching, serving
from tests.painted_server import HANGING

T = TypeVar("T")
HEALTHY = always("200 OK", b"image", Content_Length="5")
DEADLINE, REFUSED = "did not arrive", "wait for an answer"


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set, lookups of all names but that of this machine hang."""
    answering = threading.Event()
    resolve = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, **options: int) -> object:
        if host != "localhost":
            answering.wait()
            raise socket.gaierror
        return resolve(host, port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield answering
    answering.set()


async def in_request(name: str, work: Callable[[], Awaitable[T]]) -> T:
    """The result of work that a request with this id does."""

    async def do() -> T:
        acting.request_id.set(name)
        return await work()

    return await asyncio.create_task(do(), context=contextvars.copy_context())


async def hang(fetcher: Fetcher, request: str, count: int) -> list[str]:
    """What a request is told whose names nobody answers for."""

    async def fetch(number: int) -> str:
        with pytest.raises(FetchTimeoutError) as caught:
            await fetcher.fetch(f"http://{request}-{number}.example/")
        return str(caught.value)

    return await in_request(request, lambda: asyncio.gather(*map(fetch, range(count))))


async def test_names_that_nobody_answers_for_keep_no_other_request_waiting(answering: threading.Event) -> None:
    async with (
        serving(HEALTHY) as server,
        fetching("localhost", timeout_seconds=0.2) as impatient,
        fetching("localhost", timeout_seconds=HANGING) as fetcher,
    ):
        url = f"http://localhost:{server.port}/"
        fetcher._pool._network_backend = impatient._pool._network_backend  # one service, two deadlines
        told = await hang(impatient, "slow", LOOKUPS_OF_ONE + 3)
        assert [DEADLINE in text for text in told] == [True] * LOOKUPS_OF_ONE + [False] * 3
        assert all(REFUSED in text for text in told[LOOKUPS_OF_ONE:])
        assert await in_request("other", lambda: fetcher.fetch(url)) == b"image"
        assert await asyncio.to_thread(lambda: "as files are read") == "as files are read"


async def test_what_finds_no_thread_is_refused_until_names_are_answered_again(answering: threading.Event) -> None:
    requests, rest = divmod(LOOKUPS_AT_ONCE, LOOKUPS_OF_ONE)
    assert not rest
    async with serving(HEALTHY) as server, fetching("localhost", timeout_seconds=1) as fetcher:
        url = f"http://localhost:{server.port}/"
        told = await asyncio.gather(*(hang(fetcher, f"slow{n}", LOOKUPS_OF_ONE) for n in range(requests)))
        assert all(DEADLINE in text for texts in told for text in texts)
        with pytest.raises(FetchTimeoutError, match=REFUSED):
            await in_request("other", lambda: fetcher.fetch(url))
        answering.set()
        async with asyncio.timeout(HANGING):
            while True:
                try:
                    assert await in_request("other", lambda: fetcher.fetch(url)) == b"image"
                    break
                except FetchTimeoutError:
                    await asyncio.sleep(0.01)
