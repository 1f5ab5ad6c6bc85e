"""The service on Rekognition when nothing fails."""

import io
import json
import math
import re
from typing import Any

import httpx
import pytest
from PIL import Image

from facescreen.config import Settings
from facescreen.errors import StartupError
from tests.api.test_blacklist import enroll, files, matches, upload
from tests.api.test_sync import drop, sync
from tests.painted import BLUE, GREEN, RED, YELLOW, inline, photo
from tests.rekognition.agreement import check_sides
from tests.rekognition.s3_proxy import EXPIRED_TOKEN
from tests.rekognition.sides import COLLECTION, PREFIX, Aws, serving
from tests.rekognition_server import ACCESS_DENIED, EXPIRED_CREDENTIALS, Reply, similarity


async def screen(client: httpx.AsyncClient, *pictures: bytes, **options: Any) -> list[dict[str, Any]]:
    body = {"images": [inline(picture) for picture in pictures], **options}
    response = await client.post("/process/process-images", json=body)
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()
    return results


async def test_an_enrolled_person_is_on_every_side(client: httpx.AsyncClient, settings: Settings, aws: Aws) -> None:
    record = await enroll(client, "Ada", photo(RED), reason="theft")
    (image,) = record["images"]
    assert (record["status"], image["status"], image["detector_backend"]) == ("active", "active", "rekognition")
    ((key, data),) = aws.objects().items()
    assert re.fullmatch(f"{PREFIX}{record['user_id']}/[0-9a-f]{{64}}\\.jpg", key)
    assert Image.open(io.BytesIO(data)).size == (image["width"], image["height"])
    assert image["identity"] == f"blacklist_db/{key.removeprefix(PREFIX)}"
    ((name, person),) = aws.faces().values()
    assert (name, person) == (f"{record['user_id']}.{image['id']}", record["user_id"])
    shown = await client.get(f"/blacklist/{record['id']}/images/{image['id']}")
    assert (shown.headers["content-type"], shown.content) == ("image/jpeg", data)
    assert files(settings.blacklist_db_path) == []
    assert check_sides(settings, aws) == {"Ada": 1}


async def test_every_face_of_a_picture_has_a_verdict(client: httpx.AsyncClient, settings: Settings, aws: Aws) -> None:
    ada = await enroll(client, "Ada", photo(RED))
    bob = await enroll(client, "Bob", photo(BLUE))
    (result,) = await screen(client, photo(BLUE, YELLOW, RED))
    assert (result["model_name"], result["detector_backend"]) == ("rekognition-7.0", "rekognition")
    assert (result["distance_metric"], result["threshold"], result["error"]) == ("similarity", 0.2, None)
    faces = sorted(result["faces"], key=lambda face: face["facial_area"]["x"])
    assert [face["verdict"] for face in faces] == ["match", "clear", "match"]
    named = [[match["entry_id"] for match in face["blacklist_matches"]] for face in faces]
    assert named == [[bob["id"]], [], [ada["id"]]]
    (match,) = faces[2]["blacklist_matches"]
    assert 99 < match["similarity"] <= 100
    assert match["distance"] == pytest.approx(1 - match["similarity"] / 100)
    assert (match["threshold"], match["confidence"]) == (0.2, None)
    assert match["identity"] == ada["images"][0]["identity"]
    area = ada["images"][0]["facial_area"]
    assert [match[f"target_{side}"] for side in "xywh"] == [area[side] for side in "xywh"]
    stored = (await client.get(f"/processed-images/{result['id']}")).json()
    assert stored == result
    assert check_sides(settings, aws) == {"Ada": 1, "Bob": 1}


async def test_a_threshold_is_a_similarity(client: httpx.AsyncClient, aws: Aws) -> None:
    await enroll(client, "Ada", photo(RED))
    alike = similarity([c / 255 - 0.5 for c in RED], [c / 255 - 0.5 for c in YELLOW])
    assert 20 < alike < 80
    for threshold, found in ((1 - (alike - 2) / 100, 1), (1 - (alike + 2) / 100, 0)):
        (result,) = await screen(client, photo(YELLOW), threshold=threshold)
        assert len(result["faces"][0]["blacklist_matches"]) == found
        asked = [call.parameters for call in aws.rekognition.calls if call.operation == "SearchFacesByImage"][-1]
        assert asked["FaceMatchThreshold"] == pytest.approx(100 * (1 - threshold))
    response = await client.post("/process/process-images", json={"images": [inline(photo(RED))], "threshold": 1.1})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_threshold")


