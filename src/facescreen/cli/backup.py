"""Commands that save the data and bring them back."""

from pathlib import Path

import click

from facescreen.cli.base import command_settings, coroutine, progress_bar, say


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@coroutine
async def backup(file: Path) -> None:
    """Write the database and all images into FILE, while the service works. Keys of encrypted data are not in it."""
    from facescreen.factory import open_backup

    async with open_backup(command_settings()) as service:
        with progress_bar("images") as progress:
            report = await service.back_up(file, progress)
    for name in report.missing:
        say(f"warning: {name} is missing here, and in the backup; see: facescreen audit", err=True)
    say(f"{report.images} images, {report.size:,} bytes: {file}")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Delete the data that there are.")
@coroutine
async def restore(file: Path, *, replace: bool) -> None:
    """Put the backup FILE in the place of the data, all of it or nothing. No service may be running."""
    from facescreen.factory import restoration

    with progress_bar("restore") as progress:
        manifest = await restoration(command_settings()).restore(file, replace=replace, progress=progress)
    for missing in manifest.not_included:
        say(f"warning: not in the backup: {missing}; run: facescreen audit", err=True)
    say(f"restored what was here on {manifest.created_at:%Y-%m-%d %H:%M} UTC: {len(manifest.images)} images")
