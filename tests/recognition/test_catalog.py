import math
from typing import get_args

import pytest
from deepface.modules.modeling import AVAILABLE_MODELS

from facescreen.config import DetectorName, ModelName
from facescreen.domain.distances import EMBEDDING_METRICS, Metric, convert
from facescreen.recognition.catalog import DETECTORS, MODELS, confidence, default_threshold


def test_every_detector_and_model_of_deepface_can_be_chosen() -> None:
    assert set(DETECTORS) == set(get_args(DetectorName)) == set(AVAILABLE_MODELS["face_detector"])
    assert set(MODELS) == set(get_args(ModelName)) == set(AVAILABLE_MODELS["facial_recognition"])


def test_spaces_differ() -> None:
    assert len({spec.space for spec in MODELS.values()}) == len(MODELS)


def test_thresholds_of_the_angle_are_one_operating_point() -> None:
    cosine = default_threshold("SFace", Metric.COSINE)
    assert cosine is not None
    assert default_threshold("SFace", Metric.ANGULAR) == convert(cosine, Metric.COSINE, Metric.ANGULAR)
    assert default_threshold("SFace", Metric.EUCLIDEAN_L2) == pytest.approx(math.sqrt(2 * cosine))


@pytest.mark.parametrize("metric", EMBEDDING_METRICS)
def test_a_model_without_evidence_has_no_threshold(metric: Metric) -> None:
    assert default_threshold("ArcFace", metric) is None
    assert confidence("ArcFace", metric, 0.1) is None


MEASURED: tuple[ModelName, ...] = ("SFace", "Dlib")


@pytest.mark.parametrize("model", MEASURED)
@pytest.mark.parametrize("metric", EMBEDDING_METRICS)
def test_confidence_falls_with_distance_and_stays_a_percentage(model: ModelName, metric: Metric) -> None:
    top = 4 * (default_threshold(model, metric) or 0.0) if math.isinf(metric.maximum) else metric.maximum
    values = [confidence(model, metric, top * step / 20) for step in range(21)]
    known = [value for value in values if value is not None]
    assert len(known) == 21
    assert known == sorted(known, reverse=True)
    assert 99 < known[0] <= 100
    assert 0 <= known[-1] < 1


@pytest.mark.parametrize("model", MEASURED)
@pytest.mark.parametrize("metric", EMBEDDING_METRICS)
def test_the_default_threshold_is_more_likely_one_person_than_two(model: ModelName, metric: Metric) -> None:
    threshold = default_threshold(model, metric)
    assert threshold is not None
    odds = confidence(model, metric, threshold)
    assert odds is not None
    assert 50 < odds < 90


def test_confidence_is_one_number_for_one_angle() -> None:
    values = [
        confidence("SFace", metric, convert(0.6, Metric.COSINE, metric)) for metric in Metric if metric.is_angle_based
    ]
    assert values == pytest.approx([values[0]] * 3)
