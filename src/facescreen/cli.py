"""The command line: each command parses, calls one service and prints."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click

from facescreen import __version__
from facescreen.errors import FacescreenError

# Everything heavy is imported inside of the command that needs it: `facescreen --help` must answer at once.
if TYPE_CHECKING:
    from facescreen.config import Settings
    from facescreen.domain.screening import Screening

P = ParamSpec("P")

_IMAGES_AT_ONCE = 8


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


class _ModelName(click.ParamType[str]):
    name = "model"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from typing import get_args

        from facescreen.config import ModelName

        if value not in get_args(ModelName):
            self.fail(f"{value!r} is none of {', '.join(get_args(ModelName))}", param, ctx)
        return value


_model_option = click.option("--model", type=_ModelName(), help="Default: MODEL_NAME.")


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
    """Screen image files and folders of them. Exit status 1: somebody matches; 2: an image could not be screened."""
    from facescreen.factory import open_services
    from facescreen.images.sources import SourceImage
    from facescreen.services.matching import ScreeningOptions

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
    if any(face.matches for result in results for face in result.faces):
        sys.exit(1)
    if any(result.error for result in results):
        sys.exit(2)


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


def _image_files(path: Path) -> Iterator[Path]:
    from facescreen.images.store import IMAGE_SUFFIXES

    if path.is_file():
        yield path
        return
    yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())


def _print_screenings(results: "list[Screening]", *, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from facescreen.api.schemas import ProcessedImage

    if as_json:
        click.echo(json.dumps([ProcessedImage.of(result).model_dump(mode="json") for result in results], indent=2))
        return
    table = Table("image", "face", "verdict", "who", "distance", "why")
    for result in results:
        name = result.image_identifier
        if result.error:
            table.add_row(name, "", "error", "", "", f"{result.error.code}: {result.error.detail}")
        elif not result.faces:
            table.add_row(name, "", "no face", "", "", "")
        for index, face in enumerate(result.faces):
            if not face.matches:
                table.add_row(name, str(index), face.verdict, "", "", "")
            for match in face.matches:
                limit = f"{match.distance:.4f} ≤ {match.threshold:.4f} {match.metric}"
                table.add_row(name, str(index), face.verdict, match.name, limit, match.reason)
    Console().print(table)


def main() -> None:
    """Entry point of the ``facescreen`` script."""
    cli()
