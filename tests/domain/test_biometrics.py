import math
from itertools import pairwise as neighbours

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import beta

from facescreen.domain.biometrics import (
    CURVE_POINTS,
    Comparisons,
    Floats,
    accuracy,
    all_pairs,
    best_threshold,
    logistic_fit,
    pairwise,
    rate,
    threshold_at,
    told_right,
)
from facescreen.domain.distances import EMBEDDING_METRICS, EmbeddingMetric, Metric, distances
from facescreen.domain.faces import Vectors

# Of few values, so that there are ties.
DISTANCE = st.integers(0, 40).map(lambda number: number / 20)
DISTANCES = st.lists(DISTANCE, min_size=1, max_size=60).map(np.array)


@given(st.integers(1, 500).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_the_interval_is_that_of_clopper_and_pearson(share: tuple[int, int]) -> None:
    count, total = share
    found = rate(count, total)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low == pytest.approx(beta.ppf(0.025, count, total - count + 1) if count else 0)
    assert found.high == pytest.approx(beta.ppf(0.975, count + 1, total - count) if count < total else 1)


def test_the_rule_of_three_in_ten() -> None:
    # Closed forms: 0 of n has the upper bound 1 - 0.025 ** (1 / n).
    assert rate(0, 10).high == pytest.approx(1 - 0.025 ** (1 / 10))
    assert rate(10, 10).low == pytest.approx(0.025 ** (1 / 10))
    assert (rate(0, 10).low, rate(10, 10).high) == (0, 1)


@pytest.mark.parametrize(("count", "total"), [(0, 0), (-1, 3), (4, 3)])
def test_what_is_no_share_is_refused(count: int, total: int) -> None:
    with pytest.raises(ValueError, match="share"):
        rate(count, total)


@given(DISTANCES, st.sampled_from([2, 5, 10, 30]))
def test_the_threshold_is_the_largest_that_keeps_the_target(others: Floats, one_in: int) -> None:
    others = np.append(np.sort(others), 3.0)
    threshold = threshold_at(others, one_in)
    assert (threshold is None) == (len(others) < one_in)
    if threshold is not None:
        assert np.count_nonzero(others <= threshold) / len(others) <= 1 / one_in
        assert np.count_nonzero(others <= math.nextafter(threshold, math.inf)) / len(others) > 1 / one_in


def test_a_thousand_pairs_measure_one_in_a_thousand_and_fewer_do_not() -> None:
    others = np.arange(1000) / 1000
    assert threshold_at(others, 1000) == math.nextafter(0.001, 0)
    assert threshold_at(others[1:], 1000) is None


@given(mated=DISTANCES, others=DISTANCES, missing=st.integers(0, 3))
def test_true_accepts_at_a_false_accept_rate_are_those_of_brute_force(
    mated: Floats, others: Floats, missing: int
) -> None:
    verification = Comparisons(np.sort(mated), np.sort(others), mated_missing=missing).verification(shipped=0.5)
    for point in verification.points:
        assert point.target is not None
        if point.threshold is None:
            assert (point.tar, point.far) == (None, None)
            assert len(others) < 1 / point.target
            continue
        assert point.tar is not None
        assert point.far is not None
        allowed = [t for t in (*mated, *others, -1.0) if np.mean(others <= t) <= point.target]
        assert point.tar.value == max((mated <= t).sum() / (len(mated) + missing) for t in allowed)
        assert point.far.value <= point.target
    assert verification.shipped is not None
    assert verification.shipped.tar is not None
    assert verification.shipped.tar.count == (mated <= 0.5).sum()


@given(mated=DISTANCES, others=DISTANCES)
def test_the_curve_rises_from_no_false_match_to_all(mated: Floats, others: Floats) -> None:
    roc = Comparisons(np.sort(mated), np.sort(others)).roc()
    assert (roc[0].far, roc[-1].far, roc[-1].tar) == (0, 1, 1)
    for before, after in neighbours(roc):
        assert before.threshold <= after.threshold
        assert before.far <= after.far
        assert before.tar <= after.tar


def test_curves_are_thinned_where_false_matches_are_frequent() -> None:
    roc = Comparisons(np.arange(50) / 100, np.arange(100_000) / 50_000).roc()
    assert len(roc) <= CURVE_POINTS
    assert [round(point.far * 100_000) for point in roc[:4]] == [0, 1, 2, 3]


@given(mated=DISTANCES, others=DISTANCES, missing=st.integers(0, 3))
def test_no_threshold_brings_the_two_errors_closer_together(mated: Floats, others: Floats, missing: int) -> None:
    rate_, threshold = Comparisons(np.sort(mated), np.sort(others), mated_missing=missing).equal_error()

    def errors(at: float) -> tuple[float, float]:
        return float(np.mean(others <= at)), 1 - float((mated <= at).sum()) / (len(mated) + missing)

    apart = {at: abs(np.subtract(*errors(at))) for at in (*mated, *others, -1.0)}
    assert abs(np.subtract(*errors(threshold))) == pytest.approx(min(apart.values()))
    assert rate_ == pytest.approx(np.mean(errors(threshold)))


def test_means_are_those_of_pairs_with_a_distance() -> None:
    values = np.array([0.1, 0.3, np.nan, 0.7, np.nan])
    of_both = Comparisons.of(values, np.array([True, True, True, False, False])).verification(shipped=None)
    assert of_both.mated_mean == pytest.approx(0.2)
    assert of_both.others_mean == pytest.approx(0.7)
    assert Comparisons(np.empty(0), np.array([0.7])).verification(shipped=None).mated_mean is None


def test_equal_error_by_hand() -> None:
    # Up to 0.4, one of four pairs of two people matches and one of four of one person does not.
    compared = Comparisons(np.array([0.1, 0.2, 0.3, 0.6]), np.array([0.4, 0.7, 0.8, 0.9]))
    assert compared.equal_error()[0] == 0.25


@given(DISTANCES.flatmap(lambda values: st.tuples(st.just(values), arrays(bool, len(values)))))
def test_the_best_threshold_is_amid_those_that_tell_most_pairs_right(pairs: tuple[Floats, np.ndarray]) -> None:
    values, same = pairs
    edges = np.unique(values)
    rights = {at: told_right(values, same, at).sum() for at in (edges[1:] + edges[:-1]) / 2}
    best = [at for at, right in rights.items() if right == max(rights.values())]
    assert best_threshold(values, same) == (np.median(best) if best else 0)


def test_folds_are_judged_by_the_threshold_of_the_others() -> None:
    values = np.array([0.1, 0.2, 0.3, 0.4, 0.35, 0.45, 0.9, np.nan])
    same = np.array([True, True, False, False, True, True, False, False])
    folds = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    found = accuracy(values, same, folds, shipped=0.25)
    # Fold 0 by 0.675, the best on fold 1: both pairs of one person, none of two. Fold 1 by 0.25: only 0.9 is right.
    assert [fold.count for fold in found.folds] == [2, 1]
    assert found.across_folds is not None
    assert (found.across_folds.count, found.across_folds.total) == (3, 8)
    assert found.shipped is not None
    assert found.shipped.count == 5
    assert accuracy(values, same, np.zeros(8, int), shipped=None).across_folds is None


def test_the_logistic_fit_is_stationary_and_finds_what_made_the_labels() -> None:
    generator = np.random.default_rng(1)
    values = generator.uniform(0, 2, 20_000)
    same = generator.uniform(size=20_000) < 1 / (1 + np.exp(-(6 - 7 * values)))
    fit = logistic_fit(values, same)
    assert fit is not None
    rest = same - 1 / (1 + np.exp(-(fit.intercept + fit.slope * values)))
    assert rest.sum() == pytest.approx(0, abs=1e-6)
    assert (rest * values).sum() == pytest.approx(0, abs=1e-6)
    assert fit.intercept == pytest.approx(6, rel=0.05)
    assert fit.slope == pytest.approx(-7, rel=0.05)


def test_pairs_that_a_threshold_tells_apart_have_no_fit() -> None:
    same = np.array([True, True, False, False])
    assert logistic_fit(np.array([0.1, 0.2, 0.2, 0.4]), same) is None
    assert logistic_fit(np.array([0.3, 0.4, 0.1, 0.2]), same) is None


VECTORS = arrays(np.float32, (7, 5), elements=st.floats(-2, 2, width=16))


@given(VECTORS, VECTORS, st.sampled_from(EMBEDDING_METRICS))
def test_products_of_matrices_give_the_same_distances(first: Vectors, second: Vectors, metric: EmbeddingMetric) -> None:
    exact = np.stack([distances(metric, row, second) for row in first])
    np.testing.assert_allclose(pairwise(metric, first, second), exact, rtol=0, atol=1e-6)


def test_all_pairs_are_those_of_two_loops() -> None:
    generator = np.random.default_rng(2)
    vectors = generator.normal(size=(1100, 4)).astype(np.float32)  # more than two blocks
    people = np.array([f"person {number}" for number in generator.integers(0, 300, 1100)])
    found = all_pairs(Metric.COSINE, vectors, people, hardest=5)
    apart = pairwise(Metric.COSINE, vectors, vectors)
    upper = np.triu(np.ones_like(apart, bool), 1)
    same = people[:, None] == people
    np.testing.assert_allclose(found.mated, np.sort(apart[upper & same]), atol=1e-12)
    np.testing.assert_allclose(found.others, np.sort(apart[upper & ~same]), atol=1e-12)
    assert [distance for *_, distance in found.nearest_others] == pytest.approx(found.others[:5])
    assert [distance for *_, distance in found.farthest_mated] == pytest.approx(found.mated[:-6:-1])
    for first, second, distance in (*found.nearest_others, *found.farthest_mated):
        assert first < second
        assert distance == pytest.approx(apart[first, second])
    assert not any(same[first, second] for first, second, _ in found.nearest_others)
    assert all(same[first, second] for first, second, _ in found.farthest_mated)


def test_equally_hard_pairs_are_named_in_their_order() -> None:
    vectors = np.ones((6, 3), np.float32)
    found = all_pairs(Metric.COSINE, vectors, np.array(["a", "a", "b", "b", "c", "c"]), hardest=2)
    assert [(first, second) for first, second, _ in found.nearest_others] == [(0, 2), (0, 3)]
    assert [(first, second) for first, second, _ in found.farthest_mated] == [(0, 1), (2, 3)]