async def test_a_similarity_at_the_threshold_matches(client: httpx.AsyncClient, aws: Aws) -> None:
    await enroll(client, "Ada", photo(RED))
    (face_id,) = aws.faces()
    for percent in (0, 7, 30, 70, 93, 100):
        answer = {"FaceMatches": [{"Similarity": float(percent), "Face": {"FaceId": face_id}}]}
        aws.rekognition.fail("SearchFacesByImage", Reply(200, json.dumps(answer).encode()))
        (result,) = await screen(client, photo(RED), threshold=(100 - percent) / 100)
        (match,) = result["faces"][0]["blacklist_matches"]
        assert match["similarity"] == pytest.approx(percent)


async def test_the_configured_threshold_is_the_default(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"match_threshold": 0.9})) as client:
        await enroll(client, "Ada", photo(RED))
        (result,) = await screen(client, photo(YELLOW))
        assert (result["threshold"], result["faces"][0]["verdict"]) == (0.9, "match")
    with pytest.raises(StartupError, match=r"^MATCH_THRESHOLD: "):
        async with serving(settings.model_copy(update={"match_threshold": 1.5})):
            pass


@pytest.mark.parametrize(
    "option", [{"detector_backend": "centerface"}, {"model_name": "SFace"}, {"distance_metric": "cosine"}], ids=str
)
async def test_there_is_nothing_to_choose(client: httpx.AsyncClient, option: dict[str, str]) -> None:
    response = await client.post("/process/process-images", json={"images": [inline(photo(RED))], **option})
    assert (response.status_code, response.json()["code"]) == (422, "option_not_available")


async def test_faces_are_detected(client: httpx.AsyncClient) -> None:
    response = await client.post("/detect/detect-face", json={"image": inline(photo(RED, GREEN))})
    assert response.status_code == 200, response.text
    areas = sorted((face["facial_area"] for face in response.json()), key=lambda area: area["x"])
    assert [[area[side] for side in "xywh"] for area in areas] == [[32, 32, 64, 64], [160, 32, 64, 64]]
    refused = await client.post("/detect/detect-face", json={"image": inline(photo(RED)), "detector_backend": "dlib"})
    assert (refused.status_code, refused.json()["code"]) == (422, "option_not_available")


async def test_several_photos_make_one_person(client: httpx.AsyncClient, settings: Settings, aws: Aws) -> None:
    record = await enroll(client, "Ada", photo(RED), photo(GREEN))
    added = await client.post(f"/blacklist/{record['id']}/images", files=upload(photo(BLUE)))
    assert added.status_code == 200, added.text
    assert len(added.json()["record"]["images"]) == 3
    for colour in (RED, GREEN, BLUE):
        assert [match["entry_id"] for match in await matches(client, photo(colour))] == [record["id"]]
    assert aws.users() == {record["user_id"]}
    assert check_sides(settings, aws) == {"Ada": 3}


