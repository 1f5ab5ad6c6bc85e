"""An evaluation as one HTML document that explains itself to somebody who never measured recognition.

Plots and pictures are inside of it; it holds no script and loads nothing.
"""

import base64
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from facescreen.domain.evaluation import (
    Combination,
    Evaluation,
    GroupMeasures,
    HardPair,
    IdentificationPoint,
    Rate,
    VerificationPoint,
    measured_at,
)
from facescreen.domain.faces import Pixels
from facescreen.images.decode import encode_jpeg
from facescreen.services.dataset import person_of
from facescreen.services.evaluation_plots import drawings

Points = Sequence[VerificationPoint] | Sequence[IdentificationPoint]
_ByGroup = list[
    tuple[VerificationPoint | IdentificationPoint, list[tuple[str, VerificationPoint | IdentificationPoint]]]
]

ALERT_TARGET = 1e-2
"""False positive identification rate that the summary is told for."""

ACCEPT_TARGET = 1e-3
"""False accept rate that combinations and groups are compared at."""

SMALL_GROUP = 30
"""People. The rule of three (ISO/IEC 19795-1): no error among 30 still allows 3 in 30, one in ten."""

_FAILED_PHOTOS_SHOWN = 200

_REASONS = {
    "no_face": "no face was found in it",
    "image_undecodable": "the file is damaged or cannot be read",
    "unsupported_format": "the file is of no format that is decoded",
    "image_too_large": "the image has too many pixels or is far too narrow",
    "body_too_large": "the file is too large",
}


def render(evaluation: Evaluation, picture: Callable[[str], Pixels | None]) -> str:
    """The complete document.

    Args:
        evaluation: with at least one combination.
        picture: a small picture of the face in a photo, by the photo's name; ``None`` if it cannot be shown.
    """

    @cache
    def thumbnail(photo: str) -> str | None:
        pixels = picture(photo)
        return None if pixels is None else _data_url(pixels)

    alert_target = _alert_target(evaluation)
    return (
        _environment()
        .get_template("evaluation_report.html")
        .render(
            evaluation=evaluation,
            headline=_headline(evaluation),
            thumbnail=thumbnail,
            plots=drawings(evaluation, alert_target),
            accept_target=_accept_target(evaluation),
            alert_target=alert_target,
            small_group=SMALL_GROUP,
            failed_photos_shown=_FAILED_PHOTOS_SHOWN,
        )
        .lstrip()
    )


@dataclass(frozen=True, slots=True)
class _Headline:
    """The combination that finds most at the target, and its whole list there."""

    combination: Combination
    point: IdentificationPoint
    found: Rate


@dataclass(frozen=True, slots=True)
class _Spread:
    """A group of which few are missed and one of which many are; ``apart`` if their intervals do not overlap."""

    lowest: str
    low: Rate
    highest: str
    high: Rate

    @property
    def apart(self) -> bool:
        return self.low.high < self.high.low


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("facescreen", "services"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "number": _number,
        "interval": _interval,
        "of_hundred": _of_hundred,
        "complement": _complement,
        "distance": _distance,
        "one_in": _one_in,
        "target": lambda target: f"{target * 100:g}\N{NO-BREAK SPACE}%",
        "moment": _moment,
        "reason": lambda code: _REASONS.get(code, code),
        "at": measured_at,
        "breakable": _breakable,
        "missed": _missed,
        "mistaken": _mistaken,
        "scale": _scale,
        "place": _place,
        "signed": lambda value: f"{value:+.2f}".replace("-", "\N{MINUS SIGN}"),
        "milliseconds": lambda value: f"{value:,.0f}\N{NO-BREAK SPACE}ms",
        "at_most": lambda share: _percent(min(1.0, share)),
        "person": lambda photo: person_of(photo).replace("_", " "),
    }
    environment.globals |= {
        "spread_of_pairs": _spread_of_pairs,
        "spread_of_searches": _spread_of_searches,
        "wrong_threshold": _wrong_threshold,
        "is_wrong": _is_wrong,
        "pairs_by_group": _pairs_by_group,
        "searches_by_group": _searches_by_group,
    }
    return environment


def _decimals(edge: float) -> int:
    """Decimals of a percentage that leave two digits of the distance to 0 or 100 %, and one at the least."""
    return 1 if edge <= 0 else max(1, 1 - math.floor(math.log10(edge * 100)))


def _percent(value: float) -> str:
    """``95.3 %``; never 0 or 100 % for what is only near to it."""
    if value in {0, 1}:
        return f"{value * 100:.0f}\N{NO-BREAK SPACE}%"
    return f"{value * 100:.{_decimals(min(value, 1 - value))}f}\N{NO-BREAK SPACE}%"


def _interval(rate: Rate) -> str:
    """``93.6-96.7``, with as many decimals as the rate or as the interval needs."""
    edge = min(rate.value, 1 - rate.value) or rate.high - rate.low
    digits = _decimals(edge)
    return f"{rate.low * 100:.{digits}f}\N{EN DASH}{rate.high * 100:.{digits}f}\N{NO-BREAK SPACE}%"


