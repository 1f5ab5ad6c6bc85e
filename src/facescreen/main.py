"""The ASGI application: ``uvicorn facescreen.main:app``."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.routing import Route

from facescreen import __version__
from facescreen.api import blacklist, collections, detect, problems, process, processed_images, system
from facescreen.api.middleware import BodyLimit, EitherSlash, OneLineStartup, RequestLog
from facescreen.api.rekognition.endpoint import RekognitionEndpoint
from facescreen.api.rekognition.operations import Operations
from facescreen.backends.base import EmbeddingBackend
from facescreen.config import Settings, load_settings
from facescreen.errors import StartupError
from facescreen.factory import Facade, Services, open_services, start
from facescreen.logs import configure_logs

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
            app.state.services = services
            if services.facade is not None:
                app.router.routes.append(_rekognition(services, services.facade))
            yield

    app = FastAPIOffline(
        title="facescreen",
        version=__version__,
        summary="Who is in this picture, is anybody of them on the list, how sure is that, and why.",
        lifespan=lifespan,
        redirect_slashes=False,
        swagger_ui_parameters={"tryItOutEnabled": True, "displayRequestDuration": True},
    )
    for part in (detect, process, processed_images, blacklist, collections, system):
        app.include_router(part.router, prefix=PREFIX)
    app.include_router(system.pages)
    problems.install(app)
    app.add_middleware(EitherSlash, router=app.router)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestLog)
    app.add_middleware(OneLineStartup)
    return app


def _rekognition(services: Services, facade: Facade) -> Route:
    """The endpoint that speaks Rekognition's protocol; without access keys it lets nobody in."""
    settings = services.settings
    operations = Operations(collections=services.collections, faces=facade.faces, people=facade.people, s3=facade.s3)
    keys = (pair.get_secret_value().partition(":") for pair in settings.rekognition_access_keys)
    endpoint = RekognitionEndpoint(
        operations.by_name(),
        {key_id: secret for key_id, _, secret in keys},
        allow_unsigned_on_loopback=settings.rekognition_allow_unsigned,
    )
    return Route("/rekognition", endpoint, include_in_schema=False)


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
