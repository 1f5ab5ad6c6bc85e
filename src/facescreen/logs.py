"""Structured logs: one JSON object per line, and never anything that identifies a person.

Messages are constant event names; what varies goes into ``extra`` under one of the field names below. A field that is
not listed is not written, so a name, an embedding or an address cannot slip in with a careless call.
"""

import json
import logging
import sys
from datetime import UTC, datetime

_FIELDS = (
    "request_id",
    "method",
    "route",
    "status",
    "milliseconds",
    "store",
    "files",
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
)


class JsonFormatter(logging.Formatter):
    """Time, level, logger, event and the listed extra fields; of an exception its type and where it was raised."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update({name: getattr(record, name) for name in _FIELDS if hasattr(record, name)})
        if record.exc_info and record.exc_info[0]:
            # Messages of foreign exceptions may quote their input; the place they come from does not.
            line["exception"] = record.exc_info[0].__name__
            line["at"] = _frames(record)
        return json.dumps(line, default=str)


def configure_logs(level: str) -> None:
    """Send this process's logs to standard error in one format, third-party libraries from warnings up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("facescreen").setLevel(level.upper())


def _frames(record: logging.LogRecord) -> list[str]:
    frames = []
    traceback = record.exc_info[2] if record.exc_info else None
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return frames[-8:]
