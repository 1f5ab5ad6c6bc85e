from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facescreen.domain.distances import Metric
from facescreen.domain.faces import Box, Face, Landmarks, Pixels
from facescreen.domain.screening import Clearance, Grade, Match, ScreenedFace, Verdict
from facescreen.images import annotate as module
from facescreen.images.annotate import annotate

COLOURS = {
    Verdict.MATCH: (213, 94, 0),
    Verdict.POSSIBLE: (230, 159, 0),
    Verdict.CLEAR: (0, 114, 178),
    Verdict.NOT_SCREENABLE: (204, 121, 167),
    Verdict.WITHDRAWN: (240, 228, 66),
}


def face(box: Box, verdict: Verdict = Verdict.CLEAR, name: str = "Ada Lovelace") -> ScreenedFace:
    match = Match(
        entry_id=7,
        name=name,
        reason="",
        reference_image_id=1,
        identity="ada-lovelace/1.jpg",
        target=box,
        grade=Grade.POSSIBLE if verdict is Verdict.POSSIBLE else Grade.MATCH,
        distance=0.031,
        threshold=0.025 if verdict is Verdict.POSSIBLE else 0.065,
        review_threshold=0.075,
        supporting=1,
        margin=None,
        confidence=None,
        false_alert_probability=None,
        model_name="SFace",
        metric=Metric.COSINE,
    )
    has_match = verdict in {Verdict.MATCH, Verdict.POSSIBLE}
    return ScreenedFace(Face(box, Landmarks(), 0.9), verdict, (match,) if has_match else ())


def blank(width: int, height: int) -> Pixels:
    return np.full((height, width, 3), 128, np.uint8)


def coloured(pixels: Pixels, colour: tuple[int, int, int]) -> int:
    return int((pixels == colour).all(axis=2).sum())


