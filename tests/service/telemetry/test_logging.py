import json
import logging
import logging.config
from functools import partial

import pytest

from service.settings import LogFormat, Settings
from service.telemetry.logging import ACCESS, JsonFormatter, LineFormatter, RequestIds, current_request, log_config

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


def test_json_is_one_object_a_line_with_all_that_is_known() -> None:
    current_request.set(RequestIds("abc", "f" * 32))
    line = JsonFormatter().format(record("%d images", 3, fields={"route": "/predict", "status": 200}))
    said = json.loads(line)
    assert said.pop("time").endswith("+00:00")
    assert said == {
        "level": "warning",
        "logger": "service.test",
        "message": "3 images",
        "request_id": "abc",
        "trace_id": "f" * 32,
        "route": "/predict",
        "status": 200,
    }


def test_json_outside_of_a_request_names_none() -> None:
    current_request.set(None)
    assert "request_id" not in json.loads(JsonFormatter().format(record("started")))


def test_an_exception_is_part_of_its_line_in_json() -> None:
    line = JsonFormatter().format(failing(FORGED))
    assert "\n" not in line
    assert "ValueError: x\n2026" in json.loads(line)["exception"]


@pytest.mark.parametrize("formatter", [JsonFormatter(), LineFormatter()])
def test_what_a_caller_sent_cannot_look_like_a_line_of_ours(formatter: logging.Formatter) -> None:
    line = formatter.format(record("asked for %s", FORGED))
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


def test_nor_can_the_text_of_an_exception() -> None:
    first, *traceback = LineFormatter().format(failing(FORGED)).split("\n")
    assert first.endswith("it failed")
    assert traceback
    assert all(line.startswith("  | ") for line in traceback)
    assert "all is well" in "".join(traceback)


def test_a_line_for_people_names_the_request() -> None:
    current_request.set(RequestIds("abc"))
    assert LineFormatter().format(record("slow")).endswith("WARNING service.test: slow request_id=abc")


@pytest.mark.parametrize("log_format", list(LogFormat))
def test_the_configuration_is_one_that_logging_takes(
    log_format: LogFormat, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    root = logging.getLogger()
    request.addfinalizer(partial(setattr, root, "handlers", root.handlers[:]))
    request.addfinalizer(partial(root.setLevel, root.level))
    logging.config.dictConfig(log_config(Settings(log_format=log_format, log_level="error")))
    logging.getLogger("service.x").info("hidden")
    logging.getLogger("service.x").error("shown")
    logging.getLogger(ACCESS).info("asked for by a setting of its own")
    written = capsys.readouterr().err
    assert ("shown" in written, "hidden" in written, "of its own" in written) == (True, False, True)
