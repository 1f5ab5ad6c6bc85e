"""The ASGI application: ``uvicorn facescreen.main:app``."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from facescreen import __version__
from facescreen.api import blacklist, detect, problems, process, processed_images, system
from facescreen.api.middleware import BodyLimit, EitherSlash, OneLineStartup, RequestLog
from facescreen.backends.base import Backend
from facescreen.config import Settings, load_settings
from facescreen.errors import StartupError
from facescreen.factory import open_services, start
from facescreen.logs import configure_logs

PREFIX = "/api/v1"


def create_app(settings: Settings, backend: Backend | None = None) -> FastAPI:
    """The service as an ASGI application; starting it opens the database, loads the models and the list.

    Args:
        settings: of this process.
        backend: instead of the configured one.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(settings, backend) as services:
            await start(services)
            app.state.services = services
            yield

    app = FastAPIOffline(
        title="facescreen",
        version=__version__,
        summary="Who is in this picture, is anybody of them on the list, how sure is that, and why.",
        lifespan=lifespan,
        redirect_slashes=False,
        swagger_ui_parameters={"tryItOutEnabled": True, "displayRequestDuration": True},
    )
    for router in (detect.router, process.router, processed_images.router, blacklist.router, system.router):
        app.include_router(router, prefix=PREFIX)
    app.include_router(system.pages)
    problems.install(app)
    app.add_middleware(EitherSlash, router=app.router)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestLog)
    app.add_middleware(OneLineStartup)
    return app


def _app() -> FastAPI:
    try:
        settings = load_settings()
    except StartupError as error:
        sys.exit(f"facescreen: {error}")
    configure_logs(settings.log_level)
    return create_app(settings)


def __getattr__(name: str) -> FastAPI:
    """``app`` is made when a server asks for it, so importing :func:`create_app` reads no settings."""
    if name == "app":
        return _app()
    raise AttributeError(name)
