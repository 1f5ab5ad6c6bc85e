"""What encryption at rest costs: a long list loaded, its keys rotated, and the copy of a screened image kept.

    python -m bench.encryption [--count 100000]

The list is made: embeddings of nobody, one photo each with a key of its own.
"""

import argparse
import asyncio
import io
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from PIL import Image

from facescreen.config import Settings
from facescreen.db import blacklist, seals
from facescreen.db.connection import Database
from facescreen.db.key_ring import KeyRing
from facescreen.images.folder_store import FolderStore
from facescreen.images.sealed_store import SealedStore
from facescreen.recognition.catalog import MODELS

from .service import MODEL, default_collection, make_list, settings_in

TIMES = 3
"""How often the list is loaded and its keys are rotated; the median counts."""
COPIES = 200
PORTION = 5000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="embeddings in the list")
    args = parser.parse_args()
    print(f"{args.count:,} embeddings, load before {psutil.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), args.count))


async def measure(folder: Path, count: int) -> None:
    settings = settings_in(folder / "service")
    await make_list(settings, count)
    plain = await seconds(lambda: load(settings, None, count))
    with closing(KeyRing(folder / "keys", apart_from=[])) as keys:
        database = Database(settings.database_url, keys)
        began = time.perf_counter()
        while True:
            async with database.write() as connection:
                if not await seals.seal_embeddings(connection, most=PORTION):
                    break
        print(f"all embeddings sealed in {time.perf_counter() - began:.1f} s")
        await database.aclose()
        sealed = await seconds(lambda: load(settings, keys, count))
        print(f"all embeddings read in {plain:.2f} s, sealed in {sealed:.2f} s")
        rotated = await seconds(lambda: asyncio.to_thread(keys.rotate))
        print(f"{len(keys.names()):,} keys rotated in {rotated:.1f} s")
        for title, store in (
            ("plain", FolderStore(folder / "plain")),
            ("sealed", SealedStore(FolderStore(folder / "sealed"), "processed", keys)),
        ):
            print(f"a copy written in {1000 * await put_seconds(store):.1f} ms, {title}")


async def seconds(work: Callable[[], Awaitable[object]]) -> float:
    """Median of a few runs."""
    times = []
    for _ in range(TIMES):
        began = time.perf_counter()
        await work()
        times.append(time.perf_counter() - began)
    return median(times)


async def load(settings: Settings, keys: KeyRing | None, count: int) -> None:
    """Read every embedding, as a start does."""
    database = Database(settings.database_url, keys)
    collection = await default_collection(database)
    async with database.read() as connection:
        ids, vectors = await blacklist.vectors(connection, collection, MODELS[MODEL].space)
    await database.aclose()
    if len(ids) != len(vectors) or len(ids) != count:
        raise RuntimeError("the list is not whole")


async def put_seconds(store: FolderStore | SealedStore) -> float:
    """Median of writing a copy as large as that of a small photo."""
    picture = np.random.default_rng(5).integers(0, 255, (300, 300, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG")
    times = []
    for number in range(COPIES):
        began = time.perf_counter()
        await store.put(f"2026-11-20/{number}.jpg", buffer.getvalue())
        times.append(time.perf_counter() - began)
    return median(times)


if __name__ == "__main__":
    main()
