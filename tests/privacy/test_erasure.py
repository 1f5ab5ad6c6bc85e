"""Whoever is deleted, in whichever way, is in no file of the service any more: no slice of an embedding, no name."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest

from facescreen.backends.base import EmbeddingSpace, Probe
from facescreen.config import ModelName, Settings
from facescreen.db.connection import Database
from facescreen.domain.blacklist import DEFAULT_COLLECTION
from facescreen.domain.faces import Vectors
from facescreen.factory import open_services
from facescreen.indexes.exact import ExactIndex
from facescreen.services.calibration import CalibrationOptions
from tests.api.test_blacklist import enroll, upload
from tests.api.test_clearing import clear, screen, undo
from tests.api.test_expiry import expire
from tests.api.test_process import process
from tests.api.test_sync import drop, sync
from tests.at_rest import check_disk
from tests.painted import Colour, PaintedBackend, photo
from tests.painted_server import server_process
from tests.services.test_calibration import strangers, write
from tests.services.test_retention import age, eventually

NAME = "Quillonia Vextrop"
DIMENSION = 128
SLICE = 16
"""Bytes: four values of an embedding."""


class WideBackend(PaintedBackend):
    """Sees the same colours in embeddings that are as long as real ones; they are as far apart as before."""

    _DIRECTIONS = np.linalg.qr(np.random.default_rng(7).normal(size=(DIMENSION, 3)))[0].T

    async def embed(self, probes: Sequence[Probe], model: ModelName) -> Vectors:
        colours = await super().embed(probes, "SFace")
        vectors: Vectors = (colours @ self._DIRECTIONS).astype(np.float32)
        return vectors

    def space(self, model: ModelName) -> EmbeddingSpace:
        return EmbeddingSpace(f"{model}/wide")

    def _index(self, collection_id: int, model: ModelName) -> ExactIndex:
        return self._indexes.setdefault((collection_id, model), ExactIndex(DIMENSION))


def traces(settings: Settings, colours: Sequence[Colour]) -> set[str]:
    """What of faces of these colours and of the name is in any file, and where."""
    slices: dict[bytes, Colour] = {}
    for colour in colours:
        vector = ((np.array(colour) / 255 - 0.5).astype(np.float32) @ WideBackend._DIRECTIONS).astype("<f4").tobytes()
        slices |= {vector[at : at + SLICE]: colour for at in range(0, len(vector) - SLICE + 1, 4)}
    names = [spelled.encode() for spelled in (NAME.lower(), NAME.lower().replace(" ", "-"), NAME.lower().split()[0])]
    found = set()
    data = Database(settings.database_url).path.parent
    for folder in (data, settings.blacklist_db_path, settings.processed_images_output_dir):
        for path in folder.rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            found |= {f"{colour} in {path.name}" for part, colour in slices.items() if part in content}
            if any(name in content.lower() + str(path.relative_to(folder)).lower().encode() for name in names):
                found.add(f"the name in {path.name}")
    return found


async def readable(settings: Settings, colours: Sequence[Colour], *, in_files: int = 1) -> None:
    """Wait until it can be read; a sweep may move it from one file to another meanwhile."""

    async def is_readable() -> bool:
        return len(traces(settings, colours)) >= in_files

    await eventually(is_readable)


async def erased(settings: Settings, colours: Sequence[Colour]) -> None:
    """Wait until a sweep is over: it empties the log in the end."""

    async def is_erased() -> bool:
        return not traces(settings, colours)

    await eventually(is_erased)


@pytest.fixture
async def clients(settings: Settings) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Clients of two processes that sweep all the time."""
    often = settings.model_copy(update={"retention_sweep_seconds": 0.1})
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(server_process(often, backend=WideBackend)) for _ in range(2)]
        yield [server.client for server in servers]


async def delete_entry(one: httpx.AsyncClient, other: httpx.AsyncClient, settings: Settings) -> list[Colour]:
    face, brother = (230, 20, 20), (230, 60, 20)
    ada = await enroll(one, NAME, photo(face), reason=f"{NAME} was rude")
    await clear(other, await screen(other, brother), ada, note=f"not {NAME}")
    assert (await one.get("/blacklist/report")).status_code == 200
    await readable(settings, [face], in_files=2)
    await readable(settings, [brother])
    assert (await other.delete(f"/blacklist/{ada['id']}/")).status_code == 200
    return [face, brother]


