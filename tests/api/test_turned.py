"""Heads that lie on their side or stand upside down, by the default models on real photos."""

import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from facescreen.config import DetectorName, Settings
from facescreen.domain.faces import Face, Pixels
from facescreen.images.decode import decode
from tests.api.test_blacklist import upload
from tests.api.test_sync import drop, sync
from tests.conftest import serving, serving_with
from tests.painted import GREEN, RED, PaintedBackend, inline, photo

SAMPLES = Path(__file__).parents[2] / "samples"
TURNS = (90, 180, 270)
"""Degrees clockwise."""


def turned(name: str, degrees: int) -> bytes:
    buffer = io.BytesIO()
    with Image.open(SAMPLES / name) as image:
        image.rotate(-degrees, expand=True).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
async def real(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving_with(settings.model_copy(update={"match_threshold": None}), None) as client:
        yield client


async def enroll(client: httpx.AsyncClient, data: bytes) -> dict[str, Any]:
    response = await client.post("/blacklist/", data={"name": "Eileen Collins"}, files=upload(data))
    assert response.status_code == 201, response.text
    record: dict[str, Any] = response.json()
    return record


async def screen(client: httpx.AsyncClient, *photos: bytes) -> list[dict[str, Any]]:
    response = await client.post("/process/process-images", json={"images": list(map(inline, photos))})
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()
    return results


async def test_a_turned_photo_matches_as_upright_ones_do(real: httpx.AsyncClient) -> None:
    record = await enroll(real, (SAMPLES / "astronaut.jpg").read_bytes())
    assert record["warnings"] == []
    upright, *others = await screen(real, *(turned("astronaut.jpg", degrees) for degrees in (0, *TURNS)))
    (expected,) = upright["faces"]
    assert (expected["verdict"], expected["facial_area"]["turned"]) == ("match", 0)
    for degrees, result in zip(TURNS, others, strict=True):
        (face,) = result["faces"]
        assert (face["verdict"], face["facial_area"]["turned"]) == ("match", degrees)
        assert f"turned by {degrees} degrees" in face["explanation"]
        distance, limit = (each["blacklist_matches"][0]["distance"] for each in (face, expected))
        assert distance == pytest.approx(limit, abs=0.02)


@pytest.mark.parametrize("degrees", TURNS)
async def test_a_turned_reference_photo_is_stored_upright_and_says_so(real: httpx.AsyncClient, degrees: int) -> None:
    record = await enroll(real, turned("astronaut.jpg", degrees))
    (warning,) = record["warnings"]
    assert (warning["code"], warning["degrees"], warning["stored_upright"]) == ("photo_turned", degrees, True)
    (image,) = record["images"]
    assert image["facial_area"]["turned"] == 0
    stored = await real.get(f"/blacklist/{record['id']}/images/{image['id']}")
    shown = decode(stored.content, max_pixels=10**6).astype(float)
    original = decode((SAMPLES / "astronaut.jpg").read_bytes(), max_pixels=10**6).astype(float)
    assert np.abs(shown - original).mean() < 5
    (result,) = await screen(real, (SAMPLES / "astronaut.jpg").read_bytes())
    assert [face["verdict"] for face in result["faces"]] == ["match"]


async def test_a_turned_photo_in_the_folder_stays_and_is_compared_upright(
    real: httpx.AsyncClient, settings: Settings
) -> None:
    data = turned("astronaut.jpg", 180)
    path = drop(settings, "Eileen/photo.png", data)
    report = await sync(real)
    assert report["added"] == ["blacklist_db/Eileen/photo.png"]
    (warning,) = report["warnings"]
    assert (warning["code"], warning["degrees"], warning["stored_upright"]) == ("photo_turned", 180, False)
    assert path.read_bytes() == data
    astronaut, hopper = await screen(
        real, *((SAMPLES / name).read_bytes() for name in ("astronaut.jpg", "grace_hopper.jpg"))
    )
    assert [face["verdict"] for face in astronaut["faces"]] == ["match"]
    assert "match" not in {face["verdict"] for face in hopper["faces"]}


async def test_a_result_tells_from_which_size_on_faces_were_looked_for(real: httpx.AsyncClient) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (3000, 2000)).save(buffer, "PNG")
    small, large = await screen(real, (SAMPLES / "astronaut.jpg").read_bytes(), buffer.getvalue())
    assert (small["smallest_face"], large["smallest_face"]) == (16, 36)
    stored = (await real.get(f"/processed-images/{large['id']}")).json()
    assert stored["smallest_face"] == 36


class Doubtful(PaintedBackend):
    """Sees green heads from no side upright, and puts the landmarks of a turned head into them."""

    async def detect(self, image: Pixels, detector: DetectorName) -> tuple[Face, ...]:
        width = image.shape[1]
        return tuple(
            face
            if image[face.box.y, face.box.x, 1] < 100
            else replace(face, is_upright=False, landmarks=face.landmarks.turned(width))
            for face in await super().detect(image, detector)
        )


async def test_a_head_that_cannot_be_seen_upright_is_never_clear(settings: Settings) -> None:
    async with serving(settings, Doubtful()) as client:
        (result,) = await screen(client, photo(RED, GREEN))
        verdicts = {face["verdict"]: face for face in result["faces"]}
        assert set(verdicts) == {"clear", "not_screenable"}
        assert [reason["issue"] for reason in verdicts["not_screenable"]["reasons"]] == ["turned"]
        refused = await client.post("/blacklist/", data={"name": "Ada"}, files=upload(photo(GREEN)))
        assert refused.status_code == 422
        assert [fault["code"] for fault in refused.json()["errors"]] == ["photo_quality"]
        assert "turn the picture upright" in refused.text


async def test_nothing_is_said_of_the_turn_of_a_head_whose_landmarks_mean_nothing(settings: Settings) -> None:
    async with serving(settings, Doubtful()) as client:
        (result,) = await screen(client, photo(GREEN))
        stored = (await client.get(f"/processed-images/{result['id']}")).json()
        for (face,) in (result["faces"], stored["faces"]):
            assert face["facial_area"]["turned"] == 0
            assert "was seen upright" not in face["explanation"]
        taken = {"name": "Ada", "quality_override": "the only photo"}
        record = (await client.post("/blacklist/", data=taken, files=upload(photo(GREEN)))).json()
        assert record["warnings"] == []
        (image,) = (await client.get(f"/blacklist/{record['id']}/")).json()["images"]
        assert (image["facial_area"]["turned"], image["quality"]["is_upright"]) == (0, False)
