"""The ASGI application: ``uvicorn facescreen.main:app``."""

import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from types import FrameType

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from facescreen import __version__, metrics
from facescreen.api import audit, blacklist, collections, detect, problems, process, processed_images, system
from facescreen.api.admission import Admission, Room
from facescreen.api.middleware import (
    BelowRootPath,
    BodyLimit,
    EitherSlash,
    HeadAsGet,
    OneLineStartup,
    RequestLog,
    SecurityHeaders,
)
from facescreen.api.rate_limits import RateLimits
from facescreen.api.rekognition.attempts import Attempts
from facescreen.api.rekognition.endpoint import RekognitionEndpoint, TargetedRoute
from facescreen.api.rekognition.operations import Operations
from facescreen.backends.base import EmbeddingBackend
from facescreen.config import Settings, load_settings
from facescreen.errors import StartupError
from facescreen.factory import Facade, Services, open_services, start
from facescreen.logs import configure_logs, set_libraries_apart

PREFIX = "/api/v1"


def create_app(settings: Settings, backend: EmbeddingBackend | None = None) -> FastAPI:
    """The service as an ASGI application; starting it opens the database, loads the models and the list.

    Args:
        settings: of this process.
        backend: instead of the configured one.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(settings, backend) as services:
            await start(services)
            metrics.forget_workers()
            app.state.services = services
            if services.facade is not None:
                app.router.routes += _rekognition(services, services.facade, app.state.rate_limits)
            upgrading = services.upgrade.upgrading() if services.upgrade else nullcontext()
            async with services.retention.sweeping(), upgrading:
                with _draining(app):
                    yield
            metrics.forget_workers(this_too=True)

    app = (FastAPIOffline if settings.docs_enabled else FastAPI)(
        title="facescreen",
        version=__version__,
        summary="Who is in this picture, is anybody of them on the list, how sure is that, and why.",
        lifespan=lifespan,
        redirect_slashes=False,
        # Generators of clients name functions by it.
        generate_unique_id_function=lambda route: route.name,
        openapi_url="/openapi.json" if settings.docs_enabled else None,
        swagger_ui_parameters={"tryItOutEnabled": True, "displayRequestDuration": True, "persistAuthorization": True},
    )
    app.state.rate_limits = RateLimits.of(settings)
    app.state.room = Room.of(settings)
    app.state.is_stopping = False
    for part in (detect, process, processed_images, blacklist, collections, audit, system):
        app.include_router(part.router, prefix=PREFIX)
    if settings.docs_enabled:
        app.include_router(system.pages)
    if settings.metrics_enabled:
        app.include_router(system.scraped)
    problems.install(app)
    app.add_middleware(HeadAsGet)
    app.add_middleware(EitherSlash, router=app.router)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestLog)
    if settings.cors_allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_allowed_origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "X-API-Key", "Idempotency-Key", "X-Request-ID"],
            expose_headers=["Idempotency-Replayed", "Location", "Retry-After", "X-Request-ID", "X-Total-Count"],
        )
    app.add_middleware(SecurityHeaders)
    if settings.root_path:
        app.add_middleware(BelowRootPath, root_path=settings.root_path)
    app.add_middleware(OneLineStartup)
    return app


@contextmanager
def _draining(app: FastAPI) -> Iterator[None]:
    """Not ready any more from the moment that the server is told to stop, whatever it does about it and when."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    servers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def drain(number: int, frame: FrameType | None) -> None:
        app.state.is_stopping = True
        handler = servers[signal.Signals(number)]
        assert callable(handler)  # noqa: S101 - no other was replaced
        handler(number, frame)

    for number, handler in servers.items():
        if callable(handler):
            signal.signal(number, drain)
    try:
        yield
    finally:
        for number, handler in servers.items():
            if callable(handler):
                signal.signal(number, handler)


def _rekognition(services: Services, facade: Facade, rate_limits: RateLimits) -> list[Route]:
    """The endpoint that speaks Rekognition's protocol; without access keys it lets nobody in.

    AWS has it at ``/``, and clients that were given no path ask there.
    """
    settings = services.settings
    operations = Operations(collections=services.collections, faces=facade.faces, people=facade.people, s3=facade.s3)
    keys = (pair.get_secret_value().partition(":") for pair in settings.rekognition_access_keys)
    endpoint = RekognitionEndpoint(
        operations.by_name(),
        {key_id: secret for key_id, _, secret in keys},
        rate_limits=rate_limits,
        allow_unsigned_on_loopback=settings.rekognition_allow_unsigned,
        around=lambda app: Attempts(Admission(app, is_work=True, reads_body=True), services.trail),
    )
    return [
        Route("/rekognition", endpoint, include_in_schema=False),
        TargetedRoute("/", endpoint, methods=["POST"], include_in_schema=False),
    ]


def _app() -> FastAPI:
    try:
        settings = load_settings()
    except StartupError as error:
        sys.exit(f"facescreen: {error}")
    set_libraries_apart()
    configure_logs(settings.log_level)
    return create_app(settings)


def __getattr__(name: str) -> FastAPI:
    """``app`` is made when a server asks for it, so importing :func:`create_app` reads no settings."""
    if name == "app":
        return _app()
    raise AttributeError(name)
