"""The search for near pairs gives the answers of brute force."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from facescreen.domain.distances import EMBEDDING_METRICS, EmbeddingMetric, Metric, distances
from facescreen.domain.faces import Vectors
from facescreen.indexes.pairs import NearPairs, PairSearch

DIMENSION = 4


def search(
    vectors: Vectors, owners: list[int], *, metric: EmbeddingMetric, radii: tuple[float, ...], limit: int = 1000
) -> tuple[NearPairs, ...]:
    searched = PairSearch(vectors, np.array(owners, np.int64), metric=metric, radii=radii, limit=limit)
    for step in range(searched.steps):
        searched.step(step)
    return searched.result()


def nearest_by_people(vectors: Vectors, owners: list[int], metric: EmbeddingMetric) -> dict[tuple[int, int], float]:
    """The smallest distance of the embeddings of every two owners."""
    found: dict[tuple[int, int], float] = {}
    for first, second in combinations(range(len(vectors)), 2):
        pair = (min(owners[first], owners[second]), max(owners[first], owners[second]))
        distance = float(distances(metric, vectors[first], vectors[second][None])[0])
        if pair[0] != pair[1]:
            found[pair] = min(found.get(pair, math.inf), distance)
    return found


people = st.lists(st.integers(0, 5), min_size=0, max_size=12)
# Coarse values, so that there are equal embeddings, zeros and distances exactly at a radius.
values = st.one_of(st.integers(-3, 3).map(float), st.floats(-10, 10, width=32).filter(lambda v: abs(v) > 1e-3))


@st.composite
def lists(draw: st.DrawFn) -> tuple[Vectors, list[int]]:
    owners = draw(people)
    return draw(arrays.arrays(np.float32, (len(owners), DIMENSION), elements=values)), owners


@given(
    lists(),
    st.sampled_from(EMBEDDING_METRICS),
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.05, 0.5, 1.0])),
    st.floats(0, 1),
    st.integers(1, 20),
)
def test_every_pair_is_found_once_and_in_its_band(
    known: tuple[Vectors, list[int]], metric: EmbeddingMetric, share: float, inner: float, limit: int
) -> None:
    vectors, owners = known
    wide = share * (20.0 if metric is Metric.EUCLIDEAN else metric.maximum)
    radii = (inner * wide, wide)
    expected = nearest_by_people(vectors, owners, metric)
    bands = (
        sorted(d for d in expected.values() if d <= radii[0]),
        sorted(d for d in expected.values() if radii[0] < d <= radii[1]),
    )
    for band, found in zip(bands, search(vectors, owners, metric=metric, radii=radii, limit=limit), strict=True):
        assert found.total == len(band)
        assert [pair.distance for pair in found.nearest] == pytest.approx(band[:limit], abs=1e-6)
        pairs = {(owners[pair.first], owners[pair.second]) for pair in found.nearest}
        assert len(pairs) == len(found.nearest)
        for pair in found.nearest:
            assert owners[pair.first] < owners[pair.second]
            both = distances(metric, vectors[pair.first], vectors[pair.second][None])
            assert pair.distance == pytest.approx(float(both[0]), abs=1e-9)


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.EUCLIDEAN])
@pytest.mark.parametrize("radius", [0.05, 0.9])
def test_a_list_of_several_parts_is_searched_as_a_whole(metric: EmbeddingMetric, radius: float) -> None:
    """More rows than one step compares, most pairs near or hardly any."""
    random = np.random.default_rng(5)
    count = 1300
    vectors = (random.standard_normal((count, 16)) + 1.0).astype(np.float32)
    owners = random.integers(0, 500, count)
    vectors[1200] = vectors[7] * np.float32(1 if metric is Metric.EUCLIDEAN else 3)
    nearest = np.full((500, 500), np.inf)
    for row in range(count - 1):
        near = distances(metric, vectors[row], vectors[row + 1 :])
        others = owners[row + 1 :]
        np.minimum.at(nearest, (np.minimum(owners[row], others), np.maximum(owners[row], others)), near)
    np.fill_diagonal(nearest, np.inf)
    expected = np.sort(nearest[nearest <= radius])
    (found,) = search(vectors, owners.tolist(), metric=metric, radii=(radius,), limit=50)
    assert found.total == len(expected) > 0
    assert [pair.distance for pair in found.nearest] == pytest.approx(expected[:50].tolist(), abs=1e-6)


def test_one_person_with_more_photos_than_a_part_has_rows() -> None:
    vectors = np.random.default_rng(5).standard_normal((1300, 8)).astype(np.float32)
    vectors[1299] = vectors[3]
    owners = [1] * 1298 + [2, 3]
    (found,) = search(vectors, owners, metric=Metric.COSINE, radii=(1e-6,))
    assert [(pair.first, pair.second) for pair in found.nearest] == [(3, 1299)]


def test_rows_of_one_owner_are_no_pair_and_need_not_be_neighbours() -> None:
    vectors = np.ones((3, DIMENSION), np.float32)
    (found,) = search(vectors, [2, 1, 2], metric=Metric.COSINE, radii=(0.1,))
    assert found.total == 1
    assert owners_of(found, [2, 1, 2]) == [(1, 2)]


def test_everybody_is_within_the_largest_radius() -> None:
    """So many pairs that they are counted part by part, and most are not kept."""
    count = 1300
    vectors = np.random.default_rng(5).standard_normal((count, DIMENSION)).astype(np.float32)
    vectors[3] = 0
    for metric in EMBEDDING_METRICS:
        (found,) = search(vectors, list(range(count)), metric=metric, radii=(metric.maximum,), limit=3)
        assert (found.total, len(found.nearest)) == (count * (count - 1) // 2, 3)


def test_pairs_are_found_however_far_apart_they_are_in_the_list() -> None:
    count = 18_000
    vectors = np.random.default_rng(5).standard_normal((count, 32)).astype(np.float32)
    planted = [(0, 17_999), (5, 16_500), (1023, 1024), (1500, 16_383), (1501, 16_384), (16_385, 17_000)]
    for one, other in planted:
        vectors[other] = vectors[one]
    (found,) = search(vectors, list(range(count)), metric=Metric.COSINE, radii=(0.01,))
    assert sorted((pair.first, pair.second) for pair in found.nearest) == planted


def owners_of(found: NearPairs, owners: list[int]) -> list[tuple[int, int]]:
    return [(owners[pair.first], owners[pair.second]) for pair in found.nearest]
