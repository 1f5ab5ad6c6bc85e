"""Accuracy on Labeled Faces in the Wild, and the constants of the catalogue that rest on it.

    python bench/lfw.py ../shared/faces/lfw/images ../shared/faces/lfw/pairs.csv

The list of pairs has the columns file_a, file_b, same (1 or 0), one fold after the other, no person in two folds. The
part of a file's name before its number is the person. Where a photo shows several faces, the one that is largest and
most central counts: LFW centres the person. A photo without a face is an error wherever it occurs.

LFW is a research dataset of public figures and known to be unbalanced; its figures compare methods and promise nothing.
"""

import argparse
import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from facescreen.config import DetectorName, ModelName
from facescreen.domain.distances import Metric, distances
from facescreen.domain.faces import Face, Pixels, Vector
from facescreen.images.decode import decode
from facescreen.recognition.catalog import MODELS, default_threshold
from facescreen.recognition.detectors import Detector, load_detector
from facescreen.recognition.embedders import Embedder, load_embedder
from facescreen.recognition.weights import WeightStore

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def centred_face(image: Pixels, faces: Sequence[Face]) -> Face | None:
    """The face whose area, less twice its squared distance from the middle, is largest.

    ``align_dataset_mtcnn.py`` of davidsandberg/facenet, which prepares LFW in this way.
    """
    height, width = image.shape[:2]

    def prominence(face: Face) -> float:
        box = face.box
        return box.area - 2 * math.dist((box.x + box.w / 2, box.y + box.h / 2), (width / 2, height / 2)) ** 2

    return max(faces, key=prominence, default=None)


def embed_photos(paths: Sequence[Path], detector: Detector, embedder: Embedder) -> dict[str, Vector]:
    """Embedding of the person in each photo, by file name; photos without a face are left out."""
    crops = {}
    for path in paths:
        image = decode(path.read_bytes(), max_pixels=50_000_000)
        face = centred_face(image, detector.detect(image))
        if face is not None:
            crops[path.name] = embedder.align(image, face)
    return dict(zip(crops, embedder.embed(list(crops.values())), strict=True))


def best_threshold(values: Floats, same: Flags) -> float:
    """The middle of the thresholds that tell most pairs right."""
    edges = np.unique(values)
    candidates = (edges[1:] + edges[:-1]) / 2
    right = np.array([np.count_nonzero((values <= threshold) == same) for threshold in candidates])
    return float(np.median(candidates[right == right.max()]))


def logistic_fit(values: Floats, same: Flags) -> tuple[float, float]:
    """Intercept and slope of ``P(same) = 1 / (1 + exp(-(intercept + slope * distance)))`` of largest likelihood."""
    scale = values.std()
    design = np.column_stack([np.ones_like(values), (values - values.mean()) / scale])
    weights = np.zeros(2)
    for _ in range(50):  # Newton's method; it settles within ten steps
        probability = 1 / (1 + np.exp(-design @ weights))
        curvature = design.T * (probability * (1 - probability)) @ design
        weights += np.linalg.solve(curvature, design.T @ (same - probability))
    slope = weights[1] / scale
    return float(weights[0] - slope * values.mean()), float(slope)


def accuracy_across_folds(values: Floats, same: Flags, folds: int) -> float:
    """Share of pairs told right, each fold by the threshold that is best on the others."""
    fold = np.arange(len(values)) * folds // len(values)
    found = ~np.isnan(values)
    right = 0
    for held_out in range(folds):
        threshold = best_threshold(values[(fold != held_out) & found], same[(fold != held_out) & found])
        right += int(np.count_nonzero(told_right(values, same, threshold)[fold == held_out]))
    return right / len(values)


def told_right(values: Floats, same: Flags, threshold: float) -> Flags:
    """Which pairs the threshold tells right. NaN is a pair without a face, and told wrong."""
    right: Flags = ((values <= threshold) == same) & ~np.isnan(values)
    return right


def person(name: str) -> str:
    """The person in LFW's photo of this file name."""
    return name.rpartition("_")[0]


def rank_one(embeddings: dict[str, Vector], names: Sequence[str], metric: Metric) -> tuple[float, int, int]:
    """Share of probes whose nearest reference is of their person, the number of probes, and that of references.

    The first photo of everybody with two photos or more is the reference, all their others are probes.
    """
    photos = defaultdict(list)
    for name in sorted(names):
        photos[person(name)].append(name)
    several = [group for group in photos.values() if len(group) > 1]
    references = [group[0] for group in several if group[0] in embeddings]
    gallery = np.stack([embeddings[name] for name in references])
    probes = [name for group in several for name in group[1:]]
    hits = 0
    for probe in (probe for probe in probes if probe in embeddings):
        nearest = references[int(distances(metric, embeddings[probe], gallery).argmin())]
        hits += person(nearest) == person(probe)
    return hits / len(probes), len(probes), len(several)


