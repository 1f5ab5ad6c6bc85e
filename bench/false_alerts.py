"""How well a budget of false alerts is kept: calibrated on one half of the people and checked on the other.

    python bench/false_alerts.py LFW/images LFW/pairs.csv

Everybody with two photos or more is on the list with the first of them, their other photos are to be found, and
everybody with one photo is a stranger. The list of pairs says who belongs to which half; nobody belongs to both. The
list of the half that checks is searched alone and together with the other half's list, which is about as long again.
Distances and scores (``domain/crowding.py``) are compared; what scores rest on is measured on the half that calibrates.

Then come
- people who are missed on lists of several lengths, each photo with other people on the list, by distances and by
  scores, where everybody of the other half was calibrated against each other;
- the thresholds that are shipped;
- how many faces alert at one score as a list grows to twice its length: half of the people, drawn four times, and all.
Intervals of these are the middle 95 % of draws of as many people with replacement.

LFW is a research dataset of public figures and known to be unbalanced; its figures compare methods and promise nothing.
"""

import argparse
import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facescreen.config import ModelName, load_settings
from facescreen.domain.biometrics import rate
from facescreen.domain.crowding import Crowding
from facescreen.domain.distances import EmbeddingMetric, Metric, unit
from facescreen.domain.faces import Vectors
from facescreen.domain.false_alerts import MEASURED_METRICS, FalseAlertCurve, ImpostorSearches, Nearest
from facescreen.factory import open_probe_reader
from facescreen.recognition.catalog import MODELS, shipped_false_alerts
from facescreen.services.calibration import Probes, centred
from facescreen.services.dataset import Dataset, person_of, read_dataset

BUDGETS: Final = (10, 20, 50, 100)
"""One false alert in so many faces."""

LISTS: Final = (1, 10, 100, 307, 1_000, 10_000, 100_000)
"""Reference photos."""

LENGTHS: Final = (5, 10, 20, 50, 100, 150, 200, 300, 400)
"""People on the lists where scores are compared with distances."""

LISTS_OF_A_PHOTO: Final = 4
RATES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
DRAWS: Final = 1000
ALIKE: Final = 1e-4
"""The false match rate at which two people look alike."""


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


def crowding_of(vectors: Vectors) -> Crowding:
    """What scores rest on, from one photo each of many people."""
    directions = unit(vectors)
    apart = (1 - directions @ directions.T)[np.triu_indices(len(directions), 1)]
    return Crowding(float(apart.mean()), float(np.quantile(apart, ALIKE, method="lower")))


def measure(searches: ImpostorSearches, compared: EmbeddingMetric | Crowding) -> FalseAlertCurve:
    """False alerts by distances or by scores."""
    return searches.crowded_curve(compared) if isinstance(compared, Crowding) else searches.curve(compared)


def nearest(searches: ImpostorSearches, curve: FalseAlertCurve) -> Nearest:
    """What each face resembles most by what the curve is of."""
    return searches.nearest(curve.metric) if curve.crowding is None else searches.lowest_scores(curve.crowding)


def check(curve: FalseAlertCurve, one_in: int, half: Half, *, listed: Vectors) -> Check:
    """What the curve's threshold for a list of this length does to people of this half, who are its first ones."""
    threshold = curve.threshold(one_in, len(listed))
    if threshold is None:
        raise ValueError(f"{curve.faces} faces are no evidence for one in {one_in}")
    strangers = nearest(ImpostorSearches(half.strangers, listed), curve)
    others = nearest(ImpostorSearches(half.others, listed), curve)
    is_found = (others.rows == half.people) & (others.distances <= threshold)
    return Check(
        expected=curve.rate(threshold, len(listed)),
        alerts=int(np.count_nonzero(strangers.distances <= threshold)),
        strangers=len(half.strangers),
        missed=int(np.count_nonzero(~is_found)),
        probes=len(half.others),
    )


def checks(metric: EmbeddingMetric | None, both: tuple[Half, Half]) -> Mapping[tuple[int, str], Sequence[Check]]:
    """Each half calibrated and the other one checked, by budget and by what is checked; scores without a metric."""
    found = defaultdict(list)
    for calibrated, other in (both, both[::-1]):
        everybody, people = calibrated.everybody, np.arange(len(calibrated.everybody))
        compared = metric or crowding_of(everybody)
        by_list = measure(ImpostorSearches(calibrated.strangers, calibrated.listed), compared)
        by_people = measure(ImpostorSearches(everybody, everybody, people, people), compared)
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
    for metric in (*MEASURED_METRICS, None):
        print(f"\n{metric or 'score'}: strangers who alert, expected and found, and photos whose person is missed")
        for (one_in, name), found in checks(metric, both).items():
            strangers, probes = sum(one.strangers for one in found), sum(one.probes for one in found)
            alerts = rate(sum(one.alerts for one in found), strangers)
            missed = rate(sum(one.missed for one in found), probes)
            expected = sum(one.expected * one.strangers for one in found) / strangers
            print(
                f"  1 in {one_in:<4} {name:<30} {expected:6.2%}  {alerts.count:>3} of {strangers} "
                f"{alerts.value:6.2%} ({alerts.low:6.2%} to {alerts.high:6.2%})  "
                f"missed {missed.value:6.2%} ({missed.low:6.2%} to {missed.high:6.2%})"
            )


