"""Kill -9 while a backup is made or restored: a whole one or none, the old data or the new, never a mixture."""

import asyncio
import multiprocessing
import os
import secrets
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from facescreen.config import Settings
from facescreen.factory import open_backup, restoration
from tests.api.test_blacklist import enroll
from tests.at_rest import check_disk, is_readable
from tests.conftest import serving
from tests.crash.mortal import Mortal
from tests.painted import GREEN, photo
from tests.services.test_backup import archive, elsewhere, screen

__all__ = ["archive"]

STRIDE = 1 if int(os.environ.get("CRASH_ROUNDS", "8")) >= 100 else 9
SEED = int(os.environ.get("CRASH_SEED") or secrets.randbits(32))

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


async def _restore(settings: Settings, archive: Path) -> None:
    await restoration(settings).restore(archive, replace=True)


async def _back_up(settings: Settings, archive: Path) -> None:
    async with open_backup(settings) as service:
        await service.back_up(archive)


async def _settle(settings: Settings, archive: Path) -> None:
    await restoration(settings).settle()


Work = Callable[[Settings, Path], Coroutine[Any, Any, None]]


def _run(work: Work, settings: Settings, archive: Path, steps: int) -> None:
    Mortal(_nothing, steps)
    asyncio.run(work(settings, archive))


async def _nothing(*_: object) -> None:
    """No application."""


def dies(work: Work, settings: Settings, archive: Path, *, steps: int) -> bool:
    """Whether it was killed at this step, which it was not if it has fewer."""
    process = _processes.Process(target=_run, args=(work, settings, archive, steps), daemon=True)
    process.start()
    process.join()
    assert process.exitcode in {0, -9}
    return process.exitcode == -9


async def test_killed_while_it_is_made(settings: Settings, archive: Path, tmp_path: Path) -> None:
    print(f"CRASH_SEED={SEED}")  # noqa: T201 - pytest shows it where the test fails
    place, steps = tmp_path / "backups", SEED % STRIDE
    place.mkdir()
    made = place / "made.tar"
    while dies(_back_up, settings, made, steps=steps):
        if made.exists():
            restored = elsewhere(settings, tmp_path / f"restored-{steps}")
            await restoration(restored).restore(made, replace=False)
            assert check_disk(restored) == check_disk(settings)
            made.unlink()
        steps += STRIDE
    # The next one takes away what those left.
    assert [path.name for path in place.iterdir()] == ["made.tar"]
    check_disk(settings)


async def test_killed_while_it_is_restored(settings: Settings, archive: Path, tmp_path: Path) -> None:
    print(f"CRASH_SEED={SEED}")  # noqa: T201 - pytest shows it where the test fails
    before = elsewhere(settings, tmp_path / "before")
    await restoration(before).restore(archive, replace=False)
    async with serving(before) as client:
        for record in (await client.get("/blacklist/")).json():
            await client.delete(f"/blacklist/{record['id']}/")
        await enroll(client, "Mallory", photo(GREEN))
        await screen(client, GREEN, GREEN)
    old, new = check_disk(before), check_disk(settings)
    steps, seen = SEED % STRIDE, []
    while True:
        place = elsewhere(settings, tmp_path / f"place-{steps}")
        shutil.copytree(tmp_path / "before", tmp_path / f"place-{steps}")
        killed = dies(_restore, place, archive, steps=steps)
        # And while the next start goes on with it.
        for again in range(steps % 4):
            dies(_settle, place, archive, steps=again)
        async with serving(place) as client:
            names = {record["name"] for record in (await client.get("/blacklist/")).json()}
        found = check_disk(place)
        assert (names, found) in (({"Mallory"}, old), ({"Ada", "Eve"}, new)), steps
        assert is_readable(place, GREEN) == (found == old)
        assert not [path.name for path in restoration(place).database.parent.iterdir() if "-restor" in path.name]
        seen.append(found == new)
        shutil.rmtree(tmp_path / f"place-{steps}")
        steps += STRIDE
        if not killed:
            break
    assert seen == sorted(seen)
    assert seen[-1]
    assert not seen[0]
