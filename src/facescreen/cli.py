"""The command line: each command parses, calls one service and prints."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO

import click

from facescreen import __version__
from facescreen.errors import FacescreenError

# Everything heavy is imported inside of the command that needs it: `facescreen --help` must answer at once.
if TYPE_CHECKING:
    from facescreen.config import Settings
    from facescreen.domain.crowding import Crowding
    from facescreen.domain.distances import Metric
    from facescreen.domain.list_report import ListReport
    from facescreen.domain.screening import Screening
    from facescreen.recognition.catalog import ShippedFalseAlerts
    from facescreen.services.calibration import CalibrationReport

P = ParamSpec("P")

_IMAGES_AT_ONCE = 8
_GROWTH = (1, 2, 10)
"""Times the present length of the list."""


class _Group(click.Group):
    """Turns our own errors, of whichever command, into one line and exit status 2."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except FacescreenError as error:
            click.echo(f"facescreen: {error}", err=True)
            sys.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Face recognition and blacklist screening. Settings come from the environment or from .env."""


def _command(function: Callable[P, Coroutine[Any, Any, None]]) -> click.Command:
    """A command that runs a coroutine."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(function(*args, **kwargs))

    return cli.command()(run)


def _settings() -> "Settings":
    from facescreen.config import load_settings
    from facescreen.logs import configure_logs

    settings = load_settings()
    configure_logs("warning")
    return settings


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@_command
async def migrate() -> None:
    """Bring the database to the newest schema."""
    from facescreen.db.connection import Database

    database = Database(_settings().database_url)
    await database.migrate()
    await database.require_head()
    await database.aclose()
    click.echo("the database is at the newest schema")


@cli.command()
def serve() -> None:
    """Run the service on HOST and PORT with WORKERS processes."""
    import uvicorn

    from facescreen.config import load_settings
    from facescreen.db.connection import Database
    from facescreen.logs import configure_logs

    async def check(settings: "Settings") -> None:
        database = Database(settings.database_url)
        await database.require_head()
        await database.aclose()

    settings = load_settings()
    asyncio.run(check(settings))
    configure_logs(settings.log_level)
    uvicorn.run(
        "facescreen.main:app",
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        access_log=False,
        log_config=None,
        log_level=settings.log_level,
    )


@_command
async def sync() -> None:
    """Enroll photos that were put into the blacklist folder, withdraw those that were removed from it."""
    from facescreen.factory import open_services

    async with open_services(_settings()) as services:
        with _progress("photos") as progress:
            report = await services.sync.sync(progress)
    for skipped in report.skipped:
        click.echo(f"skipped {skipped.file}: {skipped.detail} ({skipped.code})")
    for warning in report.warnings:
        click.echo(f"warning {warning.photo.name}: {warning.detail} ({warning.code})")
    click.echo(
        f"{len(report.added)} added, {len(report.withdrawn)} withdrawn, {len(report.skipped)} skipped, "
        f"{report.unchanged} unchanged"
    )


@_command
@click.option("--fix", is_flag=True, help="Repair what can be repaired.")
async def audit(fix: bool) -> None:  # noqa: FBT001 - given by click
    """Compare the database with the stored files and with Rekognition. Exit status 1: something does not fit."""
    from facescreen.factory import open_services
    from facescreen.services.audit import FindingKind

    found = repaired = foreign = 0
    async with open_services(_settings()) as services:
        async for finding in services.audit.audit(fix=fix):
            found += 1
            repaired += finding.repaired
            foreign += finding.kind is FindingKind.FOREIGN
            state = " (repaired)" if finding.repaired else ""
            click.echo(f"{finding.kind} in {finding.where}: {finding.subject}{state}")
    click.echo(f"{found} findings, {repaired} repaired, {foreign} not ours")
    if found > repaired + foreign:
        sys.exit(1)


class _NameIn(click.ParamType[str]):
    """One of the names that a literal type of the settings lists, which is loaded when a name is given.

    Args:
        literal: the name of the type in ``facescreen.config``.
    """

    def __init__(self, name: str, literal: str) -> None:
        self.name = name
        self._literal = literal

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from typing import get_args

        from facescreen import config

        names: tuple[str, ...] = get_args(getattr(config, self._literal))
        if value not in names:
            self.fail(f"{value!r} is none of {', '.join(names)}", param, ctx)
        return names[names.index(value)]


