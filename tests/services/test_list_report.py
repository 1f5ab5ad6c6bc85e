"""Reports agree with comparing everything with everything."""

from collections import defaultdict
from itertools import combinations

import httpx
import numpy as np
import pytest

from facescreen.config import Settings
from facescreen.db import blacklist, calibrations
from facescreen.db.blacklist import Embedded, NewEntry, NewImage
from facescreen.domain.blacklist import DEFAULT_COLLECTION, Status
from facescreen.domain.distances import EMBEDDING_METRICS, EmbeddingMetric, Metric, distances
from facescreen.domain.faces import Box, Face, Landmarks, Vector
from facescreen.domain.false_alerts import AlertBudget, Calibration, FalseAlertCurve
from facescreen.domain.list_report import FindingCode, Weakness
from facescreen.domain.quality import FaceQuality
from facescreen.factory import Services
from facescreen.recognition.catalog import default_threshold
from tests.api.test_blacklist import enroll
from tests.conftest import serving
from tests.painted import GREEN, RED, photo

SPACE = "SFace/painted"
LENGTH = 8.0
"""Of embeddings: about that of SFace's, whose thresholds for the metric ``euclidean`` depend on it."""
GOOD = FaceQuality(side=100, confidence=1.0, brightness=50.0, sharpness=90.0, shadows=0.0, highlights=0.0)


Stored = dict[int, list[tuple[int, Vector]]]
"""Ids and embeddings of photos, by entry."""


async def store(services: Services, people: list[list[Vector]]) -> Stored:
    """Entries with a photo for each embedding."""
    collection = await services.collections.get(DEFAULT_COLLECTION)
    stored = {}
    async with services.database.write() as connection:
        for number, vectors in enumerate(people):
            new = NewEntry(f"person {number}", "", f"folder-{number}", None)
            entry_id = await blacklist.insert_entry(connection, collection.id, new, status=Status.ACTIVE)
            images = [
                NewImage(
                    photo=f"folder-{number}/{place}.jpg",
                    watched=None,
                    sha256="0" * 64,
                    width=100,
                    height=100,
                    face=Face(Box(0, 0, 100, 100), Landmarks(), 1.0),
                    detector="centerface",
                    embedded=[Embedded(SPACE, vector)],
                    image_id=f"{number}-{place}",
                    quality=GOOD,
                    quality_override=None,
                )
                for place, vector in enumerate(vectors)
            ]
            ids = await blacklist.insert_images(connection, entry_id, images, status=Status.ACTIVE)
            stored[entry_id] = list(zip(ids, vectors, strict=True))
    return stored


def near_entries(
    stored: Stored, metric: EmbeddingMetric, thresholds: tuple[float, float]
) -> dict[FindingCode, dict[tuple[int, int], float]]:
    """Entries that are near each other, by their nearest photos."""
    near: dict[FindingCode, dict[tuple[int, int], float]] = defaultdict(dict)
    for first, second in combinations(stored, 2):
        others = np.stack([vector for _, vector in stored[second]])
        nearest = min(float(distances(metric, vector, others).min()) for _, vector in stored[first])
        if nearest <= thresholds[1]:
            code = FindingCode.DUPLICATE_ENTRIES if nearest <= thresholds[0] else FindingCode.LOOK_ALIKES
            near[code][first, second] = nearest
    return near


def spreads(
    stored: Stored, metric: EmbeddingMetric, together: float
) -> tuple[dict[int, float], dict[int, int | None], dict[int, float]]:
    """The largest distance and the odd one out by entry, and the distance of outliers by photo."""
    wide: dict[int, float] = {}
    odd: dict[int, int | None] = {}
    outliers: dict[int, float] = {}
    for entry, photos in stored.items():
        vectors = np.stack([vector for _, vector in photos])
        table = np.stack([distances(metric, vector, vectors) for vector in vectors])
        if table.max() <= together:
            continue
        wide[entry] = float(table.max())
        from_middle = table[table.sum(axis=1).argmin()]
        odd[entry] = photos[from_middle.argmax()][0] if len(photos) > 2 else None
        measured = zip((id_ for id_, _ in photos), from_middle.tolist(), strict=True)
        outliers.update((id_, distance) for id_, distance in measured if distance > together and len(photos) > 2)
    return wide, odd, outliers


