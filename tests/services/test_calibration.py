"""Thresholds that are chosen by the false alerts of faces that are not on the list."""

import re
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
from sqlalchemy import func, select

from facescreen.config import Settings
from facescreen.db.schema import metadata
from facescreen.domain.blacklist import DEFAULT_COLLECTION
from facescreen.domain.distances import Metric, distances
from facescreen.domain.faces import Vectors
from facescreen.domain.false_alerts import ImpostorSearches
from facescreen.errors import (
    CalibrationEvidenceError,
    CalibrationNotFoundError,
    CollectionNotFoundError,
    EvaluationDataError,
    InputError,
    WeightsMissingError,
)
from facescreen.factory import Services, open_probe_reader
from facescreen.recognition.catalog import shipped_false_alerts
from facescreen.services.calibration import (
    CalibrationOptions,
    CalibrationReport,
    CalibrationService,
    measure_each_other,
)
from tests.api.test_blacklist import enroll
from tests.api.test_collections import enroll_in
from tests.conftest import serving
from tests.painted import BLUE, RED, Colour, PaintedBackend, inline, photo

TEN = CalibrationOptions(one_in=10, review_one_in=2)
LONG_LIST = 200


def strangers(count: int) -> list[Colour]:
    """Different colours that resemble red, and every third one blue, as much as two photos of one person do."""
    rng = np.random.default_rng(0)
    drawn = [np.clip((BLUE if n % 3 == 2 else RED) + rng.integers(-10, 70, 3), 0, 255) for n in range(count)]
    return [(int(r), int(g), int(b)) for r, g, b in drawn]


def write(folder: Path, colours: list[Colour]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, colour in enumerate(colours):
        (folder / f"{number:03}.png").write_bytes(photo(colour, side=24))
    return folder


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """No threshold is configured."""
    return settings.model_copy(update={"match_threshold": None})


@pytest.fixture
async def calibration(services: Services, client: httpx.AsyncClient) -> CalibrationService:
    """With one person on the list."""
    await enroll(client, "Ada", photo(RED))
    assert services.calibration is not None
    return services.calibration


@pytest.fixture(scope="module")
def thirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("strangers"), strangers(30))


async def calibrate(
    calibration: CalibrationService,
    folder: Path,
    options: CalibrationOptions = TEN,
    collection: str = DEFAULT_COLLECTION,
) -> CalibrationReport:
    return await calibration.calibrate(folder, options, collection=collection, source="painted strangers")


def embedded(*colours: Colour) -> Vectors:
    return (np.array(colours) / 255 - 0.5).astype(np.float32)


def from_red(colours: list[Colour]) -> list[float]:
    return sorted(distances(Metric.COSINE, embedded(RED)[0], embedded(*colours)).tolist())


async def test_thresholds_are_chosen_by_the_budget(calibration: CalibrationService, thirty: Path) -> None:
    report = await calibrate(calibration, thirty)
    expected = from_red(strangers(30))
    assert (report.list_size, report.photos, report.unusable, report.skipped) == (1, 30, 0, ())
    assert [probe.distance for probe in report.nearest] == pytest.approx(expected[:10], abs=1e-6)
    assert {probe.name for probe in report.nearest} == {"Ada"}
    in_force = await calibration.in_force(DEFAULT_COLLECTION)
    assert in_force.calibration == report.calibration
    assert report.calibration.source == "painted strangers: 30 faces searched among 1 reference photos"
    assert in_force.policy.threshold == pytest.approx(expected[2], abs=1e-6)
    assert in_force.policy.review_threshold == pytest.approx(expected[14], abs=1e-6)
    assert (in_force.applied.false_alert_rate, in_force.applied.review_false_alert_rate) == (0.1, 0.5)


async def test_every_process_judges_by_it_at_once(
    settings: Settings, calibration: CalibrationService, thirty: Path
) -> None:
    async with serving(settings, PaintedBackend()) as other:
        url = "/process/process-images"
        nearest = strangers(30)[int(np.argmin([from_red([colour])[0] for colour in strangers(30)]))]
        body = {"images": [inline(photo(nearest))]}
        before = (await other.post(url, json=body)).json()[0]
        report = await calibrate(calibration, thirty)
        after = (await other.post(url, json=body)).json()[0]
    assert before["calibration"]["id"] is None
    assert after["calibration"]["id"] == report.calibration.id
    assert after["threshold"] != before["threshold"]
    assert after["faces"][0]["verdict"] == "match"


async def test_thresholds_follow_the_list_as_it_grows(
    calibration: CalibrationService, client: httpx.AsyncClient, thirty: Path
) -> None:
    await calibrate(calibration, thirty)
    before = await calibration.in_force(DEFAULT_COLLECTION)
    await enroll(client, "Bob", photo(BLUE))
    after = await calibration.in_force(DEFAULT_COLLECTION)
    assert (before.applied.list_size, after.applied.list_size) == (1, 2)
    assert after.policy.threshold < before.policy.threshold
    assert after.policy.review_threshold < before.policy.review_threshold


