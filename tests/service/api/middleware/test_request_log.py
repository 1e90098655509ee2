import asyncio
import json
import logging
import re
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from service.api.middleware.request_log import LEFT, Observation, request_ids, server_timing
from service.telemetry.logging import ACCESS, JsonFormatter, current_request
from service.telemetry.metrics import Telemetry
from service.telemetry.timings import Timings
from tests.service.conftest import Serve
from tests.support.http_requests import problem_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.mark.parametrize("given", ["abc", "a" * 128, "018f6d2e-7b1c-7c2e-9d43-1234567890ab", "a/b+c=:._"])
def test_a_request_id_is_echoed(serve: Serve, given: str) -> None:
    assert serve().get("/livez", headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize(
    "given", ["", "a" * 129, "a b", "a\tb", "<script>", "a,b", '"', "é".encode().decode("latin-1")]
)
def test_an_odd_request_id_is_replaced(serve: Serve, given: str) -> None:
    answer = serve().get("/livez", headers={b"x-request-id": given.encode("latin-1")})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_each_request_without_an_id_gets_one_of_its_own(serve: Serve) -> None:
    client = serve()
    assert len({client.get("/livez").headers["x-request-id"] for _ in range(3)}) == 3


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (TRACEPARENT, TRACE),
        (f"01-{TRACE}-00f067aa0ba902b7-01-of-a-later-version", TRACE),
        (f"00-{TRACE}-00f067aa0ba902b7-01-more", None),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-00f067aa0ba902b7", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_a_trace_is_taken_up_where_it_is_well_formed(header: str, trace: str | None) -> None:
    assert request_ids(Headers({"traceparent": header})).trace_id == trace


@pytest.mark.parametrize("path", ["/livez", "/nothing", "/models/dogs", "/static/page.css", "/openapi.json"])
def test_every_answer_says_what_it_took(serve: Serve, path: str) -> None:
    assert re.fullmatch(r"total;dur=\d+\.\d{3}", serve().get(path).headers["server-timing"])


def test_the_stages_are_shown_in_milliseconds() -> None:
    said = server_timing(Timings(decode=0.001, queue=0.0205, inference=1.5), 1.6)
    assert said == "decode;dur=1.000, queue;dur=20.500, inference;dur=1500.000, total;dur=1600.000"


def test_the_core_finds_the_timings_of_the_request_in_its_state(serve: Serve) -> None:
    client = serve()
    app = client.app
    assert isinstance(app, FastAPI)

    @app.get("/livez/slowly")
    async def slowly(request: Request) -> None:
        assert isinstance(request.state.timings, Timings)
        request.state.timings.inference = 0.25

    assert "inference;dur=250.000, total" in client.get("/livez/slowly").headers["server-timing"]


def test_what_nobody_foresaw_is_an_answer_with_all_headers_and_a_log_entry(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve()
    app = client.app
    assert isinstance(app, FastAPI)

    @app.get("/livez/broken")
    async def broken() -> None:
        raise ValueError("secret of the inside")

    answer = client.get("/livez/broken", headers={"X-Request-ID": "abc"})
    problem_of(answer, 500, "internal")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == "abc"
    assert "secret of the inside" in caplog.text
    assert 'convoy_requests_total{route="/livez/broken",status="500"} 1.0' in client.get("/metrics").text


def test_the_access_log_has_one_line_a_request_with_its_ids(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    formatter = JsonFormatter()
    lines: list[dict[str, Any]] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(json.loads(formatter.format(record)))  # type: ignore[method-assign]
    logger = logging.getLogger(ACCESS)
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, ACCESS):
            client = serve(access_log=True)
            answer = client.get("/models/dogs?key=secret", headers={"X-Request-ID": "abc", "traceparent": TRACEPARENT})
            client.get("/nothing/%0aINFO forged")
    finally:
        logger.removeHandler(handler)
    first, second = lines
    assert first.pop("seconds") > 0
    expected = {
        "level": "info",
        "message": first["message"],
        "method": "GET",
        "route": "/models/{name}",
        "status": 404,
        "bytes": len(answer.content),
        "request_id": "abc",
        "trace_id": TRACE,
    }
    assert expected.items() <= first.items()
    assert "secret" not in str(first)
    assert second["route"] == "unmatched"
    assert "forged" not in str(second)


def test_without_the_setting_there_is_no_access_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, ACCESS):
        serve().get("/livez")
    assert not [record for record in caplog.records if record.name == ACCESS]


def test_a_request_whose_caller_left_is_counted_and_its_ids_reach_what_is_logged_after_it() -> None:
    telemetry = Telemetry("CPU")

    async def leave(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    async def nowhere(message: Message) -> None: ...

    async def ask() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"x-request-id", b"abc")]}
        with pytest.raises(asyncio.CancelledError):
            await Observation(leave, telemetry, access_log=False)(scope, nothing, nowhere)
        ids = current_request.get()
        assert ids
        assert ids.request_id == "abc"

    asyncio.run(ask())
    assert f'convoy_requests_total{{route="unmatched",status="{LEFT}"}} 1.0' in telemetry.render("")[0].decode()
