"""What a caller names an image by, to bytes: server path, http(s) URL, data URL, bare base64."""

import asyncio
import binascii
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from urllib.parse import unquote_to_bytes

from facescreen.errors import ImageTooLargeError, InvalidBase64Error, PathNotAllowedError, UrlNotAllowedError
from facescreen.images.beneath import open_beneath
from facescreen.images.decode import format_of
from facescreen.images.fetch import ONLY_HTTP, Fetcher
from facescreen.lifeline import require_wanted

MAX_PATH_LENGTH = 4_096
"""Longest text that can be a path (Linux ``PATH_MAX``)."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{1,30}):")
_NO_USER = re.compile(r"(https?|ftp):[/\\]+", re.IGNORECASE)
"""What a URL begins with; before another colon may be a user."""
_SIGNATURES = (
    b"%PDF",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"Rar!",
    b"7z\xbc\xaf",
    b"OggS",
    b"ID3",
    b"\x1aE\xdf\xa3",
    b"MZ\x90\0",
)
"""What files begin with that are taken for pictures: documents, archives, films, sounds and programs."""
_SHORTEST_TEXT = 12
"""Bytes of a text that no path decodes to by chance."""
_WHITESPACE = b" \t\r\n\f\v"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True, slots=True)
class SourceImage:
    """The encoded image, not yet decoded, and what the caller can recognize it by (see ``describe``)."""

    data: bytes
    identifier: str


class _Kind(Enum):
    DATA_URL = auto()
    BASE64 = auto()
    URL = auto()
    OTHER_URL = auto()
    PATH = auto()


class ImageSources:
    """Reads images from wherever callers may name them.

    Args:
        roots: folders whose files may be named by path; relative ones are below the working directory. Empty: none may.
        fetcher: downloads URLs.
        max_bytes: largest encoded image.
    """

    def __init__(self, *, roots: Sequence[Path], fetcher: Fetcher, max_bytes: int) -> None:
        # Lexically, here and below: resolving links would follow them before `open_beneath` can refuse to.
        self._roots = [Path(os.path.abspath(root)) for root in roots]  # noqa: PTH100
        self._working_directory = Path.cwd()
        self._fetcher = fetcher
        self._max_bytes = max_bytes

    async def read(self, source: str) -> SourceImage:
        """The bytes that the source stands for; whether they are an image is the decoder's question.

        A text with a dot of at most ``MAX_PATH_LENGTH`` characters is a path, for a slash proves nothing: the base64 of
        every JPEG begins with ``/9j/``. Otherwise it is base64 if it is longer than that, ends in ``=``, or decodes to
        the beginning of an image or another file, or to a text; and a path if not. Base64 may be of either alphabet,
        wrapped and unpadded.

        Raises:
            UrlNotAllowedError, FetchFailedError, FetchTimeoutError: see ``Fetcher.fetch``; the first also for a URL of
                any scheme but http, https and data. A text with a colon and without ``://`` is a path.
            PathNotAllowedError: path input is off, or the path is no readable regular file inside a root, or a link is
                on its way.
            InvalidBase64Error: neither of the others, and no base64.
            ImageTooLargeError: more bytes than ``max_bytes``.
        """
        require_wanted()
        text = source.strip()
        match _kind(text):
            case _Kind.URL:
                return SourceImage(await self._fetcher.fetch(text), describe(text))
            case _Kind.OTHER_URL:
                raise UrlNotAllowedError(ONLY_HTTP)
            case _Kind.PATH:
                return SourceImage(await asyncio.to_thread(self._read_path, text), describe(text))
            case _:
                data = await asyncio.to_thread(_inline, text, self._max_bytes)
                return SourceImage(data, _digest(data))

    def _read_path(self, text: str) -> bytes:
        if not self._roots:
            raise PathNotAllowedError("server paths are switched off; the setting IMAGE_INPUT_ROOTS turns them on")
        for root, parts in self._below_roots(text):
            try:
                with open_beneath(root, parts) as file:
                    data = file.read(self._max_bytes + 1)
            except (OSError, ValueError):
                continue
            return _limited(data, self._max_bytes)
        raise PathNotAllowedError(
            "the text is neither an image in base64 nor the path of a readable file inside IMAGE_INPUT_ROOTS"
        )

    def _below_roots(self, text: str) -> Iterator[tuple[Path, tuple[str, ...]]]:
        """Every file inside a root that the path may mean: a root's name may begin it wherever the root is."""
        for root in self._roots:
            for base in dict.fromkeys((self._working_directory, root.parent)):
                target = Path(os.path.abspath(base / text))  # noqa: PTH100
                if target != root and target.is_relative_to(root):
                    yield root, target.relative_to(root).parts


