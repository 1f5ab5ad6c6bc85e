"""A sample of Labeled Faces in the Wild, against mistakes that ruin accuracy; `facescreen evaluate` measures it."""

import csv
from itertools import islice
from pathlib import Path

import pytest

from facescreen.config import Settings
from facescreen.domain.distances import Metric
from facescreen.factory import open_evaluation
from facescreen.services.dataset import read_dataset

LFW = Path(__file__).parents[3] / "shared/faces/lfw"
PAIRS = 120
EVERY = 10
"""Of the list, whose pairs of one kind stand together."""


@pytest.mark.skipif(not LFW.is_dir(), reason="LFW is not part of the project")
async def test_the_default_model_at_its_threshold(tmp_path: Path) -> None:
    with (LFW / "pairs.csv").open(newline="") as file:
        rows = list(islice(csv.reader(file), 0, 1 + PAIRS * EVERY, EVERY))
    header, *pairs = [["file_a", "file_b", "same"], *rows[1:]]
    (tmp_path / "photos").mkdir()
    for name in {name for first, second, _ in pairs for name in (first, second)}:
        (tmp_path / "photos" / name).symlink_to(LFW / "images" / name)
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *pairs])
    dataset = read_dataset(tmp_path / "photos", pairs=tmp_path / "pairs.csv", folds=1)
    async with open_evaluation(Settings(_env_file=None, deepface_home=tmp_path)) as service:
        measured = await service.evaluate(
            dataset, ["centerface"], ["SFace"], metric=Metric.COSINE, cache=None, progress=lambda done, total: None
        )
    (found,) = measured.evaluation.combinations
    assert found.listed_pairs is not None
    assert found.listed_pairs.accuracy is not None
    assert found.listed_pairs.accuracy.shipped is not None
    assert found.listed_pairs.accuracy.shipped.value >= 0.97
    assert found.identification.whole.rank_one.value >= 0.9
