"""Every index gives the answers of brute force."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from facescreen.domain.distances import EMBEDDING_METRICS, Metric, distances
from facescreen.domain.faces import Vectors
from facescreen.indexes.base import EmbeddingIndex
from facescreen.indexes.exact import ExactIndex
from facescreen.indexes.faiss import FaissIndex

DIMENSION = 4
IMPLEMENTATIONS: list[Callable[[int], EmbeddingIndex]] = [ExactIndex, FaissIndex]


@pytest.fixture(params=IMPLEMENTATIONS)
def index(request: pytest.FixtureRequest) -> EmbeddingIndex:
    made: EmbeddingIndex = request.param(DIMENSION)
    return made


def rows(*values: float) -> Vectors:
    """One embedding per value, at that angle from the first axis."""
    return np.array([[math.cos(v), math.sin(v), 0, 0] for v in values], np.float32)


def found(index: EmbeddingIndex, query: Vectors, metric: Metric, radius: float) -> list[list[int]]:
    return [[c.reference_image_id for c in near] for near in index.search(query, metric, radius)]


def test_an_empty_index_finds_nothing(index: EmbeddingIndex) -> None:
    assert index.count() == 0
    assert index.search(rows(0.1, 0.2), Metric.COSINE, 2.0) == [(), ()]
    assert index.search(np.empty((0, DIMENSION), np.float32), Metric.COSINE, 2.0) == []


def test_nearest_first_and_ties_by_id(index: EmbeddingIndex) -> None:
    index.upsert([7, 3, 5], rows(0.2, 0.1, 0.2))
    assert found(index, rows(0.0), Metric.ANGULAR, 1.0) == [[3, 5, 7]]


def test_upsert_replaces_and_delete_removes_for_every_metric(index: EmbeddingIndex) -> None:
    index.upsert([1, 2], rows(0.0, 1.0))
    assert found(index, rows(0.0), Metric.COSINE, 0.01) == [[1]]
    index.upsert([1], rows(1.0))
    index.delete([2, 99])
    assert index.count() == 1
    for metric in EMBEDDING_METRICS:
        assert found(index, rows(0.0), metric, 0.01) == [[]]
        assert found(index, rows(1.0), metric, 0.01) == [[1]]


def test_a_distance_equal_to_the_radius_is_within_it(index: EmbeddingIndex) -> None:
    index.upsert([1], np.array([[3, 4, 0, 0]], np.float32))
    assert found(index, np.zeros((1, DIMENSION), np.float32), Metric.EUCLIDEAN, 5.0) == [[1]]
    assert found(index, np.zeros((1, DIMENSION), np.float32), Metric.EUCLIDEAN, 4.9999) == [[]]
    assert found(index, rows(0.0), Metric.COSINE, 0.0) == [[]]
    index.upsert([2], rows(0.0))
    assert found(index, rows(0.0), Metric.COSINE, 0.0) == [[2]]


def test_an_infinite_radius_returns_everything(index: EmbeddingIndex) -> None:
    index.upsert([1, 2, 3], rows(0.0, 1.5, 3.1))
    assert found(index, rows(0.0), Metric.EUCLIDEAN, math.inf) == [[1, 2, 3]]
    assert found(index, rows(0.0), Metric.COSINE, 2.0) == [[1, 2, 3]]


embeddings = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.just(DIMENSION)),
    elements=st.floats(-10, 10, width=32).map(lambda value: 0.0 if abs(value) < 1e-3 else value),
)


@given(embeddings, embeddings, st.sampled_from(EMBEDDING_METRICS), st.floats(0, 1))
def test_faiss_agrees_with_brute_force(known: Vectors, queries: Vectors, metric: Metric, share: float) -> None:
    radius = share * (20.0 if metric is Metric.EUCLIDEAN else metric.maximum)
    index = FaissIndex(DIMENSION)
    index.upsert(range(len(known)), known)
    for query, near in zip(queries, index.search(queries, metric, radius), strict=True):
        expected = distances(metric, query, known)
        inside = {int(i) for i in np.flatnonzero(expected <= radius)}
        assert {candidate.reference_image_id for candidate in near} == inside
        for candidate in near:
            assert candidate.distance == pytest.approx(expected[candidate.reference_image_id], abs=1e-6)
