"""Screening of Labeled Faces in the Wild through a running service, as it decides by itself.

    python bench/lfw_http.py http://127.0.0.1:8000 LFW/images

Enrolls the first photo of everybody who has two or more, screens all other photos with the thresholds that the service
chooses, and deletes what it enrolled and stored. In an enrolled photo the largest face is taken for the person's, in a
screened photo the most prominent one, as ``facescreen evaluate`` has it; a photo without a face is a miss.

LFW is a research dataset of public figures and known to be unbalanced; its figures compare methods and promise nothing.
"""

import argparse
import asyncio
import math
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

AT_ONCE = 2
SIDE = 250
"""Of every photo of LFW, in pixels."""
COLLECTION = "bench-lfw-http"


@dataclass(frozen=True)
class Photo:
    """A photo and whose it is."""

    person: str
    data: bytes


@dataclass(frozen=True)
class Judged:
    """What was said of the prominent face of a photo, and who is named first; ``no face`` where it has none."""

    verdict: str
    name: str | None


def main(service: str, folder: Path) -> None:
    """Print the thresholds, and how many faces of people on the list and of strangers got which verdict."""
    listed, mated, strangers = identification(folder)
    policy, known, unknown = asyncio.run(screen(service, listed=listed, mated=mated, strangers=strangers))
    print(f"{len(listed)} people on the list, {len(mated)} other photos of them, {len(strangers)} strangers")
    print(f"match threshold {policy['threshold']:.4f}, review threshold {policy['review_threshold']:.4f}")
    right = Counter(
        judged.verdict if judged.name in {None, photo.person} else f"{judged.verdict}, somebody else"
        for photo, judged in zip(mated, known, strict=True)
    )
    for title, verdicts in (
        ("people on the list", right),
        ("strangers", Counter(judged.verdict for judged in unknown)),
    ):
        print(title)
        for verdict, count in verdicts.most_common():
            print(f"  {verdict:24} {count:5} {count / verdicts.total():7.1%}")


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
) -> tuple[dict[str, float], list[Judged], list[Judged]]:
    """A result's thresholds, and what is said of each photo of people on the list and of each stranger."""
    room = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=f"{service}/api/v1", timeout=120) as client:

        async def enroll(photo: Photo) -> None:
            data = {"name": photo.person, "face_selection": "largest", "quality_override": "a photo of LFW"}
            async with room:
                answer = await client.post(
                    "/blacklist/", params={"collection": COLLECTION}, data=data, files={"images": photo.data}
                )
            answer.raise_for_status()

        async def result_of(photo: Photo) -> dict[str, Any]:
            body = {"collection": COLLECTION, "images": [b64encode(photo.data).decode()]}
            async with room:
                answer = await client.post("/process/process-images", json=body)
                (result,) = answer.raise_for_status().json()
                await client.delete(f"/processed-images/{result['id']}")
            found: dict[str, Any] = result
            return found

        async def judged(photo: Photo) -> Judged:
            faces = (await result_of(photo))["faces"]
            if not faces:
                return Judged("no face", None)
            face = max(faces, key=prominence)
            return Judged(face["verdict"], next((match["name"] for match in face["blacklist_matches"]), None))

        (await client.post("/collections/", json={"name": COLLECTION})).raise_for_status()
        try:
            await asyncio.gather(*map(enroll, listed))
            policy = await result_of(listed[0])
            return policy, await asyncio.gather(*map(judged, mated)), await asyncio.gather(*map(judged, strangers))
        finally:
            await client.delete(f"/collections/{COLLECTION}/")


def prominence(face: dict[str, Any]) -> float:
    """Area of a face, less twice the squared distance of its centre from the photo's."""
    area = face["facial_area"]
    centre = (area["x"] + area["w"] / 2, area["y"] + area["h"] / 2)
    return float(area["w"] * area["h"] - 2 * math.dist(centre, (SIDE / 2, SIDE / 2)) ** 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("service")
    parser.add_argument("images", type=Path)
    arguments = parser.parse_args()
    main(arguments.service, arguments.images)
