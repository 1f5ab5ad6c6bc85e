"""The command, as a user of the shell sees it: a real process, the real model on the photos in samples/."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

SAMPLES = Path(__file__).parents[2] / "samples"


def evaluate(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "facescreen", "evaluate", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a folder of photos: two of the astronaut and one of the admiral."""
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(SAMPLES / "astronaut.jpg", photos / "astronaut_1.jpg")
    image = cv2.imread(str(SAMPLES / "astronaut.jpg"))
    assert image is not None
    cv2.imwrite(str(photos / "astronaut_2.png"), cv2.flip(cv2.convertScaleAbs(image, alpha=0.8), 1))
    shutil.copy(SAMPLES / "grace_hopper.jpg", photos / "admiral_1.jpg")
    return tmp_path


def test_a_report_is_written_and_the_embeddings_are_kept(folder: Path) -> None:
    done = evaluate(folder, "photos", "--output", "out", "--cache", "kept")
    assert done.returncode == 0, done.stderr
    summary, where = done.stdout.splitlines()
    assert summary.startswith("centerface + SFace: ")
    assert "rank-1 100.0%" in summary
    assert where == "report: out/report.html"
    report = json.loads((folder / "out" / "report.json").read_text())
    assert (report["title"], report["photos"], report["people"], report["metric"]) == ("photos", 3, 2, "cosine")
    assert "centerface + SFace" in (folder / "out" / "report.html").read_text()
    assert len(list((folder / "kept").rglob("*.json"))) == 3
    for path in (folder / "out", folder / "kept", *(folder / "out").iterdir()):
        assert path.stat().st_mode & 0o077 == 0

    again = evaluate(folder, "photos", "--output", "out", "--cache", "kept", "--metric", "angular")
    assert again.returncode == 0, again.stderr
    assert json.loads((folder / "out" / "report.json").read_text())["metric"] == "angular"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["empty"], "facescreen: the folder must hold photos of two or more people"),
        (["photos", "--pairs", "pairs.csv"], "facescreen: pairs.csv, line 2: there is no photo 'nobody_1.jpg'"),
        (
            ["photos", "--groups", "pairs.csv"],
            "facescreen: pairs.csv: the first line must name the columns person, group",
        ),
        (["photos", "--model", "ArcFace", "--no-cache"], "facescreen: "),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "empty").mkdir()
    (folder / "pairs.csv").write_text("file_a,file_b,same\nnobody_1.jpg,astronaut_1.jpg,0\n")
    done = evaluate(folder, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(message)
    assert "Traceback" not in done.stderr
    assert not (folder / "evaluation").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "None"], "'None' is none of SFace, "),
        (["--metric", "similarity"], "is none of cosine, euclidean, "),
    ],
)
def test_names_are_checked_before_anything_is_loaded(folder: Path, arguments: list[str], message: str) -> None:
    done = evaluate(folder, "photos", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
