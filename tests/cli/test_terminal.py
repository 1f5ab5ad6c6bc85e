"""What reaches a terminal: names of people and files may hold anything, and steer nothing."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from facescreen.cli.base import cell, say, say_json
from facescreen.cli.doctor import _print_reports
from facescreen.cli.screen import _print_screenings
from facescreen.domain.distances import Metric
from facescreen.domain.faces import Box, Face, Landmarks
from facescreen.domain.list_report import Finding, FindingCode, ListedPerson, ListedPhoto, ListReport
from facescreen.domain.screening import Grade, ImageError, Match, Policy, ScreenedFace, Screening, Verdict

HOSTILE = "[red]Ada\x1b[31m\n\u202e\x9b\udcff李"
SPELLED = "[red]Ada\\u{1b}[31m\\u{a}\\u{202e}\\u{9b}\\u{dcff}李"
POLICY = Policy(Metric.COSINE, threshold=0.5, review_threshold=0.6)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")


def require_harmless(printed: str) -> None:
    assert all(line.isprintable() for line in printed.split("\n"))


def test_a_line_a_cell_and_a_document_show_what_would_steer(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    assert capsys.readouterr().out == f"{SPELLED}\n"
    say(HOSTILE, err=True)
    assert capsys.readouterr().err == f"{SPELLED}\n"
    assert cell("a.jpg", HOSTILE).plain == f"a.jpg\n{SPELLED}"
    say_json({"name": HOSTILE})
    assert capsys.readouterr().out.isascii()


def test_results_show_hostile_names(capsys: pytest.CaptureFixture[str]) -> None:
    match = Match(
        entry_id=1,
        name=HOSTILE,
        reason=HOSTILE,
        reference_image_id=1,
        identity="a/b.jpg",
        target=Box(0, 0, 1, 1),
        grade=Grade.MATCH,
        distance=0.1,
        threshold=0.5,
        review_threshold=0.6,
        supporting=1,
        confidence=None,
        false_alert_probability=None,
        model_name="SFace",
        metric=Metric.COSINE,
    )
    face = ScreenedFace(Face(Box(0, 0, 1, 1), Landmarks(), 1.0), Verdict.MATCH, (match,))
    result = Screening(
        id=1,
        collection="default",
        image_identifier=HOSTILE,
        detector="centerface",
        model_name="SFace",
        policy=POLICY,
        list_version=1,
        created_at=datetime.now(UTC),
        faces=(face,),
    )
    refused = replace(result, faces=(), error=ImageError("image_undecodable", HOSTILE))
    _print_screenings([result, refused, replace(result, faces=())], as_json=False)
    printed = capsys.readouterr().out
    require_harmless(printed)
    assert printed.count(SPELLED) == 6


def test_reports_show_hostile_names(capsys: pytest.CaptureFixture[str]) -> None:
    finding = Finding(
        FindingCode.ENTRY_WITHOUT_PHOTOS, (ListedPerson(1, HOSTILE),), (ListedPhoto(1, 1, f"a/{HOSTILE}"),)
    )
    report = ListReport(
        collection="default",
        version=1,
        made_at=datetime.now(UTC),
        model_name="SFace",
        metric=Metric.COSINE,
        policy=POLICY,
        one_to_one_threshold=None,
        entries=1,
        photos=1,
        not_measured=0,
        totals={FindingCode.ENTRY_WITHOUT_PHOTOS: 1},
        findings=(finding,),
    )
    _print_reports([report], as_json=False)
    printed = capsys.readouterr().out
    require_harmless(printed)
    assert printed.count(SPELLED) == 2