async def delete_photo(one: httpx.AsyncClient, other: httpx.AsyncClient, settings: Settings) -> list[Colour]:
    face = (20, 200, 20)
    eva = await enroll(one, "Eva", photo((20, 20, 230)))
    added = await other.post(f"/blacklist/{eva['id']}/images", files=upload(photo(face)))
    assert added.status_code == 200
    await screen(one, face)
    (image,) = {i["id"] for i in (await one.get(f"/blacklist/{eva['id']}/")).json()["images"]} - {
        i["id"] for i in eva["images"]
    }
    assert (await one.delete(f"/blacklist/{eva['id']}/images/{image}")).status_code == 200
    return [face]


async def delete_collection(one: httpx.AsyncClient, other: httpx.AsyncClient, settings: Settings) -> list[Colour]:
    face, within = (230, 230, 20), {"collection": "guests"}
    await one.post("/collections/", json={"name": "guests"})
    body = {"name": NAME}
    created = await other.post("/blacklist/", data=body, files=upload(photo(face)), params=within)
    assert created.status_code == 201
    await screen(other, face, **within)
    assert (await one.delete("/collections/guests/")).status_code == 204
    return [face]


async def end_clearances(one: httpx.AsyncClient, other: httpx.AsyncClient, settings: Settings) -> list[Colour]:
    face, brother, cousin = (20, 200, 230), (20, 160, 230), (20, 180, 230)
    bea = await enroll(one, "Bea", photo(face))
    first, second = await screen(one, brother), await screen(one, cousin)
    await clear(one, first, bea, note=NAME)
    await clear(other, second, bea, note=NAME)
    await readable(settings, [brother])
    await readable(settings, [cousin])
    assert (await other.delete(f"/processed-images/{first['id']}")).status_code == 204
    assert (await undo(one, second, bea)).status_code == 200
    return [brother, cousin]


async def let_results_grow_old(one: httpx.AsyncClient, other: httpx.AsyncClient, settings: Settings) -> list[Colour]:
    (settings.image_input_roots[0] / f"{NAME}.png").write_bytes(photo((120, 20, 20)))
    (result,) = await process(one, f"{NAME}.png")
    await readable(settings, [])
    await age(settings, [result["id"]], 31)

    await erased(settings, [])
    assert (await other.get(f"/processed-images/{result['id']}")).status_code == 404
    return []


async def let_an_entry_expire(one: httpx.AsyncClient, other: httpx.AsyncClient, settings: Settings) -> list[Colour]:
    face = (200, 20, 200)
    drop(settings, f"{NAME}/a.png", photo(face))
    await sync(one)
    (record,) = (await one.get("/blacklist/", params={"q": NAME})).json()
    await screen(other, face)
    await readable(settings, [face])
    await expire(settings, record)

    await erased(settings, [face])
    assert (await sync(other))["added"] == []
    return [face]


WAYS: list[Callable[[httpx.AsyncClient, httpx.AsyncClient, Settings], Awaitable[list[Colour]]]] = [
    delete_entry,
    delete_photo,
    delete_collection,
    end_clearances,
    let_results_grow_old,
    let_an_entry_expire,
]


async def test_what_is_deleted_is_readable_in_no_file(
    clients: list[httpx.AsyncClient], settings: Settings, tmp_path: Path
) -> None:
    one, other = clients
    gone: list[Colour] = []
    for delete in WAYS:
        gone += await delete(one, other, settings)
        assert traces(settings, gone) == set(), delete.__name__
        # The other way round next time.
        one, other = other, one
    faces = strangers(10)
    ten = CalibrationOptions(one_in=10, review_one_in=2)
    async with open_services(settings, WideBackend()) as services:
        assert services.calibration is not None
        folder = write(tmp_path / "strangers", faces)
        await services.calibration.calibrate(folder, ten, collection=DEFAULT_COLLECTION, source="strangers")
    assert traces(settings, [*gone, *faces]) == set()
    check_disk(settings)
