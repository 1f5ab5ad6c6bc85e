"""Scores of people near a face, by who else is near it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from facescreen.domain.crowding import Crowding, Scored
from facescreen.domain.distances import Metric, distances, unit
from facescreen.domain.faces import Vector, Vectors

CROWDING = Crowding(typical=0.6, alike=0.05)


class Listed(NamedTuple):
    """References of people, and the face that is compared with them."""

    face: Vector
    people: tuple[int, ...]
    vectors: Vectors

    def adding(self, person: int, vector: Vector) -> "Listed":
        return Listed(self.face, (*self.people, person), np.vstack([self.vectors, vector]))

    def scores(self, order: Sequence[int] | None = None) -> Mapping[int, Scored]:
        """By person; references at one distance come in this order."""
        order = range(len(self.people)) if order is None else order
        found = distances(Metric.COSINE, self.face, self.vectors)
        rows = sorted(order, key=lambda row: found[row])
        scored = CROWDING.scores(
            [self.people[row] for row in rows], found[rows], self.vectors[rows], counts=Counter(self.people)
        )
        return {each.person: each for each in scored}


embeddings = st.lists(st.integers(-3, 3), min_size=3, max_size=3).map(lambda values: np.array(values, np.float32))


@st.composite
def lists(draw: st.DrawFn) -> Listed:
    people = draw(st.lists(st.integers(10, 17), min_size=1, max_size=14))
    return Listed(draw(embeddings), tuple(people), np.stack([draw(embeddings) for _ in people]))


def at(*cosine_distances: float) -> Vectors:
    """Vectors so far from the first axis, in directions of their own besides."""
    cosines = 1 - np.array(cosine_distances)
    vectors = np.zeros((len(cosines), len(cosines) + 1))
    vectors[:, 0] = cosines
    vectors[np.arange(len(cosines)), np.arange(len(cosines)) + 1] = np.sqrt(1 - cosines**2)
    return vectors.astype(np.float32)


def scores(people: Sequence[int], *cosine_distances: float, counts: Mapping[int, int] | None = None) -> list[float]:
    found = CROWDING.scores(people, np.array(cosine_distances), at(*cosine_distances), counts=counts)
    return [each.score for each in found]


def test_the_five_next_people_count_by_half_of_how_near_they_are() -> None:
    near = (0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55)
    first, second, *_, last = scores(range(7), *near)
    assert first == pytest.approx(0.2 + 0.5 * (0.6 - np.mean([0.3, 0.35, 0.4, 0.45, 0.5])))
    assert second == pytest.approx(0.3 + 0.5 * (0.6 - np.mean([0.2, 0.35, 0.4, 0.45, 0.5])))
    assert last == pytest.approx(0.55 + 0.5 * (0.6 - np.mean([0.2, 0.3, 0.35, 0.4, 0.45])))


def test_a_typical_person_stands_for_each_that_lacks() -> None:
    assert scores([1], 0.2) == [0.2]
    assert scores([1, 2], 0.2, 0.4)[0] == pytest.approx(0.2 + 0.5 * (0.6 - np.mean([0.4, 0.6, 0.6, 0.6, 0.6])))
    assert scores([1, 2, 3], 0.2, 0.6, 0.9)[0] == 0.2


def test_references_of_one_person_are_one_person() -> None:
    assert scores([1, 1, 2, 2], 0.2, 0.25, 0.4, 0.45) == scores([1, 2], 0.2, 0.4)


def test_of_three_references_the_nearest_two_count() -> None:
    assert scores([1, 1, 1], 0.2, 0.3, 0.5, counts={1: 3}) == [0.25]
    assert scores([1, 1], 0.2, 0.3, counts={1: 2}) == [0.2]
    # The others are not among the nearest: the second is as far as the farthest of these, or farther.
    assert scores([1, 2], 0.2, 0.6, counts={1: 3})[0] == pytest.approx(0.4)


def test_nobody_near_is_nobody() -> None:
    assert CROWDING.scores([], np.empty(0), np.empty((0, 3), np.float32)) == []


@given(lists())
def test_everybody_has_a_score_that_is_not_below_the_distance(listed: Listed) -> None:
    found = listed.scores()
    assert set(found) == set(listed.people)
    away = distances(Metric.COSINE, listed.face, listed.vectors)
    for person, scored in found.items():
        assert scored.distance == min(away[row] for row, whose in enumerate(listed.people) if whose == person)
        assert scored.score >= scored.distance
    assert [scored.distance for scored in found.values()] == sorted(scored.distance for scored in found.values())


@given(lists(), embeddings, st.data())
def test_a_nearer_reference_never_raises_the_score_of_the_person(
    listed: Listed, vector: Vector, data: st.DataObject
) -> None:
    person = data.draw(st.sampled_from(listed.people))
    before = listed.scores()[person]
    assume(distances(Metric.COSINE, listed.face, vector[None])[0] <= before.distance)
    assert listed.adding(person, vector).scores()[person].score <= before.score


@given(lists(), st.data())
def test_who_is_on_the_list_twice_is_found_as_well(listed: Listed, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(listed.people) - 1))
    person = listed.people[row]
    twice = listed.adding(99, listed.vectors[row]).scores()
    assert twice[person].score <= listed.scores()[person].score


@given(lists(), st.randoms(use_true_random=False))
def test_the_order_of_references_does_not_matter(listed: Listed, random: Random) -> None:
    order = list(range(len(listed.people)))
    random.shuffle(order)
    assert listed.scores(order) == listed.scores()


@given(lists(), st.integers(0, 13))
def test_somebody_who_comes_nearer_raises_the_scores_of_others(listed: Listed, row: int) -> None:
    """Unless the two look alike."""
    person = listed.people[row % len(listed.people)]
    newcomer = listed.face if listed.face.any() else np.ones(3, np.float32)
    theirs = listed.vectors[[whose == person for whose in listed.people]]
    assume((1 - unit(theirs) @ unit(newcomer) > CROWDING.alike).all())
    assert listed.adding(99, newcomer).scores()[person].score >= listed.scores()[person].score


def test_an_embedding_without_direction_resembles_its_owner_alone() -> None:
    vectors = np.zeros((2, 3), np.float32)
    assert [each.score for each in CROWDING.scores([1, 2], np.array([0.1, 0.2]), vectors)] == pytest.approx(
        [0.1 + 0.5 * 0.4 / 5, 0.2 + 0.5 * 0.5 / 5]
    )


@pytest.mark.parametrize("typical", [0.1596, 0.1623, 0.1, 0.3, 1.0])
def test_typical_neighbours_change_nothing_at_all(typical: float) -> None:
    crowding = Crowding(typical, alike=0.05)
    found = crowding.scores(range(7), np.array([0.05, *[typical] * 6]), at(0.05, *[typical] * 6))
    assert found[0].score == 0.05
