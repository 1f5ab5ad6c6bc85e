"""The search follows the list as it stands."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from facescreen.domain.crowding import SHORTEST_LIST, Crowding, is_crowd
from facescreen.domain.distances import Metric, convert
from facescreen.domain.faces import Neighbours
from facescreen.domain.screening import AppliedCalibration, Policy
from facescreen.services.matching import in_list, scored
from facescreen.services.replica import ListState
from tests.services.test_thresholds import BY_BUDGET

CROWDING = Crowding(typical=0.16, alike=0.05)


def test_many_photos_of_few_people_are_no_crowd() -> None:
    few = ListState(version=1, people=SHORTEST_LIST - 1, size=10 * SHORTEST_LIST, missing=0)
    assert in_list(BY_BUDGET, few).by_distance
    assert in_list(BY_BUDGET, replace(few, people=SHORTEST_LIST)) == BY_BUDGET


def test_one_person_with_all_the_nearest_photos_is_no_crowd() -> None:
    assert not is_crowd([7] * 64)
    assert not is_crowd([7, None, *range(9)])
    assert is_crowd(range(11))


@given(st.lists(st.floats(0.01, 0.3), min_size=1, max_size=20), st.floats(0.02, 0.2))
def test_whoever_is_scored_within_the_review_threshold_comes_with_all_their_references(
    found: list[float], limit: float
) -> None:
    apart = np.sort(np.array(found))
    vectors = np.random.default_rng(0).standard_normal((len(apart), 8)).astype(np.float32)
    neighbours = Neighbours(tuple(range(len(apart))), apart, vectors)
    owners = {id_: id_ % 5 for id_ in neighbours.ids if id_ != 3}  # the fourth was withdrawn meanwhile
    people = [owners[id_] for id_ in neighbours.ids if id_ in owners]
    rows = [row for row, id_ in enumerate(neighbours.ids) if id_ in owners]
    expected = {
        each.person: each.score for each in CROWDING.scores(people, apart[rows], vectors[rows]) if each.score <= limit
    }
    calibration = AppliedCalibration(None, "", 100, 300, 0.01, 0.1, crowding=CROWDING)
    for metric in (Metric.COSINE, Metric.ANGULAR):
        policy = Policy(metric, 0.0, convert(limit, Metric.COSINE, metric), calibration=calibration)
        near = scored(neighbours, owners, policy, crowding=CROWDING, counts={})
        if metric is Metric.COSINE:
            assert near.scores == expected
        assert {owners[candidate.reference_image_id] for candidate in near.candidates} == set(near.scores)
        assert len(near.candidates) == sum(person in near.scores for person in people)
