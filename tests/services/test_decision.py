"""The verdict is a pure function of what was found, the picture and the policy."""

from datetime import UTC, datetime
from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facescreen.domain.blacklist import DEFAULT_COLLECTION, Entry, ReferenceImage, Status
from facescreen.domain.distances import Metric
from facescreen.domain.faces import Box, Candidate, Face, Landmarks
from facescreen.domain.quality import SCREENING_LIMITS, FaceQuality, QualityIssue
from facescreen.domain.screening import Clearance, Grade, Match, Policy, Verdict
from facescreen.services.decision import Cleared, Decision, Near, decide

PEOPLE = 4
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FACE = Face(Box(1, 2, 30, 40), Landmarks(), 0.9)
GOOD = FaceQuality(side=100, confidence=1.0, brightness=50.0, sharpness=80.0, shadows=0.0, highlights=0.0)
BAD = FaceQuality(side=5, confidence=1.0, brightness=50.0, sharpness=80.0, shadows=0.0, highlights=0.0)


def reference(id_: int) -> tuple[Entry, ReferenceImage]:
    person = id_ % PEOPLE
    photo = f"p{person}/{id_}.jpg"
    image = ReferenceImage(
        id=id_,
        entry_id=person,
        photo=photo,
        watched=photo,
        status=Status.ACTIVE,
        face_id=f"face {id_}",
        image_id=f"image {id_}",
        external_image_id=None,
        sha256="",
        width=100,
        height=100,
        face=FACE,
        detector="centerface",
        created_at=NOW,
    )
    entry = Entry(
        id=person,
        collection=DEFAULT_COLLECTION,
        name=f"P{person}",
        reason="why",
        folder=f"p{person}",
        user_id=f"user {person}",
        status=Status.ACTIVE,
        created_at=NOW,
        updated_at=NOW,
        images=(),
    )
    return entry, image


def judge(
    found: list[Candidate] | None,
    policy: Policy,
    *,
    known: set[int] | None = None,
    cleared: dict[int, float] | None = None,
    quality: FaceQuality = GOOD,
) -> Decision:
    """The decision where ``known`` references are left and faces at these distances were cleared of being people."""
    ids = {candidate.reference_image_id for candidate in found or ()}
    clearances = {
        entry_id: Cleared(Clearance(entry_id, entry_id, 1, 0, "", NOW, None), distance)
        for entry_id, distance in (cleared or {}).items()
    }
    return decide(
        None if found is None else Near(found, cleared=clearances),
        quality=quality,
        references={id_: reference(id_) for id_ in (ids if known is None else ids & known)},
        policy=policy,
        model_name="SFace",
        confidence=lambda distance: 100 - distance,
        false_alert_probability=lambda distance: distance / 10,
    )


def graded(decision: Decision) -> dict[int, Grade]:
    return {match.entry_id: match.grade for match in decision.matches if match.clearance is None}


found = st.lists(
    st.builds(Candidate, st.integers(1, 40), st.floats(0, 2)), unique_by=lambda candidate: candidate.reference_image_id
)
distances = st.floats(0, 2)
policies = st.tuples(distances, distances, st.booleans()).map(
    lambda drawn: Policy(Metric.COSINE, min(drawn[:2]), max(drawn[:2]), all_references=drawn[2])
)
cleared_faces = st.dictionaries(st.integers(0, PEOPLE - 1), distances)


@given(found, policies, cleared_faces, st.tuples(distances, distances))
def test_tighter_thresholds_never_add_an_alert_whoever_was_cleared(
    candidates: list[Candidate], wide: Policy, cleared: dict[int, float], limits: tuple[float, float]
) -> None:
    one, other = limits
    tight = Policy(
        Metric.COSINE,
        min(wide.threshold, one),
        max(min(wide.threshold, one), min(wide.review_threshold, other)),
        all_references=wide.all_references,
    )
    strict, loose = (graded(judge(candidates, policy, cleared=cleared)) for policy in (tight, wide))
    assert strict.keys() <= loose.keys()
    assert {id_ for id_, grade in strict.items() if grade is Grade.MATCH} <= {
        id_ for id_, grade in loose.items() if grade is Grade.MATCH
    }


@given(found, policies, cleared_faces, st.integers(1, 40), st.floats(0, 1))
def test_a_better_reference_never_loses_an_alert(
    candidates: list[Candidate], policy: Policy, cleared: dict[int, float], id_: int, share: float
) -> None:
    before = judge(candidates, policy, cleared=cleared)
    theirs = [match for match in before.matches if match.entry_id == id_ % PEOPLE]
    if not theirs or any(candidate.reference_image_id == id_ for candidate in candidates):
        return
    better = Candidate(id_, theirs[0].distance * share)
    after = judge([*candidates, better], policy, cleared=cleared)
    ranks = {None: 0, Grade.POSSIBLE: 1, Grade.MATCH: 2}
    assert ranks[graded(after).get(id_ % PEOPLE)] >= ranks[graded(before).get(id_ % PEOPLE)]
    others = [
        {match.entry_id: match.grade for match in decision.matches if match.entry_id != id_ % PEOPLE}
        for decision in (before, after)
    ]
    assert others[0] == others[1]


