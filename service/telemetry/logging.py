"""What the service writes to its log: one line an event for people, or one JSON object for machines.

Neither form holds an image, a key or a header's value. What callers can choose is escaped, so that no request can write
a line that looks like ours.
"""

import json
import logging
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from service.settings import LogFormat, Settings

ACCESS = "service.access"


@dataclass(frozen=True)
class RequestIds:
    """What ties a line of the log to a request: X-Request-ID, and the W3C trace that the request is part of."""

    request_id: str
    trace_id: str | None = None


current_request: ContextVar[RequestIds | None] = ContextVar("current_request", default=None)
"""Set for all that runs on behalf of one request; what runs for several of them (a batch) is of none."""


def log_config(settings: Settings) -> dict[str, Any]:
    """One format for our lines and uvicorn's, on stderr, for logging.config.dictConfig."""
    level = settings.log_level.upper()
    formatter = JsonFormatter if settings.log_format is LogFormat.JSON else LineFormatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"ours": {"()": formatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "ours"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            **{name: {"level": level} for name in ("service", "uvicorn")},
            ACCESS: {"level": "INFO"},  # has a setting of its own, which a higher level must not undo
        },
    }


class LineFormatter(logging.Formatter):
    """`time LEVEL logger: message`, and the request's id; a traceback's lines are marked by a bar."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        line = _escaped(super().formatMessage(record))
        ids = current_request.get()
        return f"{line} request_id={ids.request_id}" if ids else line

    def formatException(self, ei: Any) -> str:  # noqa: N802
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"  | {_escaped(line)}" for line in lines)


class JsonFormatter(logging.Formatter):
    """One JSON object a line; `fields` of a record (logging's extra) are members of their own."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        ids = current_request.get()
        if ids:
            said["request_id"] = ids.request_id
            if ids.trace_id:
                said["trace_id"] = ids.trace_id
        said |= getattr(record, "fields", {})
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)  # ASCII alone: no control character gets through


def _escaped(text: str) -> str:
    """Control characters, line ends of any script among them, in Python's escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
