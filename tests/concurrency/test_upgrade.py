"""Another default model, in several processes and with one that is killed in the middle."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from facescreen.backends.base import Probe
from facescreen.config import ModelName, Settings
from facescreen.domain.faces import Vectors
from tests.api.test_blacklist import enroll
from tests.conftest import serving
from tests.painted import PaintedBackend, photo
from tests.painted_server import HANGING, ServerProcess, server_process
from tests.services.test_upgrade import ORANGE, asked, before, rows, spaces

PEOPLE = {f"person {number}": (200, 0, 20 * number) for number in range(10)}


class LoggingBackend(PaintedBackend):
    """Writes a line for each photo that it embeds for ``SFace``, and hangs before one photo.

    Args:
        log: the file.
        allowed: photos that come before that one.
    """

    def __init__(self, log: Path, allowed: int = 1000) -> None:
        super().__init__()
        self._log = log
        self._allowed = allowed

    async def embed(self, probes: Sequence[Probe], model: ModelName) -> Vectors:
        if model == "SFace":
            if self._allowed == 0:
                await asyncio.Event().wait()
            self._allowed -= 1
            vectors = await super().embed(probes, model)
            with self._log.open("a") as log:
                log.write(f"{vectors.round(3).tolist()}\n")
            return vectors
        return await super().embed(probes, model)


@pytest.fixture
async def upgraded(settings: Settings) -> Settings:
    """Of a service whose model is another one than that of its list."""
    async with serving(before(settings)) as client:
        for name, colour in PEOPLE.items():
            await enroll(client, name, photo(colour))
    return settings.model_copy(update={"model_name": "SFace", "inline_reindex_limit": 1, "review_threshold": 0.05})


async def embedded(settings: Settings, count: int) -> None:
    """Wait until so many photos are embedded for ``SFace``."""
    async with asyncio.timeout(HANGING):
        while spaces(settings).get("SFace/painted", 0) < count:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


async def test_two_processes_embed_each_photo_once(upgraded: Settings, tmp_path: Path) -> None:
    log = tmp_path / "embedded"
    backend = partial(LoggingBackend, log)
    servers = [ServerProcess(upgraded, backend=backend) for _ in range(2)]
    try:
        await asyncio.gather(*(server.started() for server in servers))
        await embedded(upgraded, len(PEOPLE))
        assert Counter(log.read_text().splitlines()).most_common(1)[0][1] == 1
        for server in servers:
            model, names = await asked(server.client, *PEOPLE.values())
            assert model == "SFace"
            assert all(name in found for name, found in zip(PEOPLE, names, strict=True))
    finally:
        for server in servers:
            await server.aclose()


async def test_an_upgrade_that_is_killed_goes_on_in_another_process(upgraded: Settings, tmp_path: Path) -> None:
    log = tmp_path / "embedded"
    async with server_process(upgraded, partial(LoggingBackend, log, 4)) as first:
        await embedded(upgraded, 4)
        async with server_process(upgraded, partial(LoggingBackend, log)) as second:
            await enroll(second.client, "Fay", photo(ORANGE))
            for server in (first, second):
                model, names = await asked(server.client, ORANGE, *PEOPLE.values())
                assert (model, names[0]) == ("Dlib", ["Fay"])
            first.kill()
            await embedded(upgraded, len(PEOPLE) + 1)
            model, names = await asked(second.client, ORANGE)
            assert (model, names) == ("SFace", [["Fay"]])
    twice = [line for line, times in Counter(log.read_text().splitlines()).items() if times > 1]
    assert len(twice) <= 1, "that of ORANGE, which was screened"
    assert rows(upgraded, "SELECT count(*) FROM changes WHERE kind = 'embedded'") == [(2 * (len(PEOPLE) + 1),)]
