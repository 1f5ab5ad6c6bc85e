import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from facescreen.domain.biometrics import CURVE_POINTS, Floats
from facescreen.domain.distances import EmbeddingMetric, Metric, distances
from facescreen.domain.faces import Vectors
from facescreen.domain.identification import EveryPart, OpenSet, Outcomes, Probes, Searches

# Of few values, so that there are ties.
DISTANCE = st.integers(0, 40).map(lambda number: number / 20)
MISSED = DISTANCE | st.just(math.inf)


@st.composite
def parts(draw: st.DrawFn) -> EveryPart:
    whole = draw(st.integers(1, 6))
    probes = draw(st.integers(1, 8))
    strangers = draw(st.integers(1, 30))
    own = np.array(draw(st.lists(MISSED, min_size=probes, max_size=probes)))
    nearer = np.array(draw(st.lists(st.integers(0, whole - 1), min_size=probes, max_size=probes)))
    apart = draw(arrays(float, (strangers, whole), elements=DISTANCE))
    return EveryPart(draw(st.integers(1, whole)), whole, own, nearer, apart)


@st.composite
def outcomes(draw: st.DrawFn) -> Outcomes:
    mated = draw(arrays(float, draw(st.integers(1, 8)), elements=MISSED))
    strangers = draw(arrays(float, draw(st.integers(1, 30)), elements=MISSED))
    return Outcomes(10, mated, strangers)


def by_drawing(list_: EveryPart, threshold: float) -> tuple[float, float]:
    """FPIR and FNIR as means over every part; the nearer references of a probe are the first, its own is the last."""
    positives = [
        (list_.strangers[:, part] <= threshold).any(axis=1).mean()
        for part in combinations(range(list_.whole), list_.references)
    ]
    missed = [
        1 - float(own <= threshold and math.isfinite(own) and not any(other < nearer for other in part))
        for own, nearer in zip(list_.own, list_.nearer, strict=True)
        for part in combinations(range(list_.whole - 1), list_.references - 1)
    ]
    return float(np.mean(positives)), float(np.mean(missed))


@settings(max_examples=50)
@given(parts(), DISTANCE)
def test_rates_in_parts_of_a_list_are_means_over_every_part(list_: EveryPart, at: float) -> None:
    point = list_.at(at)
    assert point.fpir is not None
    assert point.fnir is not None
    assert (point.fpir.value, point.fnir.value) == pytest.approx(by_drawing(list_, at))


@settings(max_examples=100)
@given(parts() | outcomes(), st.sampled_from([2, 5, 10, 30]))
def test_the_threshold_of_a_list_is_the_largest_that_keeps_the_target(list_: Searches, one_in: int) -> None:
    _, strangers = list_.probes
    levels = list_.levels()
    threshold = list_.threshold(one_in)
    assert (threshold is None) == (strangers < one_in or not len(levels))
    if threshold is not None:
        allowed = strangers / one_in + 1e-9
        assert list_.alerts(threshold) <= allowed
        assert threshold == levels[-1] or list_.alerts(math.nextafter(threshold, math.inf)) > allowed


@settings(max_examples=50)
@given(outcomes())
def test_a_looser_budget_misses_no_more_people(list_: Outcomes) -> None:
    points = [point.fnir for point in list_.measure().points if point.fnir is not None]
    assert [point.value for point in points] == sorted(point.value for point in points)
    curve = list_.curve()
    assert bool(curve) == np.isfinite(list_.strangers).any()
    assert len(curve) <= CURVE_POINTS
    assert [point.fpir for point in curve] == sorted(point.fpir for point in curve)
    assert [point.fnir for point in curve] == sorted((point.fnir for point in curve), reverse=True)
    if curve:
        assert curve[0].fpir == 0
        assert curve[-1].fpir == pytest.approx(np.isfinite(list_.strangers).mean())


def test_identification_by_hand() -> None:
    # Ten strangers, nearest reference at 0.1, 0.2, ...; one alert in ten allows less than 0.2.
    found = Outcomes(2, np.array([0.05, 0.15, math.inf, 0.3, math.inf]), np.arange(1, 11) / 10)
    whole = found.measure()
    assert (whole.rank_one.count, whole.rank_one.total) == (3, 5)
    (tenth, hundredth, thousandth) = whole.points
    assert tenth.threshold == math.nextafter(0.2, 0)
    assert tenth.fpir is not None
    assert tenth.fnir is not None
    assert (tenth.fpir.count, tenth.fpir.total) == (1, 10)
    assert (tenth.fnir.count, tenth.fnir.total) == (3, 5)
    assert hundredth.threshold is None
    assert (thousandth.fpir, thousandth.fnir) == (None, None)
    some = found.among(np.array([True, False, False, True, False]), np.arange(10) < 4)
    point = some.at(0.2)
    assert point.fpir is not None
    assert point.fnir is not None
    assert (point.fpir.count, point.fpir.total, point.fnir.count, point.fnir.total) == (2, 4, 1, 2)