async def test_a_long_list_is_judged_by_the_nearest_reference(
    calibration: CalibrationService, client: httpx.AsyncClient, services: Services, settings: Settings, thirty: Path
) -> None:
    people = strangers(LONG_LIST + 30)[-LONG_LIST + 1 :]
    for number, colour in enumerate(people):
        folder = settings.blacklist_db_path / f"person{number}"
        folder.mkdir()
        (folder / "photo.png").write_bytes(photo(colour))
    await services.sync.sync()
    report = await calibrate(calibration, thirty)
    assert report.list_size == LONG_LIST
    searches = ImpostorSearches(embedded(*strangers(30)), embedded(RED, *people))
    found = searches.nearest(Metric.COSINE)
    order = found.distances.argsort()
    assert [probe.distance for probe in report.nearest] == pytest.approx(found.distances[order][:10], abs=1e-6)
    names = ["Ada", *(f"person{number}" for number in range(len(people)))]
    assert report.nearest[0].name == names[found.rows[order[0]]]
    in_force = await calibration.in_force(DEFAULT_COLLECTION)
    assert in_force.policy == report.policy(LONG_LIST)
    third, fourth = found.distances[order][2:4]
    assert third - 1e-6 <= in_force.policy.threshold < fourth
    assert in_force.applied.false_alert_rate == 0.1
    body = {"images": [inline(photo(colour, side=24)) for colour in strangers(30)]}
    answers = (await client.post("/process/process-images", json=body)).json()
    for answer, distance in zip(answers, found.distances, strict=True):
        (face,) = answer["faces"]
        matches = face["blacklist_matches"]
        assert (face["verdict"] == "match") == (distance <= in_force.policy.threshold)
        assert bool(matches) == (distance <= in_force.policy.review_threshold)
        if matches:
            assert matches[0]["distance"] == pytest.approx(distance, abs=1e-6)


async def test_nothing_of_the_strangers_is_kept(
    calibration: CalibrationService, services: Services, settings: Settings, thirty: Path
) -> None:
    async def rows() -> dict[str, int]:
        async with services.database.read() as connection:
            return {
                table.name: (await connection.execute(select(func.count()).select_from(table))).scalar_one()
                for table in metadata.sorted_tables
            }

    def files() -> set[Path]:
        stores = (settings.blacklist_db_path, settings.processed_images_output_dir)
        return {path for store in stores for path in store.rglob("*")}

    before = (await rows(), files())
    await calibrate(calibration, thirty)
    added = {"calibrations": 1, "audit_events": before[0]["audit_events"] + 1}
    assert (await rows(), files()) == ({**before[0], **added}, before[1])


async def test_the_newest_holds_and_all_go(calibration: CalibrationService, thirty: Path) -> None:
    shipped = (await calibration.in_force(DEFAULT_COLLECTION)).calibration
    assert shipped.id is None
    await calibrate(calibration, thirty)
    newest = await calibrate(calibration, thirty, CalibrationOptions(one_in=30, review_one_in=3))
    assert (await calibration.in_force(DEFAULT_COLLECTION)).calibration == newest.calibration
    await calibration.forget(DEFAULT_COLLECTION)
    assert (await calibration.in_force(DEFAULT_COLLECTION)).calibration == shipped
    with pytest.raises(CalibrationNotFoundError):
        await calibration.forget(DEFAULT_COLLECTION)


async def test_it_holds_for_one_collection_and_one_model(
    calibration: CalibrationService, services: Services, client: httpx.AsyncClient, thirty: Path
) -> None:
    await services.collections.create("other")
    await enroll(client, "Bob", photo(BLUE))
    with_another_model = CalibrationOptions(model="Dlib", one_in=10, review_one_in=2)
    of_another = await calibrate(calibration, thirty, with_another_model)
    assert of_another.calibration.space == "Dlib/painted"
    assert (await calibration.in_force(DEFAULT_COLLECTION)).calibration.id is None
    of_the_default = await calibrate(calibration, thirty)
    assert (await calibration.in_force(DEFAULT_COLLECTION)).calibration.id == of_the_default.calibration.id
    assert (await calibration.in_force("other")).calibration.id is None


async def test_it_goes_with_its_collection(
    calibration: CalibrationService, services: Services, client: httpx.AsyncClient, thirty: Path
) -> None:
    await services.collections.create("other")
    await enroll_in(client, "other", "Eve", photo(RED))
    await calibrate(calibration, thirty, collection="other")
    await services.collections.delete("other")
    await services.collections.create("other")
    assert (await calibration.in_force("other")).calibration.id is None


