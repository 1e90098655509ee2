"""The log: one line per event for people, or one JSON object for machines.

Neither contains images, keys or values of headers. Text from clients is escaped, so that no request can forge a line.
"""

import json
import logging
import os
import select
import threading
from collections import deque
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, NamedTuple

from service.settings import LogFormat, Settings

ACCESS = "service.access"
STDERR = 2
QUEUED_LINES = 10_000
FLUSH_SECONDS = 1.0


class RequestIds(NamedTuple):
    """The request that a line belongs to: its X-Request-ID, and its W3C trace."""

    request_id: str
    trace_id: str | None = None


current_request: ContextVar[RequestIds | None] = ContextVar("current_request", default=None)
"""Set in everything that runs for one request. A batch runs for several requests, and has none."""


def log_config(settings: Settings) -> dict[str, Any]:
    """Returns the argument of logging.config.dictConfig: our lines and uvicorn's in one format, on stderr."""
    level = settings.log_level.upper()
    formatter = JsonFormatter if settings.log_format is LogFormat.JSON else LineFormatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"ours": {"()": formatter}},
        "handlers": {"stderr": {"()": QueuedHandler, "formatter": "ours"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            **{name: {"level": level} for name in ("service", "uvicorn")},
            ACCESS: {"level": "INFO"},  # CONVOY_ACCESS_LOG switches it, whatever the level
        },
    }


class QueuedHandler(logging.Handler):
    """Writes lines in a thread of its own.

    If the reader of a pipe stops reading, a write blocks: lines are then dropped, and the service continues.
    """

    def __init__(self, descriptor: int = STDERR) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._writing = False
        self._closed = False
        self._changed = threading.Condition()
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        with self._changed:
            if len(self._lines) < QUEUED_LINES:
                self._lines.append(line)
            else:
                self._dropped += 1
            self._changed.notify_all()

    def flush(self) -> None:
        """Waits until every line is written, but not for a reader that has stopped."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._lines or self._writing), FLUSH_SECONDS)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        super().close()

    def _write_all(self) -> None:
        while lines := self._next():
            for line in lines:
                rest = memoryview(f"{line}\n".encode(errors="backslashreplace"))
                with suppress(OSError):  # stderr is closed
                    while rest:
                        select.select([], [self._descriptor], [])  # it may be non-blocking
                        rest = rest[os.write(self._descriptor, rest) :]

    def _next(self) -> list[str]:
        """Waits for lines and returns them; none once the handler is closed."""
        with self._changed:
            self._writing = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._lines or self._closed)
            lines = list(self._lines)
            self._lines.clear()
            self._writing = bool(lines)
            dropped, self._dropped = self._dropped, 0
        if dropped:
            text = f"{dropped} lines are missing here: stderr was not read fast enough"
            lines.append(self.format(logging.LogRecord(__name__, logging.WARNING, "", 0, text, None, None)))
        return lines


class LineFormatter(logging.Formatter):
    """`time LEVEL logger: message` and the request ID. The lines of a traceback begin with a bar."""

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
    """One JSON object per line. The `fields` of a record (logging's extra) become members."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        ids = current_request.get()
        if ids:
            line["request_id"] = ids.request_id
            if ids.trace_id:
                line["trace_id"] = ids.trace_id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # ASCII only, so control characters are escaped


def _escaped(text: str) -> str:
    """Writes control characters and all line breaks as Python escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
