"""What the commands share."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import click

from facescreen.domain.names import escaped

if TYPE_CHECKING:
    from rich.text import Text

    from facescreen.config import Settings

P = ParamSpec("P")


def coroutine(function: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """What runs a coroutine to its end, or until SIGTERM; then it cleans up, and the exit status is 143."""

    async def until_terminated(*args: P.args, **kwargs: P.kwargs) -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None  # noqa: S101 - this one
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            await function(*args, **kwargs)
        finally:
            loop.remove_signal_handler(signal.SIGTERM)

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            asyncio.run(until_terminated(*args, **kwargs))
        except asyncio.CancelledError:
            sys.exit(128 + signal.SIGTERM)

    return run


def command_settings() -> "Settings":
    """The settings, with a log that keeps to warnings."""
    from facescreen.config import load_settings
    from facescreen.logs import configure_logs

    settings = load_settings()
    configure_logs("warning")
    return settings


def say(text: str, *, err: bool = False) -> None:
    """Print a line on which no terminal obeys what somebody wrote into a name."""
    click.echo(escaped(text), err=err)  # noqa: TID251 - the only echo


def cell(text: str) -> "Text":
    """The same for a cell of a table, where it is no markup either."""
    from rich.text import Text

    return Text(escaped(text))


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """On standard error, moved by what is yielded: call it with how many are done, and of how many."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _NameIn(click.ParamType[str]):
    """One of the names that a literal type of the settings lists, which is loaded when a name is given.

    Args:
        literal: the name of the type in ``facescreen.config``.
    """

    def __init__(self, name: str, literal: str) -> None:
        self.name = name
        self._literal = literal

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from typing import get_args

        from facescreen import config

        names: tuple[str, ...] = get_args(getattr(config, self._literal))
        if value not in names:
            self.fail(f"{value!r} is none of {', '.join(names)}", param, ctx)
        return names[names.index(value)]


MODEL = _NameIn("model", "ModelName")
DETECTOR = _NameIn("detector", "DetectorName")
METRIC = _NameIn("metric", "EmbeddingMetric")

model_option = click.option("--model", type=MODEL, help="Default: MODEL_NAME.")
