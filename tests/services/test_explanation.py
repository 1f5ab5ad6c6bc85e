"""What a reviewer reads says what the verdict rests on."""

from dataclasses import replace
from datetime import UTC, datetime

from facescreen.domain.distances import Metric
from facescreen.domain.faces import Box, Face, Landmarks
from facescreen.domain.quality import QualityIssue, QualityReason
from facescreen.domain.screening import AppliedCalibration, Clearance, Grade, Match, Policy, ScreenedFace, Verdict
from facescreen.services.explanation import explain

POLICY = Policy(Metric.COSINE, 0.05, 0.06, calibration=AppliedCalibration(None, "LFW", 1000, 307, 0.01, 0.1))
MATCH = Match(
    entry_id=7,
    name="Ada",
    reason="",
    reference_image_id=1,
    identity="ada/1.jpg",
    target=Box(0, 0, 9, 9),
    grade=Grade.MATCH,
    distance=0.03,
    threshold=0.05,
    review_threshold=0.06,
    supporting=1,
    margin=0.012,
    confidence=None,
    false_alert_probability=0.0025,
    model_name="SFace",
    metric=Metric.COSINE,
)


def face(verdict: Verdict, *matches: Match, reasons: tuple[QualityReason, ...] = ()) -> ScreenedFace:
    return ScreenedFace(Face(Box(1, 2, 30, 40), Landmarks(), 0.9), verdict, matches, reasons=reasons)


def test_a_match_names_distance_limit_false_alerts_and_margin() -> None:
    said = explain(face(Verdict.MATCH, MATCH), POLICY)
    assert said == (
        "The distance to Ada is 0.0300 (cosine, SFace): within the match threshold of 0.0500; 0.25% of faces of people "
        "who are not on such a list of 307 photos come so near to somebody on it; "
        "the next person is 0.0120 farther."
    )


def test_a_possible_person_is_within_the_review_threshold_only() -> None:
    possible = replace(MATCH, grade=Grade.POSSIBLE, distance=0.055)
    said = explain(face(Verdict.POSSIBLE, possible), POLICY)
    assert "within the review threshold of 0.0600 but not the match threshold of 0.0500" in said


def test_a_rare_false_alert_is_not_rounded_to_never() -> None:
    said = explain(face(Verdict.MATCH, replace(MATCH, false_alert_probability=0.0)), POLICY)
    assert "none of the 1000 measured faces of people who are not on such a list" in said


def test_without_a_calibration_nothing_is_said_of_false_alerts() -> None:
    plain = replace(MATCH, false_alert_probability=None, margin=None)
    said = explain(face(Verdict.MATCH, plain), Policy(Metric.COSINE, 0.05, 0.06))
    assert said == "The distance to Ada is 0.0300 (cosine, SFace): within the match threshold of 0.0500."


def test_a_cleared_match_is_named_beside_what_counts() -> None:
    cleared = replace(MATCH, clearance=Clearance(1, 7, 1, 0, "brother", datetime.now(UTC), None))
    assert explain(face(Verdict.CLEAR, cleared), POLICY) == (
        "Nobody else on the list is within the review threshold of 0.0600. "
        "A reviewer said that a face like this one is not Ada."
    )
    other = replace(MATCH, entry_id=8, name="Eve")
    assert explain(face(Verdict.MATCH, cleared, other), POLICY).startswith("The distance to Eve is")


def test_a_bad_picture_says_what_it_lacks() -> None:
    reason = QualityReason(QualityIssue.TOO_SMALL, "side", 12, 16)
    said = explain(face(Verdict.NOT_SCREENABLE, reasons=(reason,)), POLICY)
    assert said.startswith("This does not say that nobody matches: the face is too small (side 12, at least 16)")


def test_somebody_withdrawn_is_not_named() -> None:
    assert explain(face(Verdict.WITHDRAWN), POLICY) == "Whoever this face matched was taken off the list since."
