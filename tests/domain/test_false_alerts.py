"""Rates of false alerts, and the thresholds that a budget leads to."""

import json
import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from facescreen.domain.distances import EMBEDDING_METRICS, EmbeddingMetric, Metric, convert, distances
from facescreen.domain.false_alerts import (
    MEASURED_METRICS,
    AlertBudget,
    Calibration,
    FalseAlertCurve,
    ImpostorSearches,
    measure_curve,
)

ANGLE_BASED: list[EmbeddingMetric] = [metric for metric in EMBEDDING_METRICS if metric.is_angle_based]
GRID = [0.1, 0.2, 0.3, 0.4]


def near(found: NDArray[np.float64], grid: list[float]) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = (found[:, :, None] <= grid).sum(axis=1)
    return counts


@st.composite
def found_distances(draw: st.DrawFn, largest_list: int = 7) -> NDArray[np.float64]:
    """Distances of a few faces to every photo of a short list, some of them at the points of the grid."""
    faces, references = draw(st.integers(1, 5)), draw(st.integers(1, largest_list))
    values = draw(st.lists(st.integers(0, 9), min_size=faces * references, max_size=faces * references))
    return np.array(values).reshape(faces, references) / 20


@st.composite
def curves(draw: st.DrawFn) -> FalseAlertCurve:
    found = draw(found_distances(largest_list=30))
    return measure_curve(near(found, GRID), Metric.COSINE, list_size=found.shape[1], distances=GRID)


@given(found_distances())
def test_the_rate_is_the_mean_over_all_parts_of_the_list(found: NDArray[np.float64]) -> None:
    faces, references = found.shape
    curve = measure_curve(near(found, GRID), Metric.COSINE, list_size=references, distances=GRID)
    assert (curve.faces, curve.list_sizes[0], curve.list_sizes[-1]) == (faces, 1, references)
    for size in range(1, references + 1):
        parts = [found[:, part].min(axis=1) for part in combinations(range(references), size)]
        for distance in GRID:
            expected = float(np.mean([nearest <= distance for nearest in parts]))
            if size in curve.list_sizes:
                assert curve.rate(distance, size) == pytest.approx(expected, abs=1e-9)
            assert curve.rate(distance, size) >= expected - 1e-9


@given(curves(), st.floats(-0.1, 0.5), st.floats(0, 0.3), st.integers(0, 100), st.integers(0, 100))
def test_the_rate_never_falls(
    curve: FalseAlertCurve, distance: float, farther: float, list_size: int, longer: int
) -> None:
    rate = curve.rate(distance, list_size)
    assert 0 <= rate <= 1
    assert rate <= curve.rate(distance + farther, list_size)
    assert rate <= curve.rate(distance, list_size + longer)


@given(curves(), st.integers(1, 6), st.integers(0, 6), st.integers(0, 100), st.integers(0, 100))
def test_the_threshold_keeps_the_budget_and_never_grows(
    curve: FalseAlertCurve, one_in: int, stricter: int, list_size: int, longer: int
) -> None:
    threshold = curve.threshold(one_in, list_size)
    others = [curve.threshold(one_in + stricter, list_size), curve.threshold(one_in, list_size + longer)]
    if threshold is None:
        assert all(other is None for other in others)
        return
    assert curve.rate(threshold, list_size) <= 1 / one_in + 1e-9 or threshold == curve.distances[0]
    wider = [distance for distance in curve.distances if distance > threshold]
    assert all(curve.rate(distance, max(list_size, 1)) > 1 / one_in for distance in wider)
    assert all(other is None or other <= threshold for other in others)


@pytest.mark.parametrize("faces", [3, 7, 49, 100, 300])
def test_a_budget_that_is_used_up_exactly_is_kept(faces: int) -> None:
    found = np.full((faces, 1), 0.35)
    found[0] = 0.15
    curve = measure_curve(near(found, GRID), Metric.COSINE, list_size=1, distances=GRID)
    assert curve.threshold(faces, 1) == 0.3


def test_so_many_faces_are_no_evidence_for_fewer_alerts() -> None:
    curve = measure_curve(near(np.full((10, 2), 0.35), GRID), Metric.COSINE, list_size=2, distances=GRID)
    assert curve.threshold(10, 2) == 0.3
    assert curve.threshold(11, 2) is None


def test_the_rate_of_a_longer_list_is_that_of_lists_put_together() -> None:
    found = np.full((10, 20), 0.35)
    found[0, 0] = found[1, 5] = 0.15
    curve = measure_curve(near(found, GRID), Metric.COSINE, list_size=20, distances=GRID)
    assert curve.rate(0.2, 20) == pytest.approx(0.2)
    assert curve.rate(0.2, 60) == pytest.approx(1 - 0.8**3)
    assert curve.rate(0.2, 0) == 0
    assert curve.rate(0.45, 1) == 1


@given(curves(), st.sampled_from(ANGLE_BASED), st.integers(1, 6), st.integers(1, 100))
def test_a_converted_curve_decides_the_same(
    curve: FalseAlertCurve, metric: EmbeddingMetric, one_in: int, list_size: int
) -> None:
    converted = curve.converted(metric)
    assert converted.metric is metric
    for distance in (0.05, 0.15, *GRID, 0.45):
        theirs = convert(distance, Metric.COSINE, metric)
        assert converted.rate(theirs, list_size) == curve.rate(distance, list_size)
    threshold = curve.threshold(one_in, list_size)
    assert converted.threshold(one_in, list_size) == (threshold and convert(threshold, Metric.COSINE, metric))


