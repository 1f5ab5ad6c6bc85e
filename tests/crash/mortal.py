"""A service that dies when it is told to."""

import os
import signal
import sys
from typing import Any

from sqlalchemy import Engine, event
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-steps-to-live"
_FOLDER_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}


class Mortal:
    """Kills its own process with signal 9 at a certain step.

    Steps are what others can see or find later: a commit, a file that is created, a change of a folder, an answer. They
    are counted from the first request with the header that says how many may be done.

    Args:
        steps: how many may be done while it starts.
    """

    def __init__(self, app: ASGIApp, steps: int | None = None) -> None:
        self._app = app
        self._steps = steps
        sys.addaudithook(self._audit)
        event.listen(Engine, "commit", self._step)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            self._step()
            if message["type"] == "lifespan.startup.complete":
                self._steps = None
            await send(message)

        given = dict(scope.get("headers", ())).get(HEADER.encode())
        if given is not None:
            self._steps = int(given)
        await self._app(scope, receive, answer)

    def _audit(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in _FOLDER_CHANGES or (name == "open" and arguments[2] & os.O_CREAT):
            self._step()

    def _step(self, *_: object) -> None:
        if self._steps is None:
            return
        if self._steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._steps -= 1