@given(found, policies, cleared_faces, st.randoms())
def test_the_order_of_candidates_does_not_matter(
    candidates: list[Candidate], policy: Policy, cleared: dict[int, float], random: Random
) -> None:
    shuffled = candidates.copy()
    random.shuffle(shuffled)
    assert judge(shuffled, policy, cleared=cleared) == judge(candidates, policy, cleared=cleared)


@given(found, policies)
def test_every_person_within_the_review_threshold_is_named_once_by_the_nearest_reference(
    candidates: list[Candidate], policy: Policy
) -> None:
    decision = judge(candidates, Policy(Metric.COSINE, policy.threshold, policy.review_threshold))
    nearest: dict[int, float] = {}
    for candidate in candidates:
        person = candidate.reference_image_id % PEOPLE
        nearest[person] = min(candidate.distance, nearest.get(person, 9.0))
    expected = {person: distance for person, distance in nearest.items() if distance <= policy.review_threshold}
    assert {match.entry_id: match.distance for match in decision.matches} == expected
    apart = [match.distance for match in decision.matches]
    assert apart == sorted(expected.values())
    for position, match in enumerate(decision.matches):
        farther = [other for place, other in enumerate(apart) if place != position and other >= match.distance]
        assert match.margin == (min(farther) - match.distance if farther else None)


@given(found, policies)
def test_all_references_lists_each_reference_within_the_review_threshold(
    candidates: list[Candidate], policy: Policy
) -> None:
    every = Policy(Metric.COSINE, policy.threshold, policy.review_threshold, all_references=True)
    matches = judge(candidates, every).matches
    by_nearest = judge(candidates, Policy(Metric.COSINE, policy.threshold, policy.review_threshold)).matches
    told = {match.entry_id: (match.grade, match.margin, match.false_alert_probability) for match in by_nearest}
    within = {c.reference_image_id for c in candidates if c.distance <= policy.review_threshold}
    assert {match.reference_image_id for match in matches} == within
    for match in matches:
        assert match.supporting == sum(id_ % PEOPLE == match.entry_id for id_ in within)
        assert (match.grade, match.margin, match.false_alert_probability) == told[match.entry_id]


@pytest.mark.parametrize(
    ("distance", "cleared", "quality"),
    list(product((None, 0.1, 0.2, 0.25, 0.3, 0.31), (None, 0.05, 0.2, 0.3), (GOOD, BAD))),
)
def test_every_combination_of_distance_clearance_and_picture(
    distance: float | None, cleared: float | None, quality: FaceQuality
) -> None:
    policy = Policy(Metric.COSINE, threshold=0.2, review_threshold=0.3)
    decision = judge(
        [] if distance is None else [Candidate(5, distance)],
        policy,
        cleared={} if cleared is None else {1: cleared},
        quality=quality,
    )
    grade = None if distance is None else policy.grade(distance)
    is_cleared = distance is not None and cleared is not None and cleared < distance
    if grade is None or is_cleared:
        expected = Verdict.CLEAR if quality is GOOD else Verdict.NOT_SCREENABLE
    else:
        expected = Verdict(grade)
    assert decision.verdict is expected
    assert [match.clearance is not None for match in decision.matches] == ([is_cleared] if grade else [])
    assert decision.reasons == SCREENING_LIMITS.reasons(quality)


@pytest.mark.parametrize("quality", [GOOD, BAD])
def test_a_face_that_could_not_be_compared_is_never_clear(quality: FaceQuality) -> None:
    decision = judge(None, Policy(Metric.SIMILARITY, 0.2, 0.2), quality=quality)
    assert decision.verdict is Verdict.NOT_SCREENABLE
    assert decision.matches == ()
    assert decision.reasons[-1].issue is QualityIssue.NOT_COMPARED


def test_a_match_says_what_it_rests_on() -> None:
    verdict, (match,), reasons = judge([Candidate(5, 0.3)], Policy(Metric.ANGULAR, 0.3, 0.4))
    assert (verdict, reasons) == (Verdict.MATCH, ())
    assert match == Match(
        entry_id=1,
        name="P1",
        reason="why",
        reference_image_id=5,
        identity="p1/5.jpg",
        target=FACE.box,
        grade=Grade.MATCH,
        distance=0.3,
        threshold=0.3,
        review_threshold=0.4,
        supporting=1,
        margin=None,
        confidence=99.7,
        false_alert_probability=0.03,
        model_name="SFace",
        metric=Metric.ANGULAR,
    )


def test_a_possible_person_never_hides_a_match() -> None:
    decision = judge([Candidate(5, 0.1), Candidate(6, 0.25)], Policy(Metric.COSINE, 0.2, 0.3))
    assert decision.verdict is Verdict.MATCH
    assert [match.grade for match in decision.matches] == [Grade.MATCH, Grade.POSSIBLE]


def test_the_margin_passes_over_whoever_was_cleared() -> None:
    found = [Candidate(5, 0.1), Candidate(6, 0.15), Candidate(7, 0.28)]
    decision = judge(found, Policy(Metric.COSINE, 0.2, 0.3), cleared={2: 0.01})
    assert decision.matches[0].margin == pytest.approx(0.18)


def test_a_reference_that_was_withdrawn_after_the_search_matches_nobody() -> None:
    assert judge([Candidate(5, 0.1)], Policy(Metric.COSINE, 1.0, 1.0), known=set()) == (Verdict.CLEAR, (), ())
