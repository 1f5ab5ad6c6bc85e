"""Identification on Labeled Faces in the Wild through a running service.

    python bench/lfw_http.py http://127.0.0.1:8000 ../shared/faces/lfw/images

Enrolls the first photo of everybody who has two or more, screens all other photos, and deletes what it enrolled and
stored. In an enrolled photo the largest face is taken for the person's, in a screened photo the most prominent one, as
bench/lfw.py has it; a photo without a face counts as an error.

LFW is a research dataset of public figures and known to be unbalanced; its figures compare methods and promise nothing.
"""

import asyncio
import math
import sys
from base64 import b64encode
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

AT_ONCE = 4
SIDE = 250
"""Of every photo of LFW, in pixels."""
THRESHOLDS = (0.05, 0.055, 0.06, 0.065, 0.07, 0.075, 0.08, 0.085)
EVERYBODY = 2.0
"""A cosine threshold that nobody exceeds."""


@dataclass(frozen=True)
class Photo:
    """A photo and whose it is."""

    person: str
    data: bytes


@dataclass(frozen=True)
class Nearest:
    """Who on the list is nearest to the prominent face of a photo; nobody where it has no face."""

    name: str | None
    distance: float


def main(service: str, folder: Path) -> None:
    """Print rank-1, and for some thresholds how many people on the list and how many strangers match."""
    listed, mated, strangers = identification(folder)
    known, unknown = asyncio.run(screen(service, listed=listed, mated=mated, strangers=strangers))
    right = [near.distance if near.name == photo.person else math.inf for photo, near in zip(mated, known, strict=True)]
    print(f"{len(listed)} people on the list, {len(mated)} other photos of them, {len(strangers)} strangers")
    print(f"rank-1: {sum(map(math.isfinite, right)) / len(right):.2%}")
    print("threshold (cosine)  found  strangers flagged")
    for threshold in THRESHOLDS:
        found = sum(distance <= threshold for distance in right) / len(right)
        flagged = sum(near.distance <= threshold for near in unknown) / len(unknown)
        print(f"{threshold:18.3f} {found:6.1%} {flagged:18.1%}")


def identification(folder: Path) -> tuple[list[Photo], list[Photo], list[Photo]]:
    """One photo each of everybody who has two or more, all their other photos, and one of everybody else."""
    people: dict[str, list[Photo]] = defaultdict(list)
    for path in sorted(folder.glob("*.jpg")):
        person = path.stem.rpartition("_")[0]
        people[person].append(Photo(person, path.read_bytes()))
    listed = [photos[0] for photos in people.values() if len(photos) > 1]
    mated = [photo for photos in people.values() for photo in photos[1:]]
    strangers = [photos[0] for photos in people.values() if len(photos) == 1]
    return listed, mated, strangers


async def screen(
    service: str, *, listed: Sequence[Photo], mated: Sequence[Photo], strangers: Sequence[Photo]
) -> tuple[list[Nearest], list[Nearest]]:
    """The nearest person on the list for each photo of people on it, and for each stranger."""
    room = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=f"{service}/api/v1", timeout=60) as client:

        async def enroll(photo: Photo) -> int:
            async with room:
                data = {"name": photo.person, "face_selection": "largest"}
                response = await client.post("/blacklist/", data=data, files={"images": photo.data})
            return int(response.raise_for_status().json()["id"])

        async def nearest(photo: Photo) -> Nearest:
            body = {
                "images": [b64encode(photo.data).decode()],
                "distance_metric": "cosine",
                "threshold": EVERYBODY,
            }
            async with room:
                response = await client.post("/process/process-images", json=body)
                result = response.raise_for_status().json()[0]
                await client.delete(f"/processed-images/{result['id']}")
            if not result["faces"]:
                return Nearest(None, math.inf)
            match = max(result["faces"], key=prominence)["blacklist_matches"][0]
            return Nearest(match["name"], match["distance"])

        entries = await asyncio.gather(*map(enroll, listed))
        try:
            return await asyncio.gather(*map(nearest, mated)), await asyncio.gather(*map(nearest, strangers))
        finally:
            for entry in entries:
                await client.delete(f"/blacklist/{entry}/")


def prominence(face: dict[str, Any]) -> float:
    """Area of a face, less twice the squared distance of its centre from the photo's."""
    area = face["facial_area"]
    centre = (area["x"] + area["w"] / 2, area["y"] + area["h"] / 2)
    return float(area["w"] * area["h"] - 2 * math.dist(centre, (SIDE / 2, SIDE / 2)) ** 2)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
