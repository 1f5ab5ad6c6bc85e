import numpy as np
import pytest
from deepface.modules.verification import find_distance
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from facescreen.domain.distances import EMBEDDING_METRICS, Metric, distances
from facescreen.domain.faces import Vectors

VALUES = st.floats(-10, 10, width=32).filter(lambda value: value == 0 or abs(value) > 1e-3)


@given(
    vectors=arrays(np.float32, (4, 16), elements=VALUES).filter(lambda rows: bool(rows.any(axis=1).all())),
    metric=st.sampled_from(EMBEDDING_METRICS),
)
def test_distances_are_deepfaces(vectors: Vectors, metric: Metric) -> None:
    ours = distances(metric, vectors[0], vectors[1:])
    theirs = [float(find_distance(vectors[0].astype(float), row.astype(float), metric.value)) for row in vectors[1:]]
    # The root and the arc cosine stretch the last bit of a distance that is all but zero.
    assert ours == pytest.approx(theirs, abs=1e-6)
