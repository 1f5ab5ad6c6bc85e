"""A checkout of its own, where documented commands may do what they do: with an environment, photos and a service."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import permutations
from pathlib import Path

import cv2
import httpx
import numpy as np

from facescreen.config import Settings
from tests.documented.blocks import ROOT
from tests.painted_server import HANGING

DOCUMENTED_PORT = 8000
SHELL = ("bash", "-O", "expand_aliases", "-euo", "pipefail", "-c")

_COPIED = ("src", "bench", "samples", "Makefile", "pyproject.toml", "alembic.ini")
_SIDE = 250
"""Of a photo, in pixels."""


class Checkout:
    """A copy of what the commands need, in a folder; its ``.venv`` has the programs of this environment.

    Args:
        folder: an empty one.

    Attributes:
        port: where its service listens, instead of the documented port.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        for name in (*_COPIED, *(path.name for path in ROOT.glob("requirements*"))):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
            else:
                shutil.copy(ROOT / name, folder / name)
        (folder / "tests").symlink_to(ROOT / "tests")
        (folder / ".curlrc").write_text("fail\nsilent\nshow-error\n")  # an HTTP error is an exit status
        self._make_environment()

    def _make_environment(self) -> None:
        """As `make` would install it, which looks at the time of the stamps."""
        programs = self.folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        here = Path(sys.executable).parent
        for name in ("alembic", "facescreen", "lint-imports", "pytest", "ruff"):
            (programs / name).symlink_to(here / name)
        scripts = {
            "python": f'exec "{sys.executable}" "$@"',
            "mypy": f'exec "{here / "mypy"}" src/facescreen/errors.py',
        }
        for name, command in scripts.items():
            (programs / name).write_text(f"#!/bin/sh\n{command}\n")
            (programs / name).chmod(0o755)
        for name in ("runtime.stamp", "dev.stamp"):
            (self.folder / ".venv" / name).touch()

    def make_photos(self) -> None:
        """Photos under the names that the documentation uses: two of two people each, and one of two strangers."""
        photos = self.folder / "LFW" / "images"
        photos.mkdir(parents=True)
        lines = ["file_a,file_b,same"]
        for sample, person, stranger in (
            ("astronaut.jpg", "Eileen_Collins", "Nora_Bendijo"),
            ("grace_hopper.jpg", "Grace_Hopper", "Flor_Montulo"),
        ):
            image = cv2.imread(str(self.folder / "samples" / sample))
            assert image is not None
            small = cv2.resize(image, (_SIDE, _SIDE * image.shape[0] // image.shape[1]), interpolation=cv2.INTER_AREA)
            names = [f"{person}_0001.jpg", f"{person}_0002.jpg", f"{stranger}_0001.jpg"]
            for name, shown in zip(names, (small, cv2.flip(small, 1), small // 5 * 4), strict=True):
                cv2.imwrite(str(photos / name), np.asarray(shown))
            lines += [f"{a},{b},{int(a[:6] == b[:6])}" for a, b in permutations(names, 2)]
        (self.folder / "LFW" / "pairs.csv").write_text("\n".join(lines) + "\n")
        shutil.copy(self.folder / "LFW" / "pairs.csv", self.folder)
        shutil.copytree(photos, self.folder / "PHOTOS")
        (self.folder / "groups.csv").write_text("person,group\nEileen_Collins,a\nGrace_Hopper,b\n")

    def run(self, command: str, **environment: str) -> str:
        """Run lines of bash, as they are documented but for the port, and give what they print."""
        return self._run([*SHELL, command], environment)

    def run_python(self, text: str) -> None:
        """The same with Python."""
        self._run([sys.executable, "-c", text], {})

    def _run(self, command: Sequence[str], environment: Mapping[str, str]) -> str:
        done = subprocess.run(
            [part.replace(f":{DOCUMENTED_PORT}", f":{self.port}") for part in command],
            cwd=self.folder,
            env=self._environment() | {**environment},
            capture_output=True,
            text=True,
            timeout=HANGING * 3,
            check=False,
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def _environment(self) -> dict[str, str]:
        ours = {name.upper() for name in Settings.model_fields}
        others = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("AWS_")}
        return others | {
            "PATH": f"{self.folder / '.venv' / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            # Not its own copy, where a documented command overwrites what comes with a model.
            "PYTHONPATH": str(ROOT / "src"),
            "PORT": str(self.port),
        }

    @contextmanager
    def serving(self, command: str, **environment: str) -> Iterator[Path]:
        """A service that these lines start, until it is left; its log."""
        chosen = self._environment() | environment
        log = self.folder / f"serve-{chosen['PORT']}.log"
        with log.open("wb") as output:
            process = subprocess.Popen([*SHELL, command], cwd=self.folder, env=chosen, stdout=output, stderr=output)
            try:
                deadline = time.monotonic() + HANGING
                while not _is_ready(chosen["PORT"]):
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.1)
                yield log
            finally:
                process.terminate()
                process.wait(HANGING)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port: int = free.getsockname()[1]
        return port


def _is_ready(port: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/api/v1/ready", trust_env=False).is_success
    except httpx.TransportError:
        return False
