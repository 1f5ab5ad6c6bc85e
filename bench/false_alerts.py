"""How well a budget of false alerts is kept: calibrated on one half of the people and checked on the other.

    python bench/false_alerts.py LFW/images LFW/pairs.csv [--detector NAME] [--model NAME]

Everybody with two photos or more is on the list with the first of them, their other photos are to be found, and
everybody with one photo is a stranger. The list of pairs says who belongs to which half; nobody belongs to both. The
list of the half that checks is searched alone and together with the other half's list, which is about as long again.

Then come the thresholds that are shipped with the model, if it has any.

LFW is a research dataset of public figures and known to be unbalanced; its figures compare methods and promise nothing.
"""

import argparse
import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from facescreen.config import DetectorName, ModelName, Settings, load_settings
from facescreen.domain.biometrics import rate
from facescreen.domain.distances import EmbeddingMetric
from facescreen.domain.faces import Vectors
from facescreen.domain.false_alerts import MEASURED_METRICS, FalseAlertCurve, ImpostorSearches
from facescreen.factory import open_probe_reader
from facescreen.recognition.catalog import shipped_false_alerts
from facescreen.services.calibration import Probes, centred
from facescreen.services.dataset import Dataset, person_of, read_dataset

BUDGETS: Final = (10, 20, 50, 100)
"""One false alert in so many faces."""

SHIPPED_BUDGETS: Final = tuple(
    Settings.model_fields[name].default for name in ("review_false_alert_budget", "false_alert_budget")
)
"""Of a service that nobody configured."""

LISTS: Final = (1, 10, 100, 307, 1_000, 10_000, 100_000)
"""Reference photos."""


@dataclass(frozen=True, slots=True)
class Half:
    """One photo of everybody on the list, their other photos, and one photo of every stranger.

    Attributes:
        people: the row of ``listed`` that each of ``others`` shows.
    """

    listed: Vectors
    others: Vectors
    people: NDArray[np.int64]
    strangers: Vectors

    @property
    def everybody(self) -> Vectors:
        """One photo each."""
        return np.concatenate([self.listed, self.strangers])


@dataclass(frozen=True, slots=True)
class Check:
    """Other people that were searched with a threshold: strangers who alert, and people who are not found."""

    expected: float
    alerts: int
    strangers: int
    missed: int
    probes: int


def halves(dataset: Dataset, probes: Probes) -> tuple[Half, Half]:
    """The people of the first and of the second half of the pairs."""
    half_of = {dataset.people[pair.first]: pair.fold for pair in dataset.pairs}
    half_of |= {dataset.people[pair.second]: pair.fold for pair in dataset.pairs}
    rows = defaultdict(list)
    for row, photo in enumerate(probes.photos):
        rows[person_of(photo)].append(row)

    def half(number: int) -> Half:
        mine = [person for person in rows if half_of[person] == number]
        several = [rows[person] for person in mine if dataset.people.count(person) > 1]
        alone = [rows[person][0] for person in mine if dataset.people.count(person) == 1]
        return Half(
            listed=probes.vectors[[photos[0] for photos in several]],
            others=probes.vectors[[row for photos in several for row in photos[1:]]],
            people=np.repeat(np.arange(len(several)), [len(photos) - 1 for photos in several]),
            strangers=probes.vectors[alone],
        )

    return half(0), half(1)


def check(curve: FalseAlertCurve, one_in: int, half: Half, *, listed: Vectors) -> Check | None:
    """What the curve's threshold for a list of this length does to people of this half, who are its first ones.

    ``None`` where the curve rests on too few faces for this budget.
    """
    threshold = curve.threshold(one_in, len(listed))
    if threshold is None:
        return None
    strangers = ImpostorSearches(half.strangers, listed).nearest(curve.metric)
    others = ImpostorSearches(half.others, listed).nearest(curve.metric)
    is_found = (others.rows == half.people) & (others.distances <= threshold)
    return Check(
        expected=curve.rate(threshold, len(listed)),
        alerts=int(np.count_nonzero(strangers.distances <= threshold)),
        strangers=len(half.strangers),
        missed=int(np.count_nonzero(~is_found)),
        probes=len(half.others),
    )


