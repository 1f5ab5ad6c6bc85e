"""Commands that check what is stored, and what was done."""

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TextIO

import click

from facescreen.cli.base import command_settings, coroutine, say

if TYPE_CHECKING:
    from facescreen.domain.trail import Head
    from facescreen.services.trail import TrailService


@click.group(invoke_without_command=True)
@click.option("--fix", is_flag=True, help="Repair what can be repaired.")
@click.pass_context
def audit(context: click.Context, fix: bool) -> None:  # noqa: FBT001 - given by click
    """Compare the database with the stored files and with Rekognition. Exit status 1: something does not fit.

    The commands are about the audit trail, which says who did what.
    """
    if context.invoked_subcommand is None:
        _audit(fix=fix)


@coroutine
async def _audit(*, fix: bool) -> None:
    from facescreen.factory import open_services
    from facescreen.services.audit import FindingKind

    found = repaired = foreign = 0
    async with open_services(command_settings()) as services:
        async for finding in services.audit.audit(fix=fix):
            found += 1
            repaired += finding.repaired
            foreign += finding.kind is FindingKind.FOREIGN
            state = " (repaired)" if finding.repaired else ""
            say(f"{finding.kind} in {finding.where}: {finding.subject}{state}")
    say(f"{found} findings, {repaired} repaired, {foreign} not ours")
    if found > repaired + foreign:
        sys.exit(1)


@asynccontextmanager
async def _open_trail() -> "AsyncIterator[TrailService]":
    from facescreen.services.presence import at_work
    from facescreen.services.trail import TrailService

    async with at_work(command_settings().database_url) as (database, _):
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
@coroutine
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
        say(f"events {found.first_id} to {found.last.id} fit, {found.count} in all")
        say(f"last: {found.last.id}:{found.last.hash}")
    else:
        say("no event fits" if found.misfit is not None else "there are no events")
    if found.misfit is not None:
        say(f"event {found.misfit} does not fit: the trail was changed there")
        sys.exit(1)


@audit.command("export")
@_moment_option("--since", help="From the first event then or later on; UTC.")
@_moment_option("--until", help="Up to the first event then or later; UTC.")
@click.option("--output", type=click.File("w", "utf-8", atomic=True), default="-", help="Default: standard output.")
@coroutine
async def export_trail(since: datetime | None, until: datetime | None, output: TextIO) -> None:
    """Write the audit trail as JSON Lines, which `verify --file` can verify."""
    async with _open_trail() as trail:
        async for piece in await trail.export(since=since, until=until):
            output.write(piece)
