import bz2
import hashlib
import os
import shutil
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
        WeightsMissingError, match=r"^face_recognition_sface.*: facescreen weights pull SFace$"
    ) as caught:
        store.require(MODELS["SFace"])
    assert str(tmp_path) not in str(caught.value)


def test_a_missing_package_is_named_as_pip_knows_it(store: WeightStore) -> None:
    with pytest.raises(PackageMissingError, match=r"pip install facenet-pytorch$"):
        store.require(DETECTORS["fastmtcnn"])


def test_the_default_needs_no_download(store: WeightStore) -> None:
    for spec in (DETECTORS["mtcnn"], MODELS["Dlib"]):
        assert store.missing(spec) is None
        assert all(path.is_file() for path in store.require(spec))
    assert "face_recognition_models" not in sys.modules


@pytest.mark.parametrize("spec", [DETECTORS["mtcnn"], MODELS["Dlib"]], ids=lambda spec: spec.name)
def test_one_flipped_bit_in_any_default_file_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: WeightStore, spec: DetectorSpec | ModelSpec
) -> None:
    package = tmp_path / "copied_weights"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    files = tuple(replace(file, module=package.name, path=file.name) for file in spec.files)
    copied = replace(spec, files=files)
    assert files
    for file, original in zip(files, store.require(spec), strict=True):
        shutil.copyfile(original, package / file.name)
    assert store.missing(copied) is None
    for file in files:
        flip_a_bit(package / file.name)
        with pytest.raises(WeightsMissingError) as caught:
            store.require(copied)
        assert str(caught.value) == f"{file.name} has not the expected checksum: facescreen weights pull {spec.name}"
        flip_a_bit(package / file.name)


def flip_a_bit(path: Path) -> None:
    """Of the byte in the middle."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))


EVERY: tuple[DetectorSpec | ModelSpec, ...] = (*DETECTORS.values(), *MODELS.values())
DOWNLOADING = [
    spec
    for spec in EVERY
    # The first two download nothing; the packages of the others are not installed for the tests.
    if spec.name not in {"mtcnn", "opencv", "mediapipe", "fastmtcnn", "Buffalo_L"} and not spec.name.startswith("yolo")
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
        client = get_model_class(task, spec.name)()
        if spec.name == "centerface":
            client.build_model()
    published = {file.name: file.urls for file in spec.files}
    assert asked
    assert all(published[name] == urls for name, urls in asked.items())


def test_the_catalogue_has_deepfaces_yolo_files() -> None:
    published = {
        (spec.files[0].name, spec.files[0].urls[0]) for name, spec in DETECTORS.items() if name.startswith("yolo")
    }
    assert published == {(model.file_name, model.url) for model in YoloModel}


@pytest.mark.parametrize("name", ["yunet", "retinaface", "ssd", "SFace", "ArcFace", "Facenet512", "DeepID"])
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
