import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facescreen.recognition.sightings import SAME_FACE, Sightings

boxes = st.lists(
    st.tuples(
        st.integers(0, 90), st.integers(0, 70), st.integers(1, 60), st.integers(1, 60), st.floats(0.0, 1.0, width=32)
    ),
    max_size=12,
)


def sightings(found: list[tuple[int, int, int, int, float]]) -> Sightings:
    rows = np.array(found, np.float64).reshape(-1, 5)
    corners = np.stack([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
    points = corners[:, :1] + np.linspace(0.2, 0.8, 5)[None, :, None] * (corners[:, 1:] - corners[:, :1])
    return Sightings(corners, rows[:, 4], points)


@given(boxes)
def test_distinct_faces_overlap_little_and_stand_for_all_others(found: list[tuple[int, int, int, int, float]]) -> None:
    every = sightings(found)
    kept = every.distinct()
    assert list(kept.confidences) == sorted(kept.confidences, reverse=True)
    overlaps = kept.overlaps(kept)
    assert (overlaps[~np.eye(len(kept), dtype=bool)] <= SAME_FACE).all()
    for row in range(len(every)):
        over = every.chosen(np.array([row])).overlaps(kept)[0]
        surer = kept.confidences >= every.confidences[row]
        assert (over[surer] > SAME_FACE).any() or over.max() == pytest.approx(1)


@given(boxes, boxes)
def test_what_overlaps_another_is_among_them(
    found: list[tuple[int, int, int, int, float]], later: list[tuple[int, int, int, int, float]]
) -> None:
    first, others = sightings(found), sightings(later)
    among = others.are_among(first)
    assert among.tolist() == [any(share > SAME_FACE for share in row) for row in others.overlaps(first)]
    assert first.are_among(first).all()


@given(boxes, st.integers(0, 3))
def test_a_turn_is_taken_back(found: list[tuple[int, int, int, int, float]], turn: int) -> None:
    """Every pixel of a box is where ``numpy.rot90`` brought it from."""
    width, height = 150, 130
    for face in found:
        image = np.zeros((height, width), np.uint8)
        x, y, w, h, _ = face
        image[y : y + h, x : x + w] = 1
        rows, columns = np.nonzero(np.rot90(image, turn))
        seen = sightings([(int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1, 0.5)])
        assert np.array_equal(seen.turned_back(turn, (width, height)).corners, sightings([face]).corners)


@given(boxes, st.integers(0, 3))
def test_points_turn_with_their_boxes(found: list[tuple[int, int, int, int, float]], turn: int) -> None:
    back = sightings(found).turned_back(turn, (150, 130))
    assert (back.points >= back.corners[:, :1]).all()
    assert (back.points <= back.corners[:, 1:]).all()
    again = back.turned_back(-turn % 4, (150, 130) if turn % 2 == 0 else (130, 150))
    assert np.allclose(again.points, sightings(found).points)


def test_what_was_seen_in_a_scaled_part_is_where_it_is_in_the_image() -> None:
    seen = sightings([(10, 20, 30, 40, 0.5)]).moved(np.array([2.0, 3.0]), (5, 7))
    assert seen.corners.tolist() == [[[30, 81], [90, 201]]]


def test_nothing_is_nothing() -> None:
    nothing = Sightings.together([])
    assert len(nothing) == len(nothing.distinct()) == len(nothing.are_among(nothing)) == 0
    assert nothing.overlaps(nothing).shape == (0, 0)