@pytest.mark.parametrize("metric", EMBEDDING_METRICS)
async def test_findings_are_those_of_comparing_everything(settings: Settings, metric: EmbeddingMetric) -> None:
    together = default_threshold("SFace", metric)
    assert together is not None
    threshold, review_threshold = 0.1 * together, 0.2 * together
    random = np.random.default_rng(11)
    people = []
    for _ in range(60):
        centre = random.standard_normal(3)
        count = int(random.integers(1, 6))
        people.append([(LENGTH * (centre + random.normal(0, 0.6, 3))).astype(np.float32) for _ in range(count)])
    chosen = {"distance_metric": metric, "match_threshold": threshold, "review_threshold": review_threshold}
    async with serving(settings.model_copy(update=chosen)) as client:
        services: Services = client.services  # type: ignore[attr-defined]
        stored = await store(services, people)
        report = await services.report.report(DEFAULT_COLLECTION)

    near = near_entries(stored, metric, (threshold, review_threshold))
    assert len(near) == 2
    for code, pairs in near.items():
        found = {(f.people[0].id, f.people[1].id): f.distance for f in report.findings if f.code is code}
        assert report.totals[code] == len(pairs)
        assert found == pytest.approx(pairs)

    wide, odd, outliers = spreads(stored, metric, together)
    disagreeing = [f for f in report.findings if f.code is FindingCode.PHOTOS_DISAGREE]
    assert 0 < len(wide) < len(stored)
    assert {f.people[0].id: f.distance for f in disagreeing} == pytest.approx(wide)
    assert {f.people[0].id: f.odd_one_out for f in disagreeing} == odd
    weak = [f for f in report.findings if f.code is FindingCode.WEAK_PHOTO]
    assert outliers
    assert {f.photos[0].id: f.distance for f in weak if Weakness.OUTLIER in f.weaknesses} == pytest.approx(outliers)
    for code in FindingCode:
        if code is not FindingCode.WEAK_PHOTO:
            measured = [f.distance or 0.0 for f in report.findings if f.code is code]
            assert measured == sorted(measured, reverse=code is FindingCode.PHOTOS_DISAGREE)


async def test_photos_without_direction_are_like_nobody(services: Services) -> None:
    nothing = np.zeros(3, np.float32)
    somebody = np.array([1, 2, 3], np.float32)
    await store(services, [[nothing, somebody], [nothing], [-somebody]])
    report = await services.report.report(DEFAULT_COLLECTION)
    assert report.totals[FindingCode.DUPLICATE_ENTRIES] == 0
    (finding,) = (f for f in report.findings if f.code is FindingCode.PHOTOS_DISAGREE)
    assert len(finding.photos) == len({photo.id for photo in finding.photos}) == 2


async def test_false_alerts_are_those_of_the_calibration_in_force(
    client: httpx.AsyncClient, services: Services
) -> None:
    """A new calibration is a new report, though the list is the same."""
    await enroll(client, "Ada", photo(RED))
    await enroll(client, "Eva", photo(GREEN))
    before = await services.report.report(DEFAULT_COLLECTION)
    curve = FalseAlertCurve(Metric.COSINE, 500, (2,), (0.04, 0.05, 0.07), (((0.001), 0.004, 0.1),))
    calibration = Calibration(None, "photos at the door", "centerface", SPACE, AlertBudget(200, 10), (curve,), None)
    collection = await services.collections.get(DEFAULT_COLLECTION)
    async with services.database.write() as connection:
        await calibrations.insert_calibration(connection, collection.id, calibration)
    after = await services.report.report(DEFAULT_COLLECTION)
    assert (after.version, after.made_at > before.made_at) == (before.version, True)
    assert after.policy.review_threshold == 0.07
    assert after.false_alerts_per_1000 == pytest.approx(4.0)
    assert after.review_false_alerts_per_1000 == pytest.approx(100.0)
    assert after.evidence == "photos at the door; 2 reference photos in the list"


async def test_progress_is_told_and_reports_are_remembered(client: httpx.AsyncClient, services: Services) -> None:
    await enroll(client, "Ada", photo(RED))
    told: list[tuple[int, int]] = []
    first = await services.report.report(DEFAULT_COLLECTION, progress=lambda *done: told.append(done))
    assert told[-1] == (1, 1)
    told.clear()
    assert await services.report.report(DEFAULT_COLLECTION, progress=lambda *done: told.append(done)) == first
    assert told == []


async def test_nobody_is_remembered_by_name(client: httpx.AsyncClient, services: Services) -> None:
    ada = await enroll(client, "Quillonia", photo(RED))
    await enroll(client, "Quillonia again", photo(RED, side=80))
    first = await services.report.report(DEFAULT_COLLECTION)
    assert "Quillonia" in first.findings[0].detail
    assert "quillonia" in first.findings[0].photos[0].photo
    assert "uillonia" not in repr(vars(services.report))
    # Who is gone between the look at the version and the answer is in no finding of it.
    (report,) = services.report._reports.values()
    await client.delete(f"/blacklist/{ada['id']}/")
    assert ada["id"] not in {p.id for found in (await services.report._named(report)).findings for p in found.people}
