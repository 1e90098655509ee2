import json
import logging
import os
import subprocess
import sys

import pytest

from service.settings import LogFormat
from service.telemetry.logging import (
    QUEUED_LINES,
    JsonFormatter,
    LineFormatter,
    QueuedHandler,
    RequestIds,
    current_request,
)
from tests.service.conftest import FullPipe
from tests.support.service_process import REPOSITORY

FORGED = "x\n2026-01-01 00:00:00 INFO service: all is well\r\x1b[2J\u2028"


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("service.test", logging.WARNING, __file__, 1, message, args, None)
    made.__dict__.update(extra)
    return made


def failing(text: str) -> logging.LogRecord:
    made = record("it failed")
    error = ValueError(text)
    made.exc_info = (ValueError, error, error.__traceback__)
    return made


def test_json_is_one_object_per_line() -> None:
    current_request.set(RequestIds("abc", "f" * 32))
    line = JsonFormatter().format(record("%d images", 3, fields={"route": "/predict", "status": 200}))
    entry = json.loads(line)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "level": "warning",
        "logger": "service.test",
        "message": "3 images",
        "request_id": "abc",
        "trace_id": "f" * 32,
        "route": "/predict",
        "status": 200,
    }


def test_json_outside_of_a_request_has_no_request_id() -> None:
    current_request.set(None)
    assert "request_id" not in json.loads(JsonFormatter().format(record("started")))


def test_an_exception_is_part_of_its_line_in_json() -> None:
    line = JsonFormatter().format(failing(FORGED))
    assert "\n" not in line
    assert "ValueError: x\n2026" in json.loads(line)["exception"]


@pytest.mark.parametrize("formatter", [JsonFormatter(), LineFormatter()])
def test_text_from_a_client_cannot_forge_a_line(formatter: logging.Formatter) -> None:
    line = formatter.format(record("asked for %s", FORGED))
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


def test_the_text_of_an_exception_cannot_forge_a_line() -> None:
    first, *traceback = LineFormatter().format(failing(FORGED)).split("\n")
    assert first.endswith("it failed")
    assert traceback
    assert all(line.startswith("  | ") for line in traceback)
    assert "all is well" in "".join(traceback)


def test_a_line_for_people_has_the_request_id() -> None:
    current_request.set(RequestIds("abc"))
    assert LineFormatter().format(record("slow")).endswith("WARNING service.test: slow request_id=abc")


@pytest.mark.parametrize("log_format", list(LogFormat))
def test_the_level_hides_lines_but_not_the_access_log(log_format: LogFormat) -> None:
    program = """
import logging, logging.config
from service.settings import LogFormat, Settings
from service.telemetry.logging import ACCESS, log_config
logging.config.dictConfig(log_config(Settings(log_format=LogFormat.{}, log_level="error")))
logging.getLogger("service.x").info("hidden")
logging.getLogger("service.x").error("shown")
logging.getLogger(ACCESS).info("of its own")
"""
    command = [sys.executable, "-c", program.format(log_format.name)]
    written = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stderr
    assert ("shown" in written, "hidden" in written, "of its own" in written) == (True, False, True)


def test_a_full_pipe_delays_no_request_and_the_log_counts_the_dropped_lines(full_pipe: FullPipe) -> None:
    handler = QueuedHandler(full_pipe.writer)
    for i in range(2 * QUEUED_LINES):
        handler.emit(record("line %d", i))
    handler.flush()
    text = ""
    while "lines are missing" not in text:
        text += os.read(full_pipe.reader, 65536).decode()
    handler.close()
    assert "line 0\n" in text
    written = text.count("line ")
    assert f"\n{2 * QUEUED_LINES - written} lines are missing here" in text
