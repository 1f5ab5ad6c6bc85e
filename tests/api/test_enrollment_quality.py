"""Reference photos have to be good, or somebody says why they are taken nevertheless."""

from typing import Any

import httpx
import pytest
from sqlalchemy import update

from facescreen.config import Settings
from facescreen.db.schema import reference_images
from facescreen.domain.quality import ENROLLMENT_LIMITS
from facescreen.factory import Services
from facescreen.services.quality import QualityFilter
from tests.api.test_blacklist import enroll, files, matches, upload
from tests.api.test_sync import drop, sync
from tests.painted import BLUE, GREEN, RED, photo

NIGHT = (5, 5, 130)
"""So dark a blue that it counts as shadow."""
SMALL = 40
"""Pixels of a face that is large enough to be somebody, and too small for a reference photo."""
TOO_SMALL = f"too small (side {SMALL}, at least {ENROLLMENT_LIMITS.side}): go nearer"


async def refusals(response: httpx.Response) -> dict[str, tuple[str, str]]:
    """Code and detail of each refused file."""
    assert (response.status_code, response.json()["code"]) == (422, "enrollment_rejected"), response.text
    return {fault["location"]: (fault["code"], fault["detail"]) for fault in response.json()["errors"]}


async def records(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get("/blacklist/")).json()
    return found