def test_draws_on_a_copy() -> None:
    image = blank(300, 200)
    result = annotate(image, [face(Box(100, 80, 60, 70))])
    assert (image == 128).all()
    assert result.shape == image.shape
    assert (annotate(image, []) == image).all()


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("size", [(80, 80), (640, 480), (2_000, 3_000)])
def test_every_verdict_has_its_colour_and_a_label_outside_of_the_face(verdict: Verdict, size: tuple[int, int]) -> None:
    width, height = size
    box = Box(width // 3, height // 2, width // 4, height // 4)
    result = annotate(blank(*size), [face(box, verdict)])
    inside = result[box.y : box.y + box.h, box.x : box.x + box.w]
    assert coloured(result, COLOURS[verdict]) - coloured(inside, COLOURS[verdict]) > 100
    assert (inside[inside.shape[0] // 2, inside.shape[1] // 2] == 128).all()
    for other in set(Verdict) - {verdict}:
        assert coloured(result, COLOURS[other]) == 0


def test_labels_of_neighbours_do_not_cover_each_other_or_a_face() -> None:
    boxes = [Box(40 + 130 * n, 200, 90, 110) for n in range(7)]
    alone = [annotate(blank(1_000, 600), [face(box, Verdict.CLEAR)]) for box in boxes]
    together = annotate(blank(1_000, 600), [face(box, Verdict.CLEAR) for box in boxes])
    ink = coloured(together, COLOURS[Verdict.CLEAR])
    assert ink == pytest.approx(sum(coloured(one, COLOURS[Verdict.CLEAR]) for one in alone), rel=0.02)
    for box in boxes:
        assert (together[box.y + 20 : box.y + box.h - 20, box.x + 20 : box.x + box.w - 20] == 128).all()


def test_labels_of_a_crowd_find_room_beside_each_other() -> None:
    boxes = [Box(20 + 45 * n, 200 + 15 * (n % 2), 40, 50) for n in range(12)]
    taken: list[Box] = []
    for number, box in enumerate(boxes):
        screened = face(box, Verdict.MATCH)
        label = module._best_label(number, screened, size=(800, 600), letter=15, boxes=boxes, taken=taken)
        assert not any(label.place.intersection_over_union(other) for other in taken)
        taken.append(label.place)


def test_a_small_image_gets_a_shorter_label() -> None:
    box = Box(20, 30, 30, 40)
    small, large = (annotate(blank(side, side), [face(box, Verdict.MATCH)]) for side in (80, 600))
    assert coloured(small, COLOURS[Verdict.MATCH]) < coloured(large, COLOURS[Verdict.MATCH]) / 2


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    faces=st.lists(
        st.builds(
            face,
            st.builds(Box, st.integers(-50, 350), st.integers(-50, 350), st.integers(0, 400), st.integers(0, 400)),
            st.sampled_from(Verdict),
            st.text(max_size=40),
        ),
        max_size=6,
    ),
)
@settings(max_examples=50, deadline=None)
def test_any_box_and_any_name_can_be_drawn(size: tuple[int, int], faces: list[ScreenedFace]) -> None:
    result = annotate(blank(*size), faces)
    assert result.shape == (size[1], size[0], 3)
    assert result.dtype == np.uint8


class TestNames:
    @pytest.fixture
    def no_fonts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_SYSTEM_FONTS", ())
        monkeypatch.setattr(module, "_FONT_PACKAGE", "no_such_package")
        monkeypatch.setattr(module, "_fonts", module._fonts.__wrapped__)

    @pytest.mark.parametrize(
        ("name", "drawn"),
        [
            ("Ada Lovelace", "Ada Lovelace"),
            ("Zoë Ångström", "Zoe Angstrom"),
            ("李明", "entry 7"),
            ("Łukasz", "entry 7"),
        ],
    )
    def test_what_no_font_can_draw_is_spelled_otherwise(self, no_fonts: None, name: str, drawn: str) -> None:
        labels = list(module._texts(1, face(Box(0, 0, 1, 1), Verdict.MATCH, name)))
        assert labels[0] == f"#1 match · {drawn} · 0.031 ≤ 0.065 cosine"
        assert labels[-1] == "#1"
        assert module._rendered(labels[0], 20, COLOURS[Verdict.MATCH]).std() > 0

    @pytest.mark.parametrize(
        "name",
        [
            "Zo\xeb \xc5ngstr\xf6m",
            "\u0141ukasz",
            "\u042e\u043b\u0438\u044f",
            "\u0645\u062d\u0645\u062f",
            "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2",
        ],
    )
    def test_the_packaged_font_draws_other_scripts(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setattr(module, "_SYSTEM_FONTS", ())
        monkeypatch.setattr(module, "_fonts", module._fonts.__wrapped__)
        assert name in next(iter(module._texts(1, face(Box(0, 0, 1, 1), Verdict.MATCH, name))))

    def test_a_possible_person_is_told_with_the_review_threshold(self) -> None:
        labels = list(module._texts(1, face(Box(0, 0, 1, 1), Verdict.POSSIBLE)))
        assert labels[0] == "#1 possible · Ada Lovelace · 0.031 ≤ 0.075 cosine"

    def test_somebody_who_was_cleared_is_not_named(self) -> None:
        screened = face(Box(0, 0, 1, 1), Verdict.MATCH)
        clearance = Clearance(1, 7, 1, 0, "", datetime.now(UTC), None)
        cleared = replace(screened, verdict=Verdict.CLEAR, matches=(replace(screened.matches[0], clearance=clearance),))
        assert list(module._texts(1, cleared)) == ["#1 clear", "#1"]

    def test_line_breaks_and_controls_become_spaces(self) -> None:
        assert (
            list(module._texts(2, face(Box(0, 0, 1, 1), Verdict.MATCH, "Ada\n\tLove\0lace")))[1]
            == "#2 match · Ada Love lace"
        )


def test_group_photos_keep_their_faces_visible(pytestconfig: pytest.Config) -> None:
    from facescreen.images.decode import decode

    photo = Path(pytestconfig.rootpath, "../shared/faces/groups/selfie-many-people.jpg")
    if not photo.exists():
        pytest.skip("the group photos are not part of the project")
    image = decode(photo.read_bytes(), max_pixels=10**7)
    boxes = [Box(353, 111, 130, 173), Box(0, 244, 68, 115), Box(210, 124, 90, 124), Box(90, 287, 116, 159)]
    result = annotate(image, [face(box, Verdict.MATCH, "Augusta Ada King, Countess of Lovelace") for box in boxes])
    for box in boxes:
        middle = (slice(box.y + 20, box.y + box.h - 20), slice(box.x + 10, box.x + box.w - 10))
        assert (result[middle] == image[middle]).all(axis=2).mean() > 0.9
