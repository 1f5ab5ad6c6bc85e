"""Thresholds are set by hand, or chosen by a budget of false alerts for the list as it stands."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facescreen.config import Settings
from facescreen.domain.distances import EMBEDDING_METRICS, EmbeddingMetric, Metric, convert
from facescreen.domain.false_alerts import AlertBudget, Calibration
from facescreen.errors import InvalidThresholdError, ThresholdRequiredError
from facescreen.recognition.catalog import default_threshold
from facescreen.services.thresholds import (
    Plan,
    ScreeningDefaults,
    ScreeningOptions,
    asked_thresholds,
    deciding_curve,
    resolve_policy,
    shipped_calibration,
)
from tests.painted import UNMEASURED

DEFAULTS = ScreeningDefaults("centerface", "SFace", Metric.COSINE, None, None, AlertBudget(100, 10))
BY_BUDGET = Plan("centerface", "SFace", "centerface", "SFace", Metric.COSINE, None, None, all_references=False)
sizes = st.integers(0, 1_000_000)


def shipped(one_in: int = 100, review_one_in: int = 10) -> Calibration:
    found = shipped_calibration("SFace", AlertBudget(one_in, review_one_in))
    assert found is not None
    return found


def longest_measured(metric: EmbeddingMetric) -> int:
    return shipped().curve(metric).list_sizes[-1]


@given(sizes, st.sampled_from(EMBEDDING_METRICS))
def test_the_budget_is_kept_at_every_size_and_in_every_metric(size: int, metric: EmbeddingMetric) -> None:
    policy = resolve_policy(replace(BY_BUDGET, metric=metric), shipped(), size)
    assert policy.threshold <= policy.review_threshold
    assert policy.calibration is not None
    assert policy.calibration.list_size == size
    if size <= 10 * longest_measured(metric):
        assert policy.calibration.false_alert_rate <= 0.01
        assert policy.calibration.review_false_alert_rate <= 0.1


@given(st.data(), st.sampled_from(EMBEDDING_METRICS))
def test_the_default_budget_is_kept_by_lists_as_long_as_measured_ones(
    data: st.DataObject, metric: EmbeddingMetric
) -> None:
    one_in, review_one_in = (
        Settings.model_fields[name].default for name in ("false_alert_budget", "review_false_alert_budget")
    )
    size = data.draw(st.integers(0, longest_measured(metric)))
    policy = resolve_policy(replace(BY_BUDGET, metric=metric), shipped(one_in, review_one_in), size)
    assert policy.calibration is not None
    assert policy.calibration.false_alert_rate <= 1 / one_in
    assert policy.calibration.review_false_alert_rate <= 1 / review_one_in
    assert policy.threshold < policy.review_threshold


@given(sizes, st.integers(2, 1000), st.integers(2, 1000))
def test_a_smaller_budget_is_never_wider(size: int, one: int, other: int) -> None:
    few, many = sorted((one, other))
    wide, tight = (resolve_policy(BY_BUDGET, shipped(n, 2), size).threshold for n in (few, many))
    assert tight <= wide


@given(sizes, st.sampled_from(EMBEDDING_METRICS))
def test_nobody_counts_who_is_farther_than_photos_of_one_person_are(size: int, metric: EmbeddingMetric) -> None:
    one_to_one = default_threshold("SFace", metric)
    assert one_to_one is not None
    policy = resolve_policy(replace(BY_BUDGET, metric=metric), shipped(2, 2), size)
    assert policy.review_threshold <= one_to_one
    if size <= 1:
        assert policy.threshold == one_to_one
    given_review = resolve_policy(replace(BY_BUDGET, metric=metric, review_threshold=0.9), shipped(2, 2), size)
    assert given_review.threshold <= one_to_one


def test_angle_based_metrics_share_their_thresholds() -> None:
    cosine = resolve_policy(BY_BUDGET, shipped(), 1000)
    angular = resolve_policy(replace(BY_BUDGET, metric=Metric.ANGULAR), shipped(), 1000)
    assert angular.threshold == pytest.approx(convert(cosine.threshold, Metric.COSINE, Metric.ANGULAR))
    assert angular.review_threshold == pytest.approx(convert(cosine.review_threshold, Metric.COSINE, Metric.ANGULAR))


@given(st.floats(0, 2), sizes)
def test_a_threshold_that_is_set_holds_and_the_review_threshold_is_never_below(threshold: float, size: int) -> None:
    policy = resolve_policy(replace(BY_BUDGET, threshold=threshold), shipped(), size)
    assert policy.threshold == threshold
    assert policy.review_threshold >= threshold
    assert policy.calibration is not None
    curve = deciding_curve(BY_BUDGET, shipped())
    assert curve is not None
    assert policy.calibration.false_alert_rate == curve.rate(threshold, size)


def test_far_beyond_what_was_measured_the_tightest_threshold_stays_and_tells_what_to_expect() -> None:
    curve = deciding_curve(BY_BUDGET, shipped())
    assert curve is not None
    policy = resolve_policy(BY_BUDGET, shipped(), 100_000)
    assert policy.threshold == curve.distances[0]
    assert policy.calibration is not None
    assert policy.calibration.false_alert_rate > 0.01


def test_without_evidence_a_threshold_is_needed() -> None:
    with pytest.raises(ThresholdRequiredError, match="never measured for SFace"):
        resolve_policy(BY_BUDGET, None, 10)
    assert resolve_policy(replace(BY_BUDGET, threshold=0.1), None, 10).review_threshold == 0.1
    assert shipped_calibration(UNMEASURED, DEFAULTS.budget) is None


def test_a_budget_beyond_what_was_measured_is_not_guessed() -> None:
    with pytest.raises(ThresholdRequiredError, match="no threshold keeps to one false alert in 100000"):
        resolve_policy(BY_BUDGET, shipped(100_000, 10), 10)


def test_a_configured_threshold_belongs_to_its_model_and_geometry() -> None:
    configured = replace(DEFAULTS, threshold=0.05, review_threshold=0.06)
    assert asked_thresholds(ScreeningOptions(), configured) == (0.05, 0.06)
    assert asked_thresholds(ScreeningOptions(metric=Metric.ANGULAR), configured)[0] == pytest.approx(
        convert(0.05, Metric.COSINE, Metric.ANGULAR)
    )
    for options in (ScreeningOptions(model="Dlib"), ScreeningOptions(metric=Metric.EUCLIDEAN)):
        assert asked_thresholds(options, configured) == (None, None)
    assert asked_thresholds(ScreeningOptions(threshold=0.01), configured) == (0.01, 0.06)


@pytest.mark.parametrize(
    "options",
    [
        ScreeningOptions(threshold=2.1),
        ScreeningOptions(review_threshold=2.1),
        ScreeningOptions(threshold=0.2, review_threshold=0.1),
        ScreeningOptions(metric=Metric.ANGULAR, threshold=1.1),
    ],
)
def test_thresholds_that_mean_nothing_are_refused(options: ScreeningOptions) -> None:
    with pytest.raises(InvalidThresholdError):
        asked_thresholds(options, DEFAULTS)
