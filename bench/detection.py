"""Which faces are found, and in what time: the source of the constants in recognition/centerface.py.

    python -m bench.detection LFW/images [--every N] [--groups FOLDER] [--sizes SIZE…] [--repeats N]
                              [--against DETECTOR] [--show FILE.png]

The default detector is measured alone and side by side with another one, in one process.

- The side of a face that is still found, and how much of a picture a face may fill.
- The faces that either detector finds in all photos, and those that it finds alone. ``--show`` draws these on a sheet:
  only somebody who looks at it can tell which of them are faces.
- The time for photos of one to four megapixels.
- A small face in a photo of 24 megapixels and in a long strip, with the time and the memory.

LFW is a research dataset of public figures and known to be unbalanced; its figures compare methods and promise nothing.
"""

import argparse
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import dist, sqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final, get_args

import cv2
import numpy as np

from bench.photos import SIZES, compose, make_photos
from facescreen.config import DetectorName, Settings
from facescreen.domain.faces import Box, Face, Pixels
from facescreen.images.decode import decode
from facescreen.recognition.detectors import Detector, load_detector
from facescreen.recognition.sightings import SAME_FACE
from facescreen.recognition.weights import WeightStore
from facescreen.services.evaluation import centred_face

DETECTOR: Final[DetectorName] = Settings.model_fields["detector_backend"].default

GREY: Final = 128
CANVAS: Final = 640
"""Side, in pixels, of the canvas that photos are pasted into."""

SIDES: Final = (8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 24, 28, 32)
"""Shorter sides of faces, in pixels."""

ROOM: Final = 2.6
"""Width of the part of a photo that is shown with the face in its middle, in shorter sides of the face."""

LARGE_CANVASES: Final = (640, 768, 1024)
LARGE_SHARES: Final = (0.5, 0.7, 0.9)
"""Longer sides of faces, as shares of the picture's."""

LARGE_PHOTOS: Final = 100
SMALL_FACE: Final = 50
"""Shorter side, in pixels, of the face in a photo of 24 megapixels."""

PLACES: Final = 20
TILE: Final = 96
"""Side of the pictures on the sheet."""


@dataclass(frozen=True, slots=True)
class Portrait:
    """A photo and the face in its middle."""

    name: str
    image: Pixels
    box: Box


@dataclass(frozen=True, slots=True)
class Alone:
    """A face that only one of the detectors finds."""

    photo: Path
    face: Face


def scaled(portrait: Portrait, factor: float) -> tuple[Pixels, tuple[float, float]]:
    """The photo at another size, and where the middle of the face is in it."""
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    image = np.asarray(cv2.resize(portrait.image, None, fx=factor, fy=factor, interpolation=way), np.uint8)
    x, y = middle(portrait.box)
    return image, (factor * x, factor * y)


def middle(box: Box) -> tuple[float, float]:
    return box.x + box.w / 2, box.y + box.h / 2


def paste(canvas: Pixels, picture: Pixels, place: tuple[int, int]) -> None:
    """Put the picture's corner at this place, x before y; what does not fit is cut off."""
    left, top = place
    rows, columns, _ = canvas.shape
    shown = picture[max(-top, 0) : rows - top, max(-left, 0) : columns - left]
    left, top = max(left, 0), max(top, 0)
    canvas[top : top + shown.shape[0], left : left + shown.shape[1]] = shown


def is_found(faces: Sequence[Face], place: tuple[float, float], side: float) -> bool:
    """Whether a face of about this shorter side has its middle within half of it from the place."""
    return any(dist(middle(face.box), place) < side / 2 < min(face.box.w, face.box.h) < 2 * side for face in faces)


def report_sides(detector: Detector, portraits: Sequence[Portrait]) -> None:
    """The smallest faces that are found, with grey between the photos and with none: surroundings matter."""
    print(f"\nfaces of {len(portraits)} photos on canvases of {CANVAS} pixels: found, and further faces")
    print(f"  shorter side{'with grey between':>20}{'side by side':>20}")
    for side in SIDES:
        room = round(ROOM * side)
        shares = (_crowd(detector, portraits, side, cell=cell) for cell in (2 * room, room))
        print(f"  {side:>12}" + "".join(f"{f'{share:.1%} +{more}':>20}" for share, more in shares))


