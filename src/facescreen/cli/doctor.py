"""The command that checks the list of people."""

import json
import sys
from typing import TYPE_CHECKING

import click

from facescreen.cli.base import cell, command_settings, coroutine, progress_bar, say

if TYPE_CHECKING:
    from facescreen.domain.list_report import ListReport


@click.command()
@click.option("--collection", help="Default: every collection.")
@click.option("--limit", type=click.IntRange(min=1, max=1000), default=20, show_default=True, help="Of each kind.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of tables.")
@coroutine
async def doctor(collection: str | None, limit: int, as_json: bool) -> None:  # noqa: FBT001 - given by click
    """Check the list: people twice, photos of somebody else, look-alikes, weak photos, expected false alerts.

    Exit status 1: a person is on the list twice, photos of one entry disagree, or an entry has no usable photo, or
    a file in the blacklist folder is on no list though it is neither hidden nor in a recycle bin.
    """
    from facescreen.factory import open_services

    reports: list[ListReport] = []
    async with open_services(command_settings()) as services:
        names = [collection] if collection else [found.name for found in await services.collections.all()]
        for name in names:
            with progress_bar(name) as progress:
                reports.append(await services.report.report(name, limit=limit, progress=progress))
    _print_reports(reports, as_json=as_json)
    if any(report.is_urgent for report in reports):
        sys.exit(1)


def _print_reports(reports: "list[ListReport]", *, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from facescreen.api.schemas import ListReportRecord

    if as_json:
        say(json.dumps([ListReportRecord.of(report).model_dump(mode="json") for report in reports], indent=2))
        return
    for report in reports:
        say(
            f"collection {report.collection}, version {report.version}: {report.entries} entries, "
            f"{report.photos} photos, {report.not_measured} of them without measured quality"
        )
        policy = report.policy
        say(
            f"{report.model_name}, {report.metric}: one person up to {policy.threshold:.4g}, "
            f"look-alikes up to {policy.review_threshold:.4g}"
        )
        if report.false_alerts_per_1000 is not None and report.review_false_alerts_per_1000 is not None:
            say(
                f"of 1,000 faces of nobody on the list, {report.false_alerts_per_1000:.3g} will match and "
                f"{report.review_false_alerts_per_1000:.3g} will match or be possible"
            )
        say(f"evidence: {report.evidence}")
        for code, total in report.totals.items():
            say(f"{code}: {'not available' if total is None else total}")
        if report.findings:
            table = Table("finding", "photos", "what to do")
            for finding in report.findings:
                photos = "\n".join(f"{photo.id} {photo.photo}" for photo in finding.photos)
                # Names are people's, and may look like markup.
                table.add_row(finding.code, cell(photos), cell(finding.detail))
            Console().print(table)
        for rejected in report.left_out:
            say(f"on no list: {rejected.file}: {rejected.detail} ({rejected.code})")
