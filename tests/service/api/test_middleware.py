import asyncio
import gzip
import json
import logging
import re
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from service.api.middleware import (
    CLIENT_CLOSED_REQUEST,
    COMPRESSED_BYTES,
    RequestMiddleware,
    accepts_gzip,
    request_ids,
    server_timing,
)
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
def test_an_unusual_request_id_is_replaced(serve: Serve, given: str) -> None:
    answer = serve().get("/livez", headers={b"x-request-id": given.encode("latin-1")})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_each_request_without_an_id_gets_a_unique_id(serve: Serve) -> None:
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
def test_a_well_formed_traceparent_gives_the_trace_id(header: str, trace: str | None) -> None:
    assert request_ids(Headers({"traceparent": header})).trace_id == trace


@pytest.mark.parametrize("path", ["/livez", "/nothing", "/models/dogs", "/static/page.css", "/openapi.json"])
def test_every_response_has_a_server_timing(serve: Serve, path: str) -> None:
    assert re.fullmatch(r"total;dur=\d+\.\d{3}", serve().get(path).headers["server-timing"])


def test_server_timing_has_the_stages_in_milliseconds() -> None:
    said = server_timing(Timings(decode=0.001, queue=0.0205, inference=1.5), 1.6)
    assert said == "decode;dur=1.000, queue;dur=20.500, inference;dur=1500.000, total;dur=1600.000"


def test_timings_in_the_requests_state_appear_in_server_timing(serve: Serve) -> None:
    client = serve()
    app = client.app
    assert isinstance(app, FastAPI)

    @app.get("/livez/slowly")
    async def slowly(request: Request) -> None:
        assert isinstance(request.state.timings, Timings)
        request.state.timings.inference = 0.25

    assert "inference;dur=250.000, total" in client.get("/livez/slowly").headers["server-timing"]


def test_an_unexpected_exception_is_a_500_with_all_headers_and_a_log_entry(
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


def test_the_access_log_has_one_line_per_request_with_its_ids(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
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


@pytest.mark.parametrize(
    ("error", "status"), [(ClientDisconnect(), CLIENT_CLOSED_REQUEST), (asyncio.CancelledError(), 503)]
)
def test_a_request_that_ends_early_is_counted_and_later_log_lines_have_its_ids(
    error: BaseException, status: int
) -> None:
    telemetry = Telemetry("CPU")

    async def leave(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    async def nowhere(message: Message) -> None: ...

    async def ask() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"x-request-id", b"abc")]}
        await RequestMiddleware(leave, telemetry, access_log=False)(scope, nothing, nowhere)
        ids = current_request.get()
        assert ids
        assert ids.request_id == "abc"

    asyncio.run(ask())
    assert telemetry.take().counts["convoy_requests", "unmatched", str(status)] == 1


PATHS = (
    "/",
    "/docs",
    "/livez",
    "/readyz",
    "/models",
    "/models/colours",
    "/models/colours/report/curves.png",
    "/models/dogs",
    "/openapi.json",
    "/static/page.css",
    "/static/nothing",
    "/nothing",
)
CHANGING = {"x-request-id", "server-timing"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_head_has_the_headers_of_get_and_no_body(client: TestClient, path: str, encoding: str) -> None:
    headers = {"accept-encoding": encoding}
    get, head = client.get(path, headers=headers), client.head(path, headers=headers)
    assert head.content == b""
    assert head.status_code == get.status_code
    assert {k: v for k, v in head.headers.items() if k not in CHANGING} == {
        k: v for k, v in get.headers.items() if k not in CHANGING
    }


def test_head_is_405_on_a_route_without_get(client: TestClient) -> None:
    answer = client.head("/predict")
    assert (answer.status_code, answer.content, answer.headers["allow"]) == (405, b"", "POST")


def test_a_405_that_allows_get_allows_head(client: TestClient) -> None:
    assert client.post("/models").headers["allow"] == "GET, HEAD"
    assert client.post("/static/page.css").headers["allow"] == "GET, HEAD"


def test_head_is_counted_by_its_route(serve: Serve) -> None:
    client = serve()
    client.head("/models/dogs")
    assert 'convoy_requests_total{route="/models/{name}",status="404"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/redoc", "/livez", "/models", "/nothing", "/static/js/app.js", "/models/colours/report/curves.png"],
)
def test_every_response_has_the_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers.get_list("x-content-type-options") == ["nosniff"]
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc"])
def test_a_pages_policy_forbids_framing(client: TestClient, path: str) -> None:
    assert "frame-ancestors 'none'" in client.get(path).headers["content-security-policy"]


