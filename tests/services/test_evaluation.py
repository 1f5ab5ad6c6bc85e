import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facescreen.config import DetectorName, ModelName, Settings
from facescreen.domain.distances import EmbeddingMetric, Metric
from facescreen.domain.evaluation import Combination, Evaluation, FailedPhoto, Strangers
from facescreen.domain.faces import Face, Pixels
from facescreen.errors import EvaluationDataError, WeightsMissingError
from facescreen.factory import open_evaluation
from facescreen.recognition.catalog import MODELS
from facescreen.services.dataset import read_dataset
from facescreen.services.embedding_cache import EmbeddingCache
from facescreen.services.evaluation import EvaluationService, FacePictures, Measured, summary
from tests.painted import BLUE, GREEN, RED, YELLOW, Colour, PaintedBackend, photo

CYAN, MAGENTA = (20, 230, 230), (230, 20, 230)
EVERYBODY = {"blue": BLUE, "cyan": CYAN, "green": GREEN, "magenta": MAGENTA, "red": RED, "yellow": YELLOW}


class CountingBackend(PaintedBackend):
    """Counts the photos that it looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_at = 0

    async def detect(self, image: Pixels, detector: DetectorName) -> tuple[Face, ...]:
        self.looked_at += 1
        return await super().detect(image, detector)


def put(folder: Path, **photos: Sequence[bytes]) -> Path:
    """A folder for each person."""
    for person, pictures in photos.items():
        (folder / person).mkdir(parents=True)
        for number, data in enumerate(pictures):
            (folder / person / f"{number}.png").write_bytes(data)
    return folder


def shades(colour: Colour) -> list[bytes]:
    """Two photos of one person that differ a little."""
    return [photo(colour), photo((colour[0] - 8, colour[1] - 8, colour[2] + 8), side=80)]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, deepface_home=tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three people with two photos each, and three strangers."""
    return put(
        tmp_path / "photos",
        **{name: shades(EVERYBODY[name]) for name in ("red", "green", "blue")},
        **{name: [photo(EVERYBODY[name])] for name in ("yellow", "cyan", "magenta")},
    )


def opened(settings: Settings, backend: PaintedBackend | None = None) -> AbstractAsyncContextManager[EvaluationService]:
    return open_evaluation(settings, backend or PaintedBackend())


async def measure(
    settings: Settings,
    folder: Path,
    *,
    pairs: str | None = None,
    groups: str | None = None,
    folds: int = 1,
    detectors: Sequence[DetectorName] = ("centerface",),
    models: Sequence[ModelName] = ("SFace",),
    metric: EmbeddingMetric = Metric.COSINE,
    cache: EmbeddingCache | None = None,
    backend: PaintedBackend | None = None,
) -> Measured:
    files: dict[str, Path] = {}
    for name, text in (("pairs", pairs), ("groups", groups)):
        if text is not None:
            files[name] = folder.parent / f"{name}.csv"
            files[name].write_text(text)
    dataset = read_dataset(folder, **files, folds=folds)
    async with opened(settings, backend) as service:
        return await service.evaluate(
            dataset, detectors, models, metric=metric, cache=cache, progress=lambda done, total: None
        )


def only(evaluation: Evaluation) -> Combination:
    (combination,) = evaluation.combinations
    return combination


def timeless(evaluation: Evaluation) -> dict[str, Any]:
    document = json.loads(json.dumps(asdict(evaluation), allow_nan=False))
    document.pop("measured_at")
    for combination in document["combinations"]:
        combination.pop("timing")
    return dict(document)


