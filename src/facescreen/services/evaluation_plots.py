"""The drawings of an evaluation's report, as parts of its HTML document."""

import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from facescreen.domain.evaluation import (
    Combination,
    Evaluation,
    Identification,
    IdentificationPoint,
    Rate,
    Verification,
    VerificationPoint,
    measured_at,
)

_INK, _GRID = "#000001", "#000002"
_SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000003", "#e69f00")
"""From the palette of Okabe and Ito (Color Universal Design, 2008)."""
_DASHES = ((), (5, 2), (1.2, 1.4), (6, 2, 1.2, 2), (10, 3))
_VARIABLES = {_INK: "--ink", _GRID: "--line"} | {colour: f"--series-{n}" for n, colour in enumerate(_SERIES)}
"""What stands for each colour in the document, whose style sheet has darker or lighter ones where contrast asks."""
_DRAWING: dict[RcKeyType, object] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the layout is the same everywhere
    "font.size": 10,
    "figure.figsize": (5.6, 3.9),
    "figure.constrained_layout.use": True,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
}
_WIDTH = 2.0
_LEAST_RATE_DRAWN = 1e-5


class _CurvePoint(NamedTuple):
    """Where a threshold lies in a drawing."""

    threshold: float
    x: float
    y: float


def drawings(evaluation: Evaluation, alert_target: float | None) -> dict[str, Markup]:
    """Those that there is something to draw for, by name.

    Args:
        alert_target: false positive identification rate that several combinations are compared at.
    """
    combinations = evaluation.combinations
    listed = [(c.name, c.listed_pairs) for c in combinations if c.listed_pairs is not None]
    drawn = {
        "listed-pairs": _trade_off_of_pairs("listed-pairs", listed),
        "all-pairs": _trade_off_of_pairs("all-pairs", [(c.name, c.all_pairs) for c in combinations]),
        "list": _trade_off_of_lists([(c.name, c.identification) for c in combinations]),
        "list-size": _growing_lists(combinations, alert_target),
    }
    return {name: drawing for name, drawing in drawn.items() if drawing is not None}


def _trade_off_of_pairs(name: str, measured: Sequence[tuple[str, Verification]]) -> Markup | None:
    """True accept rate against false accept rate."""
    measured = [(label, pairs) for label, pairs in measured if pairs.roc and pairs.mated and pairs.others]
    if not measured:
        return None
    left = _left_edge(max(pairs.others for _, pairs in measured))
    with _drawing(name) as (figure, axes):
        lowest = 1.0
        for series, (label, pairs) in enumerate(measured):
            chosen, shipped = _recognized(pairs.points), _recognized([pairs.shipped])
            curve = _from(left, [*(_CurvePoint(p.threshold, p.far, p.tar) for p in pairs.roc), *chosen, *shipped])
            lowest = min(lowest, *(point.y for point in curve))
            _curve(axes, curve, series=series, label=label)
            _marks(axes, _from(left, chosen), _from(left, shipped), series=series)
        bottom = min(0.9, math.floor(lowest * 10) / 10)
        axes.set(xscale="log", xlim=(left, 1), ylim=(bottom, 1 + (1 - bottom) / 40))
        axes.set(xlabel="pairs of two people taken for one  (FAR)", ylabel="pairs of one person recognized  (TAR)")
        _ticks_one_in(axes, left)
        steps = np.arange(bottom, 1.001, 0.02 if bottom > 0.85 else 0.05 if bottom > 0.7 else 0.1)
        axes.set_yticks(steps, [f"{step:.0%}".replace("%", " %") for step in steps])
        _legend(axes, measured)
        return _inline(figure, name)


def _trade_off_of_lists(measured: Sequence[tuple[str, Identification]]) -> Markup | None:
    """False negative identification rate against false positive identification rate."""
    measured = [(label, searches) for label, searches in measured if searches.curve]
    if not measured:
        return None
    left = _left_edge(max(searches.stranger_probes for _, searches in measured))
    with _drawing("list") as (figure, axes):
        curves = []
        for label, searches in measured:
            chosen, shipped = _missing(searches.whole.points), _missing([searches.shipped])
            points = [_CurvePoint(point.threshold, point.fpir, point.fnir) for point in searches.curve]
            curves.append((label, [*points, *chosen, *shipped], chosen, shipped))
        lowest = min((point.y for _, curve, *_ in curves for point in curve if point.y > 0), default=0.5)
        bottom = min(0.5, lowest / 1.3)  # on a logarithmic axis nothing is at 0
        for series, (label, curve, chosen, shipped) in enumerate(curves):
            _curve(axes, _from(left, curve, bottom), series=series, label=label)
            _marks(axes, _from(left, chosen, bottom), _from(left, shipped, bottom), series=series)
        axes.set(xscale="log", yscale="log", xlim=(left, 1), ylim=(bottom, 1.05))
        axes.set(
            xlabel="faces of strangers that raise a false alert  (FPIR)", ylabel="people on the list missed  (FNIR)"
        )
        _ticks_one_in(axes, left)
        steps = [
            step * 10.0**power for power in range(-6, 1) for step in (1, 2, 5) if bottom <= step * 10.0**power <= 1
        ]
        axes.set_yticks(steps, [f"{step * 100:g} %" for step in steps])
        axes.minorticks_off()
        _legend(axes, measured)
        return _inline(figure, "list")


