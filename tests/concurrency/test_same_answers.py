"""Requests beside each other are answered as one after another."""

import asyncio
import io
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import httpx
from PIL import Image

from facescreen.config import Settings
from facescreen.main import create_app
from tests.api.test_blacklist import enroll
from tests.painted import BLUE, GREEN, RED, YELLOW, Colour, inline, photo
from tests.painted_server import server_process

SAMPLES = Path(__file__).parents[2] / "samples"

CYAN: Colour = (20, 230, 230)
"""Nobody on the list."""

Call = tuple[str, str, dict[str, Any]]
"""Method, path and what else httpx is given."""


async def answers(client: httpx.AsyncClient, calls: Sequence[Call], *, at_once: int) -> list[Any]:
    """Status, kind and body of each answer in the order of the calls, without what differs between two equal calls."""
    room = asyncio.Semaphore(at_once)

    async def answer(method: str, path: str, options: dict[str, Any]) -> Any:
        async with room:
            response = await client.request(method, path, **options)
        body = response.json()
        if path == "/process/process-images" and response.is_success:
            for result in body:
                del result["id"], result["created_at"]
        return response.status_code, response.headers["content-type"], body

    return await asyncio.gather(*(answer(*call) for call in calls))


async def test_500_requests_8_at_a_time(settings: Settings) -> None:
    random = Random(500)  # noqa: S311 - the same calls every time
    roots = settings.image_input_roots[0]
    (roots / "two.png").write_bytes(photo(RED, BLUE))
    async with server_process(settings) as server:
        for name, colour in zip("abcdefgh", (RED, GREEN, BLUE, YELLOW) * 2, strict=True):
            await enroll(server.client, name, *(photo(_near(colour, random)) for _ in range(3)))
        warm = {"images": [inline(photo(RED))], "model_name": "Dlib", "threshold": 0.1}
        assert (await server.client.post("/process/process-images", json=warm)).is_success

        calls = [_call(random, str(roots / "two.png")) for _ in range(500)]
        alone = await answers(server.client, calls, at_once=1)
        assert await answers(server.client, calls, at_once=8) == alone

    bodies = [body for _, _, body in alone]
    verdicts = {
        face["verdict"] for body in bodies if isinstance(body, list) for result in body for face in _faces(result)
    }
    assert verdicts == {"match", "possible", "clear"}
    assert {status for status, _, _ in alone} == {200, 403, 404, 415, 422}


def _call(random: Random, path: str) -> Call:
    match random.randrange(8):
        case 0:
            image = random.choice([path, _picture(random), "no/such.jpg", "data:image/png;base64,AAAA"])
            return "POST", "/detect/detect-face", {"json": {"image": image}}
        case 1:
            return "GET", f"/blacklist/{random.randint(1, 9)}/", {}
        case 2:
            return "GET", "/blacklist/", {"params": {"q": random.choice("abz"), "limit": random.randint(0, 3)}}
        case _:
            images = [random.choice([path, "no/such.jpg", *(_picture(random) for _ in range(6))]) for _ in range(2)]
            options = {
                "model_name": random.choice(["SFace", "Dlib"]),
                "distance_metric": random.choice(["cosine", "euclidean", "euclidean_l2", "angular"]),
                "threshold": random.uniform(0, 0.3),
            }
            query = {"all_references": random.choice(["true", "false"])}
            return "POST", "/process/process-images", {"json": {"images": images, **options}, "params": query}


def _picture(random: Random) -> str:
    people = random.choices([RED, GREEN, BLUE, YELLOW, CYAN], k=random.randrange(4))
    return inline(photo(*(_near(colour, random) for colour in people)))


def _near(colour: Colour, random: Random) -> Colour:
    red, green, blue = (min(255, max(0, value + random.randint(-20, 20))) for value in colour)
    return red, green, blue


def _faces(result: dict[str, Any]) -> list[dict[str, Any]]:
    faces: list[dict[str, Any]] = result.get("faces", [])
    return faces


async def test_the_models_give_the_same_numbers_to_the_last_bit(settings: Settings) -> None:
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/api/v1") as client,
    ):
        await enroll(client, "Eileen Collins", (SAMPLES / "astronaut.jpg").read_bytes())
        await enroll(client, "Grace Hopper", (SAMPLES / "grace_hopper.jpg").read_bytes())
        # Threshold 2: every face is compared with everybody, so every distance is in the answers.
        calls: list[Call] = [
            ("POST", "/process/process-images", {"json": {"images": [inline(view)], "threshold": 2}})
            for view in _views()
        ]
        alone = await answers(client, calls, at_once=1)
        assert await answers(client, calls, at_once=8) == alone
    assert len(alone) == 40
    assert sum(len(face["blacklist_matches"]) for _, _, (result,) in alone for face in result["faces"]) >= 2 * 30


def _views() -> Iterator[bytes]:
    """40 pictures of two people at several scales, angles and croppings."""
    for name, side, angle, crop in product(("astronaut", "grace_hopper"), (160, 240, 320, 400, 480), (0, 8), (0, 0.1)):
        with Image.open(SAMPLES / f"{name}.jpg") as image:
            width, height = image.size
            view = image.rotate(angle).crop((round(crop * width), 0, round((1 - crop) * width), height))
            view.thumbnail((side, side))
            buffer = io.BytesIO()
            view.save(buffer, "PNG")
            yield buffer.getvalue()
