"""The command line: each command parses, calls one service and prints.

Everything heavy is imported inside of the command that needs it: ``facescreen --help`` must answer at once.
"""

import sys

import click

from facescreen import __version__
from facescreen.acting import COMMAND, actor
from facescreen.cli import audit, backup, doctor, encryption, keys, measure, screen, service, upkeep, weights
from facescreen.cli.base import say
from facescreen.errors import FacescreenError


class _Group(click.Group):
    """Turns our own errors, of whichever command, into one line and exit status 2."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except FacescreenError as error:
            say(f"facescreen: {error}", err=True)
            sys.exit(2)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    commands=[
        audit.audit,
        backup.backup,
        backup.restore,
        doctor.doctor,
        encryption.encryption,
        keys.keys,
        measure.calibrate,
        measure.evaluate,
        screen.screen,
        service.config,
        service.migrate,
        service.openapi,
        service.serve,
        upkeep.reindex,
        upkeep.retention,
        upkeep.sync,
        weights.weights,
    ],
)
@click.version_option(__version__)
def cli() -> None:
    """Face recognition and blacklist screening. Settings come from the environment or from .env."""
    actor.set(COMMAND)


def main() -> None:
    """Entry point of the ``facescreen`` script."""
    cli()
