"""Where settings are written, ``.env`` and the environment, and whether every one that was meant for us is known."""

import codecs
import io
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path

from dotenv.parser import parse_stream

from facescreen.errors import StartupError
from facescreen.wording import nearest

_PRODUCT = "FACESCREEN_"
_OF_KUBERNETES = "FACESCREEN_PORT"
"""Kubernetes sets it in every container of a namespace that has a service of this name."""
_ENDPOINT_OF_AWS = "AWS_ENDPOINT_URL_"
"""AWS's libraries know one for every service, and many have names of two or three letters."""
_OF_OTHERS = {"AWS", "DEEPFACE"}
"""First words of our settings that other programs' variables have as well."""
_SHORTEST = 9
"""Letters of a variable of the environment that is compared: HOME is not meant to be HOST, nor LOGLEVEL LOG_LEVEL."""
_LONG = 12
"""Letters from which two may be wrong."""


def encoding_of(file: Path) -> str:
    """The encoding that ``.env`` is read in: UTF-8, or UTF-16 where it begins with the mark that Windows writes.

    Raises:
        StartupError: the file cannot be read, or its text is neither.
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise StartupError(f"{file} cannot be read: {error.strerror}") from None
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise StartupError(f"{file}, line {line}: the text is not UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        raise StartupError(f"{file}: the text is not UTF-8; save the file as UTF-8")
    return encoding


def require_known_lines(file: Path, encoding: str, known: Collection[str]) -> None:
    """Check the lines of ``.env``.

    Raises:
        StartupError: a line is no ``NAME=value``, or its name is no setting and begins like one or resembles one.
    """
    if not file.is_file():
        return
    for line in parse_stream(io.StringIO(file.read_text(encoding))):
        text = line.original.string
        blank_lines = text.count("\n", 0, len(text) - len(text.lstrip()))
        where = f"{file}, line {line.original.line + blank_lines}"
        if line.error or (line.key is not None and line.value is None):
            raise StartupError(f"{where}: must be NAME=value, or begin with #")
        meant = _meant(line.key, known) or _same_beginning(line.key, known) if line.key else None
        if meant:
            raise StartupError(f"{where}: there is no setting {line.key}; the nearest one is {meant}")


def require_known_variables(names: Iterable[str], known: Collection[str]) -> None:
    """Check the names of the environment.

    Raises:
        StartupError: one is a misspelt setting. Those that only begin like one are other programs'.
    """
    for name in names:
        if len(name) >= _SHORTEST and (meant := _meant(name, known)):
            raise StartupError(f"there is no setting {name}; the nearest one is {meant}")


def _meant(name: str, known: Collection[str]) -> str | None:
    """The setting that this name misspells."""
    spelled = name.upper().replace("-", "_")
    if name.upper() in known or spelled == _OF_KUBERNETES:
        return None
    bare = spelled.removeprefix(_PRODUCT)
    for setting in get_close_matches(bare, known, n=3, cutoff=0.7):
        most = 2 if len(setting) >= _LONG and not setting.startswith(_ENDPOINT_OF_AWS) else 1
        if _distance(bare, setting) <= most:
            return setting
    return None


def _same_beginning(name: str, known: Collection[str]) -> str | None:
    word, _, _ = name.upper().partition("_")
    if name.upper() in known or word in _OF_OTHERS:
        return None
    alike = [setting for setting in known if setting.partition("_")[0] == word]
    return nearest(name, alike) or next(iter(alike), None)


def _distance(one: str, other: str) -> int:
    """How many letters have to be put in, left out, replaced, or exchanged with the next one."""
    before_last: list[int] = []
    last = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        row = [i]
        for j, right in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (left != right))
            if i > 1 and j > 1 and one[i - 2] == right and other[j - 2] == left:
                cost = min(cost, before_last[j - 2] + 1)
            row.append(cost)
        before_last, last = last, row
    return last[-1]
