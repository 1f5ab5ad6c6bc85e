"""Is there room for the request: refused before its body is read, stopped at its deadline or when its caller has gone.

Only so many bodies are read at a time, whatever they are for. A request that computes with images passes a queue when
its body has arrived whole, so that slow uploads keep nobody waiting. Whoever finds the queue full is refused at once,
before anything is decoded.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from facescreen import acting, metrics
from facescreen.api.rate_limits import address_of
from facescreen.config import Settings
from facescreen.errors import DeadlineExceededError, FacescreenError, OverloadedError
from facescreen.lifeline import Lifeline

logger = logging.getLogger(__name__)

CLIENT_GONE_STATUS = 499
"""What logs and metrics have where nobody was left to be answered, as nginx writes it."""

_BODIES_AT_ONCE = 256
"""Bodies that are being read or wait in the queue; each may be as large as MAX_BODY_BYTES and take its deadline."""
_BODIES_OF_ONE = _BODIES_AT_ONCE // 2
"""Of these from one address, whose slow uploads thus keep nobody else waiting."""
_OUTSIDE_CALLS = 8
"""Requests at the same time where another service computes: as many as may search in it."""


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class Room:
    """Requests that compute, and those that wait for them, first come, first served.

    Args:
        running: how many compute at the same time.
        waiting: how many more may wait.
    """

    def __init__(self, *, running: int, waiting: int) -> None:
        self._slots = asyncio.Semaphore(running)
        self._may_wait = waiting
        self._waiting = 0
        self._reading = Counter[str]()

    @classmethod
    def of(cls, settings: Settings) -> "Room":
        """As large as the settings say, or as this machine can use."""
        if settings.face_processing_backend == "aws_rekognition":
            running = _OUTSIDE_CALLS
        else:
            running = max(1, len(os.sched_getaffinity(0)) // settings.workers)
        running = settings.max_concurrent_requests or running
        waiting = settings.max_queued_requests
        return cls(running=running, waiting=(running + 1) // 2 if waiting is None else waiting)

    def require_place(self) -> None:
        """Refuse what would find no place in the queue.

        Raises:
            OverloadedError: too many wait already.
        """
        if self._slots.locked() and self._waiting >= self._may_wait:
            raise _overloaded()

    @contextmanager
    def reading(self, address: str) -> Iterator[None]:
        """A request from its first byte to the first of its answer.

        Raises:
            OverloadedError: too many are there already, or too many of this address.
        """
        if self._reading.total() >= _BODIES_AT_ONCE or self._reading[address] >= _BODIES_OF_ONE:
            raise _overloaded()
        self._reading[address] += 1
        try:
            yield
        finally:
            self._reading -= Counter([address])  # which keeps no zeros

    async def enter(self) -> None:
        """Wait for a slot, which has to be given back.

        Raises:
            OverloadedError: too many wait already.
        """
        self.require_place()
        self._waiting += 1
        metrics.waiting.inc()
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
            metrics.waiting.dec()
        metrics.running.inc()
        metrics.admitted.inc()

    def leave(self) -> None:
        """Give a slot back."""
        self._slots.release()
        metrics.running.dec()


class Admission:
    """Lets requests in, and ends those that nobody waits for.

    Args:
        is_work: whether the operation computes with images; others wait for nothing.
        reads_body: whether it reads one.
    """

    def __init__(self, app: ASGIApp, *, is_work: bool, reads_body: bool) -> None:
        self._app = app
        self._is_work = is_work
        self._reads_body = reads_body

    @property
    def takes_room(self) -> bool:
        """Whether it can be refused for want of room."""
        return self._is_work or self._reads_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["app"].state
        room: Room = state.room
        visit = _Visit(receive, send, room=room if self._is_work else None)
        try:
            with visit.within(state.services.settings.request_timeout_seconds):
                if self._is_work:
                    room.require_place()
                if self.takes_room:
                    visit.keep(room.reading(address_of(HTTPConnection(scope))))
                if not self._reads_body:
                    await visit.arrived_unread()
                await self._app(scope, visit.receive, visit.send)
        except DeadlineExceededError:
            metrics.stopped.labels("deadline").inc()
            raise
        except ClientGoneError:
            metrics.stopped.labels("client_gone").inc()
            logger.info("client_gone", extra={"request_id": acting.request_id.get()})
            await Response(status_code=CLIENT_GONE_STATUS)(scope, receive, send)


class _Visit:
    """One request, from its first byte to the last of its answer."""

    def __init__(self, receive: Receive, send: Send, *, room: Room | None) -> None:
        self._receive = receive
        self._send = send
        self._room = room
        self._lifeline = Lifeline()
        self._gone = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._is_unread = False
        self._place = ExitStack()
        self._is_answered = False

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Hold the work until its deadline.

        Raises:
            DeadlineExceededError: it took longer.
            ClientGoneError: the caller went away.
        """
        late = DeadlineExceededError(f"the request took longer than {seconds:g} seconds; its work was stopped")
        deadline = asyncio.get_running_loop().call_later(seconds, self._end, late)
        try:
            with self._lifeline.holding():
                yield
        finally:
            deadline.cancel()
            self._place.close()
            if self._watch is not None:
                self._watch.cancel()

    def keep(self, place: AbstractContextManager[None]) -> None:
        """Take a place that is given back when the answer begins."""
        self._place.enter_context(place)

    async def receive(self) -> Message:
        """What the operation is given to read: the last part of the body once there is a slot for the request."""
        if self._watch is not None:
            if self._is_unread:
                self._is_unread = False
                return {"type": "http.request", "body": b"", "more_body": False}
            await self._gone.wait()
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.disconnect":
            await self._lifeline.stop(ClientGoneError())
        if not message.get("more_body", False):
            await self._arrived()
        return message

    async def send(self, message: Message) -> None:
        """Begin to answer, or go on; whoever is slow to read keeps no slot."""
        if message["type"] == "http.response.start":
            self._is_answered = True
            self._place.close()
        await self._send(message)

    async def arrived_unread(self) -> None:
        """Wait for a slot for an operation that reads no body."""
        self._is_unread = True
        await self._arrived()

    async def _arrived(self) -> None:
        self._watch = asyncio.create_task(self._wait_until_gone())
        if self._room is None:
            return
        try:
            await self._room.enter()
        except OverloadedError as error:
            await self._lifeline.stop(error)
        self._place.callback(self._room.leave)

    async def _wait_until_gone(self) -> None:
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        except FacescreenError as error:  # a body that nobody reads is too large
            self._end(error)
            return
        self._gone.set()
        self._end(ClientGoneError())

    def _end(self, error: Exception) -> None:
        if not self._is_answered:
            self._lifeline.end(error)


def _overloaded() -> OverloadedError:
    return OverloadedError("more requests are waiting than this service admits; try again shortly")
