"""The HTTP that ``facescreen serve`` speaks: uvicorn's, with limits for what comes before and between bodies.

Everything behind a request's head has a limit of its own; uvicorn collects heads and trailers of any length, from
anybody, and waits for their end for as long as it takes.
"""

import asyncio
from typing import ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 65_536
"""Of a request line with its headers, of trailers, and of what else is no body; as uvicorn's other implementation."""


class BoundedHttp(HttpToolsProtocol):
    """Hangs up on whoever sends endless headers, or none."""

    head_seconds: ClassVar[float] = 20.0
    """How long a client may take from the first byte of a request, or from connecting, to the end of its headers.

    As long it may still send a body that was answered before its end; who is cut off at once sees no answer.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's
        super().connection_made(transport)
        self._bytes_without_body = 0
        self._hang_up = self.loop.call_later(self.head_seconds, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hang_up.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._bytes_without_body += len(data)
        super().data_received(data)
        if self._bytes_without_body > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The headers are too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._hang_up.cancel()
        self._hang_up = self.loop.call_later(self.head_seconds, self.transport.close)

    def on_headers_complete(self) -> None:
        self._hang_up.cancel()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._bytes_without_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._bytes_without_body = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._hang_up = self.loop.call_later(self.head_seconds, self.transport.close)
