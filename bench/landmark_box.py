"""The shape of the boxes that dlib's landmark model was trained on, which are those of dlib's own detector.

    python bench/landmark_box.py LFW/images

Prints the median side of the box, and how far its centre lies beside and below the middle of the eyes, all in units of
the distance between the eyes: ``TRAINING_BOX`` in ``facescreen/recognition/alignment.py``.
"""

import argparse
from pathlib import Path

import dlib
import numpy as np

from facescreen.images.decode import decode
from facescreen.recognition.catalog import MODELS
from facescreen.recognition.weights import WeightStore


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of photos")
    args = parser.parse_args()
    predictor = dlib.shape_predictor(str(WeightStore(Path.home()).require(MODELS["Dlib"])[1]))
    detector = dlib.get_frontal_face_detector()
    measured = []
    for path in sorted(args.images.iterdir()):
        image = decode(path.read_bytes(), max_pixels=50_000_000)
        for box in detector(image, 0):
            corners = np.array([(part.x, part.y) for part in predictor(image, box).parts()], float)
            left, right = corners[0:2].mean(axis=0), corners[2:4].mean(axis=0)
            distance = np.linalg.norm(left - right)
            middle = np.array([box.left() + box.right(), box.top() + box.bottom()]) / 2
            measured.append([box.width() / distance, *(middle - (left + right) / 2) / distance])
    side, beside, below = np.median(measured, axis=0)
    print(f"{len(measured)} faces: side {side:.2f}, centre {beside:+.2f} beside and {below:+.2f} below")


if __name__ == "__main__":
    main()
