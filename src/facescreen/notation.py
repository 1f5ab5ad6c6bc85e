"""How paths, hosts, origins and addresses may be written in a setting; every function raises ``ValueError``."""

import json
import re
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

_SQLITE = re.compile(r"sqlite(?:\+[a-z]+)?:///(?P<file>.+)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:/")
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_\-]{1,63}(?:\.[A-Za-z0-9_\-]{1,63})*\.?")
_WITH_PORT = re.compile(r"(?P<host>\[[^\]]+\]|[^:]+):(?P<port>[0-9]{1,5})")
_ORIGIN = re.compile(r"(?P<origin>(?P<scheme>[a-z][a-z0-9+.\-]*)://[^/?#@\s]+)/?", re.ASCII)
_MAX_PORT = 65_535


def bare(text: str) -> str:
    """The text without blanks around it, and without the quotes that some programs leave around a value."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def parts(text: object) -> object:
    """The parts of a list: separated by commas, or as JSON has it."""
    if not isinstance(text, str):
        return text
    if text.startswith("["):
        try:
            listed = json.loads(text)
        except json.JSONDecodeError:
            if re.match(r"\[\s*[\"']", text):
                raise ValueError("must be separated by commas, without brackets") from None
        else:
            if not all(isinstance(part, str) for part in listed):
                raise ValueError("must be separated by commas, without brackets")
            return tuple(listed)
    return tuple(part for each in text.split(",") if (part := bare(each)))


def named(value: object) -> object:
    """The path as it was given, unless it is empty, which would be the working directory."""
    if value == "":
        raise ValueError("must name a folder")
    return value


def folder(path: Path) -> Path:
    """The path of a folder, with ``~`` as the home that it stands for."""
    text = str(path)
    if _SCHEME.match(text):
        raise ValueError("must be the path of a folder on this machine, not an address")
    if text.startswith(("$", "%")):
        raise ValueError("must be a path; variables such as $HOME are not replaced in it")
    return _at_home(path)


def database(text: str) -> str:
    """SQLAlchemy's URL of an SQLite file, which may be given as a path or with another driver's name."""
    described = _SQLITE.fullmatch(text)
    file = described["file"] if described else text
    if not file or file.startswith(":memory:") or (not described and ("://" in text or text.startswith("sqlite"))):
        raise ValueError("must be the path of an SQLite file, or sqlite+aiosqlite:///<path>")
    return f"sqlite+aiosqlite:///{_at_home(Path(file)) if file.startswith('~') else file}"


def bound_host(text: str) -> str:
    """A host name or an address that a server can bind."""
    return _host(text, "must be a host name or an address, without http:// and without a port, which PORT gives")


def host_and_port(text: str) -> str:
    """``host`` or ``host:port``, in small letters."""
    wanted = (
        "must be <host> or <host>:<port>, without http://, path, mask and wildcard, "
        "and international names in their xn-- form"
    )
    match = _WITH_PORT.fullmatch(text)
    if match is None:
        return _host(text, wanted)
    if not 1 <= int(match["port"]) <= _MAX_PORT:
        raise ValueError(f"must have a port from 1 to {_MAX_PORT}")
    host = _host(match["host"], wanted)
    return f"[{host}]:{match['port']}" if ":" in host else f"{host}:{match['port']}"


def origin(text: str) -> str:
    """An origin as browsers send it, without the port that its scheme has; or ``*``, or ``null``."""
    if text in {"*", "null"}:
        return text
    match = _ORIGIN.fullmatch(text.lower())
    if match is None:
        raise ValueError(
            "must be origins such as https://gate.example.com, with http:// or https:// and without a path"
        )
    return match["origin"].removesuffix({"http": ":80", "https": ":443"}.get(match["scheme"], "\0"))


def web_address(text: str) -> str:
    """An http or https URL."""
    try:
        address = urlsplit(text)
        is_whole = address.scheme in {"http", "https"} and address.hostname and address.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or "@" in text or not re.fullmatch(r"[!-~]+", text):
        raise ValueError("must be an address such as http://127.0.0.1:9000, without a user and a password")
    return text


def rate(text: str) -> str:
    """So many requests in so much time, or nothing for any number."""
    if not re.fullmatch(r"([1-9][0-9]{0,8}/(second|minute|hour|day))?", text):
        raise ValueError("must be such as 6000/minute: a number, and second, minute, hour or day")
    return text


def bucket(text: str) -> str:
    """The name of a bucket."""
    if _SCHEME.match(text):
        raise ValueError("must be the name of the bucket, not its address")
    return text


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("begins with ~ and no home folder is known for it; give the whole path") from None


def _host(text: str, wanted: str) -> str:
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        ip_address(inner)
    except ValueError:
        if not _HOST_NAME.fullmatch(text):
            raise ValueError(wanted) from None
        return text.lower()
    return inner.lower()