def people(generator: np.random.Generator, count: int, *, photos: int = 1) -> Vectors:
    """Photos of people who are all a little alike, person by person."""
    centres = generator.normal(size=(count, 1, 12)) + 0.7
    return np.asarray((centres + 0.35 * generator.normal(size=(count, photos, 12))).reshape(-1, 12), np.float32)


def open_set(metric: EmbeddingMetric = Metric.COSINE, *, listed: int = 40, in_turn: bool = False) -> OpenSet:
    """Somebody without a face, and a stranger who is somebody on the list if ``in_turn``."""
    photos = people(np.random.default_rng(3), listed + 30, photos=2)
    own = np.arange(listed)
    own[0] = -1
    strangers = np.concatenate([photos[2 * listed :], photos[: 2 * listed]]) if in_turn else photos[2 * listed :]
    unlisted = np.full(60, -1)
    places = np.concatenate([unlisted, np.repeat(np.arange(listed), 2)]) if in_turn else unlisted
    return OpenSet(
        metric,
        photos[: 2 * listed : 2],
        Probes(photos[1 : 2 * listed : 2], own),
        Probes(strangers, places),
    )


def exact(metric: EmbeddingMetric, probes: Probes, references: Vectors) -> Floats:
    return np.stack([distances(metric, vector, references) for vector in probes.vectors])


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.EUCLIDEAN, Metric.ANGULAR])
def test_in_whole_lists_the_nearest_is_named(metric: EmbeddingMetric, in_turn: bool) -> None:
    list_ = open_set(metric, in_turn=in_turn)
    found = list_.whole()
    mated = exact(metric, list_.mated, list_.references)
    for row, own, value in zip(mated, list_.mated.own, found.mated, strict=True):
        named = own >= 0 and row.argmin() == own
        assert value == pytest.approx(row[own], abs=1e-6) if named else value == math.inf
    assert 0 < np.isfinite(found.mated).sum() < len(list_.mated.own)
    strangers = exact(metric, list_.strangers, list_.references)
    known = list_.strangers.own >= 0
    strangers[known, list_.strangers.own[known]] = math.inf
    np.testing.assert_allclose(found.strangers, strangers.min(axis=1), atol=1e-6)


def test_a_tie_with_somebody_else_is_a_miss() -> None:
    references = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    nobody = Probes(np.empty((0, 2), np.float32), np.empty(0, np.int64))
    list_ = OpenSet(Metric.COSINE, references, Probes(references, np.arange(3)), nobody)
    assert np.isfinite(list_.whole().mated).tolist() == [False, False, True]


def test_parts_of_the_whole_length_are_the_whole() -> None:
    list_ = open_set()
    (ten, *_) = list_.parts()
    all_ = EveryPart(40, 40, ten.own, ten.nearer, ten.strangers)
    assert ten.references == 10
    found = list_.whole()
    for threshold in (0.05, 0.2, 0.4):
        assert (all_.found(threshold), all_.alerts(threshold)) == (found.found(threshold), found.alerts(threshold))


def test_a_list_without_a_face_finds_nobody() -> None:
    faces = np.ones((3, 4), np.float32)
    list_ = OpenSet(Metric.COSINE, faces[:0], Probes(faces, np.full(3, -1)), Probes(faces, np.full(3, -1)))
    found = list_.whole()
    assert found.measure().rank_one.count == 0
    assert all(point.threshold is None for point in found.measure().points)
    assert found.curve() == ()
    assert list_.parts() == ()


def test_parts_have_round_lengths_up_to_two_thirds_of_the_list() -> None:
    def lengths(references: int) -> tuple[int, ...]:
        faces = np.empty((references, 2), np.float32)
        nobody = Probes(faces[:0], np.empty(0, np.int64))
        return OpenSet(Metric.COSINE, faces, nobody, nobody).lengths()

    assert lengths(14) == ()
    assert lengths(15) == (10,)
    assert lengths(307) == (10, 30, 100)
    assert lengths(1680) == (10, 30, 100, 300, 1000)
