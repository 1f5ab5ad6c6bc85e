"""Commands that set the service up and run it."""

import asyncio
import json
import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from facescreen.acting import SERVICE, actor
from facescreen.cli.base import command_settings, coroutine, say
from facescreen.cli.keys import open_keys
from facescreen.domain.access import is_loopback
from facescreen.errors import StartupError

if TYPE_CHECKING:
    import uvicorn

    from facescreen.config import Settings


@click.command()
@coroutine
async def migrate() -> None:
    """Bring the database to the newest schema."""
    from facescreen.db.connection import Database, path_of
    from facescreen.factory import restoration
    from facescreen.services.presence import Presence

    settings = command_settings()
    await restoration(settings).settle()
    with closing(Presence(path_of(settings.database_url))):
        database = Database(settings.database_url)
        await database.migrate()
        await database.require_head()
        await database.aclose()
    say("the database is at the newest schema")


@click.command()
def serve() -> None:
    """Run the service on HOST and PORT with WORKERS processes."""
    import uvicorn
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors import Multiprocess

    from facescreen.config import load_settings
    from facescreen.factory import restoration
    from facescreen.logs import configure_logs

    async def check(settings: "Settings") -> None:
        await restoration(settings).settle()
        async with open_keys(settings) as service:
            if settings.auth_mode == "keys" and not is_loopback(settings.host) and not await service.all():
                raise StartupError(
                    f"HOST: {settings.host} can be reached by others, and there is no API key; "
                    "run: facescreen keys create --scope SCOPE, or set AUTH_MODE=none to let everybody do everything"
                )

    settings = load_settings()
    asyncio.run(check(settings))
    configure_logs(settings.log_level)
    actor.set(SERVICE)
    # Uvicorn raises the signal again that it was stopped by, which would end this process as if it had been killed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with _shared_metrics() if settings.workers > 1 and settings.metrics_enabled else nullcontext():
        config = server_config(settings)
        if settings.workers == 1:
            with suppress(KeyboardInterrupt):
                uvicorn.Server(config).run()
        else:
            workers = Multiprocess(config, sockets=[config.bind_socket()])
            workers.run()
            if any(worker.exitcode == STARTUP_FAILURE for worker in workers.processes):
                sys.exit(STARTUP_FAILURE)


def server_config(settings: "Settings") -> "uvicorn.Config":
    """How uvicorn serves the application."""
    import uvicorn

    return uvicorn.Config(
        "facescreen.main:app",
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http="facescreen.api.server:BoundedHttp",
        timeout_keep_alive=settings.keep_alive_seconds,
        # Nothing takes longer but whoever does not read its answer.
        timeout_graceful_shutdown=math.ceil(settings.request_timeout_seconds) + 5,
        access_log=False,
        log_config=None,
        log_level=settings.log_level,
    )


@contextmanager
def _shared_metrics() -> Iterator[None]:
    """A folder where the workers add up their metrics, as long as they run."""
    from facescreen.metrics import SHARED_FOLDER

    with TemporaryDirectory(prefix="facescreen-metrics-") as folder:
        os.environ[SHARED_FOLDER] = folder
        yield


@click.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from facescreen.main import create_app

    say(json.dumps(create_app(command_settings()).openapi(), indent=2))


@click.command()
def config() -> None:
    """Print every setting with its value."""
    for name, value in command_settings().model_dump(mode="json").items():
        shown = ",".join(value) if isinstance(value, list) else "" if value is None else value
        say(f"{name.upper()}={shown}")
