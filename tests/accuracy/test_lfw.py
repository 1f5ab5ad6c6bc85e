"""A sample of Labeled Faces in the Wild, against mistakes that would ruin accuracy; bench/lfw.py measures it."""

import csv
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from bench.lfw import embed_photos
from facescreen.domain.distances import Metric, distances
from facescreen.recognition.catalog import default_threshold
from facescreen.recognition.detectors import load_detector
from facescreen.recognition.embedders import load_embedder
from facescreen.recognition.weights import WeightStore

LFW = Path(__file__).parents[3] / "shared/faces/lfw"
PAIRS = 120
EVERY = 10
"""Of the list, whose pairs of one kind stand together."""


@pytest.mark.skipif(not LFW.is_dir(), reason="LFW is not part of the project")
def test_the_default_model_at_its_threshold(tmp_path: Path) -> None:
    with (LFW / "pairs.csv").open() as file:
        pairs = list(islice(csv.DictReader(file), 0, PAIRS * EVERY, EVERY))
    weights = WeightStore(tmp_path)
    paths = sorted({LFW / "images" / pair[key] for pair in pairs for key in ("file_a", "file_b")})
    vectors = embed_photos(
        paths, load_detector("mtcnn", weights=weights, max_side=1024), load_embedder("Dlib", weights=weights)
    )
    same = np.array([pair["same"] == "1" for pair in pairs])
    assert 0 < same.sum() < len(pairs)
    apart = np.array(
        [distances(Metric.COSINE, vectors[pair["file_a"]], vectors[pair["file_b"]][None])[0] for pair in pairs]
    )
    threshold = default_threshold("Dlib", Metric.COSINE)
    assert threshold is not None
    assert ((apart <= threshold) == same).mean() >= 0.97
