"""A real service in a scratch folder: its list, its process and its clients."""

import asyncio
import base64
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import httpx
import numpy as np
import psutil
from sqlalchemy import Table, insert

from facescreen.config import DetectorName, ModelName, Settings
from facescreen.db import collections, schema
from facescreen.db.connection import Database
from facescreen.domain.blacklist import DEFAULT_COLLECTION, ChangeKind, Status
from facescreen.domain.distances import Metric
from facescreen.domain.faces import Vectors
from facescreen.recognition.catalog import MODELS, default_threshold

DETECTOR: DetectorName = Settings.model_fields["detector_backend"].default
MODEL: ModelName = Settings.model_fields["model_name"].default
METRIC = Metric.COSINE
THRESHOLD = default_threshold(MODEL, METRIC) or 0.0
MAX_SIDE: int | None = Settings.model_fields["detector_max_side"].default
MAX_PIXELS: int = Settings.model_fields["max_image_pixels"].default

JSON = {"Content-Type": "application/json"}

_START_SECONDS = 300
_PHOTOS_PER_PERSON = 100


def random_embeddings(count: int) -> Vectors:
    """Embeddings (count, dimension) of nobody, always the same."""
    return np.random.default_rng(7).standard_normal((count, MODELS[MODEL].dimension)).astype(np.float32)


def settings_in(folder: Path, **others: int) -> Settings:
    """Settings whose data are all in the folder."""
    values: dict[str, Any] = {
        "detector_backend": DETECTOR,
        "model_name": MODEL,
        "distance_metric": METRIC,
        "blacklist_db_path": folder / "blacklist_db",
        "processed_images_output_dir": folder / "processed",
        "database_url": f"sqlite+aiosqlite:///{folder / 'facescreen.db'}",
        "log_level": "warning",
    }
    return Settings(_env_file=None, **values | others)


async def default_collection(database: Database) -> int:
    """Id of the collection that is screened."""
    async with database.read() as connection:
        found = await collections.get_collection(connection, DEFAULT_COLLECTION)
    assert found is not None
    return found.id