@pytest.mark.parametrize(
    ("accept_encoding", "accepted"),
    [
        ("gzip", True),
        ("deflate, gzip", True),
        ("gzip;q=0.5, deflate;q=0.8", True),
        ("gzip, deflate, br, zstd", True),
        ("gzip;q=0, deflate", False),
        ("gzip; q=0.000", False),
        ("identity", False),
        ("deflate", False),
        ("notgzip", False),
        ("", False),
    ],
)
def test_gzip_is_accepted_unless_its_weight_is_zero(accept_encoding: str, accepted: bool) -> None:
    assert accepts_gzip(accept_encoding) is accepted


def raw(client: TestClient, path: str, accept: str) -> tuple[dict[str, Any], bytes]:
    with client.stream("GET", path, headers={"accept-encoding": accept}) as answer:
        return dict(answer.headers), b"".join(answer.iter_raw())


def test_a_long_response_is_compressed_and_keeps_its_headers(client: TestClient) -> None:
    plain_headers, plain = raw(client, "/openapi.json", "identity, gzip;q=0")
    headers, compressed = raw(client, "/openapi.json", "gzip")
    assert "content-encoding" not in plain_headers
    assert headers["content-encoding"] == "gzip"
    assert headers["vary"] == plain_headers["vary"] == "Accept-Encoding"
    assert int(headers["content-length"]) == len(compressed) < len(plain)
    assert gzip.decompress(compressed) == plain
    assert {"x-request-id", "server-timing", "x-content-type-options"} <= set(headers)


def test_a_short_response_is_not_compressed(client: TestClient) -> None:
    headers, body = raw(client, "/livez", "gzip")
    assert len(body) < COMPRESSED_BYTES
    assert "content-encoding" not in headers


def test_an_image_is_not_compressed_again(serve: Serve) -> None:
    assert "content-encoding" not in raw(serve(), "/models/colours/report/curves.png", "gzip")[0]


def test_the_etag_of_a_compressed_file_is_weak_and_still_matches(client: TestClient) -> None:
    strong = raw(client, "/static/js/app.js", "identity")[0]["etag"]
    weak = raw(client, "/static/js/app.js", "gzip")[0]["etag"]
    assert weak == f"W/{strong}"
    assert client.get("/static/js/app.js", headers={"if-none-match": weak}).status_code == 304


@pytest.mark.parametrize(
    "path",
    [
        "/livez/",
        "/models/",
        "/models/colours/",
        "/v1/models/",
        "/v2/",
        "/v2/models/colours/",
        "/openapi.json/",
        "/metrics/",
    ],
)
def test_a_trailing_slash_is_ignored(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    if path != "/metrics/":
        assert answer.content == client.get(path[:-1]).content


@pytest.mark.parametrize("path", ["/predict/", "/models/colours/predict/", "/v1/models/colours:predict/"])
def test_a_trailing_slash_of_a_post_keeps_its_body(client: TestClient, path: str) -> None:
    assert client.post(path, json={"instances": [[[[255, 0, 0]]]]}).json()["predictions"][0]["label"] == "red"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_a_page_with_a_trailing_slash_is_redirected_so_that_its_links_work(serve: Serve, path: str) -> None:
    answer = serve(api_keys="key").get(f"{path}/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, f"..{path}")


def test_a_trailing_slash_needs_the_same_key(serve: Serve) -> None:
    client = serve(api_keys="key")
    for path in ("/models/", "/models/colours/"):
        problem_of(client.get(path), 401, "unauthorized")