async def test_people_of_different_colours_are_told_apart(settings: Settings, folder: Path) -> None:
    evaluation = (await measure(settings, folder)).evaluation
    assert (evaluation.title, evaluation.photos, evaluation.people, evaluation.folds) == ("photos", 9, 6, 0)
    found = only(evaluation)
    assert (found.name, found.space) == ("centerface + SFace", "SFace/painted")
    assert found.shipped_threshold == MODELS["SFace"].thresholds[Metric.COSINE]
    assert found.acquisition.failed == ()
    assert found.listed_pairs is None
    assert (found.all_pairs.mated, found.all_pairs.others, found.all_pairs.incomplete) == (3, 33, 0)
    assert (found.all_pairs.equal_error_rate, found.all_pairs.roc[0].tar) == (0, 1)
    assert found.all_pairs.shipped is not None
    assert found.all_pairs.shipped.tar is not None
    assert found.all_pairs.shipped.tar.value == 1
    assert [point.threshold is None for point in found.all_pairs.points] == [False, True, True, True]
    listed = found.identification
    assert (listed.people, listed.mated_probes, listed.stranger_probes) == (3, 3, 3)
    assert listed.strangers is Strangers.SINGLE
    (whole,) = listed.sizes
    assert (whole.references, whole.rank_one.count, whole.rank_one.total) == (3, 3, 3)
    assert all(point.threshold is None for point in whole.points)
    assert [point.fnir for point in listed.curve] == [0.0] * len(listed.curve)
    assert listed.shipped is not None
    assert listed.shipped.threshold == found.shipped_threshold
    assert {
        Path(photo).parent.name
        for pair in found.hard.strangers_to_themselves
        for photo in asdict(pair).values()
        if isinstance(photo, str)
    } == {"red", "green", "blue"}
    line = summary(found)
    assert line.startswith("centerface + SFace: ")
    assert "\n" not in line
    assert "rank-1 100.0% (29.2% to 100.0%) on a list of 3" in line


async def test_photos_without_a_face_are_errors_wherever_they_occur(settings: Settings, folder: Path) -> None:
    (folder / "red" / "1.png").write_bytes(photo())
    (folder / "green" / "0.png").write_bytes(b"no picture")
    rows = "red/0.png,red/1.png,1\nblue/0.png,blue/1.png,1\nred/1.png,blue/0.png,0\nblue/0.png,yellow/0.png,0\n"
    found = only((await measure(settings, folder, pairs="file_a,file_b,same\n" + rows)).evaluation)
    assert found.acquisition.failed == (
        FailedPhoto("green/0.png", "unsupported_format"),
        FailedPhoto("red/1.png", "no_face"),
    )
    assert (found.acquisition.unreadable.count, found.acquisition.without_face.count) == (1, 1)
    assert found.listed_pairs is not None
    assert found.listed_pairs.accuracy is not None
    assert found.listed_pairs.incomplete == 2
    assert (found.listed_pairs.accuracy.best.count, found.listed_pairs.accuracy.best.total) == (2, 4)
    assert found.all_pairs.shipped is not None
    assert found.all_pairs.shipped.tar is not None
    assert (found.all_pairs.shipped.tar.count, found.all_pairs.shipped.tar.total) == (1, 3)
    assert found.all_pairs.incomplete == 36 - 21
    # Green's reference cannot be read and red's probe shows nobody; both are on the list all the same.
    searches, whole = found.identification, found.identification.whole
    assert searches.people == 3
    assert (whole.references, whole.rank_one.count, whole.rank_one.total) == (2, 1, 3)


async def test_listed_pairs_are_judged_by_folds(settings: Settings, folder: Path) -> None:
    mated = [f"{person}/0.png,{person}/1.png,1\n" for person in ("red", "green", "blue")]
    others = ["red/0.png,green/0.png,0\n", "blue/0.png,green/1.png,0\n", "red/1.png,yellow/0.png,0\n"]
    rows = "".join(line for both in zip(mated, others, strict=True) for line in both)
    evaluation = (await measure(settings, folder, pairs="file_a,file_b,same\n" + rows, folds=3)).evaluation
    assert evaluation.folds == 3
    found = only(evaluation).listed_pairs
    assert found is not None
    assert found.accuracy is not None
    assert [(fold.count, fold.total) for fold in found.accuracy.folds] == [(2, 2)] * 3
    assert found.accuracy.across_folds is not None
    assert found.accuracy.across_folds.value == 1
    assert (found.mated, found.others, found.logistic) == (3, 3, None)
    assert "accuracy 100.0% (54.1% to 100.0%) of listed pairs" in summary(only(evaluation))


async def test_a_third_is_held_out_where_nobody_is_a_stranger(settings: Settings, tmp_path: Path) -> None:
    folder = put(tmp_path / "photos", **{name: shades(colour) for name, colour in EVERYBODY.items()})
    combination = only((await measure(settings, folder)).evaluation)
    found, everybody = combination.identification, combination.everybody_listed
    assert (found.people, found.stranger_probes, found.strangers) == (4, 4, Strangers.HELD_OUT)
    assert (everybody.people, everybody.stranger_probes, everybody.strangers) == (6, 12, Strangers.IN_TURN)


