"""The verdict is a pure function of candidates and policy."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from facescreen.domain.blacklist import DEFAULT_COLLECTION, Entry, ReferenceImage, Status
from facescreen.domain.distances import Metric
from facescreen.domain.faces import Box, Candidate, Face, Landmarks
from facescreen.domain.screening import Match, Policy, Verdict
from facescreen.services.decision import decide

PEOPLE = 4
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FACE = Face(Box(1, 2, 30, 40), Landmarks(), 0.9)


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
        detector="mtcnn",
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


def verdict(found: list[Candidate], policy: Policy, known: set[int] | None = None) -> tuple[Verdict, tuple[Match, ...]]:
    ids = {candidate.reference_image_id for candidate in found}
    references = {id_: reference(id_) for id_ in (ids if known is None else ids & known)}
    return decide(
        found,
        references=references,
        policy=policy,
        model_name="Dlib",
        confidence=lambda distance: 100 - distance,
    )


found = st.lists(
    st.builds(Candidate, st.integers(1, 40), st.floats(0, 2)), unique_by=lambda candidate: candidate.reference_image_id
)
thresholds = st.floats(0, 2)


@given(found, thresholds, thresholds, st.booleans())
def test_a_tighter_threshold_never_adds_a_match(
    candidates: list[Candidate], one: float, other: float, every: bool
) -> None:
    tight, wide = sorted((one, other))
    strict = {m.entry_id for m in verdict(candidates, Policy(Metric.COSINE, tight, all_references=every))[1]}
    loose = {m.entry_id for m in verdict(candidates, Policy(Metric.COSINE, wide, all_references=every))[1]}
    assert strict <= loose


@given(found, thresholds, st.booleans(), st.randoms())
def test_the_order_of_candidates_does_not_matter(
    candidates: list[Candidate], threshold: float, every: bool, random: object
) -> None:
    policy = Policy(Metric.COSINE, threshold, all_references=every)
    shuffled = candidates.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert verdict(shuffled, policy) == verdict(candidates, policy)


@given(found, thresholds)
def test_every_person_within_the_threshold_is_named_once_by_the_nearest_reference(
    candidates: list[Candidate], threshold: float
) -> None:
    said, matches = verdict(candidates, Policy(Metric.COSINE, threshold))
    nearest: dict[int, float] = {}
    for candidate in candidates:
        person = candidate.reference_image_id % PEOPLE
        nearest[person] = min(candidate.distance, nearest.get(person, 9.0))
    expected = {person: distance for person, distance in nearest.items() if distance <= threshold}
    assert {match.entry_id: match.distance for match in matches} == expected
    assert [match.distance for match in matches] == sorted(expected.values())
    assert said is (Verdict.MATCH if expected else Verdict.CLEAR)


@given(found, thresholds)
def test_all_references_lists_each_reference_within_the_threshold(
    candidates: list[Candidate], threshold: float
) -> None:
    _, matches = verdict(candidates, Policy(Metric.COSINE, threshold, all_references=True))
    assert {match.reference_image_id for match in matches} == {
        candidate.reference_image_id for candidate in candidates if candidate.distance <= threshold
    }


def test_a_distance_equal_to_the_threshold_matches_and_says_why() -> None:
    said, (match,) = verdict([Candidate(5, 0.3)], Policy(Metric.ANGULAR, 0.3))
    assert said is Verdict.MATCH
    assert (match.name, match.reason, match.identity, match.target) == ("P1", "why", "p1/5.jpg", FACE.box)
    assert (match.distance, match.threshold, match.metric) == (0.3, 0.3, Metric.ANGULAR)
    assert (match.confidence, match.model_name) == (99.7, "Dlib")


def test_a_reference_that_was_withdrawn_after_the_search_matches_nobody() -> None:
    assert verdict([Candidate(5, 0.1)], Policy(Metric.COSINE, 1.0), known=set()) == (Verdict.CLEAR, ())
