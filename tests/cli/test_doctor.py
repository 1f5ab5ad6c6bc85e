"""``facescreen doctor`` as a user of the shell sees it: the real model on the photos in samples/."""

import json
import shutil
from pathlib import Path
from subprocess import CompletedProcess

from tests.cli.test_cli import SAMPLES, facescreen, folder

__all__ = ["folder"]


def doctor(folder: Path, *arguments: str, **environment: str) -> CompletedProcess[str]:
    return facescreen(folder, "doctor", *arguments, MATCH_THRESHOLD="0.06", **environment)


def test_a_list_is_healthy_until_somebody_is_on_it_twice(folder: Path) -> None:
    assert facescreen(folder, "sync").returncode == 0
    healthy = doctor(folder, "--json")
    assert healthy.returncode == 0, healthy.stderr
    (report,) = json.loads(healthy.stdout)
    assert (report["collection"], report["reference_images"]) == ("default", 1)
    assert report["totals"]["duplicate_entries"] == 0

    again = folder / "blacklist_db" / "person_B"
    again.mkdir()
    shutil.copy(SAMPLES / "astronaut.jpg", again / "b.jpg")
    assert facescreen(folder, "sync").returncode == 0
    table = doctor(folder, "--collection", "default", COLUMNS="200")
    assert table.returncode == 1, table.stderr
    assert "2 entries, 2 photos" in table.stdout
    assert "duplicate_entries: 1" in table.stdout
    assert "person_A and person_B look like one person" in " ".join(table.stdout.split())

    unknown = doctor(folder, "--collection", "nobody")
    assert unknown.returncode == 2
    assert unknown.stderr.splitlines()[-1] == "facescreen: there is no collection of this name"
