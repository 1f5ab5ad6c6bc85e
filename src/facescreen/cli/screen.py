"""The command that screens files."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facescreen.cli.base import DETECTOR, METRIC, cell, command_settings, coroutine, model_option, progress_bar, say

if TYPE_CHECKING:
    from facescreen.domain.screening import Screening

_IMAGES_AT_ONCE = 8


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
@click.option("--collection", help="The list. Default: the default one.")
@click.option("--detector", type=DETECTOR, help="Default: DETECTOR_BACKEND.")
@model_option
@click.option("--metric", type=METRIC, help="Default: DISTANCE_METRIC.")
@click.option("--threshold", type=float, help="Largest distance that matches. Default: chosen for the list.")
@click.option("--review-threshold", type=float, help="Largest distance that is possible. Default: chosen for the list.")
@coroutine
async def screen(paths: tuple[Path, ...], *, as_json: bool, collection: str | None, **chosen: Any) -> None:  # noqa: ANN401 - given by click
    """Screen image files and folders of them.

    Exit status 0: every image has faces, and all are clear; 1: somebody may match; 2: an image could not be screened;
    3: an image has no face, or one that cannot be compared.
    """
    from facescreen.domain.blacklist import DEFAULT_COLLECTION
    from facescreen.domain.screening import Outcome
    from facescreen.factory import open_services
    from facescreen.images.sources import SourceImage
    from facescreen.services.thresholds import ScreeningOptions

    files = [file for path in paths for file in _image_files(path)]
    options = ScreeningOptions(**chosen)
    results: list[Screening] = []
    async with open_services(command_settings()) as services:
        with progress_bar("images") as progress:
            for start in range(0, len(files), _IMAGES_AT_ONCE):
                progress(start, len(files))
                batch = [SourceImage(file.read_bytes(), str(file)) for file in files[start : start + _IMAGES_AT_ONCE]]
                results += await services.screening.screen(batch, options, collection=collection or DEFAULT_COLLECTION)
            progress(len(files), len(files))
    _print_screenings(results, as_json=as_json)
    outcomes = {result.outcome for result in results}
    if outcomes & {Outcome.MATCH, Outcome.POSSIBLE}:
        sys.exit(1)
    if None in outcomes:
        sys.exit(2)
    if outcomes != {Outcome.CLEAR}:
        sys.exit(3)


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
    from facescreen.services.explanation import explain

    if as_json:
        say(json.dumps([ProcessedImage.of(result).model_dump(mode="json") for result in results], indent=2))
        return
    table = Table("image", "face", "verdict", "who", "distance", "why")
    for result in results:
        name = cell(result.image_identifier)
        if result.error:
            table.add_row(name, "", "error", "", "", cell(f"{result.error.code}: {result.error.detail}"))
        elif not result.faces:
            why = f"faces from {result.smallest_face} pixels were looked for" if result.smallest_face else ""
            table.add_row(name, "", result.outcome, "", "", why)
        for index, face in enumerate(result.faces):
            if not face.alerts:
                table.add_row(name, str(index), face.verdict, "", "", cell(explain(face, result.policy)))
            for match in face.alerts:
                limit = f"{match.distance:.4f} ≤ {match.limit:.4f} {match.metric}"
                table.add_row(name, str(index), match.grade, cell(match.name), limit, cell(match.reason))
    Console().print(table)