def _crowd(detector: Detector, portraits: Sequence[Portrait], side: int, *, cell: int) -> tuple[float, int]:
    """The share of faces of this shorter side that are found, one in each cell, and how many more faces."""
    along, room = CANVAS // cell, round(ROOM * side)
    rng = np.random.default_rng(11)
    found = more = 0
    for start in range(0, len(portraits), along**2):
        canvas = np.full((CANVAS, CANVAS, 3), GREY, np.uint8)
        places = []
        for number, portrait in enumerate(portraits[start : start + along**2]):
            row, column = divmod(number, along)
            left, top = np.array([column, row]) * cell + rng.integers(0, cell - room + 1, 2)
            image, (x, y) = scaled(portrait, side / min(portrait.box.w, portrait.box.h))
            corner = (round(room / 2 - x), round(room / 2 - y))
            paste(canvas[top : top + room, left : left + room], image, corner)
            places.append((left + corner[0] + x, top + corner[1] + y))
        faces = detector.detect(canvas)
        seen = sum(is_found(faces, place, side) for place in places)
        found += seen
        more += len(faces) - seen
    return found / len(portraits), more


def report_large(detector: Detector, portraits: Sequence[Portrait]) -> None:
    """The largest faces that are found."""
    chosen = portraits[:: max(1, len(portraits) // LARGE_PHOTOS)][:LARGE_PHOTOS]
    print(f"\nlarge faces of {len(chosen)} photos: found, and further faces, by the share of the longer side")
    print(f"{'':12}" + "".join(f"{share:>16.0%}" for share in LARGE_SHARES))
    for canvas_side in LARGE_CANVASES:
        line = f"  {canvas_side:>4} pixels"
        for share in LARGE_SHARES:
            found = more = 0
            for portrait in chosen:
                factor = share * canvas_side / max(portrait.box.w, portrait.box.h)
                image, (x, y) = scaled(portrait, factor)
                canvas = np.full((canvas_side, canvas_side, 3), GREY, np.uint8)
                paste(canvas, image, (round(canvas_side / 2 - x), round(canvas_side / 2 - y)))
                faces = detector.detect(canvas)
                seen = is_found(faces, (canvas_side / 2, canvas_side / 2), factor * min(portrait.box.w, portrait.box.h))
                found += seen
                more += len(faces) - seen
            line += f"{f'{found / len(chosen):.0%} +{more}':>16}"
        print(line)


def report_alone(detectors: Mapping[str, Detector], paths: Sequence[Path], sheet: Path | None) -> None:
    """Faces in all photos, and those that only one detector finds."""
    found: dict[str, list[tuple[Face, ...]]] = {name: [] for name in detectors}
    for path in paths:
        image = decode(path.read_bytes(), max_pixels=50_000_000)
        for name, detector in detectors.items():
            found[name].append(detector.detect(image))
    print(f"\n{len(paths)} photos{'':8}with a face     faces     alone")
    alone: dict[str, list[Alone]] = {}
    for name, mine in found.items():
        (others,) = (faces for other, faces in found.items() if other != name)
        alone[name] = [
            Alone(path, face)
            for path, faces, theirs in zip(paths, mine, others, strict=True)
            for face in faces
            if all(face.box.intersection_over_union(other.box) <= SAME_FACE for other in theirs)
        ]
        print(f"  {name:18}{sum(map(bool, mine)):>12}{sum(map(len, mine)):>10}{len(alone[name]):>10}")
    if sheet is not None:
        _draw(alone, sheet)


def _draw(alone: Mapping[str, Sequence[Alone]], sheet: Path) -> None:
    """All faces on one sheet, those of one detector after those of the other, with their numbers in the list."""
    columns = 16
    rows = []
    for name, faces in alone.items():
        title = np.full((24, columns * TILE, 3), 255, np.uint8)
        rows.append(cv2.putText(title, f"{name} alone", (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1))
        print(f"\nfound by {name} alone")
        for start in range(0, len(faces), columns):
            row = np.full((TILE, columns * TILE, 3), 255, np.uint8)
            for column, each in enumerate(faces[start : start + columns]):
                number = start + column + 1
                row[:, column * TILE : (column + 1) * TILE] = _picture(each, number)
                box = each.face.box
                print(f"  {number:>4} {each.photo.name:40}{box.w:>5}x{box.h:<5}{each.face.confidence:.2f}")
            rows.append(row)
    cv2.imwrite(str(sheet), np.concatenate(rows)[..., ::-1])


def _picture(alone: Alone, number: int) -> Pixels:
    """The face with as much around it, and a frame."""
    image, box = decode(alone.photo.read_bytes(), max_pixels=50_000_000), alone.face.box
    side = 2 * max(box.w, box.h)
    canvas = np.full((side, side, 3), GREY, np.uint8)
    x, y = middle(box)
    paste(canvas, image, (round(side / 2 - x), round(side / 2 - y)))
    small = cv2.resize(canvas, (TILE, TILE), interpolation=cv2.INTER_AREA)
    half_w, half_h = (round(TILE * length / side / 2) for length in (box.w, box.h))
    cv2.rectangle(
        small, (TILE // 2 - half_w, TILE // 2 - half_h), (TILE // 2 + half_w, TILE // 2 + half_h), (0, 255, 0)
    )
    cv2.putText(small, str(number), (2, 11), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 0), 1)
    return np.asarray(small, np.uint8)


def report_times(detectors: Mapping[str, Detector], groups: Path | None, *, sizes: Sequence[str], repeats: int) -> None:
    """Medians, and the ratio of the second detector to the first."""
    with TemporaryDirectory() as folder:
        made = {path.stem: decode(path.read_bytes(), max_pixels=10**7) for path in make_photos(Path(folder), sizes)}
    pictures = {size: [image for name, image in made.items() if name.startswith(size)] for size in sizes}
    for path in sorted(groups.glob("*.jpg")) if groups else ():
        image = decode(path.read_bytes(), max_pixels=50_000_000)
        for size in sizes:
            width, height = SIZES[size]
            factor = sqrt(width * height / (image.shape[0] * image.shape[1]))
            way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
            shown = np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=way), np.uint8)
            pictures[f"{path.stem}, {size}"] = [shown]
    first, second = detectors
    print(f"\n{'ms, median':32}{first:>12}{second:>12}{'ratio':>8}   faces")
    for name, images in pictures.items():
        seconds: dict[str, list[float]] = {detector: [] for detector in detectors}
        faces = dict.fromkeys(detectors, 0)
        for repeat in range(repeats + 1):
            for image in images:
                for detector, measured in detectors.items():
                    start = perf_counter()
                    found = measured.detect(image)
                    if repeat == 0:  # the first time a runtime prepares itself for the size
                        faces[detector] += len(found)
                    else:
                        seconds[detector].append(perf_counter() - start)
        one, other = (1000 * float(np.median(seconds[detector])) for detector in detectors)
        print(f"  {name:30}{one:>12.0f}{other:>12.0f}{other / one:>8.1f}   {faces[first]}, {faces[second]}")


def report_huge(detector: Detector, portraits: Sequence[Portrait]) -> None:
    """A small face somewhere in a photo of 24 megapixels and in a strip, in grey and among clothes without faces."""
    rng = np.random.default_rng(11)
    chosen = portraits[:: max(1, len(portraits) // PLACES)][:PLACES]
    surroundings = {"grey": np.full((500, 1000, 3), GREY, np.uint8), "clothes": compose((), 1000, 500)}
    print(f"\na face of {SMALL_FACE} pixels in {len(chosen)} places   found   once   further   seconds")
    for width, height in ((6000, 4000), (20_000, 500)):
        for name, part in surroundings.items():
            background = np.tile(part, (height // 500, width // 1000, 1))
            found = once = more = 0
            seconds = []
            for portrait in chosen:
                image, (x, y) = scaled(portrait, SMALL_FACE / min(portrait.box.w, portrait.box.h))
                left, top = rng.integers(0, (width - image.shape[1], height - image.shape[0])).tolist()
                canvas = background.copy()
                paste(canvas, image, (left, top))
                start = perf_counter()
                faces = detector.detect(canvas)
                seconds.append(perf_counter() - start)
                seen = sum(is_found([face], (left + x, top + y), SMALL_FACE) for face in faces)
                found += seen > 0
                once += seen == 1
                more += len(faces) - seen
            line = (
                f"  {f'{width} x {height}, {name}':34}{found:>6}{once:>7}{more:>10}{float(np.median(seconds)):>10.2f}"
            )
            print(line)
    print(f"most memory of the process so far: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of photos")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each Nth photo only")
    parser.add_argument("--groups", type=Path, metavar="FOLDER", help="photos of groups, to measure the time with")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[*SIZES], help="of the photos for the time")
    parser.add_argument("--repeats", type=int, default=5, help="how often the time is measured")
    parser.add_argument("--against", choices=get_args(DetectorName), default="mtcnn", metavar="DETECTOR")
    parser.add_argument("--show", type=Path, metavar="FILE.png", help="draw the faces that one detector finds alone")
    args = parser.parse_args()

    names: tuple[DetectorName, ...] = (DETECTOR, args.against)
    with TemporaryDirectory() as home:
        detectors: dict[str, Detector] = {name: load_detector(name, weights=WeightStore(Path(home))) for name in names}
    detector = detectors[DETECTOR]
    paths = sorted(args.images.glob("*.jpg"))[:: args.every]
    portraits = []
    for path in paths:
        image = decode(path.read_bytes(), max_pixels=50_000_000)
        face = centred_face(image, detector.detect(image))
        if face is not None:
            portraits.append(Portrait(path.name, image, face.box))
    report_huge(detector, portraits)
    report_sides(detector, portraits)
    report_large(detector, portraits)
    report_times(detectors, args.groups, sizes=args.sizes, repeats=args.repeats)
    report_alone(detectors, paths, args.show)


if __name__ == "__main__":
    main()
