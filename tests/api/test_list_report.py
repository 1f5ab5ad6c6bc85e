"""What is wrong with a list, as its admins are told."""

from dataclasses import asdict
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, update

from facescreen.config import Settings
from facescreen.db.schema import embeddings, reference_images
from facescreen.domain.distances import Metric
from facescreen.domain.quality import FaceQuality
from facescreen.factory import Services
from facescreen.recognition.catalog import default_threshold
from tests.api.test_blacklist import enroll
from tests.conftest import serving
from tests.painted import BLUE, GREEN, RED, UNMEASURED, YELLOW, Colour, photo

SAME: Colour = (230, 50, 20)
"""As near to red as another photo of the same person: 0.011."""
ALIKE: Colour = (230, 80, 20)
"""As near to red as somebody who looks like that person: 0.050."""
LIME: Colour = (230, 240, 20)
"""Farther from red than two photos of one person are: 0.708."""
THRESHOLD, REVIEW_THRESHOLD = 0.03, 0.08
ONE_TO_ONE = default_threshold("SFace", Metric.COSINE)
BLURRED = 1.0
"""A sharpness that no limit lets pass."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"match_threshold": THRESHOLD, "review_threshold": REVIEW_THRESHOLD})


async def report(client: httpx.AsyncClient, **query: str | int) -> dict[str, Any]:
    response = await client.get("/blacklist/report", params=query)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def blur(services: Services, entry: dict[str, Any], override: str | None = None) -> None:
    """Have the entry's photos measured as blurred, whatever the limits for reference photos are."""
    measured = FaceQuality(side=200, confidence=1.0, brightness=50.0, sharpness=BLURRED, shadows=0.0, highlights=0.0)
    async with services.database.write() as connection:
        theirs = update(reference_images).where(reference_images.c.entry_id == entry["id"])
        await connection.execute(theirs.values(quality=asdict(measured), quality_override=override))


def of_kind(found: dict[str, Any], code: str) -> list[dict[str, Any]]:
    return [finding for finding in found["findings"] if finding["code"] == code]


async def test_an_empty_list_has_nothing_wrong(client: httpx.AsyncClient) -> None:
    found = await report(client)
    assert (found["entries"], found["reference_images"], found["findings"]) == (0, 0, [])
    assert found["totals"] == {
        "entry_without_photos": 0,
        "duplicate_entries": 0,
        "photos_disagree": 0,
        "look_alikes": 0,
        "weak_photo": 0,
    }
    assert (found["threshold"], found["review_threshold"]) == (THRESHOLD, REVIEW_THRESHOLD)
    assert found["one_to_one_threshold"] == ONE_TO_ONE


async def test_a_good_list_has_nothing_wrong(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED), photo(SAME))
    await enroll(client, "Eva", photo(GREEN))
    found = await report(client)
    assert (found["entries"], found["reference_images"], found["findings"]) == (2, 3, [])


async def test_a_person_who_is_on_the_list_twice(client: httpx.AsyncClient) -> None:
    ada = await enroll(client, "Ada", photo(GREEN), photo(RED))
    await enroll(client, "Eva", photo(BLUE))
    twin = await enroll(client, "A. Lovelace", photo(SAME))
    found = await report(client)
    (finding,) = of_kind(found, "duplicate_entries")
    assert finding["entries"] == [{"id": ada["id"], "name": "Ada"}, {"id": twin["id"], "name": "A. Lovelace"}]
    assert [(p["id"], p["entry_id"], p["identity"]) for p in finding["photos"]] == [
        (image["id"], entry["id"], image["identity"])
        for entry, image in ((ada, ada["images"][1]), (twin, twin["images"][0]))
    ]
    assert finding["distance"] == pytest.approx(0.0106, abs=1e-4)
    assert finding["limit"] == THRESHOLD
    assert "Ada and A. Lovelace look like one person (distance 0.01" in finding["detail"]
    assert found["totals"]["duplicate_entries"] == 1
    assert found["totals"]["look_alikes"] == 0


async def test_people_who_look_alike(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED))
    await enroll(client, "Eva", photo(ALIKE))
    found = await report(client)
    (finding,) = of_kind(found, "look_alikes")
    assert [entry["name"] for entry in finding["entries"]] == ["Ada", "Eva"]
    assert THRESHOLD < finding["distance"] <= finding["limit"] == REVIEW_THRESHOLD
    assert "false alerts" in finding["detail"]
    assert found["totals"]["duplicate_entries"] == 0


async def test_photos_of_one_entry_that_show_two_people(client: httpx.AsyncClient) -> None:
    ada = await enroll(client, "Ada", photo(LIME), photo(RED), photo(SAME))
    first, second, _ = (image["id"] for image in ada["images"])
    found = await report(client)
    (finding,) = of_kind(found, "photos_disagree")
    assert [p["id"] for p in finding["photos"]] == [first, second]
    assert finding["distance"] > finding["limit"] == ONE_TO_ONE
    assert finding["odd_one_out"] == first
    assert f"look at photo {first} first" in finding["detail"]


async def test_a_photo_that_is_unlike_the_others_is_weak_as_well(client: httpx.AsyncClient) -> None:
    ada = await enroll(client, "Ada", photo(RED), photo(GREEN), photo(SAME))
    (weak,) = of_kind(await report(client), "weak_photo")
    assert [p["id"] for p in weak["photos"]] == [ada["images"][1]["id"]]
    assert weak["weaknesses"] == ["outlier"]
    assert weak["distance"] > weak["limit"] == ONE_TO_ONE