async def test_the_same_photo_twice_is_refused_and_harms_nothing(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    record = await enroll(client, "Ada", photo(RED))
    again = await client.post(f"/blacklist/{record['id']}/images", files=upload(photo(GREEN), photo(RED)))
    assert (again.status_code, again.json()["code"]) == (422, "enrollment_rejected")
    assert [fault["code"] for fault in again.json()["errors"]] == ["duplicate_image"]
    assert check_sides(settings, aws) == {"Ada": 1}


async def test_a_dropped_photo_that_is_uploaded_too_is_refused(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    drop(settings, "person_A/a.png", photo(RED))
    await sync(client)
    (record,) = (await client.get("/blacklist/")).json()
    again = await client.post(f"/blacklist/{record['id']}/images", files=upload(photo(RED)))
    assert (again.status_code, again.json()["code"]) == (422, "duplicate_image")
    assert check_sides(settings, aws) == {"person_A": 1}


async def test_people_are_renamed_and_removed(client: httpx.AsyncClient, settings: Settings, aws: Aws) -> None:
    ada = await enroll(client, "Ada", photo(RED), photo(GREEN))
    await enroll(client, "Bob", photo(BLUE))
    url = f"/blacklist/{ada['id']}"
    assert (await client.put(f"{url}/", json={"name": "Eve"})).json()["name"] == "Eve"
    assert (await matches(client, photo(RED)))[0]["name"] == "Eve"
    left = await client.delete(f"{url}/images/{ada['images'][0]['id']}")
    assert left.status_code == 200, left.text
    assert await matches(client, photo(RED)) == []
    assert len(await matches(client, photo(GREEN))) == 1
    assert check_sides(settings, aws) == {"Eve": 1, "Bob": 1}
    await client.delete(f"{url}/images/{ada['images'][1]['id']}")
    assert check_sides(settings, aws) == {"Eve": 0, "Bob": 1}
    assert (await client.post(f"{url}/images", files=upload(photo(RED)))).status_code == 200
    assert len(await matches(client, photo(RED))) == 1
    assert (await client.delete(f"{url}/")).status_code == 200
    assert await matches(client, photo(RED)) == await matches(client, photo(GREEN)) == []
    assert check_sides(settings, aws) == {"Bob": 1}
    assert len(aws.users()) == 1
    page = (await client.get("/processed-images/", params={"verdict": "withdrawn"})).json()
    assert page["total_items"] > 0


async def test_collections_are_kept_apart(client: httpx.AsyncClient, settings: Settings, aws: Aws) -> None:
    assert (await client.post("/collections/", json={"name": "staff"})).status_code == 201
    again = await client.post("/collections/", json={"name": "staff"})
    assert (again.status_code, again.json()["code"]) == (409, "collection_exists")
    await enroll(client, "Ada", photo(RED))
    response = await client.post(
        "/blacklist/", params={"collection": "staff"}, data={"name": "Bob"}, files=upload(photo(GREEN))
    )
    assert response.status_code == 201, response.text
    for collection, names in (("default", ["Ada"]), ("staff", ["Bob"])):
        (result,) = await screen(client, photo(RED, GREEN), collection=collection)
        found = [match["name"] for face in result["faces"] for match in face["blacklist_matches"]]
        assert found == names
    assert check_sides(settings, aws) == {"Ada": 1, "Bob": 1}
    assert (await client.delete("/collections/staff/")).status_code == 204
    assert set(aws.rekognition.collections) == {COLLECTION}
    assert check_sides(settings, aws) == {"Ada": 1}


async def test_a_name_that_is_too_long_there_is_refused(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    longest = "a" * (255 - len(f"{COLLECTION}."))
    refused = await client.post("/collections/", json={"name": f"{longest}a"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert (await client.post("/collections/", json={"name": longest})).status_code == 201
    assert [found["name"] for found in (await client.get("/collections/")).json()] == [longest, "default"]
    assert check_sides(settings, aws) == {}


async def test_photos_are_kept_here_too(settings: Settings, aws: Aws) -> None:
    settings = settings.model_copy(update={"aws_keep_local_copy": True})
    async with serving(settings) as client:
        record = await enroll(client, "Ada", photo(RED), photo(GREEN))
        assert len(files(settings.blacklist_db_path)) == 2
        assert check_sides(settings, aws) == {"Ada": 2}
        assert (await sync(client))["added"] == []
        await client.delete(f"/blacklist/{record['id']}/images/{record['images'][0]['id']}")
        assert check_sides(settings, aws) == {"Ada": 1}
        await client.delete(f"/blacklist/{record['id']}/")
        assert check_sides(settings, aws) == {}
        assert not any(settings.blacklist_db_path.glob("fs-*"))


async def test_the_folder_is_synchronised(settings: Settings, aws: Aws) -> None:
    red, _ = drop(settings, "person_A/a.png", photo(RED)), drop(settings, "person_A/b.png", photo(GREEN))
    drop(settings, "person_B/c.png", photo(BLUE))
    group = "person_B/group.png"
    drop(settings, group, photo(RED, BLUE))
    async with serving(settings) as client:
        assert [match["name"] for match in await matches(client, photo(RED))] == ["person_A"]
        assert check_sides(settings, aws, dropped=[group]) == {"person_A": 2, "person_B": 1}
    indexed = sum(call.operation == "IndexFaces" for call in aws.rekognition.calls)
    async with serving(settings) as client:
        assert sum(call.operation == "IndexFaces" for call in aws.rekognition.calls) == indexed
        red.unlink()
        assert (await sync(client))["withdrawn"] == ["blacklist_db/person_A/a.png"]
        assert await matches(client, photo(RED)) == []
        assert check_sides(settings, aws, dropped=[group]) == {"person_A": 1, "person_B": 1}
        (settings.blacklist_db_path / "person_A/b.png").write_bytes(photo(YELLOW))
        report = await sync(client)
        assert report["added"] == report["withdrawn"] == ["blacklist_db/person_A/b.png"]
        assert check_sides(settings, aws, dropped=[group]) == {"person_A": 1, "person_B": 1}
        for record in (await client.get("/blacklist/")).json():
            assert (await client.delete(f"/blacklist/{record['id']}/")).status_code == 200
        assert files(settings.blacklist_db_path) == []
        assert check_sides(settings, aws) == {}


async def test_health_and_models(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED), photo(GREEN))
    health = (await client.get("/")).json()
    assert (health["backend"], health["detector_backend"], health["model_name"]) == (
        "aws_rekognition",
        "rekognition",
        "rekognition-7.0",
    )
    assert (health["entries"], health["reference_images"]) == (1, 2)
    models = await client.get("/models")
    assert models.status_code == 200
    assert (models.json()["detectors"], models.json()["models"]) == ([], [])


async def test_a_result_names_a_version_that_grows_with_the_list(client: httpx.AsyncClient) -> None:
    (before,) = await screen(client, photo(RED))
    await enroll(client, "Ada", photo(RED))
    (after,) = await screen(client, photo(RED))
    assert before["list_version"] < after["list_version"]
    (again,) = await screen(client, photo(RED))
    assert again["list_version"] == after["list_version"]


async def test_a_bad_image_does_not_fail_the_others(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED))
    response = await client.post(
        "/process/process-images",
        json={"images": ["data:image/png;base64,aGVsbG8=", inline(photo(RED)), inline(photo())]},
    )
    refused, found, empty = response.json()
    assert refused["error"]["code"] == "unsupported_format"
    assert found["faces"][0]["verdict"] == "match"
    assert (empty["error"], empty["faces"]) == (None, [])


async def test_a_start_is_refused_in_one_line(settings: Settings, aws: Aws) -> None:
    async def refused(**changed: object) -> str:
        with pytest.raises(StartupError) as raised:
            async with serving(settings.model_copy(update=changed)):
                pass
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert "AWS_S3_BUCKET_NAME" in await refused(aws_s3_bucket_name=None)
    assert "AWS_S3_BUCKET_NAME" in await refused(aws_s3_bucket_name="nobody-made-this-one")
    nowhere = "http://127.0.0.1:9"
    assert "S3 cannot be reached" in await refused(aws_endpoint_url_s3=nowhere, aws_deadline_seconds=10)
    assert "Rekognition cannot be reached" in await refused(
        aws_endpoint_url_rekognition=nowhere, aws_deadline_seconds=10
    )
    aws.rekognition.fail("*", EXPIRED_CREDENTIALS)
    assert "credentials" in await refused()
    aws.rekognition.fail("*", ACCESS_DENIED)
    assert "IAM" in await refused()
    aws.s3.fail("GET", EXPIRED_TOKEN, times=math.inf)
    assert "credentials" in await refused()
    aws.heal()
    async with serving(settings):
        assert check_sides(settings, aws) == {}
