"""Names of every script as pixels."""

import numpy as np
import pytest
from PIL import features

from facescreen.domain.faces import Pixels
from facescreen.images.lettering import can_be_drawn, lettered

INK, PAPER = (0, 0, 0), (255, 255, 255)
LAID_OUT = ["محمد علی", "שלום כהן", "नरेन्द्र मोदी", "বাংলা নাম", "தமிழ்", "ఆంధ్ర", "สมชาย ใจดี", "ខ្មែរ", "မြန်မာ", "👩🏽‍🚒"]
PLAIN = ["Zoë Ångström", "Łukasz", "Юлия", "Σίσυφος", "李小龍", "山田 太郎", "김철수", "አበበ", "დავით", "Դավիթ", "😀"]


def line(text: str) -> Pixels:
    return lettered(text, size=24, ink=INK, paper=PAPER)


def columns(text: str) -> list[Pixels]:
    """What is drawn, in parts that white columns part."""
    ink = (line(text) < 128).any(axis=(0, 2))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ink, [False]]).astype(int)))
    return [line(text)[:, left:right] for left, right in edges.reshape(-1, 2)]


@pytest.fixture
def no_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda _feature: False)


@pytest.mark.parametrize("name", PLAIN)
def test_names_whose_letters_stand_by_themselves_are_always_drawn(no_layout: None, name: str) -> None:
    assert can_be_drawn(name)
    assert (line(name) != 255).any()


@pytest.mark.parametrize("name", LAID_OUT)
def test_names_that_need_a_layout_are_drawn_where_it_is(name: str) -> None:
    assert can_be_drawn(name) is features.check("raqm")


@pytest.mark.parametrize("name", LAID_OUT)
def test_names_that_need_a_layout_are_not_drawn_wrongly_without(no_layout: None, name: str) -> None:
    assert not can_be_drawn(name)


@pytest.mark.parametrize("name", ["\U00012000", "Ada \U00012000", "محمد 李"])
def test_what_no_font_has_cannot_be_drawn(name: str) -> None:
    assert not can_be_drawn(name)


def test_different_characters_are_drawn_differently() -> None:
    """No box for a missing character is taken for one that is there."""
    assert len({line(character).tobytes() for character in "李小龍金한あア😀😎"}) == 9


def test_a_name_takes_a_font_for_each_part_that_needs_another() -> None:
    ada, li, smile = (line(part) for part in ("Ada", "李", "😎"))
    together = line("Ada李😎")
    margins = 2 * (24 // 5) * 2
    assert together.shape[1] == pytest.approx(ada.shape[1] + li.shape[1] + smile.shape[1] - margins, abs=3)


@pytest.mark.skipif(not features.check("raqm"), reason="the system has no FriBiDi")
def test_a_name_from_right_to_left_does_not_turn_what_stands_beside_it() -> None:
    """``1`` comes before the name and ``23`` after it, as in the text."""
    first, *_, two, three = columns("1 · שלום · 23")
    for drawn, digit in ((first, "1"), (two, "2"), (three, "3")):
        (alone,) = columns(digit)
        assert abs(drawn.shape[1] - alone.shape[1]) <= 1
        assert (drawn < 128).sum() == pytest.approx((alone < 128).sum(), rel=0.15)