_MODEL = _NameIn("model", "ModelName")
_DETECTOR = _NameIn("detector", "DetectorName")
_METRIC = _NameIn("metric", "EmbeddingMetric")

_model_option = click.option("--model", type=_MODEL, help="Default: MODEL_NAME.")


@_command
@_model_option
async def reindex(model: Any) -> None:  # noqa: ANN401 - click has checked it against the model names
    """Compute the embeddings that stored reference photos lack for a model."""
    from facescreen.factory import open_services

    settings = _settings()
    async with open_services(settings) as services:
        if services.reindex is None:
            raise click.UsageError("Rekognition keeps the faces; there are no embeddings to compute")
        with _progress("photos") as progress:
            report = await services.reindex.reindex(model or settings.model_name, progress)
    for image in report.unreadable:
        click.echo(f"the photo of reference image {image.id} cannot be read")
    click.echo(f"{report.embedded} photos embedded, {len(report.unreadable)} unreadable")


@_command
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
@_model_option
async def screen(paths: tuple[Path, ...], as_json: bool, model: Any) -> None:  # noqa: ANN401, FBT001 - given by click
    """Screen image files and folders of them. Exit status 1: somebody may match; 2: an image could not be screened."""
    from facescreen.factory import open_services
    from facescreen.images.sources import SourceImage
    from facescreen.services.thresholds import ScreeningOptions

    files = [file for path in paths for file in _image_files(path)]
    options = ScreeningOptions(model=model)
    results: list[Screening] = []
    async with open_services(_settings()) as services:
        with _progress("images") as progress:
            for start in range(0, len(files), _IMAGES_AT_ONCE):
                progress(start, len(files))
                batch = [SourceImage(file.read_bytes(), str(file)) for file in files[start : start + _IMAGES_AT_ONCE]]
                results += await services.screening.screen(batch, options)
            progress(len(files), len(files))
    _print_screenings(results, as_json=as_json)
    if any(face.alerts for result in results for face in result.faces):
        sys.exit(1)
    if any(result.error for result in results):
        sys.exit(2)


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_COUNT = click.IntRange(min=1)
_FOLDER = click.Path(file_okay=False, path_type=Path)


@_command
@click.argument("photos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--pairs", type=_FILE, help="CSV file of labelled pairs: file_a, file_b, same (1 or 0), perhaps fold.")
@click.option("--groups", type=_FILE, help="CSV file of groups of people to compare: person, group.")
@click.option("--detector", "detectors", multiple=True, type=_DETECTOR, help="Default: DETECTOR_BACKEND. Repeatable.")
@click.option("--model", "models", multiple=True, type=_MODEL, help="Default: MODEL_NAME. Repeatable.")
@click.option("--metric", type=_METRIC, help="Default: DISTANCE_METRIC.")
@click.option("--folds", type=click.IntRange(min=1), default=10, show_default=True, help="Of pairs without a fold.")
@click.option("--output", type=_FOLDER, default=Path("evaluation"), show_default=True, help="Folder of the report.")
@click.option("--cache", type=_FOLDER, default=Path("data/evaluation"), show_default=True, help="Folder of embeddings.")
@click.option("--no-cache", is_flag=True, help="Keep no embeddings; an interrupted evaluation begins anew.")
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

    settings = _settings()
    dataset = read_dataset(photos, pairs=pairs, groups=groups, folds=folds)
    async with open_evaluation(settings) as service:
        with _progress("photos") as progress:
            measured = await service.evaluate(
                dataset,
                detectors or (settings.detector_backend,),
                models or (settings.model_name,),
                metric=metric or settings.distance_metric,
                cache=None if no_cache else EmbeddingCache(cache),
                progress=progress,
            )
    pictures = FacePictures(photos, measured.boxes, max_pixels=settings.max_image_pixels)
    _write_private(output / "report.json", json.dumps(asdict(measured.evaluation), indent=2, allow_nan=False))
    _write_private(output / "report.html", render(measured.evaluation, pictures))
    for combination in measured.evaluation.combinations:
        click.echo(summary(combination))
    click.echo(f"report: {output / 'report.html'}")


