"""The service in a process of its own, on a loopback socket, with the painted backend unless told otherwise."""

import asyncio
import multiprocessing
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import uvicorn
from starlette.types import ASGIApp

from facescreen.api.server import BoundedHttp
from facescreen.backends.base import EmbeddingBackend
from facescreen.config import Settings
from facescreen.main import create_app
from tests.painted import PaintedBackend

HANGING = 120.0
"""Seconds after which an answer is given up: only what hangs takes so long."""

# Servers are forked from a process that has imported all of this once, so that they start in a moment.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


class ServerProcess:
    """A server that was begun, and a client of it below ``/api/v1``. Requests wait until it is ready.

    Args:
        around: a class or function of a module, put around the application in the server's process.
        backend: makes the one to use; ``None``: the configured one.
        socket: to share with other servers; by default it has one of its own.
    """

    def __init__(
        self,
        settings: Settings,
        around: Callable[[ASGIApp], ASGIApp] | None = None,
        *,
        backend: Callable[[], EmbeddingBackend] | None = PaintedBackend,
        socket: socket.socket | None = None,
    ) -> None:
        with socket.dup() if socket else listening_socket() as listening:
            host, port = listening.getsockname()
            self.url = f"http://{host}:{port}"
            self._process = _processes.Process(
                target=_serve, args=(settings, listening, around), kwargs={"backend": backend}, daemon=True
            )
            self._process.start()
        self.client = httpx.AsyncClient(
            base_url=f"{self.url}/api/v1",
            timeout=HANGING,
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )

    async def started(self) -> None:
        (await self.client.get("/")).raise_for_status()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def terminate(self) -> None:
        """Ask it to stop, as init systems do."""
        self._process.terminate()

    async def ended(self) -> None:
        """Wait until it is gone by itself."""
        await asyncio.to_thread(self._process.join)

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        self._process.kill()
        self._process.join()

    async def aclose(self) -> None:
        self.kill()
        await self.client.aclose()


def listening_socket() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=512)


@asynccontextmanager
async def server_process(
    settings: Settings,
    backend: Callable[[], EmbeddingBackend] | None = PaintedBackend,
    *,
    around: Callable[[ASGIApp], ASGIApp] | None = None,
) -> AsyncIterator[ServerProcess]:
    """A server that is ready; it is killed in the end."""
    server = ServerProcess(settings, around, backend=backend)
    try:
        await server.started()
        yield server
    finally:
        await server.aclose()


def _serve(
    settings: Settings,
    listening: socket.socket,
    around: Callable[[ASGIApp], ASGIApp] | None,
    *,
    backend: Callable[[], EmbeddingBackend] | None,
) -> None:
    app: ASGIApp = create_app(settings, backend() if backend else None)
    config = uvicorn.Config(
        around(app) if around else app,
        http=BoundedHttp,
        timeout_keep_alive=settings.keep_alive_seconds,
        access_log=False,
        log_level="warning",
    )
    uvicorn.Server(config).run(sockets=[listening])
