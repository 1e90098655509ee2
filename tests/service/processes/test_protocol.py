"""What comes before there is a request: real connections to a real listener."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from service.app import create_app
from service.problems import TITLES
from service.processes.protocol import HEAD_BYTES, BoundedProtocol
from service.settings import Device, Settings
from tests.service.serving import Address, answer_on, listening

LIVE = b"GET /livez HTTP/1.1\r\nhost: test\r\n"


INDEX = b"POST /v2/repository/index HTTP/1.1\r\nhost: test\r\n"  # of a body that is never large


class Hasty(BoundedProtocol):
    head_seconds = 0.3
    dropping_seconds = 0.3


class Thrifty(BoundedProtocol):
    dropping_bytes = 1_000_000


@pytest.fixture
def service(artifacts: Path) -> Iterator[Address]:
    app = create_app(Settings(artifacts=artifacts, device=Device.CPU))
    with listening(app, http=Hasty) as address:
        yield address


@pytest.fixture
def thrifty(artifacts: Path) -> Iterator[Address]:
    app = create_app(Settings(artifacts=artifacts, device=Device.CPU))
    with listening(app, http=Thrifty) as address:
        yield address


def answered(address: Address, request: bytes) -> tuple[int, dict[str, object]]:
    """(status, body) of the answer, whose head must be as that of any other."""
    with address.connect() as connection:
        connection.sendall(request)
        head, _, body = answer_on(connection).partition(b"\r\n\r\n")
    line, *headers = head.decode().lower().split("\r\n")
    _, status, reason = line.split(" ", 2)
    assert reason == TITLES[int(status)].lower()
    names = {name for name, _, _ in (header.partition(":") for header in headers)}
    assert names >= {"date", "x-request-id", "x-content-type-options", "content-length"}
    assert "connection: close" in headers
    return int(status), json.loads(body)


@pytest.mark.parametrize(
    "lines",
    [b"x: " + b"a" * (4 * HEAD_BYTES), b"".join(b"x%d: a\r\n" % i for i in range(HEAD_BYTES // 2))],
    ids=["one", "many"],
)
def test_headers_without_end_are_431(service: Address, lines: bytes) -> None:
    status, problem = answered(service, LIVE + lines)
    assert (status, problem["status"], problem["code"]) == (431, 431, "invalid_request")


def test_what_is_no_http_is_a_problem_too(service: Address) -> None:
    status, problem = answered(service, b"hello?\r\n\r\n")
    assert (status, problem["status"]) == (400, 400)


@pytest.mark.parametrize("hosts", [b"", b"host: test\r\nHost: test\r\n"], ids=["none", "two"])
def test_a_request_without_one_host_is_400(service: Address, hosts: bytes) -> None:
    for body in (b"", b"content-length: 2\r\n"):
        status, problem = answered(service, b"POST /predict HTTP/1.1\r\n" + hosts + body + b"\r\n{}")
        assert (status, problem["detail"]) == (
            400,
            f"The request has {2 * bool(hosts)} Host headers; HTTP/1.1 wants one.",
        )


def test_http_1_0_needs_no_host(service: Address) -> None:
    with service.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert answer_on(connection).startswith(b"HTTP/1.1 200")


def test_what_is_refused_is_counted_under_the_route_of_what_leads_nowhere(service: Address) -> None:
    for request in (b"FOO1 / HTTP/1.1\r\nhost: test\r\n\r\n", b"FOO2 /livez HTTP/1.1\r\nhost: test\r\n\r\n"):
        assert answered(service, request)[0] == 400
    assert answered(service, LIVE)[0] == 408
    counted = httpx2.get(f"{service.url}/metrics").text
    assert 'convoy_requests_total{route="unmatched",status="400"} 2.0' in counted
    assert 'convoy_requests_total{route="unmatched",status="408"} 1.0' in counted
    assert "FOO" not in counted


@pytest.mark.parametrize("begun", [b"", LIVE], ids=["nothing", "a part"])
def test_a_head_that_does_not_come_in_time_ends_the_connection(service: Address, begun: bytes) -> None:
    assert answered(service, begun)[0] == 408


def test_so_does_a_further_head_of_a_kept_connection(service: Address) -> None:
    with service.connect() as connection:
        connection.sendall(LIVE + b"\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(LIVE)
        assert answer_on(connection).startswith(b"HTTP/1.1 408")


def test_large_bodies_and_kept_connections_are_no_heads(service: Address) -> None:
    body = b"\x89PNG" + bytes(8 * HEAD_BYTES)
    request = b"POST /predict HTTP/1.1\r\nhost: test\r\ncontent-type: image/png\r\ncontent-length: %d\r\n" % len(body)
    with service.connect() as connection:
        connection.sendall((request + b"\r\n" + body) * 2 + request + b"connection: close\r\n\r\n" + body)
        assert answer_on(connection).count(b"HTTP/1.1 422") == 3


def test_who_sends_first_and_reads_then_gets_its_answer_also_on_a_connection_that_closes(thrifty: Address) -> None:
    body = bytes(10 * Thrifty.dropping_bytes)
    for also in (b"", b"connection: close\r\n"):
        with thrifty.connect() as connection:
            length = len(body) // 20
            connection.sendall(INDEX + also + b"content-length: %d\r\n\r\n" % length)
            assert connection.recv(12) == b"HTTP/1.1 413"
            connection.sendall(body[:length])
            if not also:
                connection.sendall(LIVE + b"connection: close\r\n\r\n")
            assert answer_on(connection).count(b"HTTP/1.1 200") == (not also)


def test_the_rest_of_a_body_that_was_answered_must_come_in_time(service: Address) -> None:
    with service.connect() as connection:
        connection.sendall(INDEX + b"content-length: 99999999999\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        connection.sendall(b"a")
        assert b"HTTP" not in answer_on(connection)


def test_and_is_not_read_without_end(thrifty: Address) -> None:
    with thrifty.connect() as connection:
        connection.sendall(INDEX + b"content-length: 99999999999\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        with pytest.raises(ConnectionError):
            connection.sendall(bytes(1000 * Thrifty.dropping_bytes))


def test_a_body_that_breaks_off_its_own_form_after_its_answer_gets_no_second_one(thrifty: Address) -> None:
    with thrifty.connect() as connection:
        connection.sendall(INDEX + b"transfer-encoding: chunked\r\n\r\n20000\r\n" + bytes(0x20000))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        connection.sendall(b"no chunk")
        assert b"HTTP" not in answer_on(connection)
