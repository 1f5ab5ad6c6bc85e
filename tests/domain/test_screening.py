from datetime import UTC, datetime
from itertools import combinations_with_replacement

import pytest

from facescreen.domain.distances import Metric
from facescreen.domain.faces import Box, Face, Landmarks
from facescreen.domain.screening import ImageError, Outcome, Policy, ScreenedFace, Screening, Verdict

FACE = Face(Box(0, 0, 10, 10), Landmarks(), 1.0)
GRAVEST_FIRST = [Verdict.MATCH, Verdict.POSSIBLE, Verdict.NOT_SCREENABLE, Verdict.WITHDRAWN, Verdict.CLEAR]


def screening(*verdicts: Verdict, error: ImageError | None = None) -> Screening:
    return Screening(
        id=1,
        collection="default",
        image_identifier="a.jpg",
        detector="centerface",
        model_name="SFace",
        policy=Policy(Metric.COSINE, threshold=0.5, review_threshold=0.6),
        list_version=1,
        created_at=datetime.now(UTC),
        faces=tuple(ScreenedFace(FACE, verdict, ()) for verdict in verdicts),
        error=error,
    )


@pytest.mark.parametrize(("graver", "other"), list(combinations_with_replacement(GRAVEST_FIRST, 2)))
def test_an_image_has_the_gravest_verdict_of_its_faces(graver: Verdict, other: Verdict) -> None:
    assert screening(graver, other).outcome == screening(other, graver).outcome == graver.value


def test_an_image_without_faces_is_not_clear() -> None:
    assert screening().outcome is Outcome.NO_FACE


def test_an_image_that_was_refused_has_no_verdict() -> None:
    assert screening(error=ImageError("image_undecodable", "")).outcome is None
