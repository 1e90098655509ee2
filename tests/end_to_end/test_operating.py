"""What an operator and a plain HTTP client see of the real process."""

import gzip
import http.client
import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.bundles import solid, write_bundle
from tests.support.service_process import Service, serving_bundles

PREDICTED = 'convoy_requests_total{route="/predict",status="200"}'
PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("operating") / "artifacts"
    write_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def service(bundles: Path) -> Iterator[Service]:
    settings = {"CONVOY_LOG_FORMAT": "json", "CONVOY_ACCESS_LOG": "true", "CONVOY_MAX_BODY_BYTES": "100000"}
    with serving_bundles(bundles, **settings, CONVOY_WORKERS="1") as running:
        yield running


def logged(service: Service, request_id: str) -> dict[str, Any]:
    """Waits for the line of this request in the access log, and returns it."""
    for _ in range(200):
        for line in list(service.log):
            record: dict[str, Any] = json.loads(line)
            if record.get("request_id") == request_id:
                return record
        time.sleep(0.02)
    raise AssertionError("".join(service.log))


@pytest.fixture
def kept(service: Service) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=30)) as connection:
        connection.connect()
        yield connection


def test_one_connection_serves_good_and_bad_requests_of_every_kind(kept: http.client.HTTPConnection) -> None:
    socket = kept.sock
    packed = gzip.compress(solid("red"))
    asked: list[tuple[int, str, str, Any, dict[str, str]]] = [
        (200, "GET", "/models", None, {}),
        (200, "HEAD", "/openapi.json", None, {}),
        (200, "POST", "/predict", solid("red"), PNG),
        (200, "POST", "/predict", iter([packed[:20], packed[20:]]), {**PNG, "Content-Encoding": "gzip"}),
        (413, "POST", "/predict", gzip.compress(bytes(1_000_000)), {**PNG, "Content-Encoding": "gzip"}),
        (413, "POST", "/predict", iter([bytes(60_000)] * 4), PNG),
        (400, "POST", "/predict", b"not packed", {**PNG, "Content-Encoding": "gzip"}),
        (415, "POST", "/predict", solid("red"), {**PNG, "Content-Encoding": "br"}),
        (404, "GET", "/nothing", None, {}),
        (200, "POST", "/predict", solid("red"), PNG),
    ]
    for status, method, path, body, headers in asked:
        kept.request(method, path, body, headers)
        answer = kept.getresponse()
        read = answer.read()
        assert answer.status == status, read
        assert answer.getheader("Server-Timing", "").startswith(("total", "decode"))
        assert (method == "HEAD") == (read == b"")
    assert kept.sock is socket


def test_every_line_of_the_log_is_json_and_one_is_the_request(service: Service) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {
        "X-Request-ID": "night-call",
        "traceparent": f"00-{trace}-00f067aa0ba902b7-01",
        "Authorization": "Bearer x",
    }
    with service.client() as client:
        client.get("/models/dogs?secret=swordfish", headers=headers)
    record = logged(service, "night-call")
    assert (record["method"], record["route"], record["status"], record["trace_id"]) == (
        "GET",
        "/models/{name}",
        404,
        trace,
    )
    assert not [line for line in service.log if "swordfish" in line]
    assert all(json.loads(line)["level"] for line in service.log)


@pytest.mark.timeout(120)
def test_metrics_cover_all_workers(bundles: Path) -> None:
    with serving_bundles(bundles, CONVOY_WORKERS="2") as service, service.client() as client:
        for _ in range(12):
            # A connection each, so that both workers get some.
            with service.client() as one:
                assert one.post("/predict", content=solid("red"), headers=PNG).status_code == 200
        counts = {re.search(re.escape(PREDICTED) + r" ([0-9.]+)", client.get("/metrics").text) for _ in range(4)}
        assert {float(found[1]) for found in counts if found} == {12}


def test_warns_if_the_api_is_open_and_keys_close_it(bundles: Path) -> None:
    with serving_bundles(bundles, CONVOY_WORKERS="1", CONVOY_HOST="0.0.0.0") as service:  # noqa: S104
        assert any("any client may request predictions" in line for line in service.log)
    with (
        serving_bundles(bundles, CONVOY_WORKERS="1", CONVOY_API_KEYS="swordfish") as service,
        service.client() as client,
    ):
        assert client.get("/livez").status_code == 200
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers={"Authorization": "Bearer swordfish"}).status_code == 200
        assert not [line for line in service.log if "swordfish" in line]
