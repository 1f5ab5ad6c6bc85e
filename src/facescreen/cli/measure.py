"""Commands that measure recognition."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from facescreen.cli.base import (
    DETECTOR,
    METRIC,
    MODEL,
    cell,
    command_settings,
    coroutine,
    model_option,
    progress_bar,
    say,
)

if TYPE_CHECKING:
    from facescreen.recognition.catalog import ShippedFalseAlerts
    from facescreen.services.calibration import CalibrationReport

_GROWTH = (1, 2, 10)
"""Times the present length of the list."""

_LONGEST_SOURCE = 400
"""Characters; the database keeps 500 and the numbers of faces and photos are added."""


def _short(_context: click.Context, _option: click.Parameter, text: str) -> str:
    if len(text) > _LONGEST_SOURCE:
        raise click.BadParameter(f"it has {len(text)} characters; {_LONGEST_SOURCE} are the most")
    return text


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_COUNT = click.IntRange(min=1)
_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("photos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--pairs", type=_FILE, help="CSV file of labelled pairs: file_a, file_b, same (1 or 0), perhaps fold.")
@click.option("--groups", type=_FILE, help="CSV file of groups of people to compare: person, group.")
@click.option("--detector", "detectors", multiple=True, type=DETECTOR, help="Default: DETECTOR_BACKEND. Repeatable.")
@click.option("--model", "models", multiple=True, type=MODEL, help="Default: MODEL_NAME. Repeatable.")
@click.option("--metric", type=METRIC, help="Default: DISTANCE_METRIC.")
@click.option("--folds", type=click.IntRange(min=1), default=10, show_default=True, help="Of pairs without a fold.")
@click.option("--output", type=_FOLDER, default=Path("evaluation"), show_default=True, help="Folder of the report.")
@click.option("--cache", type=_FOLDER, default=Path("data/evaluation"), show_default=True, help="Folder of embeddings.")
@click.option("--no-cache", is_flag=True, help="Keep no embeddings; an interrupted evaluation begins anew.")
@coroutine
async def evaluate(
    photos: Path,
    *,
    pairs: Path | None,
    groups: Path | None,
    detectors: tuple[Any, ...],
    models: tuple[Any, ...],
    metric: Any,  # noqa: ANN401 - click has checked it against the metrics
    folds: int,
    output: Path,
    cache: Path,
    no_cache: bool,
) -> None:
    """Measure recognition on PHOTOS of known people: a folder for each, or files named <person>_<number>.

    Every detector is measured with every model. The report, as HTML and JSON, shows faces, and the cached embeddings
    recognize the people in them: only this user may read either. Delete both when the work is done.
    """
    from dataclasses import asdict

    from facescreen.factory import open_evaluation
    from facescreen.services.dataset import read_dataset
    from facescreen.services.embedding_cache import EmbeddingCache
    from facescreen.services.evaluation import FacePictures, summary
    from facescreen.services.evaluation_report import render

    settings = command_settings()
    dataset = read_dataset(photos, pairs=pairs, groups=groups, folds=folds)
    async with open_evaluation(settings) as service:
        with progress_bar("photos") as progress:
            measured = await service.evaluate(
                dataset,
                detectors or (settings.detector_backend,),
                models or (settings.model_name,),
                metric=metric or settings.distance_metric,
                cache=None if no_cache else EmbeddingCache(cache),
                progress=progress,
            )
    for rejected in dataset.left_out:
        say(f"left out {rejected.file}: {rejected.detail} ({rejected.code})")
    pictures = FacePictures(photos, measured.boxes, max_pixels=settings.max_image_pixels)
    _write_private(output / "report.json", json.dumps(asdict(measured.evaluation), indent=2, allow_nan=False))
    _write_private(output / "report.html", render(measured.evaluation, pictures))
    for combination in measured.evaluation.combinations:
        say(summary(combination))
    say(f"report: {output / 'report.html'}")


@click.command()
@click.argument("photos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--collection", help="The list. Default: the default one.")
@click.option("--one-in", type=_COUNT, help="One face in so many may match. Default: FALSE_ALERT_BUDGET.")
@click.option("--review-one-in", type=_COUNT, help="For review. Default: REVIEW_FALSE_ALERT_BUDGET.")
@model_option
@click.option("--detector", type=DETECTOR, help="Default: DETECTOR_BACKEND.")
@click.option(
    "--source", default="own photos", show_default=True, callback=_short, help="What the photos are; results name it."
)
@click.option("--against-each-other", is_flag=True, help="Take no list: search everybody among all others.")
@click.option("--output", type=click.File("w", "utf-8"), help="File for --against-each-other.")
@coroutine
async def calibrate(
    photos: Path,
    *,
    collection: str | None,
    one_in: int | None,
    review_one_in: int | None,
    model: Any,  # noqa: ANN401 - click has checked it against the model names
    detector: Any,  # noqa: ANN401 - and this one against the detectors
    source: str,
    against_each_other: bool,
    output: TextIO | None,
) -> None:
    """Choose thresholds by false alerts: at most one in so many faces of people who are not on the list.

    PHOTOS is a folder of photos of such people, everybody once. Every usable face is searched in the list. What is kept
    is how many of them come how near; no photo and no face.

    With --against-each-other the photos are named as for `evaluate`, and the file is what comes with a model.
    """
    if against_each_other != (output is not None):
        raise click.UsageError("--against-each-other and --output belong together")
    if output is not None:
        measured = await _calibrated_model(photos, model=model, detector=detector, source=source)
        json.dump(measured.to_document(), output, separators=(",", ":"))
        output.write("\n")
        say(measured.source)
        return
    from facescreen.domain.blacklist import DEFAULT_COLLECTION
    from facescreen.factory import open_services
    from facescreen.services.calibration import CalibrationOptions

    options = CalibrationOptions(detector, model, one_in, review_one_in)
    async with open_services(command_settings()) as services:
        if services.calibration is None:
            raise click.UsageError("Rekognition keeps the faces; there are no embeddings to compare")
        with progress_bar("photos") as progress:
            report = await services.calibration.calibrate(
                photos, options, progress, collection=collection or DEFAULT_COLLECTION, source=source
            )
    _print_calibration(report)


async def _calibrated_model(
    photos: Path,
    *,
    model: Any,  # noqa: ANN401 - click has checked it against the model names
    detector: Any,  # noqa: ANN401 - and this one against the detectors
    source: str,
) -> "ShippedFalseAlerts":
    from facescreen.factory import open_probe_reader
    from facescreen.services.calibration import measure_each_other

    settings = command_settings()
    async with open_probe_reader(settings) as reader:
        with progress_bar("photos") as progress:
            return await measure_each_other(
                reader,
                photos,
                progress,
                detector=detector or settings.detector_backend,
                model=model or settings.model_name,
                source=source,
            )


def _print_calibration(report: "CalibrationReport") -> None:
    from rich.console import Console
    from rich.table import Table

    from facescreen.domain.biometrics import rate

    console = Console()
    for skipped in report.skipped:
        say(f"skipped {skipped.file}: {skipped.detail} ({skipped.code})")
    calibration, budget, curve = report.calibration, report.calibration.budget, report.curve
    say(f"calibration {calibration.id}, {calibration.source}; {report.unusable} faces were unusable")
    thresholds = Table("reference photos", f"match, 1 in {budget.one_in}", f"review, 1 in {budget.review_one_in}")
    policies = {times * report.list_size: report.policy(times * report.list_size) for times in _GROWTH}
    for size, policy in policies.items():
        if policy is None or (applied := policy.calibration) is None:
            thresholds.add_row(str(size), "none", "none")
            continue
        thresholds.add_row(
            str(size),
            f"{policy.threshold:.4f}" + " *" * (applied.false_alert_rate > 1 / budget.one_in),
            f"{policy.review_threshold:.4f}" + " *" * (applied.review_false_alert_rate > 1 / budget.review_one_in),
        )
    console.print(thresholds)
    say("* a list that long has outgrown what was measured, and alerts more often")
    if (now := policies[report.list_size]) is not None and now.calibration is not None:
        for name, threshold, expected in (
            ("match", now.threshold, now.calibration.false_alert_rate),
            ("review", now.review_threshold, now.calibration.review_false_alert_rate),
        ):
            share = rate(round(expected * curve.faces), curve.faces)
            say(
                f"{name}: {share.count} of {share.total} faces alert at {now.metric} "
                f"{threshold:.4f}, {share.value:.2%} (95 % interval {share.low:.2%} to {share.high:.2%})"
            )
    if curve.faces < 3 * budget.one_in:
        say(f"warning: {curve.faces} faces are few for one in {budget.one_in}; take {3 * budget.one_in} or more")
    nearest = Table("photo", "looks like", str(curve.metric))
    for probe in report.nearest:
        nearest.add_row(cell(probe.photo), cell(probe.name), f"{probe.distance:.4f}")
    console.print(nearest)
    say("if one of these is really that person, remove the photo and calibrate again")


def _write_private(path: Path, text: str) -> None:
    """Write a file that only this user may read, into a folder that is made if there is none."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise click.UsageError(f"{path} cannot be written: {error.strerror}") from None
