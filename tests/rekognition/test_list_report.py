"""Where Rekognition keeps the faces, a report says what the rows tell, and of the rest that it cannot be told."""

import httpx

from facescreen.domain.blacklist import DEFAULT_COLLECTION
from tests.api.test_blacklist import enroll
from tests.api.test_list_report import BLURRED, blur, of_kind, report
from tests.painted import GREEN, RED, photo
from tests.rekognition.sides import inside


async def test_a_report_on_rekognition_says_what_cannot_be_told(client: httpx.AsyncClient) -> None:
    ada = await enroll(client, "Ada", photo(RED))
    again = await enroll(client, "Ada again", photo(RED, side=80))
    eva = await enroll(client, "Eva", photo(GREEN))
    await client.delete(f"/blacklist/{eva['id']}/images/{eva['images'][0]['id']}")
    await blur(inside(client), ada)
    found = await report(client)
    assert found["collection"] == DEFAULT_COLLECTION
    assert found["totals"] == {
        "entry_without_photos": 1,
        "duplicate_entries": None,
        "photos_disagree": None,
        "look_alikes": None,
        "weak_photo": 1,
    }
    assert [finding["code"] for finding in found["findings"]] == ["entry_without_photos", "weak_photo"]
    (weak,) = of_kind(found, "weak_photo")
    assert (weak["entries"][0]["id"], weak["weaknesses"]) == (ada["id"], [])
    assert weak["quality_issues"][0]["value"] == BLURRED
    assert again["id"] not in {entry["id"] for finding in found["findings"] for entry in finding["entries"]}
    assert found["distance_metric"] == "similarity"
    assert found["one_to_one_threshold"] is None
    assert found["false_alerts"]["match_per_1000"] is None
    assert "outside service" in found["false_alerts"]["evidence"]
