import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facescreen.domain.names import escaped, fault_of_name, fault_of_text, folded

UNSEEN = "\x00\x1b\x7f\x9b\xad\u200b\u200e\u202e\u2028\u2066\ufeff\ud800\ue000"


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("Jos\xe9", "JOS\xc9"),
        (unicodedata.normalize("NFD", "Jos\xe9"), "jos\xe9"),
        ("Jos\xe9", unicodedata.normalize("NFD", "JOS\xc9")),
        ("Stra\xdfe", "STRASSE"),
        ("\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2", "\u03c3\u03af\u03c3\u03c5\u03c6\u03bf\u03c3"),
        ("\u042e\u043b\u0438\u044f", "\u042e\u041b\u0418\u042f"),
        ("\ufb01nn", "FINN"),
        ("\uff21da", "ada"),
    ],
)
def test_case_and_encoding_make_no_difference(stored: str, asked: str) -> None:
    assert folded(stored) == folded(asked)


@pytest.mark.parametrize(
    "name",
    [
        "Ada",
        "O'Neil, 3rd",
        "Jos\xe9",
        "\u0645\u062d\u0645\u062f",
        "\u5c71\u7530\u3000\u592a\u90ce",
        "\u0915\u094d\u200d\u0937",
        "\U0001f469\u200d\U0001f692",
    ],
)
def test_names_of_all_scripts_are_names(name: str) -> None:
    assert fault_of_name(name) is None


@pytest.mark.parametrize("character", UNSEEN)
def test_what_cannot_be_shown_is_named(character: str) -> None:
    for fault in (fault_of_name(f"A{character}da"), fault_of_text(f"A{character}da")):
        assert fault is not None
        assert f"U+{ord(character):04X}" in fault


@pytest.mark.parametrize("name", ["", " ", "\u200d", "\u3164", "\u2800 \u115f", "\u0301"])
def test_a_name_has_something_to_see(name: str) -> None:
    assert fault_of_name(name) == "has no visible character"


def test_text_may_have_lines_and_a_name_may_not() -> None:
    assert fault_of_text("seen twice:\n\tat gate 3") is None
    assert fault_of_name("Ada\nEve") is not None


@given(st.text())
def test_a_terminal_obeys_nothing(text: str) -> None:
    shown = escaped(text)
    assert fault_of_text(shown) is None
    assert shown == text or fault_of_text(text) is not None