@_command
@click.argument("photos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--collection", help="The list. Default: the default one.")
@click.option("--one-in", type=_COUNT, help="One face in so many may match. Default: FALSE_ALERT_BUDGET.")
@click.option("--review-one-in", type=_COUNT, help="For review. Default: REVIEW_FALSE_ALERT_BUDGET.")
@_model_option
@click.option("--detector", type=_DETECTOR, help="Default: DETECTOR_BACKEND.")
@click.option("--source", default="own photos", show_default=True, help="What the photos are; results name it.")
@click.option("--against-each-other", is_flag=True, help="Take no list: search everybody among all others.")
@click.option("--output", type=click.File("w", "utf-8"), help="File for --against-each-other.")
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
        click.echo(measured.source)
        return
    from facescreen.domain.blacklist import DEFAULT_COLLECTION
    from facescreen.factory import open_services
    from facescreen.services.calibration import CalibrationOptions

    options = CalibrationOptions(detector, model, one_in, review_one_in)
    async with open_services(_settings()) as services:
        if services.calibration is None:
            raise click.UsageError("Rekognition keeps the faces; there are no embeddings to compare")
        with _progress("photos") as progress:
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

    settings = _settings()
    async with open_probe_reader(settings) as reader:
        with _progress("photos") as progress:
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
    from rich.text import Text

    from facescreen.domain.biometrics import rate

    console = Console()
    for skipped in report.skipped:
        click.echo(f"skipped {skipped.file}: {skipped.detail} ({skipped.code})")
    calibration, budget, curve = report.calibration, report.calibration.budget, report.curve
    click.echo(f"calibration {calibration.id}, {calibration.source}; {report.unusable} faces were unusable")
    thresholds = Table(
        "reference photos", "compared", f"match, 1 in {budget.one_in}", f"review, 1 in {budget.review_one_in}"
    )
    policies = {times * report.list_size: report.policy(times * report.list_size) for times in _GROWTH}
    for size, policy in policies.items():
        if policy is None or (applied := policy.calibration) is None:
            thresholds.add_row(str(size), "", "none", "none")
            continue
        thresholds.add_row(
            str(size),
            _compared(policy.metric, applied.crowding),
            f"{policy.threshold:.4f}" + " *" * (applied.false_alert_rate > 1 / budget.one_in),
            f"{policy.review_threshold:.4f}" + " *" * (applied.review_false_alert_rate > 1 / budget.review_one_in),
        )
    console.print(thresholds)
    click.echo("* a list that long has outgrown what was measured, and alerts more often")
    if (now := policies[report.list_size]) is not None and now.calibration is not None:
        for name, threshold, expected in (
            ("match", now.threshold, now.calibration.false_alert_rate),
            ("review", now.review_threshold, now.calibration.review_false_alert_rate),
        ):
            share = rate(round(expected * curve.faces), curve.faces)
            click.echo(
                f"{name}: {share.count} of {share.total} faces alert at {_compared(now.metric, curve.crowding)} "
                f"{threshold:.4f}, {share.value:.2%} (95 % interval {share.low:.2%} to {share.high:.2%})"
            )
    if curve.faces < 3 * budget.one_in:
        click.echo(f"warning: {curve.faces} faces are few for one in {budget.one_in}; take {3 * budget.one_in} or more")
    nearest = Table("photo", "looks like", _compared(curve.metric, curve.crowding))
    for probe in report.nearest:
        nearest.add_row(Text(probe.photo), Text(probe.name), f"{probe.score:.4f}")
    console.print(nearest)
    click.echo("if one of these is really that person, remove the photo and calibrate again")


def _compared(metric: "Metric", crowding: "Crowding | None") -> str:
    return str(metric) if crowding is None else f"score ({metric})"


@cli.group()
def weights() -> None:
    """Weights of detectors and models on this machine."""


@weights.command("list")
def list_weights() -> None:
    """What is here, what is missing, and the command that brings it."""
    from rich.console import Console
    from rich.table import Table

    from facescreen.recognition.catalog import DETECTORS, MODELS
    from facescreen.recognition.weights import WeightStore

    store = WeightStore(_settings().deepface_home)
    table = Table("kind", "name", "here", "brought by", "licence")
    for kind, specs in (("detector", DETECTORS), ("model", MODELS)):
        for spec in specs.values():
            _, _, command = (store.missing(spec) or "").partition(": ")
            table.add_row(kind, spec.name, "no" if command else "yes", command, spec.licence)
    Console().print(table)


@weights.command("pull")
@click.argument("names", nargs=-1, required=True)
def pull_weights(names: tuple[str, ...]) -> None:
    """Download the weights of detectors or models and verify their checksums."""
    from facescreen.recognition.weights import WeightStore

    store = WeightStore(_settings().deepface_home)
    for name in names:
        try:
            with _progress(name) as progress:
                for file in store.pull(name, lambda _file, done, total: progress(done, total or 0)):
                    click.echo(f"{name}: {file}")
        except KeyError:
            click.echo(f"facescreen: no detector or model is named {name}; see: facescreen weights list", err=True)
            sys.exit(2)


