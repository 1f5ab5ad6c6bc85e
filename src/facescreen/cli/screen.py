"""The command that screens files."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facescreen.cli.base import (
    DETECTOR,
    METRIC,
    cell,
    command_settings,
    coroutine,
    model_option,
    progress_bar,
    say,
    say_json,
)
from facescreen.errors import FolderWithoutPhotosError, HiddenFileError, RecycleBinError

if TYPE_CHECKING:
    from facescreen.domain.screening import Screening
    from facescreen.errors import RejectedFile
    from facescreen.images.sources import SourceImage

_IMAGES_AT_ONCE = 8
_LEFT_OUT_ON_PURPOSE = {HiddenFileError.code, RecycleBinError.code, FolderWithoutPhotosError.code}


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
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

    Exit status 0: every image has faces, and all are clear; 1: somebody may match; 2: an image could not be screened,
    a file is none, or there is nothing to screen; 3: an image has no face, or one that cannot be compared.
    """
    from facescreen.domain.blacklist import DEFAULT_COLLECTION
    from facescreen.domain.screening import Outcome
    from facescreen.factory import open_services
    from facescreen.services.thresholds import ScreeningOptions

    settings = command_settings()
    files, left_out = _survey(paths)
    options = ScreeningOptions(**chosen)
    results: list[Screening] = []
    async with open_services(settings) as services:
        within = await services.collections.get(collection or DEFAULT_COLLECTION)
        with progress_bar("images") as progress:
            for start in range(0, len(files), _IMAGES_AT_ONCE):
                progress(start, len(files))
                some = files[start : start + _IMAGES_AT_ONCE]
                batch = list(_read(some, left_out, max_bytes=settings.max_image_bytes))
                results += await services.screening.screen(batch, options, collection=within.name)
            progress(len(files), len(files))
    for rejected in left_out:
        say(f"not screened: {rejected.file}: {rejected.detail} ({rejected.code})", err=True)
    _print_screenings(results, as_json=as_json)
    outcomes = {result.outcome for result in results}
    if outcomes & {Outcome.MATCH, Outcome.POSSIBLE}:
        sys.exit(1)
    if None in outcomes or any(each.code not in _LEFT_OUT_ON_PURPOSE for each in left_out):
        sys.exit(2)
    if outcomes != {Outcome.CLEAR}:
        sys.exit(3)


def _survey(paths: Sequence[Path]) -> "tuple[list[Path], list[RejectedFile]]":
    """The files that are named, those in the named folders that begin like pictures, and what else lies there.

    Raises:
        NothingToScreenError: a path does not exist, or there is no such file at all.
    """
    from facescreen.errors import NothingToScreenError
    from facescreen.images.survey import photos_below

    files: list[Path] = []
    left_out: list[RejectedFile] = []
    for path in paths:
        if not path.exists():
            raise NothingToScreenError(f"there is no file or folder {str(path)!r}")
        if path.is_dir():
            found = photos_below(path)
            files += [path / name for name in found.files]
            left_out += [replace(rejected, file=str(path / rejected.file)) for rejected in found.left_out]
        else:
            files.append(path)
    if not files:
        others = f"; {len(left_out)} others lie there, such as {left_out[0].file!r}" if left_out else ""
        raise NothingToScreenError(f"nothing to screen: no image in {', '.join(map(repr, map(str, paths)))}{others}")
    return files, left_out


def _read(files: Sequence[Path], left_out: "list[RejectedFile]", *, max_bytes: int) -> "Iterator[SourceImage]":
    """The images, none with more than a byte too many; what cannot be read is added to what is left out."""
    from facescreen.errors import PhotoUnreadableError, RejectedFile
    from facescreen.images.sources import SourceImage

    for path in files:
        try:
            with path.open("rb") as file:
                yield SourceImage(file.read(max_bytes + 1), str(path))
        except OSError as error:
            left_out.append(RejectedFile(str(path), PhotoUnreadableError.code, f"cannot be read: {error.strerror}"))


def _print_screenings(results: "list[Screening]", *, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from facescreen.api.schemas import ProcessedImage
    from facescreen.services.explanation import explain

    if as_json:
        say_json([ProcessedImage.of(result).model_dump(mode="json") for result in results])
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
