"""How long a report on a long list takes, with the search for near pairs beside a search for each photo.

    python -m bench.list_report LFW/images

The list is made: people as different from each other, and photos of one person as different, as in the given photos
(the part of a file's name before its number is the person), normally distributed, and some people twice.
"""

import argparse
import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from sqlalchemy import insert

from facescreen.config import Settings
from facescreen.db import schema
from facescreen.db.connection import Database
from facescreen.domain.blacklist import DEFAULT_COLLECTION, ChangeKind, Status
from facescreen.domain.distances import Metric
from facescreen.domain.faces import Vectors
from facescreen.factory import open_services
from facescreen.images.decode import decode
from facescreen.indexes.faiss import FaissIndex
from facescreen.indexes.pairs import PairSearch
from facescreen.recognition.catalog import MODELS
from facescreen.recognition.detectors import load_detector
from facescreen.recognition.embedders import load_embedder
from facescreen.recognition.weights import WeightStore

from .service import DETECTOR, MAX_PIXELS, MAX_SIDE, MODEL, default_collection, settings_in

PHOTOS_EACH = 2
TWICE = 100
"""People who are on the list a second time."""
SAMPLE = 200
"""Photos that are searched for in the index, all in one call."""
WIDE = 0.06
"""A match threshold far too wide for such a list, as somebody may set it."""


def embed(paths: Sequence[Path], home: Path) -> dict[str, list[NDArray[np.float32]]]:
    """Embeddings of the largest face of each photo, by person."""
    weights = WeightStore(home)
    detector = load_detector(DETECTOR, weights=weights, max_side=MAX_SIDE)
    embedder = load_embedder(MODEL, weights=weights)
    found = defaultdict(list)
    for path in paths:
        image = decode(path.read_bytes(), max_pixels=MAX_PIXELS)
        if faces := detector.detect(image):
            crop = embedder.align(image, max(faces, key=lambda face: face.box.area))
            found[path.name.rpartition("_")[0]].append(embedder.embed([crop])[0])
    return found


def make_people(found: Iterable[Sequence[NDArray[np.float32]]], count: int) -> Vectors:
    """So many embeddings, ``PHOTOS_EACH`` of each person one after the other; the last people are the first again."""
    groups = [np.stack(photos) for photos in found]
    within = np.concatenate([group - group.mean(axis=0) for group in groups if len(group) > 1])
    # A mean of k photos leaves (k - 1) / k of the variance.
    spread = within.T @ within / sum(len(group) - 1 for group in groups if len(group) > 1)
    everybody = np.concatenate(groups)
    random = np.random.default_rng(7)
    people = count // PHOTOS_EACH
    between = np.cov(everybody.T) - spread
    values, directions = np.linalg.eigh(between)
    root = directions * np.sqrt(np.maximum(values, 0.0))
    centres = everybody.mean(axis=0) + random.standard_normal((people, len(root))) @ root.T
    centres[-TWICE:] = centres[:TWICE]
    noise = random.multivariate_normal(np.zeros(len(root)), spread, size=people * PHOTOS_EACH)
    return (np.repeat(centres, PHOTOS_EACH, axis=0) + noise).astype(np.float32)


