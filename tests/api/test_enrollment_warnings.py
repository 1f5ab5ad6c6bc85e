"""What somebody should look at when photos are enrolled, and what is refused where that is asked for."""

import math
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facescreen.config import Settings
from facescreen.domain.distances import Metric, distances
from facescreen.domain.faces import Vectors
from facescreen.errors import ThresholdRequiredError
from facescreen.factory import Services, open_services
from facescreen.recognition.catalog import default_threshold
from facescreen.services.blacklist import EnrollmentOptions, Person, Photo
from facescreen.services.resemblance import disagreeing
from tests.api.test_blacklist import files, matches, upload
from tests.api.test_sync import drop, sync
from tests.conftest import serving
from tests.painted import BLUE, GREEN, RED, YELLOW, Colour, PaintedBackend, photo

ROSE, RUST, SCARLET = (228, 25, 25), (225, 35, 35), (230, 21, 20)
"""Three more reds, the last of them the nearest to red."""


async def post(client: httpx.AsyncClient, url: str, *colours: Colour, **fields: str) -> httpx.Response:
    return await client.post(url, data=fields, files=upload(*map(photo, colours)))


async def enroll(client: httpx.AsyncClient, name: str, *colours: Colour, **fields: str) -> dict[str, Any]:
    response = await post(client, "/blacklist/", *colours, name=name, **fields)
    assert response.status_code == 201, response.text
    record: dict[str, Any] = response.json()
    return record


async def add(client: httpx.AsyncClient, record: dict[str, Any], *colours: Colour, **fields: str) -> dict[str, Any]:
    response = await post(client, f"/blacklist/{record['id']}/images", *colours, **fields)
    assert response.status_code == 200, response.text
    added: dict[str, Any] = response.json()
    return added


def apart(one: Colour, other: Colour) -> float:
    """Cosine distance of two colours as the painted backend has it."""
    vectors: Vectors = (np.array([one, other]) / 255 - 0.5).astype(np.float32)
    return float(distances(Metric.COSINE, vectors[0], vectors)[1])


