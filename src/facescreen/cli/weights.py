"""Commands that manage the weights of models."""

import sys

import click

from facescreen.cli.base import command_settings, progress_bar, say


@click.group()
def weights() -> None:
    """Weights of detectors and models on this machine."""


@weights.command("list")
def list_weights() -> None:
    """What is here, what is missing, and the command that brings it."""
    from rich.console import Console
    from rich.table import Table

    from facescreen.recognition.catalog import DETECTORS, MODELS
    from facescreen.recognition.weights import WeightStore

    store = WeightStore(command_settings().deepface_home)
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

    store = WeightStore(command_settings().deepface_home)
    for name in names:
        try:
            with progress_bar(name) as progress:
                for file in store.pull(name, lambda _file, done, total: progress(done, total or 0)):
                    say(f"{name}: {file}")
        except KeyError:
            say(f"facescreen: no detector or model is named {name}; see: facescreen weights list", err=True)
            sys.exit(2)
