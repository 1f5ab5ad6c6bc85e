"""Which limits a face misses, and what is said about it."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facescreen.domain.quality import (
    ENROLLMENT_LIMITS,
    SCREENING_LIMITS,
    FaceQuality,
    QualityIssue,
    QualityLimits,
    QualityReason,
)

GOOD = FaceQuality(
    side=200,
    confidence=1.0,
    brightness=50.0,
    sharpness=80.0,
    shadows=0.0,
    highlights=0.0,
    yaw=0.0,
    pitch=0.0,
    roll=0.0,
    features=100.0,
    tint=0.0,
)
ISSUES = {
    "side": QualityIssue.TOO_SMALL,
    "confidence": QualityIssue.DETECTOR_UNSURE,
    "sharpness": QualityIssue.BLURRED,
    "shadows": QualityIssue.UNDEREXPOSED,
    "highlights": QualityIssue.OVEREXPOSED,
    "yaw": QualityIssue.EXTREME_POSE,
    "pitch": QualityIssue.EXTREME_POSE,
    "features": QualityIssue.OCCLUDED,
    "tint": QualityIssue.OCCLUDED,
}
AT_LEAST = ("side", "confidence", "sharpness", "features")
AT_MOST = ("shadows", "highlights", "yaw", "pitch", "tint")
ANGLES = ("yaw", "pitch")

limits_of_both = pytest.mark.parametrize(
    "limits", [SCREENING_LIMITS, ENROLLMENT_LIMITS], ids=["screening", "enrollment"]
)
percentages = st.floats(0, 100)
angles = st.none() | st.floats(-180, 180)
qualities = st.builds(
    FaceQuality,
    side=st.integers(1, 1000),
    confidence=st.floats(0, 1),
    brightness=percentages,
    sharpness=percentages,
    shadows=percentages,
    highlights=percentages,
    yaw=angles,
    pitch=angles,
    roll=angles,
    features=st.none() | st.floats(0, 300),
    tint=st.none() | st.floats(0, 500),
)


def changed(measure: str, value: Any) -> FaceQuality:
    return replace(GOOD, **{measure: value})


def test_every_limit_is_tried_here() -> None:
    assert {field.name for field in fields(QualityLimits)} == set(ISSUES) == {*AT_LEAST, *AT_MOST}


@limits_of_both
@pytest.mark.parametrize("measure", ISSUES)
def test_what_is_exactly_at_a_limit_passes(limits: QualityLimits, measure: str) -> None:
    assert limits.reasons(changed(measure, getattr(limits, measure))) == ()


@limits_of_both
@pytest.mark.parametrize("measure", ISSUES)
def test_what_misses_a_limit_says_which_by_how_much(limits: QualityLimits, measure: str) -> None:
    limit = getattr(limits, measure)
    value = math.nextafter(limit, -math.inf if measure in AT_LEAST else math.inf)
    assert limits.reasons(changed(measure, value)) == (QualityReason(ISSUES[measure], measure, value, limit),)


@limits_of_both
@pytest.mark.parametrize("measure", ANGLES)
def test_angles_count_to_either_side(limits: QualityLimits, measure: str) -> None:
    limit = getattr(limits, measure)
    assert limits.reasons(changed(measure, -limit)) == ()
    (reason,) = limits.reasons(changed(measure, -limit - 1))
    assert (reason.value, reason.limit) == (-limit - 1, limit)


@limits_of_both
def test_what_could_not_be_measured_passes(limits: QualityLimits) -> None:
    assert limits.reasons(replace(GOOD, yaw=None, pitch=None, roll=None, features=None, tint=None)) == ()


@limits_of_both
@pytest.mark.parametrize("brightness", [0.0, 100.0])
@pytest.mark.parametrize("roll", [-180.0, 90.0])
def test_brightness_and_roll_have_no_limit(limits: QualityLimits, brightness: float, roll: float) -> None:
    assert limits.reasons(replace(GOOD, brightness=brightness, roll=roll)) == ()


@given(qualities)
def test_a_reference_photo_needs_at_least_what_a_comparison_needs(quality: FaceQuality) -> None:
    screening, enrollment = (
        {reason.measure for reason in limits.reasons(quality)} for limits in (SCREENING_LIMITS, ENROLLMENT_LIMITS)
    )
    assert screening <= enrollment


@given(qualities)
def test_reasons_are_about_what_was_measured(quality: FaceQuality) -> None:
    for reason in SCREENING_LIMITS.reasons(quality):
        assert reason.issue is ISSUES[reason.measure]
        assert reason.value == getattr(quality, reason.measure)
        assert reason.limit == getattr(SCREENING_LIMITS, reason.measure)


@pytest.mark.parametrize("issue", QualityIssue)
def test_every_issue_says_what_is_wrong_and_what_to_do(issue: QualityIssue) -> None:
    wrong, _, remedy = issue.advice.partition(": ")
    assert wrong
    assert remedy
    assert issue.advice == issue.advice.lower().rstrip(".")


@pytest.mark.parametrize(
    ("reason", "figures"),
    [
        (QualityReason(QualityIssue.BLURRED, "sharpness", 12.345, 25.0), "(sharpness 12.35, at least 25)"),
        (QualityReason(QualityIssue.EXTREME_POSE, "yaw", -51.0, 45.0), "(yaw -51, at most 45)"),
        (QualityReason(QualityIssue.OVEREXPOSED, "highlights", 80.0, 60.0), "(highlights 80, at most 60)"),
    ],
)
def test_the_detail_has_value_and_limit(reason: QualityReason, figures: str) -> None:
    wrong, _, remedy = reason.issue.advice.partition(": ")
    assert reason.detail == f"{wrong} {figures}: {remedy}"


def test_the_detail_of_what_was_not_measured_is_the_advice() -> None:
    reason = QualityReason(QualityIssue.NOT_COMPARED)
    assert (reason.value, reason.limit) == (None, None)
    assert reason.detail == QualityIssue.NOT_COMPARED.advice