async def test_on_a_list_of_everybody_strangers_are_searched_without_themselves(
    settings: Settings, folder: Path
) -> None:
    found = only((await measure(settings, folder)).evaluation)
    everybody = found.everybody_listed
    assert (everybody.people, everybody.mated_probes, everybody.stranger_probes) == (6, 3, 9)
    (whole,) = everybody.sizes
    assert (whole.references, whole.rank_one.count, whole.rank_one.total) == (6, 3, 3)
    # Nobody is as near to somebody else as to their own reference.
    assert everybody.curve[0].fnir == 0
    assert everybody.curve[0].threshold > found.all_pairs.roc[0].threshold - 1e-9


async def test_parts_of_a_list_are_measured_where_strangers_are_on_none(settings: Settings, tmp_path: Path) -> None:
    colours = [
        (red, green, blue)
        for red, green, blue in product((20, 125, 230), repeat=3)
        if max(red, green, blue) - min(red, green, blue) > 100
    ]
    folder = put(
        tmp_path / "photos",
        **{f"listed {number}": shades(colour) for number, colour in enumerate(colours[:16])},
        stranger=[photo((200, 20, 90))],
    )
    found = only((await measure(settings, folder)).evaluation)
    assert [size.references for size in found.identification.sizes] == [10, 16]
    assert [size.references for size in found.everybody_listed.sizes] == [17]


async def test_mean_distances_are_those_of_pairs(settings: Settings, folder: Path) -> None:
    found = only((await measure(settings, folder)).evaluation).all_pairs
    worst = max(point.threshold for point in found.roc)
    assert found.mated_mean is not None
    assert 0 < found.mated_mean < found.others_mean < worst


async def test_ten_strangers_measure_one_alert_in_ten(settings: Settings, folder: Path) -> None:
    put(folder.parent / "more", **{f"stranger {number}": [photo((200, 20, 40 + 15 * number))] for number in range(10)})
    for person in (folder.parent / "more").iterdir():
        person.rename(folder / person.name)
    found = only((await measure(settings, folder)).evaluation).identification
    tenth, hundredth, _ = found.whole.points
    assert found.stranger_probes == 13
    assert tenth.fpir is not None
    assert tenth.fpir.count <= 1.3
    assert hundredth.threshold is None


async def test_groups_are_measured_at_the_thresholds_of_everybody(settings: Settings, folder: Path) -> None:
    (folder / "red" / "1.png").write_bytes(photo())
    groups = "person,group\nred,warm\nyellow,warm\ngreen,cold\nblue,cold\ncyan,cold\n"
    found = only((await measure(settings, folder, groups=groups)).evaluation)
    cold, warm = found.groups
    assert (cold.group, cold.people, cold.photos, cold.failed.count) == ("cold", 3, 5, 0)
    assert (warm.group, warm.people, warm.photos, warm.failed.count) == ("warm", 2, 3, 1)
    for group in found.groups:
        assert [point.threshold for point in group.verification] == [
            point.threshold for point in found.all_pairs.points
        ]
    (measured, *_) = warm.verification
    assert measured.tar is not None
    assert measured.far is not None
    assert (measured.tar.count, measured.tar.total, measured.far.total) == (0, 1, 1)
    thresholds = [point.threshold for point in found.identification.whole.points]
    assert [point.threshold for point in cold.identification] == thresholds


async def test_every_detector_is_measured_with_every_model(settings: Settings, folder: Path) -> None:
    backend = CountingBackend()
    evaluation = (
        await measure(settings, folder, detectors=("centerface", "dlib"), models=("SFace", "Dlib"), backend=backend)
    ).evaluation
    assert [combination.name for combination in evaluation.combinations] == [
        "centerface + SFace",
        "centerface + Dlib",
        "dlib + SFace",
        "dlib + Dlib",
    ]
    assert backend.looked_at == 2 * 9
    with pytest.raises(WeightsMissingError):
        await measure(settings, folder, models=("SFace", "ArcFace"))


@pytest.mark.parametrize("metric", [Metric.EUCLIDEAN, Metric.EUCLIDEAN_L2, Metric.ANGULAR])
async def test_other_metrics_have_their_own_thresholds(
    settings: Settings, folder: Path, metric: EmbeddingMetric
) -> None:
    evaluation = (await measure(settings, folder, metric=metric)).evaluation
    cosine = only((await measure(settings, folder)).evaluation)
    assert evaluation.metric is metric
    assert only(evaluation).shipped_threshold not in {None, cosine.shipped_threshold}
    assert only(evaluation).identification.whole.rank_one == cosine.identification.whole.rank_one