@cli.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from facescreen.main import create_app

    click.echo(json.dumps(create_app(_settings()).openapi(), indent=2))


@_command
async def config() -> None:
    """Print every setting with its value."""
    for name, value in _settings().model_dump(mode="json").items():
        shown = ",".join(value) if isinstance(value, list) else "" if value is None else value
        click.echo(f"{name.upper()}={shown}")


@_command
@click.option("--collection", help="Default: every collection.")
@click.option("--limit", type=click.IntRange(min=1, max=1000), default=20, show_default=True, help="Of each kind.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of tables.")
async def doctor(collection: str | None, limit: int, as_json: bool) -> None:  # noqa: FBT001 - given by click
    """Check the list: people twice, photos of somebody else, look-alikes, weak photos, expected false alerts.

    Exit status 1: a person is on the list twice, photos of one entry disagree, or an entry has no usable photo.
    """
    from facescreen.factory import open_services

    reports: list[ListReport] = []
    async with open_services(_settings()) as services:
        names = [collection] if collection else [found.name for found in await services.collections.all()]
        for name in names:
            with _progress(name) as progress:
                reports.append(await services.report.report(name, limit=limit, progress=progress))
    _print_reports(reports, as_json=as_json)
    if any(report.is_urgent for report in reports):
        sys.exit(1)


def _write_private(path: Path, text: str) -> None:
    """Write a file that only this user may read, into a folder that is made if there is none."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise click.UsageError(f"{path} cannot be written: {error.strerror}") from None


def _image_files(path: Path) -> Iterator[Path]:
    from facescreen.images.store import IMAGE_SUFFIXES

    if path.is_file():
        yield path
        return
    yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())


def _print_screenings(results: "list[Screening]", *, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from facescreen.api.schemas import ProcessedImage
    from facescreen.services.explanation import explain

    if as_json:
        click.echo(json.dumps([ProcessedImage.of(result).model_dump(mode="json") for result in results], indent=2))
        return
    table = Table("image", "face", "verdict", "who", "distance", "why")
    for result in results:
        name = Text(result.image_identifier)
        if result.error:
            table.add_row(name, "", "error", "", "", f"{result.error.code}: {result.error.detail}")
        elif not result.faces:
            table.add_row(name, "", "no face", "", "", "")
        for index, face in enumerate(result.faces):
            if not face.alerts:
                table.add_row(name, str(index), face.verdict, "", "", Text(explain(face, result.policy)))
            for match in face.alerts:
                limit = f"{match.score:.4f} ≤ {match.limit:.4f} {match.metric}"
                table.add_row(name, str(index), match.grade, Text(match.name), limit, Text(match.reason))
    Console().print(table)


def _print_reports(reports: "list[ListReport]", *, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from facescreen.api.schemas import ListReportRecord

    if as_json:
        click.echo(json.dumps([ListReportRecord.of(report).model_dump(mode="json") for report in reports], indent=2))
        return
    for report in reports:
        click.echo(
            f"collection {report.collection}, version {report.version}: {report.entries} entries, "
            f"{report.photos} photos, {report.not_measured} of them without measured quality"
        )
        policy = report.policy
        click.echo(
            f"{report.model_name}, {report.metric}: one person up to {policy.threshold:.4g}, "
            f"look-alikes up to {policy.review_threshold:.4g}"
        )
        if report.false_alerts_per_1000 is not None and report.review_false_alerts_per_1000 is not None:
            click.echo(
                f"of 1,000 faces of nobody on the list, {report.false_alerts_per_1000:.3g} will match and "
                f"{report.review_false_alerts_per_1000:.3g} will match or be possible"
            )
        click.echo(f"evidence: {report.evidence}")
        for code, total in report.totals.items():
            click.echo(f"{code}: {'not available' if total is None else total}")
        if report.findings:
            table = Table("finding", "photos", "what to do")
            for finding in report.findings:
                photos = "\n".join(f"{photo.id} {photo.photo}" for photo in finding.photos)
                # Names are people's, and may look like markup.
                table.add_row(finding.code, Text(photos), Text(finding.detail))
            Console().print(table)


def main() -> None:
    """Entry point of the ``facescreen`` script."""
    cli()
