"""Commands that manage encryption at rest."""

from typing import TYPE_CHECKING

import click

from facescreen.cli.base import command_settings, coroutine, progress_bar, say

if TYPE_CHECKING:
    from facescreen.services.encryption import EncryptionStatus


@click.group()
def encryption() -> None:
    """Encryption at rest, with the keys in ENCRYPTION_KEY_DIR. Services may run meanwhile."""


@encryption.command("status")
@coroutine
async def encryption_status() -> None:
    """How much is encrypted, and with which master key. Reads every stored file."""
    from facescreen.factory import open_encryption

    async with open_encryption(command_settings()) as service:
        _print_encryption(await service.status())


@encryption.command("apply")
@coroutine
async def apply_encryption() -> None:
    """Encrypt what was stored before the setting was."""
    from facescreen.factory import open_encryption

    async with open_encryption(command_settings()) as service:
        with progress_bar("encrypted") as progress:
            status = await service.apply(progress)
    _print_encryption(status)


@encryption.command("rotate")
@coroutine
async def rotate_encryption() -> None:
    """Make a new master key, wrap every key with it, and remove the master key before it."""
    from facescreen.factory import open_encryption

    async with open_encryption(command_settings()) as service:
        with progress_bar("keys") as progress:
            masters = await service.rotate(progress)
    say(f"master key {masters.current} wraps all {sum(masters.wrapped.values())} keys")


def _print_encryption(status: "EncryptionStatus") -> None:
    for name, sealed in (
        ("embeddings", status.embeddings),
        ("clearances", status.clearances),
        *((f"files in {store}", sealed) for store, sealed in status.files.items()),
    ):
        say(f"{name}: {sealed.count} of {sealed.total} encrypted")
    for master, count in status.masters.wrapped.items():
        state = "current" if master == status.masters.current else "left by a rotation; rotate again"
        say(f"master key {master} wraps {count} keys ({state})")