async def make_list(settings: Settings, count: int) -> None:
    """A new database with so many references, all of nobody, each with an empty file."""
    database = Database(settings.database_url)
    await database.migrate()
    shared = {"collection_id": await default_collection(database)}
    people = range(1, -(-count // _PHOTOS_PER_PERSON) + 1)
    photos = {id_: (id_ - 1) // _PHOTOS_PER_PERSON + 1 for id_ in range(1, count + 1)}
    folders = {person: settings.blacklist_db_path / f"nobody-{person}" for person in people}
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / ".empty").touch()
    for id_, person in photos.items():
        # A hundred thousand files of their own would take a minute on some disks.
        (folders[person] / f"{id_}.jpg").hardlink_to(folders[person] / ".empty")
    now = datetime.now(UTC)  # after the files: the service looks again into those that were touched later
    face = {"x": 0, "y": 0, "w": 1, "h": 1, "landmarks": {}, "confidence": 1.0}
    active = {"status": Status.ACTIVE, "created_at": now, **shared}
    photo = {"width": 1, "height": 1, "detector": DETECTOR, **face, **active}
    entry = {"name": "nobody", "reason": "", "updated_at": now, **active}
    vectors = random_embeddings(count).astype("<f4")
    space = MODELS[MODEL].space
    rows: dict[Table, list[dict[str, Any]]] = {
        schema.entries: [
            {"id": person, "folder": f"nobody-{person}", "user_id": f"fs-{person}", **entry} for person in people
        ],
        schema.reference_images: [
            {
                "id": id_,
                "entry_id": person,
                "photo": f"nobody-{person}/{id_}.jpg",
                "watched": f"nobody-{person}/{id_}.jpg",
                "face_id": str(UUID(int=id_)),
                "image_id": str(UUID(int=id_)),
                "sha256": str(id_),
                **photo,
            }
            for id_, person in photos.items()
        ],
        schema.embeddings: [
            {"reference_image_id": id_, "space": space, "vector": vector.tobytes(), **shared}
            for id_, vector in zip(photos, vectors, strict=True)
        ],
        schema.changes: [
            {"kind": ChangeKind.EMBEDDED, "entry_id": person, "reference_image_id": id_, "at": now, **shared}
            for id_, person in photos.items()
        ],
    }
    async with database.write() as connection:
        for table, values in rows.items():
            if values:
                await connection.execute(insert(table), values)
    await database.aclose()


def request(data: bytes, **options: object) -> bytes:
    """Body of a request that screens one picture."""
    return json.dumps({"images": [base64.b64encode(data).decode()], **options}).encode()


class PeakMemory:
    """Largest resident memory of a process, looked at fifty times a second."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.megabytes = 0.0

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            try:
                resident = self._process.memory_info().rss
            except psutil.NoSuchProcess:
                return
            self.megabytes = max(self.megabytes, resident / 1e6)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


@dataclass
class Service:
    """A serving process that answers, and how long it took until it did."""

    process: psutil.Popen
    client: httpx.Client
    start_seconds: float
    memory: PeakMemory

    def screen(self, body: bytes, client: httpx.Client | None = None) -> dict[str, Any]:
        """The result for the one picture of the request."""
        response = (client or self.client).post("/process/process-images", content=body, headers=JSON)
        response.raise_for_status()
        (result,) = response.json()
        assert result["error"] is None, result["error"]
        return dict(result)

    def enroll(self, name: str, photo: bytes, client: httpx.Client | None = None) -> int:
        """Id of a new entry."""
        response = (client or self.client).post("/blacklist/", data={"name": name}, files={"images": photo})
        response.raise_for_status()
        return int(response.json()["id"])

    def delete(self, entry_id: int, client: httpx.Client) -> None:
        client.delete(f"/blacklist/{entry_id}/").raise_for_status()

    @contextmanager
    def client_per_worker(self, workers: int) -> Iterator[list[httpx.Client]]:
        """For each worker a client whose connection that worker has just accepted, always in the same order."""
        with ExitStack() as stack:
            found: dict[int, httpx.Client] = {}
            deadline = time.monotonic() + _START_SECONDS
            while len(found) < workers:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{len(found)} of {workers} workers accept connections")
                client = stack.enter_context(_client(self.client.base_url))
                found.setdefault(self._accepted_by(client), client)
            yield [found[worker] for worker in sorted(found)]

    def _accepted_by(self, client: httpx.Client) -> int:
        with client.stream("GET", "/") as response:
            _, port = response.extensions["network_stream"].get_extra_info("client_addr")
            for process in self.process.children(recursive=True):
                if any(getattr(other.raddr, "port", None) == port for other in process.net_connections("tcp")):
                    return int(process.pid)
        raise RuntimeError("no worker has this connection")


@contextmanager
def serving(folder: Path, *, references: int, workers: int = 1, is_patient: bool = True) -> Iterator[Service]:
    """``facescreen serve`` on a new list of so many references.

    Args:
        is_patient: whether many may ask at once and wait, instead of being refused.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    queue = {"max_queued_requests": 1000} if is_patient else {}
    settings = settings_in(folder, port=port, workers=workers, **queue)
    asyncio.run(make_list(settings, references))
    environment = {name.upper(): str(getattr(settings, name)) for name in settings.model_fields_set}
    command = [sys.executable, "-m", "facescreen", "serve"]
    log = folder / "serve.log"
    with log.open("wb") as output, _client(f"http://127.0.0.1:{port}/api/v1") as client:
        began = time.perf_counter()
        process = psutil.Popen(command, cwd=folder, env=os.environ | environment, stdout=output, stderr=output)
        try:
            with PeakMemory(process.pid) as memory:
                while not _answers(client):
                    if process.poll() is not None or time.perf_counter() - began > _START_SECONDS:
                        raise RuntimeError(f"facescreen serve does not answer:\n{log.read_text()}")
                    time.sleep(0.05)
                yield Service(process, client, time.perf_counter() - began, memory)
        finally:
            process.terminate()
            process.wait(_START_SECONDS)


def _client(address: str | httpx.URL) -> httpx.Client:
    return httpx.Client(base_url=address, timeout=60, trust_env=False)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/").is_success
    except httpx.TransportError:
        return False