async def test_of_two_photos_nobody_can_say_which_is_wrong(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED), photo(GREEN))
    found = await report(client)
    (finding,) = found["findings"]
    assert (finding["code"], finding["odd_one_out"]) == ("photos_disagree", None)


async def test_weak_photos_say_why(client: httpx.AsyncClient, services: Services) -> None:
    ada = await enroll(client, "Ada", photo(RED))
    await blur(services, ada, override="the only one")
    eva = await enroll(client, "Eva", photo(GREEN))
    await enroll(client, "Joan", photo(BLUE))
    async with services.database.write() as connection:
        late = embeddings.c.reference_image_id == eva["images"][0]["id"]
        await connection.execute(delete(embeddings).where(late))
    found = await report(client)
    lost, small = of_kind(found, "weak_photo")
    assert (lost["entries"], lost["weaknesses"]) == ([{"id": eva["id"], "name": "Eva"}], ["not_embedded"])
    assert "facescreen reindex" in lost["detail"]
    assert (small["entries"], small["weaknesses"]) == ([{"id": ada["id"], "name": "Ada"}], ["overridden"])
    (issue,) = small["quality_issues"]
    assert (issue["issue"], issue["value"]) == ("blurred", BLURRED)
    assert issue["detail"] in small["detail"]
    assert [f["entries"][0]["name"] for f in of_kind(found, "entry_without_photos")] == ["Eva"]


async def test_photos_from_before_quality_was_measured_are_counted(
    client: httpx.AsyncClient, services: Services
) -> None:
    await enroll(client, "Ada", photo(RED))
    await enroll(client, "Eva", photo(GREEN))
    async with services.database.write() as connection:
        await connection.execute(update(reference_images).where(reference_images.c.entry_id == 1).values(quality=None))
    found = await report(client)
    assert (found["quality_not_measured"], found["findings"]) == (1, [])


async def test_an_entry_without_photos_matches_nobody(client: httpx.AsyncClient) -> None:
    ada = await enroll(client, "Ada", photo(RED))
    await client.delete(f"/blacklist/{ada['id']}/images/{ada['images'][0]['id']}")
    found = await report(client)
    (finding,) = found["findings"]
    assert (finding["code"], finding["entries"]) == ("entry_without_photos", [{"id": ada["id"], "name": "Ada"}])
    assert found["entries"] == 1


async def test_the_most_urgent_come_first_and_all_are_counted(client: httpx.AsyncClient, services: Services) -> None:
    for number in range(4):
        await enroll(client, f"Ada {number}", photo(RED, side=64 + number))
    await blur(services, await enroll(client, "Eva", photo(ALIKE)))
    gone = await enroll(client, "Joan", photo(BLUE))
    await client.delete(f"/blacklist/{gone['id']}/images/{gone['images'][0]['id']}")
    found = await report(client, limit=2)
    assert [finding["code"] for finding in found["findings"]] == [
        "entry_without_photos",
        *["duplicate_entries"] * 2,
        *["look_alikes"] * 2,
        "weak_photo",
    ]
    assert (found["totals"]["duplicate_entries"], found["totals"]["look_alikes"]) == (6, 4)
    assert len((await report(client))["findings"]) == 12
    assert (await client.get("/blacklist/report", params={"limit": 0})).status_code == 422


async def test_an_unchanged_list_is_not_looked_at_again(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED))
    first = await report(client)
    assert await report(client) == first
    await enroll(client, "Eva", photo(SAME))
    second = await report(client)
    assert second["list_version"] > first["list_version"]
    assert second["created_at"] > first["created_at"]
    assert second["totals"]["duplicate_entries"] == 1
    record = (await client.get("/blacklist/")).json()[0]
    await client.put(f"/blacklist/{record['id']}/", json={"name": "Ada King"})
    (finding,) = (await report(client))["findings"]
    assert finding["entries"][0]["name"] == "Ada King"


async def test_each_collection_has_its_own_report(client: httpx.AsyncClient) -> None:
    await client.post("/collections/", json={"name": "staff"})
    await enroll(client, "Ada", photo(RED))
    response = await client.post(
        "/blacklist/", params={"collection": "staff"}, data={"name": "Eva"}, files={"images": photo(SAME)}
    )
    assert response.status_code == 201
    found = await report(client, collection="staff")
    assert (found["collection"], found["entries"], found["findings"]) == ("staff", 1, [])
    assert (await report(client))["findings"] == []
    missing = await client.get("/blacklist/report", params={"collection": "nobody"})
    assert (missing.status_code, missing.json()["code"]) == (404, "collection_not_found")


async def test_a_model_without_measurements_says_so(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"model_name": UNMEASURED})) as client:
        await enroll(client, "Ada", photo(RED), photo(GREEN))
        await enroll(client, "Eva", photo(YELLOW))
        found = await report(client)
    assert found["one_to_one_threshold"] is None
    assert found["totals"]["photos_disagree"] is None
    assert found["totals"]["duplicate_entries"] == 0
    alerts = found["false_alerts"]
    assert (alerts["match_per_1000"], alerts["review_per_1000"], alerts["calibration"]) == (None, None, None)
    assert "facescreen calibrate" in alerts["evidence"]