def _growing_lists(combinations: Sequence[Combination], target: float | None) -> Markup | None:
    """False negative identification rate against the length of the list, with intervals; rings are lists of everybody.

    Of one combination at every target, of several at one.
    """
    if len(combinations) > 1:
        series = [(c.name, target, c) for c in combinations]
    else:
        points = combinations[0].identification.whole.points
        series = [(f"1 in {round(1 / p.target):,} strangers", p.target, combinations[0]) for p in points if p.target]
    series = [(label, wanted, c) for label, wanted, c in series if len(_by_length(c.identification, wanted)) > 1]
    if not series:
        return None
    lengths = set()
    with _drawing("list-size") as (figure, axes):
        for number, (label, wanted, combination) in enumerate(series):
            line = _by_length(combination.identification, wanted)
            rings = _by_length(combination.everybody_listed, wanted)
            low, high = [fnir.low for _, fnir in line], [fnir.high for _, fnir in line]
            axes.fill_between([length for length, _ in line], low, high, color=_colour(number), alpha=0.18, linewidth=0)
            curve = [_CurvePoint(math.nan, length, fnir.value) for length, fnir in line]
            _curve(axes, curve, series=number, label=label, marker="o")
            for length, fnir in rings:
                axes.plot(length, fnir.value, "o", mfc="none", mew=_WIDTH, markersize=7, color=_colour(number))
            lengths |= {length for length, _ in (*line, *rings)}
        ordered = sorted(lengths)
        # 305 and 307 would be written over each other.
        labelled = [at for at, after in zip(ordered, [*ordered[1:], math.inf], strict=True) if after > 1.4 * at]
        axes.set(xscale="log", ylim=(0, None))
        axes.set(xlabel="people on the list", ylabel="people on the list missed  (FNIR)")
        axes.set_xticks(labelled, [f"{length:,}" for length in labelled])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:g} %")
        axes.legend(loc="upper left", title=None if len(combinations) > 1 else "false alert for")
        return _inline(figure, "list-size")


def _by_length(searches: Identification, target: float | None) -> list[tuple[int, Rate]]:
    """The false negative identification rate in lists of every length, where it could be measured."""
    found = [(size.references, measured_at(size.points, target)) for size in searches.sizes]
    return [(length, point.fnir) for length, point in found if point is not None and point.fnir is not None]


@contextmanager
def _drawing(name: str) -> Iterator[tuple[Figure, Axes]]:
    with rc_context({**_DRAWING, "svg.hashsalt": name}):
        figure = Figure()
        yield figure, figure.subplots()


def _inline(figure: Figure, name: str) -> Markup:
    """The drawing as part of an HTML document: colours from its style sheet, and no id that another drawing has."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    drawn = file.getvalue()
    body = re.sub(r"<style.*?</style>", "", drawn[drawn.index("<defs>", drawn.index("<svg")) :], flags=re.DOTALL)
    body = re.sub(r'( id="|"url\(#|href="#)', rf"\g<1>{name}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    width, height = figure.get_size_inches() * 72
    return Markup(f'<svg viewBox="0 0 {width:.4g} {height:.4g}" aria-hidden="true">\n{body}')  # noqa: S704 - ours


def _recognized(points: Iterable[VerificationPoint | None]) -> list[_CurvePoint]:
    return [
        _CurvePoint(point.threshold, point.far.value, point.tar.value)
        for point in points
        if point is not None and point.threshold is not None and point.far is not None and point.tar is not None
    ]


def _missing(points: Iterable[IdentificationPoint | None]) -> list[_CurvePoint]:
    return [
        _CurvePoint(point.threshold, point.fpir.value, point.fnir.value)
        for point in points
        if point is not None and point.threshold is not None and point.fpir is not None and point.fnir is not None
    ]


def _from(left: float, points: Iterable[_CurvePoint], bottom: float = 0.0) -> list[_CurvePoint]:
    """The points in order of their thresholds; what lies before the beginning of an axis stands on its edge."""
    ordered = [point._replace(x=max(point.x, left), y=max(point.y, bottom)) for point in sorted(points)]
    before = [point for point in ordered if point.x == left]
    return [*before[-1:], *(point for point in ordered if point.x > left)]


def _colour(series: int) -> str:
    return _SERIES[series % len(_SERIES)]


def _curve(axes: Axes, points: Iterable[_CurvePoint], *, series: int, label: str, marker: str = "") -> None:
    x, y = zip(*((point.x, point.y) for point in points), strict=True)
    dashes = _DASHES[series % len(_DASHES)]
    axes.plot(x, y, color=_colour(series), dashes=dashes, label=label, marker=marker, markersize=5, linewidth=_WIDTH)


def _marks(axes: Axes, chosen: Iterable[_CurvePoint], shipped: Iterable[_CurvePoint], *, series: int) -> None:
    """Circles for the thresholds of the tables, a diamond for the one that comes with the model."""
    for marker, size, points in (("o", 6, chosen), ("D", 8, shipped)):
        for point in points:
            axes.plot(point.x, point.y, marker=marker, markersize=size, color=_colour(series), clip_on=False, zorder=3)


def _left_edge(counted: int) -> float:
    """The smallest share that so many can show, within a range that fits a drawing."""
    return min(0.1, max(_LEAST_RATE_DRAWN, 1 / counted))


def _ticks_one_in(axes: Axes, left: float) -> None:
    powers = range(math.ceil(math.log10(left) - 1e-9), 1)
    axes.set_xticks([10.0**p for p in powers], [f"1 in\n{10**-p:,}" if p else "all" for p in powers])
    axes.minorticks_off()


def _legend(axes: Axes, measured: Sequence[object]) -> None:
    if len(measured) > 1:
        axes.legend()
