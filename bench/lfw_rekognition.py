"""Whether facescreen on Rekognition says what the local backend says, on Labeled Faces in the Wild.

    python -m bench.lfw_rekognition http://127.0.0.1:8000 http://127.0.0.1:8001 LFW/images

The first service compares embeddings. The second one runs with ``FACE_PROCESSING_BACKEND=aws_rekognition`` and has the
first one's ``/rekognition`` for its Rekognition, so that both see with the same model, and every difference is one of
the way there and back. Both enroll the first photo of everybody who has two or more, screen all other photos and one
photo of everybody else, and delete what they enrolled and stored.
"""

import argparse
import asyncio
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from facescreen.recognition.catalog import similarity

from .lfw_http import Photo, identification
from .service import MODEL, THRESHOLD

AT_ONCE = 2
COLLECTION = "lfw"


@dataclass(frozen=True)
class Agreement:
    """On how many faces both services said the same.

    Attributes:
        faces: in all photos, by the first service.
        boxes: those of them that the second one has at the same place, to the pixel.
        verdicts: those of these with the same verdict.
        unseen: those of these that the second one did not see again.
        people: those of these with the same people within the threshold.
        largest, largest_people: faces and people for the largest face of each photo alone.
        differences: what each of them said of the faces on which they do not name the same people.
    """

    photos: int
    faces: int
    boxes: int
    verdicts: int
    unseen: int
    people: int
    largest: int
    largest_people: int
    differences: Sequence[tuple[Any, Any]]


def main() -> None:
    """Print on how many faces the services agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("local")
    parser.add_argument("rekognition")
    parser.add_argument("images", type=Path)
    arguments = parser.parse_args()
    listed, mated, strangers = identification(arguments.images)
    agreed = asyncio.run(measure(arguments.local, arguments.rekognition, listed=listed, probes=[*mated, *strangers]))
    print(f"{len(listed)} people on the list, {agreed.photos} photos screened")
    print(f"{agreed.faces} faces, {agreed.boxes} of them at the same place")
    print(f"the same verdict on {agreed.verdicts}, the same people on {agreed.people}; {agreed.unseen} not_screenable")
    print(f"{agreed.largest} largest faces, the same people on {agreed.largest_people}")
    for one, other in agreed.differences:
        print(f"  {one}\n  {other}")


async def measure(local: str, rekognition: str, *, listed: Sequence[Photo], probes: Sequence[Photo]) -> Agreement:
    """:func:`compare` for the services at two addresses."""
    async with (
        httpx.AsyncClient(base_url=f"{local}/api/v1", timeout=120) as one,
        httpx.AsyncClient(base_url=f"{rekognition}/api/v1", timeout=120) as other,
    ):
        return await compare(one, other, listed=listed, probes=probes)


async def compare(
    local: httpx.AsyncClient, rekognition: httpx.AsyncClient, *, listed: Sequence[Photo], probes: Sequence[Photo]
) -> Agreement:
    """Screen the probes with both services, clients of whose ``/api/v1`` are given, at the same operating point."""
    one = await _screened(local, listed, probes, threshold=THRESHOLD)
    other = await _screened(rekognition, listed, probes, threshold=1 - similarity(MODEL, THRESHOLD) / 100)
    faces = boxes = verdicts = unseen = people = largest = largest_people = 0
    differences = []
    for mine, theirs in zip(one, other, strict=True):
        at = {_place(face): face for face in theirs}
        for index, face in enumerate(sorted(mine, key=_area, reverse=True)):
            faces += 1
            largest += index == 0
            twin = at.get(_place(face))
            boxes += twin is not None
            verdicts += twin is not None and twin["verdict"] == face["verdict"]
            unseen += twin is not None and twin["verdict"] == "not_screenable"
            same = twin is not None and _people(twin) == _people(face)
            people += same
            largest_people += same and index == 0
            if not same:
                differences.append((_shown(face), _shown(twin)))
    return Agreement(
        photos=len(probes),
        faces=faces,
        boxes=boxes,
        verdicts=verdicts,
        unseen=unseen,
        people=people,
        largest=largest,
        largest_people=largest_people,
        differences=differences,
    )


async def _screened(
    client: httpx.AsyncClient, listed: Sequence[Photo], probes: Sequence[Photo], *, threshold: float
) -> list[list[dict[str, Any]]]:
    """The faces of each probe."""
    room = asyncio.Semaphore(AT_ONCE)

    async def enroll(photo: Photo) -> None:
        async with room:
            data = {"name": photo.person, "face_selection": "largest", "quality_override": "a photo of LFW"}
            files = {"images": photo.data}
            answer = await client.post("/blacklist/", params={"collection": COLLECTION}, data=data, files=files)
            answer.raise_for_status()

    async def screen(photo: Photo) -> list[dict[str, Any]]:
        limits = {"threshold": threshold, "review_threshold": threshold}
        body = {"collection": COLLECTION, "images": [b64encode(photo.data).decode()], **limits}
        async with room:
            answer = await client.post("/process/process-images", json=body)
            (result,) = answer.raise_for_status().json()
            await client.delete(f"/processed-images/{result['id']}")
        faces: list[dict[str, Any]] = result["faces"]
        return faces

    (await client.post("/collections/", json={"name": COLLECTION})).raise_for_status()
    try:
        await asyncio.gather(*map(enroll, listed))
        return await asyncio.gather(*map(screen, probes))
    finally:
        await client.delete(f"/collections/{COLLECTION}/")


def _place(face: dict[str, Any]) -> tuple[int, ...]:
    return tuple(face["facial_area"][side] for side in "xywh")


def _area(face: dict[str, Any]) -> int:
    return int(face["facial_area"]["w"] * face["facial_area"]["h"])


def _people(face: dict[str, Any]) -> frozenset[str]:
    return frozenset(match["name"] for match in face["blacklist_matches"])


def _shown(face: dict[str, Any] | None) -> str:
    if face is None:
        return "no face there"
    matches = [f"{match['name']} {match['distance']:.4f}" for match in face["blacklist_matches"][:3]]
    return f"{_place(face)} {face['verdict']} {', '.join(matches)}"


if __name__ == "__main__":
    main()
