"""Reference photos on Rekognition are held to the same limits, and compared with those that are there."""

import httpx

from facescreen.config import Settings
from tests.api.test_blacklist import enroll, upload
from tests.painted import BLUE, GREEN, RED, photo
from tests.rekognition.agreement import check_sides
from tests.rekognition.sides import Aws


async def test_a_photo_that_is_not_good_enough_needs_an_override(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    small = upload(photo(RED), photo(GREEN, side=40))
    refused = await client.post("/blacklist/", data={"name": "Ada"}, files=small)
    assert (refused.status_code, refused.json()["code"]) == (422, "enrollment_rejected")
    assert [(fault["location"], fault["code"]) for fault in refused.json()["errors"]] == [("1.png", "photo_quality")]
    assert check_sides(settings, aws) == {}
    form = {"name": "Ada", "quality_override": "only photo that exists"}
    taken = await client.post("/blacklist/", data=form, files=small)
    assert taken.status_code == 201, taken.text
    good, bad = taken.json()["images"]
    assert (good["quality_override"], bad["quality_override"]) == (None, "only photo that exists")
    assert [issue["issue"] for issue in bad["quality_issues"]] == ["too_small"]
    assert good["quality"]["yaw"] is not None
    assert check_sides(settings, aws) == {"Ada": 2}


async def test_a_photo_that_looks_like_another_entry_is_warned_of_or_refused(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    ada = await enroll(client, "Ada", photo(RED))
    again = upload(photo(GREEN), photo((225, 30, 30)))
    refused = await client.post("/blacklist/", data={"name": "Eve", "reject_duplicates": "true"}, files=again)
    assert (refused.status_code, refused.json()["code"]) == (409, "duplicate_entry")
    assert [fault["location"] for fault in refused.json()["errors"]] == ["1.png"]
    assert check_sides(settings, aws) == {"Ada": 1}
    eve = await client.post("/blacklist/", data={"name": "Eve"}, files=again)
    (warning,) = eve.json()["warnings"]
    assert (warning["photo"], warning["entry_id"], warning["name"]) == ("1.png", ada["id"], "Ada")
    assert 0 <= warning["distance"] < warning["threshold"] == 0.2
    assert warning["distance_metric"] == "similarity"
    assert check_sides(settings, aws) == {"Ada": 1, "Eve": 2}
    more = await client.post(f"/blacklist/{ada['id']}/images", files=upload(photo(RED, side=80), photo(BLUE)))
    assert {warning["name"] for warning in more.json()["warnings"]} == {"Eve"}
