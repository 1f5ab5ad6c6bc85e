"""``facescreen retention``."""

import asyncio
from contextvars import copy_context
from functools import partial

import pytest
from click.testing import CliRunner

from facescreen import factory, logs
from facescreen.cli import cli
from facescreen.config import Settings
from tests.conftest import serving
from tests.painted import GREEN, PaintedBackend, photo
from tests.services.test_retention import age, screen


async def screen_long_ago(settings: Settings) -> None:
    async with serving(settings) as client:
        await age(settings, await screen(client, photo(GREEN)), 31)


def test_what_is_due_is_told_and_then_deleted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("database_url", "blacklist_db_path", "processed_images_output_dir", "deepface_home"):
        monkeypatch.setenv(name.upper(), str(getattr(settings, name)))
    monkeypatch.setattr(factory, "open_services", partial(factory.open_services, backend=PaintedBackend()))
    monkeypatch.setattr(logs, "configure_logs", lambda _: None)
    asyncio.run(screen_long_ago(settings))

    def lines(*arguments: str) -> list[str]:
        done = copy_context().run(CliRunner().invoke, cli, ["retention", *arguments])
        assert done.exit_code == 0, done.output
        return done.stdout.splitlines()

    counts = ["entries: 0", "copies: 1", "results: 1", "hits: 0", "answers: 0", "audit: 0"]
    assert lines("--dry-run") == [f"{count} due" for count in counts]
    assert lines() == [f"{count} deleted" for count in counts]
    assert all(line.endswith(": 0 deleted") for line in lines())