async def test_a_photo_that_is_not_good_enough_is_refused_with_every_reason(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    response = await client.post("/blacklist/", data={"name": "Ada"}, files=upload(photo(NIGHT, side=SMALL)))
    ((code, detail),) = (await refusals(response)).values()
    assert code == "photo_quality"
    assert TOO_SMALL in detail
    assert f"too dark (shadows 100, at most {ENROLLMENT_LIMITS.shadows:.4g}): light it" in detail
    assert "blurred" not in detail
    assert await records(client) == []
    assert files(settings.blacklist_db_path) == []


async def test_the_bad_ones_of_several_are_named_and_none_is_taken(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    photos = upload(photo(RED), photo(GREEN, side=SMALL), photo(BLUE), photo(NIGHT), photo())
    refused = await refusals(await client.post("/blacklist/", data={"name": "Ada"}, files=photos))
    assert {file: code for file, (code, _) in refused.items()} == {
        "1.png": "photo_quality",
        "3.png": "photo_quality",
        "4.png": "no_face",
    }
    assert "too small" in refused["1.png"][1]
    assert "too dark" in refused["3.png"][1]
    assert await records(client) == []
    assert files(settings.blacklist_db_path) == []


async def test_an_override_is_recorded_with_the_photos_that_need_it(client: httpx.AsyncClient) -> None:
    why = "only photo that exists"
    made = await enroll(client, "Ada", photo(RED), photo(GREEN, side=SMALL), quality_override=f"  {why} ")
    (record,) = await records(client)
    assert record == made
    good, small = record["images"]
    assert (good["quality_override"], good["quality_issues"]) == (None, [])
    assert small["quality_override"] == why
    (issue,) = small["quality_issues"]
    assert (issue["issue"], issue["measure"], issue["value"], issue["limit"]) == (
        "too_small",
        "side",
        SMALL,
        ENROLLMENT_LIMITS.side,
    )
    assert "go nearer" in issue["detail"]
    assert (good["quality"]["side"], small["quality"]["side"]) == (64, SMALL)
    assert good["quality"]["confidence"] == 0.99
    assert good["quality"]["yaw"] is None
    assert len(await matches(client, photo(GREEN))) == 1


async def test_more_photos_are_held_to_the_same(client: httpx.AsyncClient) -> None:
    record = await enroll(client, "Ada", photo(RED))
    url = f"/blacklist/{record['id']}/images"
    refused = await refusals(await client.post(url, files=upload(photo(GREEN), photo(NIGHT))))
    assert [(file, code) for file, (code, _) in refused.items()] == [("1.png", "photo_quality")]
    assert await records(client) == [record]
    taken = await client.post(url, files=upload(photo(GREEN), photo(NIGHT)), data={"quality_override": "at night"})
    assert taken.status_code == 200, taken.text
    images = taken.json()["record"]["images"]
    assert [image["quality_override"] for image in images] == [None, None, "at night"]
    assert [issue["issue"] for issue in images[2]["quality_issues"]] == ["underexposed"]


@pytest.mark.parametrize("data", [photo(), photo(RED, GREEN), photo(RED, side=31), b"no image"], ids=len)
async def test_an_override_makes_no_photo_of_one_face(client: httpx.AsyncClient, data: bytes) -> None:
    form = {"name": "Ada", "quality_override": "only photo that exists"}
    response = await client.post("/blacklist/", data=form, files=upload(data))
    ((code, _),) = (await refusals(response)).values()
    assert code in {"no_face", "several_faces", "unsupported_format"}


async def test_the_largest_face_is_the_one_that_has_to_be_good(client: httpx.AsyncClient) -> None:
    form = {"name": "Ada", "face_selection": "largest"}
    response = await client.post("/blacklist/", data=form, files=upload(photo(RED, GREEN, side=SMALL)))
    assert [code for code, _ in (await refusals(response)).values()] == ["photo_quality"]
    assert (await client.post("/blacklist/", data=form, files=upload(photo(RED, GREEN)))).status_code == 201


@pytest.mark.parametrize(("override", "status"), [("x" * 2000, 201), ("x" * 2001, 422), ("  ", 422), ("", 422)])
async def test_an_override_has_to_say_something(client: httpx.AsyncClient, override: str, status: int) -> None:
    form = {"name": "Ada", "quality_override": override}
    response = await client.post("/blacklist/", data=form, files=upload(photo(NIGHT)))
    assert response.status_code == status, response.text
    assert len(await records(client)) == (status == 201)


async def test_dropped_photos_that_are_not_good_enough_are_skipped_and_can_be_uploaded(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    drop(settings, "person_A/a.png", photo(RED))
    drop(settings, "person_A/b.png", photo(GREEN, side=SMALL))
    report = await sync(client)
    assert report["added"] == ["blacklist_db/person_A/a.png"]
    (skipped,) = report["skipped"]
    assert (skipped["file"], skipped["code"]) == ("blacklist_db/person_A/b.png", "photo_quality")
    assert TOO_SMALL in skipped["detail"]
    (record,) = await records(client)
    response = await client.post(
        f"/blacklist/{record['id']}/images",
        files=upload(photo(GREEN, side=SMALL)),
        data={"quality_override": "only photo that exists"},
    )
    assert response.status_code == 200, response.text
    assert len(await matches(client, photo(GREEN))) == 1
    assert [skip["code"] for skip in (await sync(client))["skipped"]] == ["photo_quality"]


async def test_photos_from_before_have_no_measures(client: httpx.AsyncClient, services: Services) -> None:
    await enroll(client, "Ada", photo(RED))
    async with services.database.write() as connection:
        await connection.execute(update(reference_images).values(quality=None))
    (record,) = await records(client)
    (image,) = record["images"]
    assert (image["quality"], image["quality_issues"], image["quality_override"]) == (None, [], None)


async def test_a_rekognition_client_has_its_own_bars_and_the_measures_are_kept(
    client: httpx.AsyncClient, services: Services
) -> None:
    assert services.facade is not None
    indexed = await services.facade.faces.index(
        "default", photo(RED, side=SMALL), external_image_id=None, most=1, quality=QualityFilter.NONE
    )
    assert len(indexed.faces) == 1
    (record,) = await records(client)
    (image,) = record["images"]
    assert (image["quality"]["side"], image["quality_override"]) == (SMALL, None)
    assert [issue["issue"] for issue in image["quality_issues"]] == ["too_small"]
