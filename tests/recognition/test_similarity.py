"""The similarity that Rekognition's clients are told: a rule of the calibrated models, and its inverse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facescreen.config import ModelName, Settings
from facescreen.recognition.catalog import MODELS, distance_of, has_similarity, similarity

WITH = [name for name in MODELS if has_similarity(name)]
WITHOUT = [name for name in MODELS if not has_similarity(name)]

models = st.sampled_from(WITH)
cosines = st.floats(0.0, 2.0)
percents = st.floats(0.0, 100.0)


def test_the_default_model_has_one() -> None:
    assert Settings.model_fields["model_name"].default in WITH


@pytest.mark.parametrize("model", WITH)
def test_80_is_at_the_operating_point(model: ModelName) -> None:
    operating_point = MODELS[model].similarity_80
    assert operating_point is not None
    assert similarity(model, operating_point) == pytest.approx(80.0, abs=1e-12)
    assert distance_of(model, 80.0) == pytest.approx(operating_point, abs=1e-15)


@pytest.mark.parametrize("model", WITH)
def test_identical_faces_are_almost_certainly_one(model: ModelName) -> None:
    assert 99.9 < similarity(model, 0.0) <= 100.0


@pytest.mark.parametrize("model", WITH)
def test_the_ends_of_the_scale_are_the_ends_of_the_other(model: ModelName) -> None:
    assert distance_of(model, 0.0) == 2.0
    assert distance_of(model, 100.0) == 0.0


@given(models, cosines)
def test_it_is_a_percentage(model: ModelName, distance: float) -> None:
    assert 0.0 < similarity(model, distance) <= 100.0


@given(models, cosines, cosines)
def test_a_larger_distance_is_never_more_alike(model: ModelName, one: float, other: float) -> None:
    assert similarity(model, min(one, other)) >= similarity(model, max(one, other))


@given(models, percents, percents)
def test_more_alike_is_never_a_larger_distance(model: ModelName, one: float, other: float) -> None:
    assert distance_of(model, min(one, other)) >= distance_of(model, max(one, other))


@given(models, cosines)
def test_a_distance_comes_back(model: ModelName, distance: float) -> None:
    # Near 100, percent tell distances no better than float32 does.
    assert distance_of(model, similarity(model, distance)) == pytest.approx(distance, abs=1e-6)


@given(models, percents)
def test_a_similarity_comes_back_unless_no_distance_reaches_it(model: ModelName, alike: float) -> None:
    within = min(max(alike, similarity(model, 2.0)), similarity(model, 0.0))
    assert similarity(model, distance_of(model, alike)) == pytest.approx(within, abs=1e-9)


@pytest.mark.parametrize("model", WITHOUT)
def test_nobody_is_told_what_nobody_measured(model: ModelName) -> None:
    with pytest.raises(ValueError, match="nobody measured"):
        similarity(model, 0.1)
    with pytest.raises(ValueError, match="nobody measured"):
        distance_of(model, 80.0)