def report_lengths(both: tuple[Half, Half]) -> None:
    """People who are missed by distances and by scores, by half, budget and length of the list."""
    rng = np.random.default_rng(0)
    for number, (half, other) in enumerate((both, both[::-1]), start=1):
        everybody, people = other.everybody, np.arange(len(other.everybody))
        searches = ImpostorSearches(everybody, everybody, people, people)
        curves = (searches.curve(Metric.COSINE), searches.crowded_curve(crowding_of(everybody)))
        print(f"\nhalf {number}: photos whose person is missed by distances and by scores, and the difference")
        for length in LENGTHS:
            own = own_scores(half, curves, length=length, rng=rng)
            for one_in in (10, 100):
                thresholds = [curve.threshold(one_in, length) or 0.0 for curve in curves]
                missed = (own > np.array(thresholds)[:, None, None]).mean(axis=2)
                by_person = np.stack([np.bincount(half.people, each) for each in (*missed, np.ones(len(half.people)))])
                by_distance, by_score, probes = by_person @ drawn_people(len(half.listed), rng).T
                low, high = np.quantile((by_score - by_distance) / probes, [0.025, 0.975])
                before, after = missed.mean(axis=1)
                print(
                    f"  1 in {one_in:<4} {length:>4} people  {before:6.2%} {after:6.2%}  "
                    f"{after - before:+.2%} ({low:+.2%} to {high:+.2%})"
                )


def own_scores(
    half: Half, curves: Sequence[FalseAlertCurve], *, length: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """By what each curve is of, infinite unless nobody else is nearer, (curves, photos, lists)."""
    everybody = half.everybody
    own = np.full((len(curves), len(half.others), LISTS_OF_A_PHOTO), np.inf)
    for photo, person in enumerate(half.people):
        for number in range(LISTS_OF_A_PHOTO):
            others = rng.permutation(len(everybody))
            listed = everybody[[person, *others[others != person][: length - 1]]]
            searches = ImpostorSearches(half.others[photo : photo + 1], listed)
            for kind, curve in enumerate(curves):
                found = nearest(searches, curve)
                if found.rows[0] == 0:
                    own[kind, photo, number] = found.distances[0]
    return own


def drawn_people(people: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each is drawn, (draws, people)."""
    return rng.multinomial(people, np.full(people, 1 / people), DRAWS)


def report_shipped(model: ModelName) -> None:
    """The thresholds that come with the model, by budget and length of the list."""
    shipped = shipped_false_alerts(model)
    for curve in () if shipped is None else shipped.curves:
        kind = curve.metric if curve.crowding is None else "score"
        print(f"\n{kind}, as it comes with {model}: thresholds for lists of {', '.join(map(str, LISTS))} photos")
        for one_in in (10, 100, 1000):
            thresholds = (curve.threshold(one_in, size) for size in LISTS)
            print(f"  1 in {one_in:<6}" + "".join("    none" if t is None else f"{t:8.4f}" for t in thresholds))


def report_growth(probes: Probes, crowding: Crowding) -> None:
    """The share of faces that alert at one score in half of a list and in all of it."""
    rng = np.random.default_rng(0)
    _, first, people = np.unique(list(map(person_of, probes.photos)), return_index=True, return_inverse=True)
    drawn = [rng.permutation(len(first))[: len(first) // 2] for _ in range(4)]

    def scores(listed: NDArray[np.int64]) -> NDArray[np.float64]:
        searches = ImpostorSearches(probes.vectors, probes.vectors[first[listed]], listed, people)
        return searches.lowest_scores(crowding).distances

    in_halves, in_whole = np.stack([scores(half) for half in drawn]), scores(np.arange(len(first)))
    print(f"\nfaces that alert at one score among {len(first) // 2} people and among {len(first)}, and their ratio")
    for share in RATES:
        score = np.quantile(in_whole, share, method="lower")
        alerts = np.stack(
            [np.bincount(people, (in_halves <= score).mean(axis=0)), np.bincount(people, in_whole <= score)]
        )
        half, whole = alerts @ drawn_people(len(first), rng).T
        low, high = np.quantile(whole / half, [0.025, 0.975])
        before, after = alerts.sum(axis=1) / len(people)
        print(f"  {score:.4f}  {before:7.2%} {after:7.2%}  {after / before:.2f} ({low:.2f} to {high:.2f})")


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of photos")
    parser.add_argument("pairs", type=Path, help="csv file of labelled pairs, one half after the other")
    args = parser.parse_args()
    settings = load_settings()
    dataset = read_dataset(args.images, pairs=args.pairs, folds=2)
    async with open_probe_reader(settings) as reader:
        probes = await reader.read(
            args.images, detector=settings.detector_backend, model=settings.model_name, choose=centred
        )
    both = halves(dataset, probes)
    report(both)
    report_lengths(both)
    report_shipped(settings.model_name)
    crowding = MODELS[settings.model_name].crowding
    if crowding is not None:
        report_growth(probes, crowding)


if __name__ == "__main__":
    asyncio.run(main())
