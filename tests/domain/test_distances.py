"""Distances and the conversion of thresholds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from facescreen.domain.distances import Metric, convert, distances
from facescreen.domain.faces import Vector

ANGLE_BASED = [metric for metric in Metric if metric.is_angle_based]
vectors = arrays.arrays(np.float32, 5, elements=st.floats(-100, 100, width=32)).filter(
    lambda vector: float(np.linalg.norm(vector)) > 1e-2
)


@given(vectors, vectors)
def test_each_metric_follows_its_definition(one: Vector, other: Vector) -> None:
    a, b = one.astype(float), other.astype(float)
    cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    difference = a / np.linalg.norm(a) - b / np.linalg.norm(b)
    expected = {
        Metric.COSINE: 1 - cosine,
        Metric.EUCLIDEAN: float(np.linalg.norm(a - b)),
        Metric.EUCLIDEAN_L2: float(np.linalg.norm(difference)),
        Metric.ANGULAR: math.acos(max(-1.0, min(1.0, cosine))) / math.pi,
    }
    for metric, value in expected.items():
        (got,) = distances(metric, one, other[None])
        assert got == pytest.approx(value, abs=1e-6)


@given(st.floats(0, 1), st.sampled_from(ANGLE_BASED), st.sampled_from(ANGLE_BASED))
def test_converted_thresholds_come_back(share: float, source: Metric, target: Metric) -> None:
    value = share * source.maximum
    assert convert(convert(value, source, target), target, source) == pytest.approx(value, abs=1e-6)


@given(vectors, vectors, vectors, st.sampled_from(ANGLE_BASED))
def test_a_converted_threshold_is_the_same_operating_point(
    one: Vector, near: Vector, far: Vector, target: Metric
) -> None:
    threshold = float(distances(Metric.COSINE, one, near[None])[0])
    inside = distances(Metric.COSINE, one, far[None])[0] <= threshold - 1e-6
    if inside:
        assert distances(target, one, far[None])[0] <= convert(threshold, Metric.COSINE, target)


@pytest.mark.parametrize("apart", [Metric.EUCLIDEAN, Metric.SIMILARITY])
def test_a_threshold_that_does_not_follow_from_the_angle_converts_to_no_other(apart: Metric) -> None:
    assert convert(0.6, apart, apart) == 0.6
    for metric in set(Metric) - {apart}:
        with pytest.raises(ValueError, match=r"euclidean|similarity"):
            convert(0.6, apart, metric)
        with pytest.raises(ValueError, match=r"euclidean|similarity"):
            convert(0.6, metric, apart)


def test_what_an_outside_service_says_is_not_computed() -> None:
    with pytest.raises(ValueError, match="similarity"):
        distances(Metric.SIMILARITY, np.ones(3, np.float32), np.ones((1, 3), np.float32))


def test_an_all_zero_embedding_is_like_nobody() -> None:
    zero, one = np.zeros(3, np.float32), np.ones((1, 3), np.float32)
    assert distances(Metric.COSINE, zero, one)[0] == 1.0
