"""Where the time of a request goes and what a long list adds to a search: the service's parts, timed in one process."""

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

import httpx
import numpy as np

from facescreen.backends.local import LocalBackend
from facescreen.config import Settings
from facescreen.db import files, screenings
from facescreen.db.connection import Database
from facescreen.db.files import FileName, StoreName
from facescreen.domain.trail import Action
from facescreen.factory import Services
from facescreen.images.decode import decode, encode_jpeg
from facescreen.images.folder_store import FolderStore
from facescreen.main import create_app
from facescreen.pool import WorkPool
from facescreen.recognition.weights import WeightStore
from facescreen.services.files import StoredFiles
from facescreen.services.presence import Presence
from facescreen.services.quality import assess
from facescreen.services.replica import ListReplica
from facescreen.services.trail import record

from .service import (
    DETECTOR,
    JSON,
    MAX_PIXELS,
    MAX_SIDE,
    METRIC,
    MODEL,
    THRESHOLD,
    default_collection,
    make_list,
    random_embeddings,
    request,
    settings_in,
)


class _Stopwatch:
    def __init__(self) -> None:
        self.milliseconds: defaultdict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.milliseconds[step].append((time.perf_counter() - began) * 1000)


def request_steps(photos: Sequence[Path], references: int, *, passes: int, folder: Path) -> dict[str, float]:
    """Milliseconds of a whole request, and of each of its steps: mean over photos of the median over passes.

    The request goes to the application without a socket. The steps are timed one after the other; in the request, the
    copy is encoded while faces are found.
    """
    return asyncio.run(_request_steps(photos, references, passes=passes, folder=folder))


async def _request_steps(photos: Sequence[Path], references: int, *, passes: int, folder: Path) -> dict[str, float]:
    settings = settings_in(folder)
    await make_list(settings, references)
    app = create_app(settings)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1"))
        services: Services = app.state.services
        steps = _Steps(services, settings, client=client, collection_id=await default_collection(services.database))
        await steps.screen(photos[0].read_bytes(), _Stopwatch())
        medians: defaultdict[str, list[float]] = defaultdict(list)
        for path in photos:
            watch = _Stopwatch()
            for _ in range(passes):
                await steps.screen(path.read_bytes(), watch)
            for step, milliseconds in watch.milliseconds.items():
                medians[step].append(median(milliseconds))
    return {step: fmean(values) for step, values in medians.items()}


class _Steps:
    def __init__(
        self, services: Services, settings: Settings, *, client: httpx.AsyncClient, collection_id: int
    ) -> None:
        assert isinstance(services.backend, LocalBackend)
        self._services = services
        self._backend = services.backend
        self._client = client
        self._collection_id = collection_id
        self._replica = ListReplica(services.database, self._backend)
        stores = {StoreName.PROCESSED: FolderStore(settings.processed_images_output_dir)}
        self._stored = StoredFiles(services.database, stores, Presence(services.database.path))

    async def screen(self, data: bytes, watch: _Stopwatch) -> None:
        """One photo: a request, and then what a request consists of."""
        body = request(data)
        with watch("request"):
            response = await self._client.post("/api/v1/process/process-images", content=body, headers=JSON)
        result = await self._services.screening.get(response.raise_for_status().json()[0]["id"])
        backend = self._backend
        with watch("decode"):
            image = decode(data, max_pixels=MAX_PIXELS)
        with watch("detect"):
            faces = await backend.detect(image, DETECTOR)
        with watch("align"):
            probe = await backend.prepare(image, faces, MODEL)
        with watch("quality"):
            for face in faces:
                assess(image, face)
        with watch("embed"):
            vectors = await backend.embed([probe], MODEL)
        with watch("encode copy"):
            copy = encode_jpeg(image)
        with watch("search"):
            await self._replica.search(
                self._collection_id, vectors, MODEL, metric=METRIC, radius=lambda _size: THRESHOLD
            )
        result = replace(result, copy=f"bench/{secrets.token_hex(16)}.jpg")
        contents = {FileName(StoreName.PROCESSED, str(result.copy)): copy}
        with watch("save copy, database"):
            async with self._stored.writing(contents), self._services.database.write() as connection:
                await screenings.insert_screening(connection, result)
                await files.settle(connection, contents)
                with watch("record in the audit trail"):
                    await record(connection, Action.SCREENING, result_ids=[result.id])


def search_times(folders: Sequence[Path], *, searches: int) -> list[float]:
    """For the list in each folder, median milliseconds of a look for changes and a search for one face."""
    return asyncio.run(_search_times(folders, searches=searches))


async def _search_times(folders: Sequence[Path], *, searches: int) -> list[float]:
    async with AsyncExitStack() as stack:
        pool = WorkPool(threads=2)
        stack.callback(pool.close)
        replicas = []
        for folder in folders:
            database = Database(settings_in(folder).database_url)
            stack.push_async_callback(database.aclose)
            weights = WeightStore(Path.home())
            backend = LocalBackend(
                detector=DETECTOR, model=MODEL, detector_max_side=MAX_SIDE, weights=weights, pool=pool
            )
            replicas.append((await default_collection(database), ListReplica(database, backend)))
        faces = random_embeddings(searches + 1)[:, ::-1].astype(np.float32)
        times: list[list[float]] = [[] for _ in folders]
        for face in faces:
            for (collection_id, replica), milliseconds in zip(replicas, times, strict=True):
                began = time.perf_counter()
                await replica.search(collection_id, face[None], MODEL, metric=METRIC, radius=lambda _size: THRESHOLD)
                milliseconds.append((time.perf_counter() - began) * 1000)
        # The first search loads the list.
        return [median(milliseconds[1:]) for milliseconds in times]
