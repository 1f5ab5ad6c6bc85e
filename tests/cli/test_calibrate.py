"""``facescreen calibrate`` as a user of the shell sees it: the real model on the photos in samples/."""

import json
import shutil
from pathlib import Path

import pytest

from facescreen.domain.distances import Metric
from facescreen.domain.false_alerts import FalseAlertCurve
from facescreen.recognition.catalog import MODELS, default_threshold
from tests.cli.test_cli import SAMPLES, facescreen

ONE = ("--one-in", "1", "--review-one-in", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with one person on the list and one photo of somebody else."""
    made = tmp_path_factory.mktemp("calibrate")
    person, strangers = made / "blacklist_db" / "person_A", made / "strangers"
    for photo, where in (("astronaut.jpg", person), ("grace_hopper.jpg", strangers)):
        where.mkdir(parents=True)
        shutil.copy(SAMPLES / photo, where)
    assert facescreen(made, "migrate").returncode == 0
    assert facescreen(made, "sync").returncode == 0
    return made


def test_thresholds_are_printed_and_hold_from_then_on(folder: Path) -> None:
    done = facescreen(folder, "calibrate", "strangers", *ONE, "--source", "the front door", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert "the front door: 1 faces searched among 1 reference photos" in done.stdout
    # The budget would let everybody alert, but two photos so far apart are not of one person.
    assert f"match: 0 of 1 faces alert at cosine {default_threshold('SFace', Metric.COSINE):.4f}" in done.stdout
    assert "95 % interval 0.00% to 97.50%" in done.stdout
    assert "1 faces are few for one in 1; take 3 or more" in done.stdout
    nearest = next(line for line in done.stdout.splitlines() if "grace_hopper.jpg" in line)
    assert "person_A" in nearest
    assert "if one of these is really that person" in done.stdout
    screened = json.loads(facescreen(folder, "screen", "strangers", "--json").stdout)
    assert screened[0]["calibration"]["source"].startswith("the front door")
    assert screened[0]["faces"][0]["verdict"] == "clear"


def test_too_few_faces_stop_with_one_line(folder: Path) -> None:
    done = facescreen(folder, "calibrate", "strangers", "--one-in", "50", "--review-one-in", "5")
    assert done.returncode == 2
    assert "needs at least 50 faces, and 1 are usable" in done.stderr.splitlines()[-1]


def test_what_comes_with_a_model_is_made_without_a_list_or_a_database(tmp_path: Path) -> None:
    for person, photo in (("ada", "astronaut.jpg"), ("bob", "grace_hopper.jpg")):
        (tmp_path / "known" / person).mkdir(parents=True)
        shutil.copy(SAMPLES / photo, tmp_path / "known" / person)
    done = facescreen(
        tmp_path, "calibrate", "known", "--against-each-other", "--output", "made.json", "--source", "two people"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "made.json").read_text())
    assert document["source"] == done.stdout.strip()
    assert document["source"].startswith("two people: 2 faces of 2 people")
    assert (document["detector"], document["space"]) == ("centerface", MODELS["SFace"].space)
    assert [FalseAlertCurve.from_document(curve).faces for curve in document["curves"]] == [2, 2]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--against-each-other"],
        ["--output", "made.json"],
        ["--one-in", "0"],
        ["--detector", "eyes"],
        ["--source", "x" * 401],
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "photos").mkdir()
    done = facescreen(tmp_path, "calibrate", "photos", *options)
    assert done.returncode == 2
    assert not (tmp_path / "made.json").exists()
    assert "Usage" in done.stderr
