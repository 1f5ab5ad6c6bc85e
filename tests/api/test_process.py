"""Screening over HTTP."""

import base64
from typing import Any

import httpx
import pytest

from facescreen.config import Settings
from tests.api.test_blacklist import enroll, files, matches
from tests.conftest import serving
from tests.painted import BLUE, GREEN, RED, UNMEASURED, YELLOW, inline, photo


async def process(client: httpx.AsyncClient, *images: str, **options: object) -> list[dict[str, Any]]:
    response = await client.post("/process/process-images", json={"images": list(images), **options})
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()
    return results


async def test_results_come_in_order_with_every_face_listed(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED))
    pictures = [photo(GREEN, RED, BLUE), photo(), photo(RED)]
    results = await process(client, *map(inline, pictures))
    verdicts = [[face["verdict"] for face in result["faces"]] for result in results]
    assert verdicts == [["clear", "match", "clear"], [], ["match"]]
    assert [face["face_index"] for face in results[0]["faces"]] == [0, 1, 2]
    assert [result["error"] for result in results] == [None, None, None]
    middle = results[0]["faces"][1]
    (match,) = middle["blacklist_matches"]
    assert [match[f"source_{key}"] for key in "xywh"] == [middle["facial_area"][key] for key in "xywh"]
    assert (match["model_name"], match["distance_metric"]) == ("SFace", "cosine")


async def test_one_bad_image_never_fails_the_others(client: httpx.AsyncClient, settings: Settings) -> None:
    (settings.image_input_roots[0] / "cut.png").write_bytes(photo(RED)[:200])
    images = [
        inline(photo(RED)),
        "no/such.jpg",
        "!!",
        str(settings.image_input_roots[0] / "cut.png"),
        inline(photo(GREEN)),
    ]
    results = await process(client, *images)
    codes = [result["error"] and result["error"]["code"] for result in results]
    assert codes[0] is None
    assert codes[1] == "path_not_allowed"
    assert codes[2] in {"invalid_base64", "path_not_allowed"}
    assert codes[3:] == ["image_undecodable", None]
    assert results[1]["image_path_or_identifier"] == "no/such.jpg"
    stored = (await client.get("/processed-images/")).json()
    assert stored["total_items"] == 5
    assert stored["items"] == results[::-1]
    assert len(files(settings.processed_images_output_dir)) == 2


async def test_every_kind_of_source_gives_the_same_faces(client: httpx.AsyncClient, settings: Settings) -> None:
    data = photo(RED, BLUE)
    path = settings.image_input_roots[0] / "two.png"
    path.write_bytes(data)
    encoded = base64.b64encode(data).decode()
    results = await process(client, str(path), f"data:image/png;base64,{encoded}", encoded)
    assert results[0]["faces"] == results[1]["faces"] == results[2]["faces"]
    assert len(results[0]["faces"]) == 2
    assert results[0]["image_path_or_identifier"] == str(path)
    assert results[1]["image_path_or_identifier"].startswith("sha256:")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"images": []}, "images"),
        ({}, "images"),
        ({"images": ["x.jpg"], "threshold": -1}, "threshold"),
        ({"images": ["x.jpg"], "detector_backend": "centerfaces"}, "detector_backend"),
        ({"images": ["x.jpg"], "model_name": "dlibb"}, "model_name"),
        ({"images": ["x.jpg"], "distance_metric": "manhattan"}, "distance_metric"),
        ({"images": ["x.jpg"], "thresold": 0.1}, "thresold"),
    ],
)
async def test_a_wrong_field_is_named_with_what_is_allowed(
    client: httpx.AsyncClient, body: dict[str, object], field: str
) -> None:
    response = await client.post("/process/process-images", json=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["code"] == "invalid_request"
    assert problem["errors"][0]["location"] == f"body.{field}"


async def test_a_threshold_outside_of_the_metric_is_refused(client: httpx.AsyncClient) -> None:
    for metric, value in (("cosine", 2.1), ("euclidean_l2", 2.1), ("angular", 1.1)):
        body = {"images": [inline(photo(RED))], "distance_metric": metric, "threshold": value}
        assert (await client.post("/process/process-images", json=body)).json()["code"] == "invalid_threshold"
    raw = '{"images": ["x.jpg"], "threshold": NaN}'
    response = await client.post("/process/process-images", content=raw, headers={"content-type": "application/json"})
    assert response.status_code == 422


async def test_a_threshold_that_was_meant_as_a_similarity_is_called_one(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED))
    for given, warned in (
        ({"threshold": 0.9}, ["threshold"]),
        ({"threshold": 0.6}, []),
        ({"threshold": 0.1, "review_threshold": 0.7}, ["review_threshold"]),
        ({"threshold": 0.7, "review_threshold": 0.8}, ["threshold", "review_threshold"]),
        ({"threshold": 1.2, "distance_metric": "euclidean_l2"}, ["threshold"]),
        ({"threshold": 0.9, "model_name": UNMEASURED}, []),
        ({}, []),
    ):
        (result,) = await process(client, inline(photo(GREEN)), **given)
        assert [warning["detail"].split()[0].strip("`") for warning in result["warnings"]] == warned, given
        assert {warning["code"] for warning in result["warnings"]} <= {"threshold_too_wide"}
        assert (await client.get(f"/processed-images/{result['id']}")).json() == result
    (result,) = await process(client, inline(photo(GREEN)), threshold=0.9)
    (warning,) = result["warnings"]
    assert warning["detail"].startswith("`threshold` 0.9 is a distance, and larger than 0.664")
    assert f"{result['calibration']['false_alert_rate']:.0%} of them" in warning["detail"]