def uploaded(name: str | None, data: bytes) -> SourceImage:
    """An image that came as a file. It is known by the file's name, or as inline data if it has none."""
    return SourceImage(data, printable(name[:MAX_PATH_LENGTH]) if name else _digest(data))


def describe(source: str) -> str:
    """What stands for the source in answers and records, whether or not it could be read.

    A path as it was given; a URL without query and fragment and whatever may be a user or a password, which may be
    secret; ``sha256:`` and 16 hex digits for inline data (of the text itself where it does not decode). Unprintable
    characters are replaced, and no more than ``MAX_PATH_LENGTH`` are kept.
    """
    text = source.strip()
    match _kind(text):
        case _Kind.DATA_URL | _Kind.BASE64:
            try:
                return _digest(_inline(text))
            except InvalidBase64Error:
                return _digest(text.encode(errors="surrogatepass"))
        case _Kind.URL | _Kind.OTHER_URL:
            text = re.split(r"[?#]", _anonymous(text), maxsplit=1)[0]
        case _Kind.PATH:
            text = _anonymous(text)
    return printable(text[:MAX_PATH_LENGTH])


def _anonymous(text: str) -> str:
    """The text without what may be user information, also of a URL that is none: nobody escapes what he pastes.

    That is all up to the last at sign, unless it has no colon and is a path, or a dotted host with one.
    """
    begin = scheme[0] if (scheme := _NO_USER.match(text)) else ""
    before, at, after = text.removeprefix(begin).rpartition("@")
    host, *path = re.split(r"[/\\?#]", before, maxsplit=1)
    is_host = bool(path) and "." in host and "@" not in host
    return begin + after if ":" in before or (begin and at and not is_host) else text


def printable(text: str) -> str:
    """The text as it can be shown, stored and encoded: what is not printable, as lone surrogates, is replaced."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _kind(text: str) -> _Kind:
    if scheme := _SCHEME.match(text):
        named = {"data": _Kind.DATA_URL, "http": _Kind.URL, "https": _Kind.URL}
        kind = named.get(scheme[1].lower(), _Kind.OTHER_URL if "://" in text else None)
        if kind is not None:  # else a path with a colon
            return kind
    if len(text) > MAX_PATH_LENGTH or not text:
        return _Kind.BASE64
    if "." in text:
        return _Kind.PATH
    try:
        data = _inline(text)
    except InvalidBase64Error:
        return _Kind.PATH
    return _Kind.BASE64 if format_of(data) or text.endswith("=") or _is_of_a_file(data) else _Kind.PATH


def _is_of_a_file(data: bytes) -> bool:
    """Whether the bytes begin as those of files that are no pictures, or are a text. A path decodes to neither."""
    if data.startswith(_SIGNATURES):
        return True
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return len(text) >= _SHORTEST_TEXT and all(character.isprintable() or character.isspace() for character in text)


def _inline(text: str, max_bytes: int | None = None) -> bytes:
    """The bytes of a data URL or of bare base64."""
    raw = text.encode(errors="replace")
    if text[:5].lower() == "data:":
        header, comma, payload = raw.partition(b",")
        if not comma:
            raise InvalidBase64Error("the data URL has no comma")
        raw = unquote_to_bytes(payload)
        if not header.rstrip().lower().endswith(b";base64"):
            return _limited(raw, max_bytes)
    raw = raw.translate(_URL_SAFE, delete=_WHITESPACE).rstrip(b"=")
    if max_bytes is not None and len(raw) * 3 // 4 > max_bytes:
        raise _too_large(max_bytes)
    try:
        data = binascii.a2b_base64(raw + b"=" * (-len(raw) % 4), strict_mode=True)
    except binascii.Error:
        data = b""
    if not data:
        raise InvalidBase64Error("the text is neither base64, a data URL, an http(s) URL nor a path")
    return data


def _limited(data: bytes, max_bytes: int | None) -> bytes:
    if max_bytes is not None and len(data) > max_bytes:
        raise _too_large(max_bytes)
    return data


def _too_large(max_bytes: int) -> ImageTooLargeError:
    return ImageTooLargeError(f"the image has more than {max_bytes:,} bytes")


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()[:16]}"
