"""The command line: each command parses, calls one service and prints."""

import asyncio
import json
import math
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO

import click

from facescreen import __version__
from facescreen.acting import COMMAND, SERVICE, actor
from facescreen.domain.access import Scope, is_loopback
from facescreen.errors import FacescreenError, StartupError

# Everything heavy is imported inside of the command that needs it: `facescreen --help` must answer at once.
if TYPE_CHECKING:
    from facescreen.config import Settings
    from facescreen.domain.access import ApiKey
    from facescreen.domain.crowding import Crowding
    from facescreen.domain.distances import Metric
    from facescreen.domain.list_report import ListReport
    from facescreen.domain.screening import Screening
    from facescreen.domain.trail import Head
    from facescreen.recognition.catalog import ShippedFalseAlerts
    from facescreen.services.calibration import CalibrationReport
    from facescreen.services.encryption import EncryptionStatus
    from facescreen.services.keys import KeyService, NewKey
    from facescreen.services.trail import TrailService

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
    actor.set(COMMAND)


def _run(function: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """What runs a coroutine to its end."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(function(*args, **kwargs))

    return run


def _command(function: Callable[P, Coroutine[Any, Any, None]]) -> click.Command:
    """A command that runs a coroutine."""
    return cli.command()(_run(function))


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
    from facescreen.db.connection import Database, path_of
    from facescreen.factory import restoration
    from facescreen.services.presence import Presence

    settings = _settings()
    await restoration(settings).settle()
    with closing(Presence(path_of(settings.database_url))):
        database = Database(settings.database_url)
        await database.migrate()
        await database.require_head()
        await database.aclose()
    click.echo("the database is at the newest schema")


@cli.command()
def serve() -> None:
    """Run the service on HOST and PORT with WORKERS processes."""
    import uvicorn
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors import Multiprocess

    from facescreen.config import load_settings
    from facescreen.factory import restoration
    from facescreen.logs import configure_logs

    async def check(settings: "Settings") -> None:
        await restoration(settings).settle()
        async with _open_keys(settings) as service:
            if settings.auth_mode == "keys" and not is_loopback(settings.host) and not await service.all():
                raise StartupError(
                    f"HOST: {settings.host} can be reached by others, and there is no API key; "
                    "run: facescreen keys create --scope SCOPE, or set AUTH_MODE=none to let everybody do everything"
                )

    settings = load_settings()
    asyncio.run(check(settings))
    configure_logs(settings.log_level)
    actor.set(SERVICE)
    # Uvicorn raises the signal again that it was stopped by, which would end this process as if it had been killed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with _shared_metrics() if settings.workers > 1 and settings.metrics_enabled else nullcontext():
        config = uvicorn.Config(
            "facescreen.main:app",
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            http="facescreen.api.server:BoundedHttp",
            # Nothing takes longer but whoever does not read its answer.
            timeout_graceful_shutdown=math.ceil(settings.request_timeout_seconds) + 5,
            access_log=False,
            log_config=None,
            log_level=settings.log_level,
        )
        if settings.workers == 1:
            with suppress(KeyboardInterrupt):
                uvicorn.Server(config).run()
        else:
            workers = Multiprocess(config, sockets=[config.bind_socket()])
            workers.run()
            if any(worker.exitcode == STARTUP_FAILURE for worker in workers.processes):
                sys.exit(STARTUP_FAILURE)


@contextmanager
def _shared_metrics() -> Iterator[None]:
    """A folder where the workers add up their metrics, as long as they run."""
    from facescreen.metrics import SHARED_FOLDER

    with TemporaryDirectory(prefix="facescreen-metrics-") as folder:
        os.environ[SHARED_FOLDER] = folder
        yield


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


@cli.group(invoke_without_command=True)
@click.option("--fix", is_flag=True, help="Repair what can be repaired.")
@click.pass_context
def audit(context: click.Context, fix: bool) -> None:  # noqa: FBT001 - given by click
    """Compare the database with the stored files and with Rekognition. Exit status 1: something does not fit.

    The commands are about the audit trail, which says who did what.
    """
    if context.invoked_subcommand is None:
        asyncio.run(_audit(fix=fix))


async def _audit(*, fix: bool) -> None:
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


@asynccontextmanager
async def _open_trail() -> "AsyncIterator[TrailService]":
    from facescreen.services.presence import at_work
    from facescreen.services.trail import TrailService

    async with at_work(_settings().database_url) as (database, _):
        yield TrailService(database)


class _Place(click.ParamType["Head"]):
    """A place in the audit trail, as ``verify`` prints it."""

    name = "ID:HASH"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> "Head":
        from facescreen.domain.trail import Head

        id_, _, hash_ = value.partition(":")
        if not re.fullmatch("[0-9]{1,18}", id_) or not re.fullmatch("[0-9a-f]{64}", hash_):
            self.fail(f"{value!r} is not the id of an event, a colon, and its hash", param, ctx)
        return Head(int(id_), hash_)


_moment_option = partial(click.option, type=click.DateTime(), callback=lambda _context, _option, given: _in_utc(given))


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None else None


@audit.command("verify")
@click.option("--expect", type=_Place(), help="The last event that an earlier verification printed.")
@click.option("--file", type=click.File("r", "utf-8", errors="replace"), help="Verify an export instead.")
@_run
async def verify_trail(expect: "Head | None", file: TextIO | None) -> None:
    """Find out whether anything in the audit trail was changed, removed, moved or added. Exit status 1: it was.

    Whoever can write the whole database can write a whole new trail. Note the last event elsewhere, and give it with
    --expect the next time.
    """
    from facescreen.services.trail import verify_lines

    if file is not None:
        found = verify_lines(file, expect)
    else:
        async with _open_trail() as trail:
            found = await trail.verify(expect)
    if found.count:
        click.echo(f"events {found.first_id} to {found.last.id} fit, {found.count} in all")
        click.echo(f"last: {found.last.id}:{found.last.hash}")
    else:
        click.echo("no event fits" if found.misfit is not None else "there are no events")
    if found.misfit is not None:
        click.echo(f"event {found.misfit} does not fit: the trail was changed there")
        sys.exit(1)


@audit.command("export")
@_moment_option("--since", help="From the first event then or later on; UTC.")
@_moment_option("--until", help="Up to the first event then or later; UTC.")
@click.option("--output", type=click.File("w", "utf-8", atomic=True), default="-", help="Default: standard output.")
@_run
async def export_trail(since: datetime | None, until: datetime | None, output: TextIO) -> None:
    """Write the audit trail as JSON Lines, which `verify --file` can verify."""
    async with _open_trail() as trail:
        async for piece in await trail.export(since=since, until=until):
            output.write(piece)


@_command
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
async def backup(file: Path) -> None:
    """Write the database and all images into FILE, while the service works. Keys of encrypted data are not in it."""
    from facescreen.factory import open_backup

    async with open_backup(_settings()) as service:
        with _progress("images") as progress:
            report = await service.back_up(file, progress)
    for name in report.missing:
        click.echo(f"warning: {name} is missing here, and in the backup; see: facescreen audit", err=True)
    click.echo(f"{report.images} images, {report.size:,} bytes: {file}")


@_command
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Delete the data that there are.")
async def restore(file: Path, *, replace: bool) -> None:
    """Put the backup FILE in the place of the data, all of it or nothing. No service may be running."""
    from facescreen.factory import restoration

    with _progress("restore") as progress:
        manifest = await restoration(_settings()).restore(file, replace=replace, progress=progress)
    for missing in manifest.not_included:
        click.echo(f"warning: not in the backup: {missing}; run: facescreen audit", err=True)
    click.echo(f"restored what was here on {manifest.created_at:%Y-%m-%d %H:%M} UTC: {len(manifest.images)} images")


@_command
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
async def retention(dry_run: bool) -> None:  # noqa: FBT001 - given by click
    """Delete what has been kept for long enough, and entries that have expired. RETENTION_* say how long that is."""
    from facescreen.factory import open_services

    async with open_services(_settings()) as services:
        if dry_run:
            counts = await services.retention.due()
        else:
            with _progress("retention") as progress:
                counts = await services.retention.sweep(progress)
    for kind, count in counts.items():
        click.echo(f"{kind}: {count} {'due' if dry_run else 'deleted'}")


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


_LONGEST_SOURCE = 400
"""Characters; the database keeps 500 and the numbers of faces and photos are added."""


def _short(_context: click.Context, _option: click.Parameter, text: str) -> str:
    if len(text) > _LONGEST_SOURCE:
        raise click.BadParameter(f"it has {len(text)} characters; {_LONGEST_SOURCE} are the most")
    return text


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
@click.option(
    "--source", default="own photos", show_default=True, callback=_short, help="What the photos are; results name it."
)
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


@asynccontextmanager
async def _open_keys(settings: "Settings") -> AsyncIterator["KeyService"]:
    from facescreen.services.keys import KeyService
    from facescreen.services.presence import at_work

    async with at_work(settings.database_url) as (database, _):
        yield KeyService(database)


@cli.group()
def keys() -> None:
    """API keys. Running services take note of every change within a second."""


@keys.command("create")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="What the key may do. Repeatable; no scope includes another.",
)
@click.option("--label", default="", help="What the key is for.")
@click.option("--expires-days", type=click.IntRange(min=1, max=36500), help="Default: never.")
@_run
async def create_key(scopes: tuple[str, ...], *, label: str, expires_days: int | None) -> None:
    """Make a key, and print it: nobody can read it again."""
    expires_at = datetime.now(UTC) + timedelta(days=expires_days) if expires_days else None
    async with _open_keys(_settings()) as service:
        made = await service.create([Scope(scope) for scope in scopes], label=label, expires_at=expires_at)
    _print_key(made)


@keys.command("list")
@_run
async def list_keys() -> None:
    """Show every key that was ever made: its id, never the key itself."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    async with _open_keys(_settings()) as service:
        found = await service.all()
    table = Table("id", "state", "scopes", "created", "expires", "label")
    for key in found:
        scopes = " ".join(sorted(key.scopes))
        table.add_row(key.id, _state(key), scopes, _minute(key.created_at), _minute(key.expires_at), Text(key.label))
    Console().print(table)


@keys.command("rotate")
@click.argument("key_id", metavar="ID")
@click.option(
    "--grace",
    type=click.IntRange(min=0, max=525600),
    default=0,
    show_default=True,
    help="Minutes that the old key stays valid.",
)
@_run
async def rotate_key(key_id: str, *, grace: int) -> None:
    """Replace a key by a new one with the same label, scopes and end."""
    async with _open_keys(_settings()) as service:
        made = await service.rotate(key_id, grace=timedelta(minutes=grace))
    _print_key(made)


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@_run
async def revoke_key(key_id: str) -> None:
    """End a key."""
    async with _open_keys(_settings()) as service:
        key = await service.revoke(key_id)
    click.echo(f"{key.id} is revoked")


def _print_key(made: "NewKey") -> None:
    """The key alone goes to standard output, so that a script can take it."""
    click.echo(made.text)
    expiry = f", until {_minute(made.key.expires_at)}" if made.key.expires_at else ""
    click.echo(
        f"{made.key.id} may {', '.join(sorted(made.key.scopes))}{expiry}. Keep the key now: it is stored nowhere. "
        "Callers send it as `Authorization: Bearer <key>` or `X-API-Key: <key>`.",
        err=True,
    )


def _state(key: "ApiKey") -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "valid" if key.is_valid(datetime.now(UTC)) else "expired"


def _minute(at: datetime | None) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC") if at else ""


@cli.group()
def encryption() -> None:
    """Encryption at rest, with the keys in ENCRYPTION_KEY_DIR. Services may run meanwhile."""


@encryption.command("status")
@_run
async def encryption_status() -> None:
    """How much is encrypted, and with which master key. Reads every stored file."""
    from facescreen.factory import open_encryption

    async with open_encryption(_settings()) as service:
        _print_encryption(await service.status())


@encryption.command("apply")
@_run
async def apply_encryption() -> None:
    """Encrypt what was stored before the setting was."""
    from facescreen.factory import open_encryption

    async with open_encryption(_settings()) as service:
        with _progress("encrypted") as progress:
            status = await service.apply(progress)
    _print_encryption(status)


@encryption.command("rotate")
@_run
async def rotate_encryption() -> None:
    """Make a new master key, wrap every key with it, and remove the master key before it."""
    from facescreen.factory import open_encryption

    async with open_encryption(_settings()) as service:
        with _progress("keys") as progress:
            masters = await service.rotate(progress)
    click.echo(f"master key {masters.current} wraps all {sum(masters.wrapped.values())} keys")


def _print_encryption(status: "EncryptionStatus") -> None:
    for name, sealed in (
        ("embeddings", status.embeddings),
        ("clearances", status.clearances),
        *((f"files in {store}", sealed) for store, sealed in status.files.items()),
    ):
        click.echo(f"{name}: {sealed.count} of {sealed.total} encrypted")
    for master, count in status.masters.wrapped.items():
        state = "current" if master == status.masters.current else "left by a rotation; rotate again"
        click.echo(f"master key {master} wraps {count} keys ({state})")


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
