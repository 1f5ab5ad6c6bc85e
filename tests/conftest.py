"""The real application over ASGI, on a real database made by migrations, with the painted backend."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from facescreen.backends.base import EmbeddingBackend
from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.factory import Services
from facescreen.main import create_app
from tests.painted import PaintedBackend

pytest.register_assert_rewrite("tests.at_rest", "tests.backends.promises", "tests.crash.callers")

AppFactory = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return fresh_settings(tmp_path)


def fresh_settings(folder: Path) -> Settings:
    """Settings whose data are all below the folder, with a migrated database."""
    roots = folder / "inputs"
    roots.mkdir()
    made = Settings(
        _env_file=None,
        blacklist_db_path=folder / "blacklist_db",
        processed_images_output_dir=folder / "processed",
        database_url=f"sqlite+aiosqlite:///{folder / 'data' / 'facescreen.db'}",
        deepface_home=folder / "home",
        image_input_roots=(roots,),
        match_threshold=0.05,
        rate_limit_per_address="",
        rate_limit_per_key="",
        rate_limit_failures="",
        max_queued_requests=1000,
    )
    database = Database(made.database_url)
    asyncio.run(database.migrate())
    return made


def serving(
    settings: Settings, backend: EmbeddingBackend | None = None
) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    """The application with the painted backend, or another one, as :func:`serving_with` has it."""
    return serving_with(settings, backend or PaintedBackend())


@asynccontextmanager
async def serving_with(settings: Settings, backend: EmbeddingBackend | None) -> AsyncIterator[httpx.AsyncClient]:
    """The started application, and a client of it below ``/api/v1``; ``client.services`` reaches inside.

    Args:
        backend: ``None`` for the configured one.
    """
    app = create_app(settings, backend)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/api/v1") as client:
            client.services = app.state.services  # type: ignore[attr-defined]
            yield client


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings) as started:
        yield started


@pytest.fixture
def services(client: httpx.AsyncClient) -> Services:
    made: Services = client.services  # type: ignore[attr-defined]
    return made