def checks(metric: EmbeddingMetric, both: tuple[Half, Half]) -> Mapping[tuple[int, str], Sequence[Check | None]]:
    """Each half calibrated and the other one checked, by budget and by what is checked."""
    found: dict[tuple[int, str], list[Check | None]] = defaultdict(list)
    for calibrated, other in (both, both[::-1]):
        everybody = calibrated.everybody
        by_list = ImpostorSearches(calibrated.strangers, calibrated.listed).curve(metric)
        by_people = ImpostorSearches(everybody, everybody, np.arange(len(everybody))).curve(metric)
        longer = np.concatenate([other.listed, calibrated.listed])
        for one_in in BUDGETS:
            found[one_in, "calibrated on a list"].append(check(by_list, one_in, other, listed=other.listed))
            found[one_in, "the same, list twice as long"].append(check(by_list, one_in, other, listed=longer))
            found[one_in, "against each other"].append(check(by_people, one_in, other, listed=other.listed))
            found[one_in, "the same, both lists"].append(check(by_people, one_in, other, listed=longer))
    return found


def report(both: tuple[Half, Half]) -> None:
    """A line for each kind of threshold, budget and way to calibrate; both halves with the 95 % interval."""
    for number, half in enumerate(both, start=1):
        print(
            f"half {number}: {len(half.listed)} people on the list, {len(half.others)} other photos of them, "
            f"{len(half.strangers)} strangers"
        )
    for metric in MEASURED_METRICS:
        print(f"\n{metric}: strangers who alert, expected and found, and photos whose person is missed")
        for (one_in, name), checked in checks(metric, both).items():
            found = [one for one in checked if one is not None]
            if len(found) < len(checked):
                print(f"  1 in {one_in:<4} {name:<30} too few faces to tell")
                continue
            strangers, probes = sum(one.strangers for one in found), sum(one.probes for one in found)
            alerts = rate(sum(one.alerts for one in found), strangers)
            missed = rate(sum(one.missed for one in found), probes)
            expected = sum(one.expected * one.strangers for one in found) / strangers
            print(
                f"  1 in {one_in:<4} {name:<30} {expected:6.2%}  {alerts.count:>3} of {strangers} "
                f"{alerts.value:6.2%} ({alerts.low:6.2%} to {alerts.high:6.2%})  "
                f"missed {missed.value:6.2%} ({missed.low:6.2%} to {missed.high:6.2%})"
            )


def report_shipped(model: ModelName) -> None:
    """The thresholds that come with the model, by budget and length of the list."""
    shipped = shipped_false_alerts(model)
    for curve in () if shipped is None else shipped.curves:
        print(
            f"\n{curve.metric}, as it comes with {model}: thresholds for lists of {', '.join(map(str, LISTS))} photos"
        )
        for one_in in SHIPPED_BUDGETS:
            thresholds = (curve.threshold(one_in, size) for size in LISTS)
            print(f"  1 in {one_in:<6}" + "".join("    none" if t is None else f"{t:8.4f}" for t in thresholds))


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of photos")
    parser.add_argument("pairs", type=Path, help="csv file of labelled pairs, one half after the other")
    settings = load_settings()
    parser.add_argument("--detector", choices=get_args(DetectorName), default=settings.detector_backend)
    parser.add_argument("--model", choices=get_args(ModelName), default=settings.model_name)
    args = parser.parse_args()
    dataset = read_dataset(args.images, pairs=args.pairs, folds=2)
    async with open_probe_reader(settings) as reader:
        probes = await reader.read(args.images, detector=args.detector, model=args.model, choose=centred)
    report(halves(dataset, probes))
    report_shipped(args.model)


if __name__ == "__main__":
    asyncio.run(main())