async def test_threshold_zero_means_zero(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED))
    pictures = inline(photo(RED)), inline(photo((225, 25, 25)))
    (exact, near) = await process(client, *pictures, threshold=0, review_threshold=0)
    assert (exact["threshold"], exact["review_threshold"]) == (0, 0)
    assert [result["faces"][0]["verdict"] for result in (exact, near)] == ["match", "clear"]
    (exact, near) = await process(client, *pictures, threshold=0)
    assert [result["faces"][0]["verdict"] for result in (exact, near)] == ["match", "possible"]


async def test_angle_based_metrics_share_one_operating_point(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED))
    pictures = [inline(photo((230 - 18 * step, 20 + 16 * step, 20))) for step in range(12)]
    verdicts = {
        metric: [r["faces"][0]["verdict"] for r in await process(client, *pictures, distance_metric=metric)]
        for metric in ("cosine", "euclidean_l2", "angular")
    }
    assert verdicts["cosine"] == verdicts["euclidean_l2"] == verdicts["angular"]
    assert set(verdicts["cosine"]) == {"match", "possible", "clear"}


async def test_a_model_that_is_not_here_names_the_command(client: httpx.AsyncClient) -> None:
    body = {"images": [inline(photo(RED))], "model_name": "ArcFace", "threshold": 0.5}
    response = await client.post("/process/process-images", json=body)
    assert response.status_code == 424
    assert response.json()["code"] == "weights_missing"
    assert "facescreen weights pull" in response.json()["detail"]


async def test_a_model_without_a_measured_threshold_needs_one(client: httpx.AsyncClient) -> None:
    body = {"images": [inline(photo(RED))], "model_name": "ArcFace"}
    assert (await client.post("/process/process-images", json=body)).json()["code"] == "threshold_required"


async def test_a_model_that_is_new_to_the_list_embeds_it_once(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED))
    await enroll(client, "Eve", photo(YELLOW))
    (result,) = await process(client, inline(photo(RED)), model_name="Dlib", threshold=0.05)
    assert [match["name"] for match in result["faces"][0]["blacklist_matches"]] == ["Ada"]
    version = result["list_version"]
    (again,) = await process(client, inline(photo(RED)), model_name="Dlib", threshold=0.05)
    assert again["list_version"] == version
    assert len(await matches(client, photo(RED))) == 1


async def test_a_large_list_is_not_embedded_inside_a_request(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"inline_reindex_limit": 1})) as client:
        for colour in (RED, GREEN):
            await enroll(client, "Ada", photo(colour))
        body = {"images": [inline(photo(RED))], "model_name": "Dlib", "threshold": 0.05}
        response = await client.post("/process/process-images", json=body)
        assert response.status_code == 424
        assert response.json()["code"] == "embeddings_missing"
        assert "facescreen reindex --model Dlib" in response.json()["detail"]
        report = await client.services.reindex.reindex("Dlib")  # type: ignore[attr-defined]
        assert report.embedded == 2
        assert (await client.post("/process/process-images", json=body)).status_code == 200


async def test_too_many_images_and_too_large_bodies_are_refused(settings: Settings) -> None:
    tight = settings.model_copy(update={"max_images_per_request": 2, "max_body_bytes": 20_000})
    async with serving(tight) as client:
        response = await client.post("/process/process-images", json={"images": ["x.jpg"] * 3})
        assert (response.status_code, response.json()["code"]) == (413, "too_many_images")
        response = await client.post("/process/process-images", json={"images": ["x" * 30_000]})
        assert (response.status_code, response.json()["code"]) == (413, "body_too_large")

        async def chunks() -> Any:
            for _ in range(30):
                yield b" " * 1000

        response = await client.post(
            "/process/process-images", content=chunks(), headers={"content-type": "application/json"}
        )
        assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


async def test_the_list_is_not_searched_by_a_withdrawn_reference(client: httpx.AsyncClient, settings: Settings) -> None:
    record = await enroll(client, "Ada", photo(RED))
    (result,) = await process(client, inline(photo(RED)))
    assert result["faces"][0]["verdict"] == "match"
    for path in files(settings.blacklist_db_path):
        path.unlink()
    await client.delete(f"/blacklist/{record['id']}/")
    (result,) = await process(client, inline(photo(RED)))
    assert result["faces"][0]["verdict"] == "clear"


async def test_detect_gives_boxes_and_landmarks(client: httpx.AsyncClient) -> None:
    response = await client.post("/detect/detect-face", json={"image": inline(photo(RED, GREEN, side=40))})
    assert response.json()[0] == {
        "facial_area": {
            "turned": 0,
            "x": 20,
            "y": 20,
            "w": 40,
            "h": 40,
            "left_eye": [48, 32],
            "right_eye": [32, 32],
            "nose": None,
            "mouth_left": None,
            "mouth_right": None,
        },
        "confidence": 0.99,
    }
    assert len(response.json()) == 2


@pytest.mark.parametrize(
    ("image", "status", "code"),
    [
        ("/etc/passwd", 403, "path_not_allowed"),
        ("http://127.0.0.1/x.jpg", 422, "url_not_allowed"),
        ("file:///etc/passwd", 422, "url_not_allowed"),
        ("data:image/png;base64,AAAA", 415, "unsupported_format"),
        ("data:image/jpeg," + "%25PDF-1.7", 415, "unsupported_format"),
    ],
)
async def test_detect_refuses_with_a_stable_code(client: httpx.AsyncClient, image: str, status: int, code: str) -> None:
    response = await client.post("/detect/detect-face", json={"image": image})
    assert response.json()["code"] == code
    assert response.status_code == status