def alike(warnings: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Which photo looks like whom."""
    return [(each["photo"], each["name"]) for each in warnings if each["code"] == "looks_like_existing_entry"]


def disagreements(warnings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in warnings if each["code"] == "photos_disagree"]


async def test_a_photo_that_looks_like_another_entry_is_taken_with_a_warning(client: httpx.AsyncClient) -> None:
    ada = await enroll(client, "Ada", RED)
    assert ada["warnings"] == []
    eve = await enroll(client, "Eve", ROSE)
    (warning,) = eve["warnings"]
    assert warning["code"] == "looks_like_existing_entry"
    assert (warning["photo"], warning["entry_id"], warning["name"]) == ("0.png", ada["id"], "Ada")
    assert warning["distance"] == pytest.approx(apart(RED, ROSE))
    assert (warning["threshold"], warning["distance_metric"]) == (0.05, "cosine")
    assert f"looks like entry {ada['id']} (cosine distance " in warning["detail"]
    assert {match["name"] for match in await matches(client, photo(ROSE))} == {"Ada", "Eve"}


async def test_each_photo_names_each_entry_once_by_the_smallest_distance(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", RUST, SCARLET)
    await enroll(client, "Eve", ROSE)
    await enroll(client, "Bob", BLUE)
    warnings = (await enroll(client, "Zoe", RED, BLUE))["warnings"]
    assert alike(warnings) == [("0.png", "Ada"), ("0.png", "Eve"), ("1.png", "Bob")]
    assert warnings[0]["distance"] == pytest.approx(apart(RED, SCARLET))


async def test_photos_of_the_entry_itself_are_no_other_entry(client: httpx.AsyncClient) -> None:
    ada, bob = await enroll(client, "Ada", RED), await enroll(client, "Bob", BLUE)
    assert (await add(client, ada, ROSE))["warnings"] == []
    assert alike((await add(client, bob, ROSE))["warnings"]) == [("0.png", "Ada")]


async def test_nobody_of_another_collection_or_who_is_gone_is_looked_like(client: httpx.AsyncClient) -> None:
    await client.post("/collections/", json={"name": "staff"})
    gone = await enroll(client, "Ada", RED)
    response = await client.post(
        "/blacklist/", params={"collection": "staff"}, data={"name": "Eve"}, files=upload(photo(RED))
    )
    assert response.json()["warnings"] == []
    await client.delete(f"/blacklist/{gone['id']}/")
    assert (await enroll(client, "Zoe", RED))["warnings"] == []


async def test_who_was_enrolled_by_another_process_is_looked_like(settings: Settings) -> None:
    async with serving(settings) as one, serving(settings) as other:
        await enroll(one, "Ada", GREEN)
        await enroll(other, "Eve", RED)
        assert alike((await enroll(one, "Zoe", RED))["warnings"]) == [("0.png", "Eve")]


@pytest.mark.parametrize("is_new", [True, False], ids=["entry", "images"])
async def test_a_duplicate_is_refused_where_asked_for_and_nothing_is_stored(
    client: httpx.AsyncClient, settings: Settings, is_new: bool
) -> None:
    ada, bob = await enroll(client, "Ada", RED), await enroll(client, "Bob", BLUE)
    before = (await client.get("/blacklist/")).json(), (await client.get("/")).json(), files(settings.blacklist_db_path)
    url, fields = ("/blacklist/", {"name": "Eve"}) if is_new else (f"/blacklist/{bob['id']}/images", {})
    response = await post(client, url, GREEN, ROSE, **fields, reject_duplicates="true")
    assert (response.status_code, response.json()["code"]) == (409, "duplicate_entry")
    (fault,) = response.json()["errors"]
    assert (fault["location"], fault["code"]) == ("1.png", "duplicate_entry")
    distance = f"{apart(RED, ROSE):.4g}"
    assert fault["detail"] == f"looks like entry {ada['id']} (cosine distance {distance}, at most 0.05 is a match)"
    assert "Ada" not in response.text
    after = (await client.get("/blacklist/")).json(), (await client.get("/")).json(), files(settings.blacklist_db_path)
    assert after == before
    taken = await post(client, url, GREEN, **fields, reject_duplicates="true")
    assert taken.status_code == (201 if is_new else 200)


async def test_photos_that_are_not_good_enough_come_before_duplicates(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", RED)
    bad = upload(photo(RED), photo())
    response = await client.post("/blacklist/", data={"name": "Eve", "reject_duplicates": "true"}, files=bad)
    assert (response.status_code, response.json()["code"]) == (422, "enrollment_rejected")


async def test_new_photos_that_are_not_of_one_person_disagree(client: httpx.AsyncClient) -> None:
    (warning,) = (await enroll(client, "Ada", RED, GREEN))["warnings"]
    assert warning["code"] == "photos_disagree"
    assert warning["photos"] == warning["outliers"] == ["0.png", "1.png"]
    assert warning["distance"] == pytest.approx(apart(RED, GREEN))
    assert (warning["threshold"], warning["distance_metric"]) == (default_threshold("SFace", Metric.COSINE), "cosine")
    assert "does not look like 1.png (cosine distance " in warning["detail"]


async def test_a_new_photo_disagrees_with_old_ones(client: httpx.AsyncClient) -> None:
    ada = await enroll(client, "Ada", RED, ROSE, RUST)
    assert ada["warnings"] == []
    (warning,) = (await add(client, ada, GREEN))["warnings"]
    farthest = max(zip((RED, ROSE, RUST), ada["images"], strict=True), key=lambda known: apart(GREEN, known[0]))
    assert warning["photos"] == ["0.png", farthest[1]["identity"]]
    assert warning["outliers"] == ["0.png"]
    assert warning["distance"] == pytest.approx(apart(GREEN, farthest[0]))


async def test_each_new_photo_that_disagrees_is_named(client: httpx.AsyncClient) -> None:
    ada = await enroll(client, "Ada", RED, ROSE)
    found = disagreements((await add(client, ada, GREEN, SCARLET, BLUE))["warnings"])
    named = {photo for each in found for photo in each["photos"]}
    assert {"0.png", "1.png", "2.png"} <= named
    assert {photo for each in found for photo in each["outliers"]} == {"0.png", "2.png"}


async def test_an_old_photo_that_the_new_ones_disagree_with_is_the_outlier(client: httpx.AsyncClient) -> None:
    ada = await enroll(client, "Ada", GREEN)
    identity = ada["images"][0]["identity"]
    found = disagreements((await add(client, ada, RED, ROSE, RUST))["warnings"])
    assert [each["photos"] for each in found] == [[f"{index}.png", identity] for index in range(3)]
    assert [each["outliers"] for each in found] == [[identity]] * 3


async def test_dropped_photos_are_looked_at_as_well(client: httpx.AsyncClient, settings: Settings) -> None:
    await enroll(client, "Ada", RED)
    drop(settings, "person_A/a.png", photo(ROSE))
    drop(settings, "person_A/b.png", photo(GREEN))
    drop(settings, "person_B/c.png", photo(YELLOW))
    report = await sync(client)
    assert len(report["added"]) == 3
    assert alike(report["warnings"]) == [("blacklist_db/person_A/a.png", "Ada")]
    (found,) = disagreements(report["warnings"])
    assert found["photos"] == ["blacklist_db/person_A/b.png", "blacklist_db/person_A/a.png"]
    assert (await sync(client))["warnings"] == []


async def test_without_a_threshold_nobody_is_looked_like_and_nothing_can_be_refused_for_it(settings: Settings) -> None:
    settings = settings.model_copy(update={"false_alert_budget": 100_000, "match_threshold": None})
    async with open_services(settings, PaintedBackend()) as services:

        async def create(*colours: Colour, reject_duplicates: bool) -> list[str]:
            photos = [Photo("a.png", photo(colour)) for colour in colours]
            options = EnrollmentOptions(reject_duplicates=reject_duplicates)
            enrolled = await services.blacklist.create("default", Person("Ada"), photos=photos, options=options)
            return [warning.code for warning in enrolled.warnings]

        assert await create(RED, reject_duplicates=False) == []
        assert await create(RED, GREEN, reject_duplicates=False) == ["photos_disagree"]
        with pytest.raises(ThresholdRequiredError):
            await create(BLUE, reject_duplicates=True)
        assert await listed(services) == 2


async def listed(services: Services) -> int:
    total, _ = await services.blacklist.page("default", None, offset=0, limit=None)
    return total


ANGLES = st.lists(st.floats(0, math.pi), min_size=1, max_size=8)


def embeddings(angles: list[float]) -> Vectors:
    return np.array([(math.cos(angle), math.sin(angle)) for angle in angles], np.float32)


@given(new=ANGLES, old=st.lists(st.floats(0, math.pi), max_size=8), threshold=st.floats(0, 2))
def test_every_new_photo_that_is_too_far_from_another_is_named_with_the_farthest(
    new: list[float], old: list[float], threshold: float
) -> None:
    vectors = embeddings(new + old)
    matrix = np.array([distances(Metric.COSINE, vector, vectors) for vector in vectors])
    found = disagreeing(vectors, Metric.COSINE, new=len(new), threshold=threshold)
    named = {row for each in found for row in (each.one, each.other)}
    for row in range(len(new)):
        assert (row in named) == (matrix[row].max() > threshold)
    for each in found:
        assert each.one < len(new)
        assert each.one < each.other
        assert each.distance == matrix[each.one, each.other] > threshold
        assert each.distance in {matrix[each.one].max(), matrix[each.other].max()}
        most = [row for row in (each.one, each.other) if (matrix[row] > threshold).sum() > (len(vectors) - 1) / 2]
        assert list(each.outliers) == most
    assert len({(each.one, each.other) for each in found}) == len(found) <= len(new)


@given(new=ANGLES, old=ANGLES, threshold=st.floats(0, 2), wider=st.floats(0, 2))
def test_a_wider_threshold_and_the_order_of_old_photos_name_no_other_new_photo(
    new: list[float], old: list[float], threshold: float, wider: float
) -> None:
    def named(old: list[float], threshold: float) -> set[int]:
        found = disagreeing(embeddings(new + old), Metric.COSINE, new=len(new), threshold=threshold)
        return {row for each in found for row in (each.one, each.other) if row < len(new)}

    assert named(old[::-1], threshold) == named(old, threshold)
    assert named(old, threshold + wider) <= named(old, threshold)