async def test_an_evaluation_goes_on_where_it_was_interrupted(settings: Settings, folder: Path, tmp_path: Path) -> None:
    first, second = CountingBackend(), CountingBackend()
    whole = await measure(settings, folder, cache=EmbeddingCache(tmp_path / "cache"), backend=first)
    assert first.looked_at == 9
    kept = sorted((tmp_path / "cache").rglob("*.json"))
    assert len(kept) == 9
    kept[0].unlink()
    kept[1].write_text("{")
    again = await measure(settings, folder, cache=EmbeddingCache(tmp_path / "cache"), backend=second)
    assert second.looked_at == 2
    assert timeless(again.evaluation) == timeless(whole.evaluation)
    assert again.boxes == whole.boxes


async def test_embeddings_are_kept_by_content_detector_size_and_model(
    settings: Settings, folder: Path, tmp_path: Path
) -> None:
    async def looked_at(settings: Settings = settings, **chosen: Any) -> int:
        backend = CountingBackend()
        await measure(settings, folder, cache=EmbeddingCache(tmp_path / "cache"), backend=backend, **chosen)
        return backend.looked_at

    assert await looked_at() == 9
    (folder / "red" / "1.png").rename(folder / "red" / "2.png")
    assert await looked_at() == 0
    (folder / "red" / "2.png").write_bytes(photo(RED, side=70))
    assert await looked_at() == 1
    assert await looked_at(models=("SFace", "Dlib")) == 9
    assert await looked_at(detectors=("dlib",)) == 9
    assert await looked_at(settings.model_copy(update={"detector_max_side": 640})) == 9


async def test_only_this_user_may_read_the_embeddings(settings: Settings, folder: Path, tmp_path: Path) -> None:
    await measure(settings, folder, cache=EmbeddingCache(tmp_path / "kept" / "cache"))
    for path in (tmp_path / "kept", *(tmp_path / "kept").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0


async def test_two_runs_say_the_same(settings: Settings, folder: Path) -> None:
    groups = "person,group\nred,warm\ngreen,cold\nblue,cold\n"
    first, second = [timeless((await measure(settings, folder, groups=groups)).evaluation) for _ in range(2)]
    assert first == second


async def test_photos_of_nobody_are_refused(settings: Settings, tmp_path: Path) -> None:
    folder = put(tmp_path / "photos", red=[photo(RED), photo(RED)], nobody=[photo()])
    with pytest.raises(EvaluationDataError, match="the photos of no two people show a face"):
        await measure(settings, folder)
    folder = put(tmp_path / "others", red=[photo(RED), photo()], green=[photo(GREEN)])
    pairs = "file_a,file_b,same\nred/0.png,red/1.png,1\nred/0.png,green/0.png,0\n"
    with pytest.raises(EvaluationDataError, match="no listed pair"):
        await measure(settings, folder, pairs=pairs)


async def test_the_most_central_large_face_counts(settings: Settings, folder: Path) -> None:
    (folder / "red" / "1.png").write_bytes(photo(GREEN, RED, BLUE))
    assert only((await measure(settings, folder)).evaluation).identification.whole.rank_one.value == 1


async def test_pictures_show_the_face_with_a_margin(settings: Settings, folder: Path) -> None:
    (folder / "red" / "1.png").write_bytes(photo())
    (folder / "green" / "1.png").write_bytes(b"no picture")
    (folder / "blue" / "1.png").write_bytes(photo(YELLOW, BLUE, RED, side=400))
    measured = await measure(settings, folder)
    picture = FacePictures(folder, measured.boxes, max_pixels=settings.max_image_pixels)
    whole, face = picture("red/1.png"), picture("blue/1.png")
    assert whole is not None
    assert face is not None
    assert whole.shape == (128, 128, 3)
    assert face.shape == (192, 192, 3)
    assert tuple(np.median(face[64:128, 64:128], axis=(0, 1))) == BLUE
    assert tuple(face[10, 10]) == (128, 128, 128)
    assert picture("green/1.png") is None
    assert picture("green/7.png") is None