def _of_hundred(value: float) -> str:
    """A share as so many of one hundred: whole, but near to none and all of them."""
    share = value * 100
    return f"{share:.0f}" if 1 <= share <= 99 or share in {0, 100} else f"{share:.{_decimals(min(value, 1 - value))}f}"


def _number(value: float) -> str:
    """``1,276``; what is not whole, such as a mean, with one decimal."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def _distance(value: float) -> str:
    return f"{value:.4f}"


def _one_in(target: float) -> str:
    """``1 in 1,000``."""
    return f"1 in {round(1 / target):,}".replace(" ", "\N{NO-BREAK SPACE}")


def _moment(iso: str) -> str:
    return f"{datetime.fromisoformat(iso):%-d %B %Y, %H:%M} UTC"


def _breakable(photo: str) -> Markup:
    """A photo's name that may be wrapped where a reader would."""
    return Markup("<wbr>").join(re.split(r"(?<=[/_.-])", photo))


def _complement(rate: Rate) -> Rate:
    """What is true of all the others."""
    return Rate(rate.total - rate.count, rate.total, 1 - rate.value, 1 - rate.high, 1 - rate.low)


def _strictest(points: Iterable[VerificationPoint | IdentificationPoint], wanted: float) -> float | None:
    """The wanted target if it was measured, else the strictest that was."""
    measured = {point.target for point in points if point.target is not None and point.threshold is not None}
    return wanted if wanted in measured else min(measured, default=None)


def _accept_target(evaluation: Evaluation) -> float | None:
    return _strictest((point for c in evaluation.combinations for point in c.all_pairs.points), ACCEPT_TARGET)


def _alert_target(evaluation: Evaluation) -> float | None:
    return _strictest((point for c in evaluation.combinations for point in c.identification.whole.points), ALERT_TARGET)


def _headline(evaluation: Evaluation) -> _Headline | None:
    target = _alert_target(evaluation)
    points = [(c, measured_at(c.identification.whole.points, target)) for c in evaluation.combinations]
    told = [_Headline(c, point, _complement(point.fnir)) for c, point in points if point and point.fnir]
    return max(told, key=lambda headline: headline.found.value, default=None)


def _missed(point: VerificationPoint | IdentificationPoint) -> Rate | None:
    """One person, or somebody on the list, who is not recognized."""
    if isinstance(point, IdentificationPoint):
        return point.fnir
    return None if point.tar is None else _complement(point.tar)


def _mistaken(point: VerificationPoint | IdentificationPoint) -> Rate | None:
    """Two people taken for one, or a stranger for somebody on the list."""
    return point.fpir if isinstance(point, IdentificationPoint) else point.far


def _pairs_by_group(combination: Combination) -> _ByGroup:
    points = combination.all_pairs.points
    return _by_group(points, [(group.group, group.verification) for group in combination.groups])


def _searches_by_group(combination: Combination) -> _ByGroup:
    points = combination.identification.whole.points
    return _by_group(points, [(group.group, group.identification) for group in combination.groups])


def _by_group(points: Points, groups: Sequence[tuple[str, Points]]) -> _ByGroup:
    """Each point of everybody that could be measured, with that of every group."""
    return [
        (
            point,
            [
                (group, measured)
                for group, of_group in groups
                for measured in of_group
                if measured.target == point.target
            ],
        )
        for point in points
        if point.threshold is not None
    ]


def _spread_of_pairs(groups: Sequence[GroupMeasures], target: float | None) -> _Spread | None:
    return _spread([(group.group, measured_at(group.verification, target)) for group in groups])


def _spread_of_searches(groups: Sequence[GroupMeasures], target: float | None) -> _Spread | None:
    return _spread([(group.group, measured_at(group.identification, target)) for group in groups])


def _spread(points: Iterable[tuple[str, VerificationPoint | IdentificationPoint | None]]) -> _Spread | None:
    """Two groups whose intervals are apart, the farthest of them, or else those whose shares differ most.

    ``None`` with fewer than two groups that tell.
    """
    rates = [(group, missed) for group, point in points if point and (missed := _missed(point))]
    if len(rates) < 2:
        return None
    spread = _Spread(*min(rates, key=lambda named: named[1].high), *max(rates, key=lambda named: named[1].low))
    if spread.apart:
        return spread
    return _Spread(*min(rates, key=lambda named: named[1].value), *max(rates, key=lambda named: named[1].value))


def _scale(rates: Iterable[Rate | None]) -> float:
    """The largest share that intervals of a column reach."""
    return max((rate.high for rate in rates if rate is not None), default=1.0) or 1.0


def _place(share: float, scale: float) -> str:
    """Where a share stands on a strip of 120 units, with room for a dot at both ends."""
    return f"{4 + 112 * min(share / scale, 1):.1f}"


def _wrong_threshold(combination: Combination) -> float:
    """What decides whether a pair is told wrong: what comes with the model, else where both errors are as frequent."""
    if combination.shipped_threshold is not None:
        return combination.shipped_threshold
    return combination.all_pairs.equal_error_threshold


def _is_wrong(pair: HardPair, threshold: float, *, same: bool) -> bool:
    return (pair.distance > threshold) == same


def _data_url(pixels: Pixels) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(pixels, quality=82)).decode()}"
