"""Images that show nobody well enough, by the default models on real photos: none is an all-clear."""

import io
from collections.abc import AsyncIterator

import httpx
import pytest
from PIL import Image, ImageDraw

from facescreen.config import Settings
from tests.api.test_turned import SAMPLES, enroll, screen
from tests.conftest import serving_with


@pytest.fixture
async def real(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving_with(settings.model_copy(update={"match_threshold": None}), None) as client:
        yield client


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def sample(name: str) -> Image.Image:
    return Image.open(SAMPLES / name).convert("RGB")


def drawing() -> Image.Image:
    image = Image.new("RGB", (400, 400), "white")
    pen = ImageDraw.Draw(image)
    for left, top, right, bottom in ((80, 50, 320, 370), (140, 150, 170, 180), (230, 150, 260, 180)):
        pen.ellipse((left, top, right, bottom), outline="black", width=5)
    pen.line((200, 190, 190, 250, 210, 250), fill="black", width=4)
    pen.arc((150, 240, 250, 320), 20, 160, fill="black", width=5)
    return image


def barred() -> Image.Image:
    image = sample("astronaut.jpg")
    ImageDraw.Draw(image).rectangle((190, 92, 262, 116), fill="black")
    return image


@pytest.mark.parametrize(
    ("image", "verdict"),
    [
        (drawing(), "no_face"),
        (sample("astronaut.jpg").resize((48, 48)), "no_face"),
        (barred(), "not_screenable"),
    ],
    ids=["drawing", "thumbnail", "bar over the eyes"],
)
async def test_nobody_is_cleared_by_what_shows_no_face_well_enough(
    real: httpx.AsyncClient, image: Image.Image, verdict: str
) -> None:
    (result,) = await screen(real, encoded(image))
    assert (result["verdict"], result["error"]) == (verdict, None)


async def test_a_face_of_40_pixels_is_found_wherever_it_is_in_a_very_long_image(real: httpx.AsyncClient) -> None:
    await enroll(real, (SAMPLES / "astronaut.jpg").read_bytes())
    image = Image.new("RGB", (1000, 12_000), "white")
    pen = ImageDraw.Draw(image)
    for top in range(0, image.height, 40):
        pen.text((30, top), "Lorem ipsum dolor sit amet " * 6, fill="black")
    small = sample("astronaut.jpg").resize((230, 230), Image.Resampling.LANCZOS)
    tops = (1000, 5017, 11_770)
    for column, top in enumerate(tops):
        image.paste(small, (50 + 300 * column, top))
    (result,) = await screen(real, encoded(image))
    assert (result["verdict"], result["smallest_face"]) == ("match", 36)
    found = sorted((face["facial_area"]["y"], face["facial_area"]["w"]) for face in result["faces"])
    assert [y for y, _ in found] == pytest.approx([top + 26 for top in tops], abs=8)
    assert all(36 <= width <= 44 for _, width in found)
