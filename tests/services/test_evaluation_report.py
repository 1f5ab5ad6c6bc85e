"""What somebody reads who opens the report: every figure, in words, and nothing that reaches out."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from itertools import count, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facescreen.domain.distances import Metric
from facescreen.domain.evaluation import (
    Accuracy,
    Acquisition,
    Combination,
    Evaluation,
    FailedPhoto,
    GroupMeasures,
    HardExamples,
    HardPair,
    Identification,
    IdentificationCurvePoint,
    IdentificationPoint,
    ListSize,
    LogisticFit,
    Rate,
    RocPoint,
    Strangers,
    Timing,
    Verification,
    VerificationPoint,
)
from facescreen.domain.faces import Pixels
from facescreen.services.evaluation_report import _percent, render

VOID = {"br", "circle", "img", "line", "meta", "path", "rect", "use", "wbr"}
HOSTILE = """</title><script>alert("x")</script><img src=http://evil.example/ onerror='alert(1)'>{{ 7 * 7 }}$\\frac{"""
SOMEBODY = """"><img src=x onerror='alert(1)'>{{ 7 * 7 }}"""


class Page(HTMLParser):
    """The elements, in order, and the words of a document; a tag that closes nothing, or too much, is an error."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(document)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def rate(counted: float, total: int) -> Rate:
    share = counted / total
    return Rate(counted, total, share, share * 0.9, share + (1 - share) * 0.1)


def made(*, scale: int = 1, detector: str = "centerface", model: str = "SFace", group: str = "under 40") -> Combination:
    """A measurement of which no two figures are the same."""
    numbers = count(1000 * scale)

    def some(total: int = 40_000) -> Rate:
        return rate(next(numbers), total)

    def distance() -> float:
        return next(numbers) / 10_000

    def pair(target: float | None) -> VerificationPoint:
        return VerificationPoint(target, distance(), some(), some())

    def search(target: float | None) -> IdentificationPoint:
        return IdentificationPoint(target, distance(), some(), some())

    def verification(accuracy: Accuracy | None, logistic: LogisticFit | None) -> Verification:
        roc = tuple(RocPoint(at / 20, (at / 20) ** 3, (at / 20) ** 0.2) for at in range(21))
        points = (*(pair(target) for target in (1e-1, 1e-2, 1e-3)), VerificationPoint(1e-4, None, None, None))
        mated, others, incomplete = next(numbers), next(numbers), next(numbers)
        return Verification(
            mated,
            others,
            incomplete,
            distance(),
            distance(),
            accuracy,
            logistic,
            roc,
            points,
            0.0123 * scale,
            distance(),
            pair(None),
        )

    def searches_of(
        people: int, probes: int, kind: Strangers, strangers: int, lengths: Iterable[int]
    ) -> Identification:
        targets = (1e-1, 1e-2)
        unmeasured = IdentificationPoint(1e-3, None, None, None)
        sizes = tuple(ListSize(n, some(), (*map(search, targets), unmeasured)) for n in lengths)
        curve = tuple(IdentificationCurvePoint(at / 20, (at / 20) ** 3, 1 - (at / 20) ** 0.5) for at in range(21))
        return Identification(people, probes, kind, strangers, sizes, curve, search(None))

    all_pairs = verification(None, None)
    searches = searches_of(307, 739, Strangers.SINGLE, 537, (10, 100, 307))
    everybody = searches_of(844, 738, Strangers.IN_TURN, 1582, [843])

    def of_group(name: str, people: int) -> GroupMeasures:
        """At the thresholds of everybody."""
        pairs = tuple(replace(p, tar=some(), far=some()) for p in all_pairs.points if p.threshold)
        found = tuple(replace(p, fnir=some(), fpir=some()) for p in searches.whole.points if p.threshold)
        return GroupMeasures(name, people, next(numbers), some(), pairs, found)

    shipped = distance()
    return Combination(
        detector,
        model,
        f"{model}/v{scale}/chip",
        shipped,
        Acquisition(
            (FailedPhoto("Eve/1.jpg", "no_face"), FailedPhoto("Eve/2.jpg", "image_undecodable")), some(), some()
        ),
        Timing(next(numbers), next(numbers)),
        verification(Accuracy((some(), some()), some(), distance(), some(), some()), LogisticFit(scale + 0.25, -9.5)),
        all_pairs,
        searches,
        everybody,
        (of_group(group, 300), of_group("over 60", 12)),
        HardExamples(
            (HardPair("Ada/1.jpg", "Bob/1.jpg", shipped / 2), HardPair("Ada/2.jpg", "Bob/1.jpg", shipped * 2)),
            (HardPair("Ada/1.jpg", "Ada/2.jpg", shipped * 3), HardPair("Bob/1.jpg", "Bob/2.jpg", shipped / 3)),
        ),
    )


def evaluation(*combinations: Combination) -> Evaluation:
    measured_at = "2026-11-20T13:40:11+00:00"
    return Evaluation("faces", "9.8.7", measured_at, Metric.COSINE, 1583, 844, 2, combinations or (made(),))


def picture(photo: str) -> Pixels | None:
    return np.full((24, 20, 3), len(photo) * 7 % 255, np.uint8)


def read(measured: Evaluation) -> Page:
    return Page(render(measured, picture))


@pytest.fixture(scope="module")
def document() -> str:
    """Of two combinations."""
    return render(evaluation(made(), made(scale=2, detector="dlib", model="Dlib")), picture)


@pytest.fixture(scope="module")
def page() -> Page:
    """Of one combination."""
    return read(evaluation())


def everything_in(part: object, *, drawn: tuple[str, ...] = ("roc", "curve")) -> Iterator[object]:
    """The dataclasses within, but for the points of curves, which are only drawn."""
    if isinstance(part, tuple):
        for item in part:
            yield from everything_in(item)
    elif is_dataclass(part):
        yield part
        for field in fields(part):
            if field.name not in drawn:
                yield from everything_in(getattr(part, field.name))


def percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def rate_told(rate: Rate) -> str:
    interval = f"{rate.low * 100:.1f}\N{EN DASH}{percent(rate.high)}"
    return f"{percent(rate.value)} {interval} {rate.count:,} of {rate.total:,}"


def others_told(rate: Rate) -> str:
    """The same, told of all the others: of those missed instead of those recognized."""
    return rate_told(Rate(rate.total - rate.count, rate.total, 1 - rate.value, 1 - rate.high, 1 - rate.low))


def point_told(point: VerificationPoint | IdentificationPoint) -> list[str]:
    return [] if point.threshold is None else [f"{point.threshold:.4f}"]


TOLD: dict[type, Callable[[Any], list[str]]] = {
    Rate: lambda _: [],
    VerificationPoint: point_told,
    IdentificationPoint: point_told,
    Verification: lambda pairs: [
        f"{pairs.mated:,} pairs of one person and {pairs.others:,} pairs of two people; {pairs.incomplete:,} of them",
        f"{percent(pairs.equal_error_rate)} at the threshold {pairs.equal_error_threshold:.4f}",
        f"photos of one person are {pairs.mated_mean:.4f} apart, and those of two people {pairs.others_mean:.4f}.",
    ],
    Accuracy: lambda accuracy: [f"{accuracy.best_threshold:.4f}"],
    LogisticFit: lambda fit: [f"+{fit.intercept:.2f} \N{MINUS SIGN}{-fit.slope:.2f}"],
    Identification: lambda searches: [
        f"{searches.people} people with one photo each. {searches.mated_probes:,} other photos",
        f"{searches.stranger_probes:,} {'usable faces' if searches.people == 844 else 'photos of strangers'}",
    ],
    ListSize: lambda size: [
        f"{size.references}{' everybody listed' if size.references == 843 else ''} {rate_told(size.rank_one)}"
    ],
    Acquisition: lambda acquisition: [f"{len(acquisition.failed)} photos"],
    FailedPhoto: lambda failed: [failed.photo],
    Timing: lambda timing: [f"{timing.detect:,} ms{timing.embed:,} ms"],
    GroupMeasures: lambda group: [f"{group.group}{group.people}{group.photos:,}"],
    HardExamples: lambda _: [],
    HardPair: lambda pair: [pair.first, pair.second, f"distance {pair.distance:.4f}"],
    Combination: lambda combination: [
        combination.name,
        combination.space,
        f"comes with the threshold {combination.shipped_threshold:.4f}",
    ],
    Evaluation: lambda whole: [
        f"{whole.photos:,} photos of {whole.people} people in “{whole.title}”",
        "20 November 2026, 13:40 UTC",
        f"facescreen {whole.version}",
        whole.metric.value,
        f"in {whole.folds} parts",
    ],
}


@pytest.mark.parametrize("several", [False, True])
def test_every_figure_is_told(several: bool) -> None:
    measured = evaluation(made(), *([made(scale=2, model="Dlib")] if several else []))
    text = read(measured).text
    parts = list(everything_in(measured))
    assert not [told for part in parts for told in TOLD[type(part)](part) if told not in text]
    shorter = [size for part in parts if isinstance(part, Identification) for size in part.sizes[:-1]]
    # How far the threshold of a shorter list stays below its target is told without an interval.
    kept = {point.fpir for part in shorter for point in part.points if point.fpir is not None}
    assert all(f"FPIR {percent(rate.value)}" in text for rate in kept)
    rates = {part for part in parts if isinstance(part, Rate)} - kept
    assert not [rate for rate in rates if rate_told(rate) not in text and others_told(rate) not in text]


def test_the_answer_comes_first_and_in_plain_words() -> None:
    combination = made()
    found = missing_people(combination.identification, rate(170, 1000))
    longer = missing_people(combination.everybody_listed, rate(260, 1000))
    text = read(evaluation(replace(combination, identification=found, everybody_listed=longer))).text
    answer = "Of 100 photos of people on a list of 307, 83 are found when at most 1 in 100 faces of strangers raises"
    assert answer in text
    assert (
        "it could be 75 to 85, if every photo were of another person and the threshold were given (95 % interval)"
        in text
    )
    assert text.index(answer) < text.index("TAR")
    assert "On a longer list, with all 844 people of these photos on it, 74 of 100 are found" in text


def missing_people(searches: Identification, fnir: Rate) -> Identification:
    """With these people missed where at most one stranger in a hundred raises an alert."""
    *smaller, whole = searches.sizes
    tenth, hundredth, thousandth = whole.points
    point = replace(hundredth, fnir=fnir, fpir=rate(5, 537))
    return replace(searches, sizes=(*smaller, replace(whole, points=(tenth, point, thousandth))))


def test_the_best_of_several_is_told_and_all_are_compared() -> None:
    better, worse = made(), made(scale=9, detector="dlib", model="Dlib")
    page = read(evaluation(worse, better))
    assert "That is with centerface + SFace, which finds most here." in page.text
    assert "All combinations on the same photos" in page.text
    assert page.text.count("dlib + Dlib") > 4
    # The drawings tell them apart without colour too.
    lines = {a["style"] for a in page.all("path") if "--series" in (a.get("style") or "")}
    assert any("stroke-dasharray" in (line or "") and "--series-1" in (line or "") for line in lines)


def test_what_is_missing_is_told_in_words() -> None:
    combination = made()
    no_pair, no_search = VerificationPoint(1e-2, None, None, None), IdentificationPoint(1e-2, None, None, None)
    unknown: dict[str, Any] = {
        "sizes": (ListSize(307, rate(700, 739), (no_search,)),),
        "curve": (),
        "shipped": None,
    }
    nothing = replace(
        combination,
        shipped_threshold=None,
        acquisition=Acquisition((), rate(0, 10), rate(0, 10)),
        listed_pairs=None,
        all_pairs=replace(combination.all_pairs, points=(no_pair,), shipped=None, others=600, mated_mean=None),
        identification=replace(combination.identification, **unknown),
        everybody_listed=replace(combination.everybody_listed, **unknown),
        groups=(),
        hard=HardExamples((), ()),
    )
    page = read(replace(evaluation(nothing), folds=0))
    assert "not measurable with 537 faces of strangers" in page.text
    assert "not measurable with 600 pairs of two people" in page.text
    assert "How many people on a list are found at a given number of false alerts cannot be told" in page.text
    assert "On average, photos of two people are" in page.text
    assert "Every photo could be used." in page.text
    assert "There are no pairs to show." in page.text
    assert "None" not in page.text
    assert "nan" not in page.text.lower().split()
    assert "Do groups of people fare differently?" not in page.text


def test_a_single_kind_of_pairs_is_no_error() -> None:
    combination = made()
    points = tuple(replace(point, tar=None, far=None) for point in combination.all_pairs.points)
    whole = combination.identification.whole
    whole = replace(whole, points=tuple(replace(p, fnir=None, fpir=None) for p in whole.points))
    text = read(
        evaluation(
            replace(
                combination,
                all_pairs=replace(combination.all_pairs, mated=0, roc=(), points=points),
                identification=replace(combination.identification, sizes=(whole,), curve=(), shipped=None),
            )
        )
    ).text
    assert "nothing to measure with" in text


@pytest.mark.parametrize("flawless", [0.0, 1.0])
def test_rates_of_nothing_and_of_everything_can_be_drawn(flawless: float) -> None:
    combination = made()
    curve = tuple(IdentificationCurvePoint(at / 2, at / 2, flawless) for at in range(3))
    roc = tuple(RocPoint(at / 2, flawless, flawless) for at in range(3))
    page = read(
        evaluation(
            replace(
                combination,
                all_pairs=replace(combination.all_pairs, roc=roc, others=1),
                identification=replace(combination.identification, curve=curve, stranger_probes=1),
            )
        )
    )
    assert len([a for a in page.all("svg") if (a.get("viewbox") or "").startswith("0 0 403")]) == 4


def test_groups_are_compared_in_words_and_small_ones_flagged() -> None:
    combination = made()

    def missing(group: GroupMeasures, share: float, within: float) -> GroupMeasures:
        tar = Rate(1000 * (1 - share), 1000, 1 - share, 1 - share - within, 1 - share + within)
        return replace(group, verification=tuple(replace(point, tar=tar) for point in group.verification))

    young, old = combination.groups
    for within, verdict in ((0.01, "chance alone hardly explains the difference"), (0.3, "it may be chance")):
        groups = (missing(young, 0.05, within), missing(old, 0.4, within))
        text = read(evaluation(replace(combination, groups=groups))).text
        of_pairs = text[text.index("Of pairs of one person") : text.index("Of people on the list")]
        assert "40.0 % are missed in “over 60”" in of_pairs
        assert "5.0 % in “under 40”" in of_pairs
        assert verdict in of_pairs
    assert (
        "“over 60” is small: 12 people. Even if none of them was ever mistaken, the true share could be 25.0 %" in text
    )
    assert "“under 40” is small" not in text


def test_hard_examples_say_what_is_wrong(page: Page) -> None:
    said = ("two people, taken for one", "two people, just told apart", "one person, not recognized")
    assert [page.text.count(verdict) for verdict in (*said, "one person, just recognized")] == [1, 1, 1, 1]
    assert [image["alt"] for image in page.all("img")][:2] == ["face of Ada", "face of Bob"]


def test_a_picture_that_cannot_be_shown_is_replaced_by_words() -> None:
    page = Page(render(evaluation(), lambda photo: None if photo == "Bob/1.jpg" else picture(photo)))
    assert page.text.count("cannot be shown") == 3
    assert len(page.all("img")) == 5


def test_hostile_names_are_only_text() -> None:
    photo = f"{SOMEBODY}/{HOSTILE}.jpg"
    combination = replace(
        made(group=HOSTILE),
        acquisition=Acquisition((FailedPhoto(photo, "no_face"),), rate(1, 10), rate(2, 10)),
        hard=HardExamples((HardPair(photo, "Bob/1.jpg", 0.01),), ()),
    )
    page = read(replace(evaluation(combination), title=HOSTILE))
    assert not page.all("script")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 5
    assert f"face of {SOMEBODY}" in [image["alt"] for image in page.all("img")]


def test_nothing_is_loaded_and_nothing_runs(document: str) -> None:
    page = Page(document)
    assert "http:" not in document
    assert "https:" not in document
    assert "@import" not in document
    assert not page.all("script", "link", "iframe", "object", "embed", "base", "form")
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert set(re.findall(r"url\((.)", document)) <= {"#"}
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def test_the_document_is_sound_and_one_finds_ones_way_in_it(document: str) -> None:
    assert document.startswith("<!DOCTYPE html>")
    page = Page(document)
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert set(ids.values()) == {1}
    targets = {(a.get("href") or a.get("xlink:href") or "#").removeprefix("#") for a in page.all("a", "use")}
    assert targets | set(re.findall(r"url\(#([^)]*)\)", document)) <= set(ids)
    assert {a["aria-labelledby"] for a in page.all("section")} <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(a.get("scope") in {"col", "row", "rowgroup"} for a in page.all("th"))
    assert len(page.all("table")) == len(page.all("caption")) > 10
    assert all(a.get("aria-hidden") == "true" or a.get("aria-label") for a in page.all("svg"))
    assert len(page.all("figure")) == len(page.all("figcaption"))


def test_drawings_have_the_colours_of_the_document(document: str) -> None:
    drawings = re.findall(r'<svg viewBox="0 0 403.*?</svg>', document, re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        assert not re.findall(r"#[0-9a-f]{6}", drawing)
        assert "var(--ink)" in drawing
        assert "<text" in drawing


def test_two_renderings_are_the_same(document: str) -> None:
    again = render(evaluation(made(), made(scale=2, detector="dlib", model="Dlib")), picture)
    assert again == document


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_a_share_is_none_or_all_only_if_it_is(some: int, more: int) -> None:
    share = some / (some + more)
    told = _percent(share)
    assert (told == "0\N{NO-BREAK SPACE}%") == (share == 0)
    number = float(told.removesuffix("\N{NO-BREAK SPACE}%"))
    assert (number in {0, 100}) == (share in {0, 1})
    assert number == pytest.approx(100 * share, abs=0.0501)
