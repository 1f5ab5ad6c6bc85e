"""Structured logs: one JSON object per line, and never anything that identifies a person.

Messages are constant event names; what varies goes into ``extra`` under one of the field names below. A field that is
not listed is not written, so a name, an embedding or an address cannot slip in with a careless call. Of what libraries
log, only the place is written: they quote addresses, file names and exceptions.
"""

import json
import logging
import os
import sys
import threading
import warnings
from datetime import UTC, datetime
from typing import TextIO

logger = logging.getLogger(__name__)

_FIELDS = (
    "request_id",
    "method",
    "route",
    "status",
    "milliseconds",
    "store",
    "files",
    "results",
    "done",
    "total",
    "added",
    "withdrawn",
    "skipped",
    "warnings",
    "code",
    "reference_image_id",
    "detector",
    "model",
    "entries",
    "reference_images",
    "list_version",
    "at",
)


_STANDARD_ERROR = 2
_PIPE_BYTES = 1 << 16

_SERVER = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class JsonFormatter(logging.Formatter):
    """Time, level, logger, event and the listed extra fields; of an exception its type and where it was raised."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if _is_harmless(record):
            line["event"] = record.getMessage()
        else:
            line["event"] = "message_withheld"
            line["at"] = [f"{record.filename}:{record.lineno} {record.funcName}"]
        line.update({name: getattr(record, name) for name in _FIELDS if hasattr(record, name)})
        if record.exc_info and record.exc_info[0]:
            # Messages of foreign exceptions may quote their input; the place they come from does not.
            line["exception"] = record.exc_info[0].__name__
            line["at"] = _frames(record)
        return json.dumps(line, default=str)


def set_libraries_apart() -> None:
    """Keep what C libraries write to standard error out of the log; an event says that there was something.

    libjpeg remarks there on damaged pictures, TensorFlow on the machine, both past Python. The log, and whatever else
    Python writes to ``sys.stderr``, goes on to this process's standard error. Call it before :func:`configure_logs`; a
    server may make its application twice.
    """
    if sys.stderr.fileno() != _STANDARD_ERROR:
        return
    sys.stderr = os.fdopen(os.dup(_STANDARD_ERROR), "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    reading, writing = os.pipe()
    # A library that holds the GIL must never wait for the thread that reads: what does not fit is dropped.
    os.set_blocking(writing, False)
    os.dup2(writing, _STANDARD_ERROR)
    os.close(writing)
    threading.Thread(target=_note_output, args=(reading,), name="library output", daemon=True).start()


def configure_logs(level: str) -> None:
    """Send this process's logs to standard error in one format, third-party libraries from warnings up.

    Whatever the server was told about its logs is undone; its access log, which holds whole URLs, is ours.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("facescreen").setLevel(level.upper())
    for name in _SERVER:
        server = logging.getLogger(name)
        server.handlers.clear()
        server.propagate = name != "uvicorn.access"
    warnings.showwarning = _log_warning


def _note_output(reading: int) -> None:
    while os.read(reading, _PIPE_BYTES):
        logger.info("library_output_withheld")
    os.close(reading)


def _is_harmless(record: logging.LogRecord) -> bool:
    """Whether nothing of a request, a file or a person can be in the message."""
    library, _, _ = record.name.partition(".")
    # What starts and stops the server is worth reading, what speaks HTTP quotes requests.
    return library == "facescreen" or (library == "uvicorn" and "/protocols/" not in record.pathname)


def _log_warning(  # noqa: PLR0917 - the hook's parameters
    message: Warning | str,  # noqa: ARG001 - the hook's, and it quotes what it warns of
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    place = f"{filename.rpartition('/')[2]}:{lineno}"
    logger.warning("library_warning", extra={"code": category.__name__, "at": [place]})


def _frames(record: logging.LogRecord) -> list[str]:
    frames = []
    traceback = record.exc_info[2] if record.exc_info else None
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return frames[-8:]