async def store(settings: Settings, vectors: Vectors) -> None:
    """A new database with these photos, whose files are missing."""
    database = Database(settings.database_url)
    await database.migrate()
    now = datetime.now(UTC)
    shared = {"collection_id": await default_collection(database)}
    active = {"status": Status.ACTIVE, "created_at": now, **shared}
    people = range(1, len(vectors) // PHOTOS_EACH + 1)
    face = {"x": 0, "y": 0, "w": 100, "h": 100, "landmarks": {}, "confidence": 1.0}
    quality = {"side": 100, "confidence": 1.0, "brightness": 50.0, "sharpness": 90.0, "shadows": 0.0, "highlights": 0.0}
    photo = {"sha256": "0" * 64, "width": 1, "height": 1, "detector": DETECTOR, "quality": quality, **face, **active}
    owners = {id_: (id_ - 1) // PHOTOS_EACH + 1 for id_ in range(1, len(vectors) + 1)}
    rows: list[tuple[Any, list[dict[str, Any]]]] = [
        (
            schema.entries,
            [
                {"id": n, "name": f"person {n}", "reason": "", "folder": f"person-{n}", "updated_at": now, **active}
                for n in people
            ],
        ),
        (
            schema.reference_images,
            [
                {"id": id_, "entry_id": owner, "photo": f"person-{owner}/{id_}.jpg", "image_id": str(id_), **photo}
                for id_, owner in owners.items()
            ],
        ),
        (
            schema.embeddings,
            [
                {"reference_image_id": id_, "space": MODELS[MODEL].space, "vector": vectors[id_ - 1].tobytes()} | shared
                for id_ in owners
            ],
        ),
        (
            schema.changes,
            [
                {"kind": ChangeKind.EMBEDDED, "entry_id": owner, "reference_image_id": id_, "at": now} | shared
                for id_, owner in owners.items()
            ],
        ),
    ]
    async with database.write() as connection:
        for table, values in rows:
            await connection.execute(insert(table), values)
    await database.aclose()


def pair_times(vectors: Vectors, radii: tuple[float, float]) -> tuple[float, float]:
    """Seconds for all near pairs, and for a search of each photo in an index, by those of a sample."""
    owners = np.arange(len(vectors)) // PHOTOS_EACH
    began = time.perf_counter()
    search = PairSearch(vectors, owners, metric=Metric.COSINE, radii=radii, limit=1000)
    for step in range(search.steps):
        search.step(step)
    near, wide = search.result()
    paired = time.perf_counter() - began
    print(f"  {near.total:,} pairs within {radii[0]:.4f}, {wide.total:,} more within {radii[1]:.4f}")
    index = FaissIndex(vectors.shape[1])
    index.upsert(range(len(vectors)), vectors)
    index.search(vectors[:1], Metric.COSINE, radii[1])
    began = time.perf_counter()
    index.search(vectors[:: len(vectors) // SAMPLE][:SAMPLE], Metric.COSINE, radii[1])
    searched = (time.perf_counter() - began) / SAMPLE * len(vectors)
    return paired, searched


async def report_times(settings: Settings) -> tuple[float, float]:
    """Seconds for a report and for the same again; prints what it holds."""
    async with open_services(settings) as services:
        times = []
        for _ in range(2):
            began = time.perf_counter()
            report = await services.report.report(DEFAULT_COLLECTION)
            times.append(time.perf_counter() - began)
    policy = report.policy
    print(f"  one person up to {policy.threshold:.4f}, look-alikes up to {policy.review_threshold:.4f}")
    print(f"  {', '.join(f'{code} {total:,}' for code, total in report.totals.items() if total is not None)}")
    return times[0], times[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of photos, several of some people")
    parser.add_argument("--count", type=int, default=100_000, help="embeddings in the list")
    parser.add_argument("--deepface-home", type=Path, default=Path.home())
    args = parser.parse_args()
    found = embed(sorted(args.images.iterdir()), args.deepface_home)
    measure(make_people(found.values(), args.count))


def measure(vectors: Vectors) -> None:
    """Print how long a list with these embeddings takes."""
    load = psutil.getloadavg()[0]
    print(f"{len(vectors):,} photos, {PHOTOS_EACH} of each person, load before {load:.1f}")
    for title, radii in (("a tight threshold", (0.03, 0.04)), ("a wide threshold", (WIDE, WIDE * 1.2))):
        print(title)
        paired, searched = pair_times(vectors, radii)
        print(f"  all near pairs {paired:.1f} s")
        print(f"  a search of the index for each photo {searched:.1f} s, {searched / paired:.0f} times as long")
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_in(Path(folder))
        asyncio.run(store(settings, vectors))
        print("the whole report")
        first, again = asyncio.run(report_times(settings))
    print(f"  {first:.1f} s, again {1000 * again:.1f} ms")
    print(f"peak memory {_peak_megabytes():.0f} MB, with detector and model loaded")


def _peak_megabytes() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system does not tell the peak memory of a process")


if __name__ == "__main__":
    main()