def test_a_curve_does_not_convert_to_another_geometry() -> None:
    curve = measure_curve(np.zeros((1, 1), np.int64), Metric.COSINE, list_size=1, distances=[0.1])
    with pytest.raises(ValueError, match="angle"):
        curve.converted(Metric.EUCLIDEAN)


@given(curves())
def test_a_curve_comes_back_from_json(curve: FalseAlertCurve) -> None:
    assert FalseAlertCurve.from_document(json.loads(json.dumps(curve.to_document()))) == curve


def embeddings(seed: int, count: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0.5, 1.0, (count, 8)).astype(np.float32)


@pytest.mark.parametrize("metric", MEASURED_METRICS)
def test_searches_measure_what_the_definition_of_the_metric_says(metric: EmbeddingMetric) -> None:
    searches = ImpostorSearches(embeddings(1, 90), embeddings(2, 40))
    expected = np.array([distances(metric, face, searches.references) for face in searches.faces])
    nearest = searches.nearest(metric)
    assert nearest.distances == pytest.approx(expected.min(axis=1))
    assert (nearest.rows == expected.argmin(axis=1)).all()
    curve = searches.curve(metric)
    assert (curve.faces, curve.list_sizes[-1]) == (90, 40)
    for distance in curve.distances:
        assert curve.rate(distance, 40) == pytest.approx(np.mean(expected.min(axis=1) <= distance), abs=1e-9)
        assert curve.rate(distance, 1) == pytest.approx(np.mean(expected <= distance), abs=1e-9)


@pytest.mark.parametrize("metric", MEASURED_METRICS)
def test_a_curve_reaches_from_no_alert_to_nearly_all(metric: EmbeddingMetric) -> None:
    curve = ImpostorSearches(embeddings(3, 400), embeddings(4, 300)).curve(metric)
    assert curve.rates[-1][0] == 0
    assert curve.rates[-1][1] == 1 / 400
    assert curve.rates[-1][-1] == pytest.approx(0.95)
    assert list(curve.distances) == sorted(set(curve.distances))
    assert [curve.rates[-1][k + 1] - curve.rates[-1][k] for k in range(10)] == pytest.approx([1 / 400] * 10)
    assert len(json.dumps(curve.to_document())) < 25_000


@pytest.mark.parametrize("metric", MEASURED_METRICS)
def test_nobody_is_searched_among_their_own(metric: EmbeddingMetric) -> None:
    vectors = embeddings(5, 30)
    people = np.arange(30) // 3
    searches = ImpostorSearches(vectors, vectors[::3], people)
    assert searches.list_size == 9
    nearest = searches.nearest(metric)
    assert (nearest.rows != people).all()
    assert nearest.distances.min() > 0
    assert searches.curve(metric).list_sizes[-1] == 9


def test_a_face_that_is_on_the_list_leaves_no_distance_without_alerts() -> None:
    vectors = np.ones((2, 3), np.float32)
    curve = ImpostorSearches(vectors, vectors).curve(Metric.EUCLIDEAN)
    assert curve.rate(0.0, 2) == 1
    assert curve.threshold(2, 2) == 0


@pytest.mark.parametrize("metric", MEASURED_METRICS)
def test_more_distances_than_are_held_at_once_are_measured_too(metric: EmbeddingMetric) -> None:
    vectors = embeddings(6, 4000)
    people = np.arange(4000) // 2
    searches = ImpostorSearches(vectors, vectors[::2], people)
    nearest = searches.nearest(metric)
    for face in (0, 1, 1999, 2000, 3998, 3999):
        expected = distances(metric, vectors[face], searches.references)
        expected[people[face]] = math.inf
        assert nearest.rows[face] == expected.argmin()
        assert nearest.distances[face] == pytest.approx(expected.min())
    curve = searches.curve(metric)
    middle = len(curve.distances) // 2
    assert curve.rates[-1][middle] == pytest.approx(np.mean(nearest.distances <= curve.distances[middle]), abs=1e-9)


def test_a_calibration_has_a_curve_for_every_metric() -> None:
    searches = ImpostorSearches(embeddings(8, 20), embeddings(9, 20))
    measured = tuple(searches.curve(metric) for metric in MEASURED_METRICS)
    calibration = Calibration(None, "random", "centerface", "space", AlertBudget(10, 2), measured, None)
    for metric in EMBEDDING_METRICS:
        curve = calibration.curve(metric)
        assert curve.metric is metric
        threshold = curve.threshold(10, 20)
        assert threshold is not None
        assert math.isclose(curve.rate(threshold, 20), 0.1)


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_list_of_one_other_person_is_measured_too(is_listed: bool) -> None:
    vectors = embeddings(17, 2)
    searches = ImpostorSearches(vectors, vectors, np.arange(2)) if is_listed else ImpostorSearches(vectors, vectors[:1])
    curve = searches.curve(Metric.COSINE)
    assert curve.list_sizes == (1,)
    assert curve.rate(curve.distances[-1], 1) == 1
