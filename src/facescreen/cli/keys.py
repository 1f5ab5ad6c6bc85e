"""Commands that manage API keys."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from facescreen.cli.base import cell, command_settings, coroutine, say
from facescreen.domain.access import Scope

if TYPE_CHECKING:
    from facescreen.config import Settings
    from facescreen.domain.access import ApiKey
    from facescreen.services.keys import KeyService, NewKey


@asynccontextmanager
async def open_keys(settings: "Settings") -> AsyncIterator["KeyService"]:
    """The keys, without the rest of the service."""
    from facescreen.services.keys import KeyService
    from facescreen.services.presence import at_work

    async with at_work(settings.database_url) as (database, _):
        yield KeyService(database)


@click.group()
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
@coroutine
async def create_key(scopes: tuple[str, ...], *, label: str, expires_days: int | None) -> None:
    """Make a key, and print it: nobody can read it again."""
    expires_at = datetime.now(UTC) + timedelta(days=expires_days) if expires_days else None
    async with open_keys(command_settings()) as service:
        made = await service.create([Scope(scope) for scope in scopes], label=label, expires_at=expires_at)
    _print_key(made)


@keys.command("list")
@coroutine
async def list_keys() -> None:
    """Show every key that was ever made: its id, never the key itself."""
    from rich.console import Console
    from rich.table import Table

    async with open_keys(command_settings()) as service:
        found = await service.all()
    table = Table("id", "state", "scopes", "created", "expires", "label")
    for key in found:
        scopes = " ".join(sorted(key.scopes))
        table.add_row(key.id, _state(key), scopes, _minute(key.created_at), _minute(key.expires_at), cell(key.label))
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
@coroutine
async def rotate_key(key_id: str, *, grace: int) -> None:
    """Replace a key by a new one with the same label, scopes and end."""
    async with open_keys(command_settings()) as service:
        made = await service.rotate(key_id, grace=timedelta(minutes=grace))
    _print_key(made)


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@coroutine
async def revoke_key(key_id: str) -> None:
    """End a key."""
    async with open_keys(command_settings()) as service:
        key = await service.revoke(key_id)
    say(f"{key.id} is revoked")


def _print_key(made: "NewKey") -> None:
    """The key alone goes to standard output, so that a script can take it."""
    say(made.text)
    expiry = f", until {_minute(made.key.expires_at)}" if made.key.expires_at else ""
    say(
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