async def test_photos_are_sought_in_all_folders(calibration: CalibrationService, thirty: Path, tmp_path: Path) -> None:
    folder = tmp_path / "probes"
    shutil.copytree(thirty, folder / "day 1")
    write(folder / ".hidden", strangers(3))
    (folder / "two.png").write_bytes(photo(*strangers(32)[30:], side=24))
    (folder / "dot.png").write_bytes(photo(strangers(1)[0], side=12))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (folder / "notes.txt").write_text("not a photo")
    progress: list[tuple[int, int]] = []
    report = await calibration.calibrate(
        folder, TEN, lambda done, total: progress.append((done, total)), collection=DEFAULT_COLLECTION, source="own"
    )
    assert report.calibration.curves[0].faces == 32
    assert (report.photos, report.unusable) == (31, 1)
    assert {skipped.file: skipped.code for skipped in report.skipped} == {
        ".hidden": "hidden_file",
        "notes.txt": "unsupported_format",
        "broken.jpg": "image_undecodable",
    }
    assert all("/" in probe.photo or probe.photo == "two.png" for probe in report.nearest)
    assert progress[-1] == (33, 33)


async def test_too_few_faces_are_refused(
    calibration: CalibrationService, services: Services, thirty: Path, tmp_path: Path
) -> None:
    wanted = re.escape("add photos, or allow more false alerts, as with --one-in 30")
    with pytest.raises(CalibrationEvidenceError, match=rf"needs at least 31 faces, and 30 are usable: {wanted}$"):
        await calibrate(calibration, thirty, CalibrationOptions(one_in=31, review_one_in=2))
    with pytest.raises(CalibrationEvidenceError, match=rf"needs at least 1500 faces, and 30 are usable: {wanted}$"):
        await calibrate(calibration, thirty, CalibrationOptions())
    with pytest.raises(CalibrationEvidenceError, match=r"and 0 are usable: add photos$"):
        await calibrate(calibration, write(tmp_path / "empty", []))
    await services.collections.create("empty")
    with pytest.raises(CalibrationEvidenceError, match="no reference photo"):
        await calibrate(calibration, thirty, collection="empty")
    assert (await calibration.in_force(DEFAULT_COLLECTION)).calibration.id is None


async def test_what_cannot_be_is_refused(calibration: CalibrationService, thirty: Path) -> None:
    with pytest.raises(InputError, match="review"):
        await calibrate(calibration, thirty, CalibrationOptions(one_in=5, review_one_in=6))
    with pytest.raises(CollectionNotFoundError):
        await calibrate(calibration, thirty, collection="nowhere")
    with pytest.raises(CollectionNotFoundError):
        await calibration.in_force("nowhere")
    with pytest.raises(CollectionNotFoundError):
        await calibration.forget("nowhere")
    with pytest.raises(WeightsMissingError):
        await calibrate(calibration, thirty, CalibrationOptions(model="ArcFace", one_in=10, review_one_in=2))


async def test_photos_of_many_people_are_searched_among_each_other(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "known"
    people = strangers(12)
    write(folder / "nameless", people[:1])
    for number, colour in enumerate(people[1:]):
        (folder / f"person{number}_0001.png").write_bytes(photo(colour, side=24))
    (folder / "person3_0002.png").write_bytes(photo(BLUE, side=24))
    async with open_probe_reader(settings, PaintedBackend()) as reader:
        measured = await measure_each_other(reader, folder, detector="centerface", model="SFace", source="colours")
    assert measured.source == "colours: 13 faces of 12 people, each searched among one of everybody else"
    assert (measured.detector, measured.space) == ("centerface", "SFace/painted")
    assert [curve.metric for curve in measured.curves] == [Metric.COSINE, Metric.EUCLIDEAN]
    shown = [*enumerate(people), (4, BLUE)]
    nearest = [
        float(np.delete(distances(Metric.COSINE, embedded(colour)[0], embedded(*people)), person).min())
        for person, colour in shown
    ]
    curve = measured.curves[0]
    assert (curve.faces, curve.list_sizes) == (13, (1, 2, 5, 10, 11))
    for distance in curve.distances:
        assert curve.rate(distance, 11) == pytest.approx(np.mean(np.array(nearest) <= distance), abs=1e-9)


async def test_photos_of_nobody_in_particular_are_refused(settings: Settings, tmp_path: Path) -> None:
    async with open_probe_reader(settings, PaintedBackend()) as reader:
        one = write(tmp_path / "known" / "ada", strangers(3)).parent
        with pytest.raises(CalibrationEvidenceError, match="two or more people"):
            await measure_each_other(reader, one, detector="centerface", model="SFace", source="colours")
        (one / "unnamed.png").write_bytes(photo(BLUE))
        with pytest.raises(EvaluationDataError, match=r"unnamed\.png"):
            await measure_each_other(reader, one, detector="centerface", model="SFace", source="colours")


def test_what_comes_with_a_model_belongs_to_its_present_space() -> None:
    shipped = shipped_false_alerts("SFace")
    assert shipped is not None
    assert [curve.metric for curve in shipped.curves] == [Metric.COSINE, Metric.EUCLIDEAN]
    for curve in shipped.curves:
        assert curve.faces >= 800
        assert curve.threshold(100, 100) is not None
    assert shipped_false_alerts("ArcFace") is None
