"""Commands that keep the list and the results in order."""

from typing import Any

import click

from facescreen.cli.base import command_settings, coroutine, model_option, progress_bar, say


@click.command()
@coroutine
async def sync() -> None:
    """Enroll photos that were put into the blacklist folder, withdraw those that were removed from it."""
    from facescreen.factory import open_services

    async with open_services(command_settings()) as services:
        with progress_bar("photos") as progress:
            report = await services.sync.sync(progress)
    for skipped in report.skipped:
        say(f"skipped {skipped.file}: {skipped.detail} ({skipped.code})")
    for warning in report.warnings:
        say(f"warning {warning.photo.name}: {warning.detail} ({warning.code})")
    say(
        f"{len(report.added)} added, {len(report.withdrawn)} withdrawn, {len(report.skipped)} skipped, "
        f"{report.unchanged} unchanged"
    )


@click.command()
@model_option
@coroutine
async def reindex(model: Any) -> None:  # noqa: ANN401 - click has checked it against the model names
    """Compute the embeddings that stored reference photos lack for a model."""
    from facescreen.factory import open_services

    settings = command_settings()
    async with open_services(settings) as services:
        if services.reindex is None:
            raise click.UsageError("Rekognition keeps the faces; there are no embeddings to compute")
        with progress_bar("photos") as progress:
            report = await services.reindex.reindex(model or settings.model_name, progress)
    for image in report.unreadable:
        say(f"the photo of reference image {image.id} cannot be read")
    say(f"{report.embedded} photos embedded, {len(report.unreadable)} unreadable")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@coroutine
async def retention(dry_run: bool) -> None:  # noqa: FBT001 - given by click
    """Delete what has been kept for long enough, and entries that have expired. RETENTION_* say how long that is."""
    from facescreen.factory import open_services

    async with open_services(command_settings()) as services:
        if dry_run:
            counts = await services.retention.due()
        else:
            with progress_bar("retention") as progress:
                counts = await services.retention.sweep(progress)
    for kind, count in counts.items():
        say(f"{kind}: {count} {'due' if dry_run else 'deleted'}")