def all_pairs(embeddings: dict[str, Vector], metric: Metric) -> tuple[Floats, Floats]:
    """Distances of every two photos of one person, and of every two photos of two."""
    names = list(embeddings)
    vectors = np.stack([embeddings[name] for name in names])
    people = np.array([person(name) for name in names])
    mated, others = [], []
    for row in range(len(names) - 1):
        values = distances(metric, vectors[row], vectors[row + 1 :])
        same = people[row + 1 :] == people[row]
        mated.append(values[same])
        others.append(values[~same])
    return np.concatenate(mated), np.sort(np.concatenate(others))


def report(metric: Metric, values: Floats, same: Flags, *, folds: int, shipped: float | None) -> None:
    """What the listed pairs say, by their distances; NaN is a pair without a face."""
    found = ~np.isnan(values)
    best = best_threshold(values[found], same[found])
    intercept, slope = logistic_fit(values[found], same[found])
    impostors = np.sort(values[found & ~same])
    limit = impostors[int(len(impostors) * 1e-3)]
    print(f"\n{metric}, {len(values)} listed pairs")
    print(f"  accuracy, {folds} folds      {accuracy_across_folds(values, same, folds):.4f}")
    print(f"  best threshold         {best:.4f}: accuracy {told_right(values, same, best).mean():.4f}")
    if shipped is not None:
        print(f"  shipped threshold      {shipped:.4f}: accuracy {told_right(values, same, shipped).mean():.4f}")
    print(f"  FAR 1e-3               {limit:.4f}: TAR {np.mean(values[same] < limit):.4f}")
    print(f"  logistic fit           {intercept:.2f} {slope:+.2f} * distance, even odds at {-intercept / slope:.4f}")


def report_all_pairs(metric: Metric, embeddings: dict[str, Vector], *, shipped: float | None) -> None:
    """What every two photos say."""
    mated, others = all_pairs(embeddings, metric)
    print(f"{metric}, all {len(mated) + len(others)} pairs of photos")
    for rate in (1e-2, 1e-3, 1e-4):
        limit = others[int(len(others) * rate)]
        print(f"  FAR {rate:.0e}              {limit:.4f}: TAR {np.mean(mated < limit):.4f}")
    if shipped is not None:
        tar, far = np.mean(mated <= shipped), np.mean(others <= shipped)
        print(f"  shipped threshold      {shipped:.4f}: TAR {tar:.4f}, FAR {far:.1e}")


def main() -> None:
    """Measure, and print what the catalogue rests on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of photos")
    parser.add_argument("pairs", type=Path, help="csv file of labelled pairs")
    parser.add_argument("--folds", type=int, default=2, help="number of folds in the list of pairs")
    parser.add_argument("--detector", choices=get_args(DetectorName), default="mtcnn")
    parser.add_argument("--model", choices=get_args(ModelName), default="Dlib")
    parser.add_argument("--deepface-home", type=Path, default=Path.home())
    args = parser.parse_args()

    weights = WeightStore(args.deepface_home)
    detector = load_detector(args.detector, weights=weights, max_side=1024)
    embedder = load_embedder(args.model, weights=weights)
    paths = sorted(args.images.iterdir())
    names = [path.name for path in paths]
    embeddings = embed_photos(paths, detector, embedder)
    print(f"{args.detector} + {MODELS[args.model].space}")
    print(f"{len(names)} photos, {len(names) - len(embeddings)} without a face")

    with args.pairs.open(newline="") as file:
        rows = list(csv.DictReader(file))
    same = np.array([row["same"] == "1" for row in rows])
    missing = np.full(embedder.dimension, np.nan, np.float32)
    first, second = ([embeddings.get(row[key], missing) for row in rows] for key in ("file_a", "file_b"))
    for metric in (Metric.COSINE, Metric.EUCLIDEAN):
        values = np.array([distances(metric, a, b[None])[0] for a, b in zip(first, second, strict=True)])
        shipped = default_threshold(args.model, metric)
        report(metric, values, same, folds=args.folds, shipped=shipped)
        report_all_pairs(metric, embeddings, shipped=shipped)
        share, probes, people = rank_one(embeddings, names, metric)
        print(f"{metric}, list of {people} people\n  rank-1                 {share:.4f} of {probes} probes")


if __name__ == "__main__":
    main()
