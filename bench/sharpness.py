"""What blur does to sharpness and to recognition: the source of the bars in services/quality.py.

    python bench/sharpness.py ../shared/faces/lfw/images

Photos are blurred more and more. The face is cut where it was found in the sharp photo, and counts as recognized if the
embedding is within the default threshold of that of another, sharp photo of the person.

LFW is a research dataset of public figures and known to be unbalanced; its figures compare methods and promise nothing.
"""

import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from bench.lfw import centred_face, person
from facescreen.domain.distances import Metric, distances
from facescreen.images.decode import decode
from facescreen.recognition.catalog import default_threshold
from facescreen.recognition.detectors import load_detector
from facescreen.recognition.embedders import load_embedder
from facescreen.recognition.weights import WeightStore
from facescreen.services.quality import measure

PEOPLE = 120
SIGMAS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
"""Standard deviations of the blur, in pixels of LFW's photos, whose faces are about 90 pixels wide."""


def main(folder: Path, home: Path) -> None:
    """Print sharpness and the share that is recognized for each blur."""
    weights = WeightStore(home)
    detector, embedder = load_detector("mtcnn", weights=weights, max_side=1024), load_embedder("Dlib", weights=weights)
    threshold = default_threshold("Dlib", Metric.COSINE)
    assert threshold is not None
    people: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("*.jpg")):
        people[person(path.name)].append(path)
    measured: dict[float, list[tuple[float, bool]]] = defaultdict(list)
    for reference, probe, *_ in [paths for paths in people.values() if len(paths) > 1][:PEOPLE]:
        images = [decode(path.read_bytes(), max_pixels=50_000_000) for path in (reference, probe)]
        known, face = (centred_face(image, detector.detect(image)) for image in images)
        if known is None or face is None:
            continue
        for sigma in SIGMAS:
            blurred = np.asarray(cv2.GaussianBlur(images[1], (0, 0), sigma), np.uint8) if sigma else images[1]
            one, other = embedder.embed([embedder.align(images[0], known), embedder.align(blurred, face)])
            is_recognized = bool(distances(Metric.COSINE, one, other[None])[0] <= threshold)
            measured[sigma].append((measure(blurred, face.box).sharpness, is_recognized))
    print(f"{len(measured[0.0])} people\nblur  sharpness: 1st percentile, median  recognized")
    for sigma, found in measured.items():
        values, recognized = zip(*found, strict=True)
        low, middle = np.percentile(values, [1, 50])
        print(f"{sigma:4.1f} {low:28.1f} {middle:8.1f} {np.mean(recognized):11.1%}")


if __name__ == "__main__":
    with TemporaryDirectory() as home:
        main(Path(sys.argv[1]), Path(home))
