"""What comes before there is a request: real connections to a real listener."""

import asyncio
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from service.api.app import create_app
from service.api.deadlines import ARRIVED
from service.api.problems import TITLES
from service.settings import Device, Settings
from service.workers.http_limits import HEAD_BYTES, BoundedProtocol
from tests.support.asgi_server import Address, answer_on, listening, request_bytes
from tests.support.bundles import solid
from tests.support.fake_runtimes import colours
from tests.support.service_process import SOON

LIVE = b"GET /livez HTTP/1.1\r\nhost: test\r\n"


INDEX = b"POST /v2/repository/index HTTP/1.1\r\nhost: test\r\n"  # of a body that is never large


class Hasty(BoundedProtocol):
    head_seconds = 0.3
    dropping_seconds = 0.3
    unread_seconds = 0.3
    probe_seconds = 0.05


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
def test_endless_headers_are_431(service: Address, lines: bytes) -> None:
    status, problem = answered(service, LIVE + lines)
    assert (status, problem["status"], problem["code"]) == (431, 431, "invalid_request")


def test_malformed_http_is_400(service: Address) -> None:
    status, problem = answered(service, b"hello?\r\n\r\n")
    assert (status, problem["status"]) == (400, 400)


@pytest.mark.parametrize("hosts", [b"", b"host: test\r\nHost: test\r\n"], ids=["none", "two"])
def test_a_request_without_one_host_is_400(service: Address, hosts: bytes) -> None:
    for body in (b"", b"content-length: 2\r\n"):
        status, problem = answered(service, b"POST /predict HTTP/1.1\r\n" + hosts + body + b"\r\n{}")
        assert (status, problem["detail"]) == (
            400,
            f"The request has {2 * bool(hosts)} Host headers; HTTP/1.1 requires exactly one.",
        )


@pytest.mark.parametrize("host", [b"a b", b"user@test", b"http://test/", b"one, two/", b"t\xc3\xa9st"])
def test_an_invalid_host_is_400(service: Address, host: bytes) -> None:
    status, problem = answered(service, b"GET /livez HTTP/1.1\r\nhost: " + host + b"\r\n\r\n")
    assert (status, problem["detail"]) == (400, "The Host header is not the name or address of a host.")


@pytest.mark.parametrize("host", [b"", b"test", b"my_service:8000", b"127.0.0.1:1", b"[::1]:8000"])
def test_a_valid_host_is_accepted(service: Address, host: bytes) -> None:
    with service.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: " + host + b"\r\n\r\n")
        assert answer_on(connection).startswith(b"HTTP/1.1 200")


def test_http_1_0_needs_no_host(service: Address) -> None:
    with service.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert answer_on(connection).startswith(b"HTTP/1.1 200")


def test_a_refused_request_counts_under_the_route_unmatched(service: Address) -> None:
    for request in (b"FOO1 / HTTP/1.1\r\nhost: test\r\n\r\n", b"FOO2 /livez HTTP/1.1\r\nhost: test\r\n\r\n"):
        assert answered(service, request)[0] == 400
    assert answered(service, LIVE)[0] == 408
    counted = httpx2.get(f"{service.url}/metrics").text
    assert 'convoy_requests_total{route="unmatched",status="400"} 2.0' in counted
    assert 'convoy_requests_total{route="unmatched",status="408"} 1.0' in counted
    assert "FOO" not in counted


def test_a_head_that_does_not_arrive_in_time_is_408(service: Address) -> None:
    assert answered(service, LIVE)[0] == 408


def test_a_silent_connection_is_closed_without_a_response_and_not_counted(service: Address) -> None:
    with service.connect() as connection:
        assert answer_on(connection) == b""
    assert 'status="408"' not in httpx2.get(f"{service.url}/metrics").text


def test_a_second_head_that_does_not_arrive_in_time_is_408(service: Address) -> None:
    with service.connect() as connection:
        connection.sendall(LIVE + b"\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(LIVE)
        assert answer_on(connection).startswith(b"HTTP/1.1 408")


def test_bodies_and_further_requests_do_not_count_as_headers(service: Address) -> None:
    body = b"\x89PNG" + bytes(8 * HEAD_BYTES)
    request = b"POST /predict HTTP/1.1\r\nhost: test\r\ncontent-type: image/png\r\ncontent-length: %d\r\n" % len(body)
    with service.connect() as connection:
        connection.sendall((request + b"\r\n" + body) * 2 + request + b"connection: close\r\n\r\n" + body)
        assert answer_on(connection).count(b"HTTP/1.1 422") == 3


def test_a_client_that_sends_its_whole_body_before_it_reads_gets_the_early_response(thrifty: Address) -> None:
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


def test_the_rest_of_an_answered_body_must_arrive_in_time(service: Address) -> None:
    with service.connect() as connection:
        connection.sendall(INDEX + b"content-length: 99999999999\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        connection.sendall(b"a")
        assert b"HTTP" not in answer_on(connection)


def test_the_rest_of_an_answered_body_is_bounded(thrifty: Address) -> None:
    with thrifty.connect() as connection:
        connection.sendall(INDEX + b"content-length: 99999999999\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        with pytest.raises(ConnectionError):
            connection.sendall(bytes(1000 * Thrifty.dropping_bytes))


def test_an_answered_body_that_turns_out_malformed_gets_no_second_response(thrifty: Address) -> None:
    with thrifty.connect() as connection:
        connection.sendall(INDEX + b"transfer-encoding: chunked\r\n\r\n20000\r\n" + bytes(0x20000))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        connection.sendall(b"no chunk")
        assert b"HTTP" not in answer_on(connection)


def test_trailers_are_bounded_and_dropped(service: Address, artifacts: Path) -> None:
    request = LIVE.replace(b"GET", b"POST").replace(b"/livez", b"/predict") + b"transfer-encoding: chunked\r\n"
    image = solid("red")
    body = b"%x\r\n%b\r\n0\r\n" % (len(image), image)
    with service.connect() as connection:
        connection.sendall(request + b"connection: close\r\n\r\n" + body + b"content-type: text/plain\r\n\r\n")
        assert answer_on(connection).startswith(b"HTTP/1.1 200")
    assert answered(service, request + b"content-type: image/png\r\n\r\n" + body + b"a: b\r\n" * HEAD_BYTES)[0] == 431


def test_an_idle_connection_is_closed_after_the_rest_of_an_answered_body(service: Address) -> None:
    for rest in (b"", b"GET /li"):
        with service.connect() as connection:
            connection.sendall(b"POST /nope HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 404")
            connection.sendall(bytes(100) + rest)
            assert answer_on(connection) == b""


def slow(artifacts: Path, seconds: float) -> FastAPI:
    return create_app(
        Settings(artifacts=artifacts, device=Device.CPU, max_batch=1), colours(lambda _: time.sleep(seconds))
    )


def test_bytes_of_the_next_head_do_not_end_a_request_in_progress(artifacts: Path) -> None:
    image = request_bytes("/predict", solid("red"), content_type="image/png", connection="close")
    with listening(slow(artifacts, 1), http=Hasty) as address, address.connect() as connection:
        connection.sendall(image)
        time.sleep(0.1)
        connection.sendall(b"\r\n")
        assert answer_on(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (b"GET /livez HTTP/1.1\r\n\r\n", b"400"),
        (b"hello?\r\n\r\n", b"400"),
        (LIVE + b"x: " + b"a" * (4 * HEAD_BYTES), b"431"),
        (INDEX + b"transfer-encoding: chunked\r\n\r\nno chunk", b"400"),
    ],
    ids=["no host", "no HTTP", "a large head", "a broken body"],
)
def test_a_refused_request_is_answered_after_the_good_ones_before_it(
    artifacts: Path, bad: bytes, status: bytes
) -> None:
    image = request_bytes("/predict", solid("red"), content_type="image/png")
    with listening(slow(artifacts, 0.2), http=Hasty) as address, address.connect() as connection:
        connection.sendall(image + image + bad)
        answers = re.findall(rb"HTTP/1.1 (\d+)", answer_on(connection))
    assert answers == [b"200", b"200", status]


@pytest.mark.parametrize("requests", [1, 3])
def test_a_client_that_closes_its_sending_side_gets_its_responses(artifacts: Path, requests: int) -> None:
    image = request_bytes("/predict", solid("red"), content_type="image/png")
    with listening(slow(artifacts, 0.2), http=Hasty) as address, address.connect() as connection:
        connection.sendall(image * requests)
        connection.shutdown(socket.SHUT_WR)
        assert answer_on(connection).count(b"HTTP/1.1 200") == requests


def test_a_client_that_closes_both_sides_is_noticed_while_its_request_is_in_progress() -> None:
    left = threading.Event()
    app = FastAPI()

    @app.get("/")
    async def wait(request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left.set()

    with listening(app, http=Hasty) as address:
        with address.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        assert left.wait(SOON)


def test_a_client_that_closes_its_sending_side_within_a_request_is_not_waited_for(service: Address) -> None:
    for part in (LIVE, INDEX + b"content-length: 10\r\n\r\n{"):
        with service.connect() as connection:
            connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
            assert answer_on(connection) == b""


def test_the_connection_of_a_client_that_reads_nothing_is_aborted(service: Address) -> None:
    with service.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(ConnectionError):  # noqa: PT012 - the first that is sent after the end raises, or the next
            for _ in range(600):
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: test\r\n\r\n")
                time.sleep(0.01)


@pytest.mark.parametrize(("head", "status"), [(INDEX.replace(b"/v2", b"/nope"), 404), (INDEX, 413)])
def test_a_connection_closes_after_a_final_status_in_place_of_100_continue(
    service: Address, head: bytes, status: int
) -> None:
    request = head + b"content-length: 99999999999\r\nexpect: 100-continue\r\n\r\n"
    with service.connect() as connection:
        connection.sendall(request)
        answer = answer_on(connection)
    assert answer.startswith(b"HTTP/1.1 %d" % status)
    assert b"connection: close" in answer


class RecordingTransport(asyncio.Transport):
    """Keeps what each call writes."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = asyncio.Event()

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        self.closed.set()


class Yielding(BoundedProtocol):
    """Records how many connections the worker has whenever it lets others run."""

    at: list[int]

    def let_others_run(self) -> None:
        self.at.append(len(self.connections))


@pytest.mark.anyio
async def test_a_worker_lets_others_run_after_each_connection_beyond_its_first() -> None:
    config = uvicorn.Config(PlainTextResponse("body"), http=Yielding, log_config=None)
    state, Yielding.at = ServerState(), []
    protocols = [Yielding(config, state, {}) for _ in range(4)]
    for protocol in protocols[:3]:
        protocol.connection_made(RecordingTransport())
    for protocol in protocols[:3]:
        protocol.connection_lost(None)
    protocols[3].connection_made(RecordingTransport())
    assert Yielding.at == [2, 3]
    protocols[3].connection_lost(None)


async def writes_of(app: ASGIApp, method: str) -> list[bytes]:
    config = uvicorn.Config(app, http=BoundedProtocol, log_config=None)
    config.load()
    protocol, transport = BoundedProtocol(config, ServerState(), {}), RecordingTransport()
    protocol.connection_made(transport)
    protocol.data_received(f"{method} / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n".encode())
    await transport.closed.wait()
    return transport.writes


def test_writes_the_head_together_with_the_body() -> None:
    (written,) = asyncio.run(writes_of(PlainTextResponse("body"), "GET"))
    head, _, body = written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert body == b"body"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204)])
def test_writes_the_head_of_a_response_without_a_body(method: str, status: int) -> None:
    written = b"".join(asyncio.run(writes_of(Response(status_code=status), method)))
    assert written.startswith(f"HTTP/1.1 {status}".encode())
    assert written.endswith(b"\r\n\r\n")


def test_writes_the_head_if_the_application_fails_before_the_body() -> None:
    async def fail(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        raise ValueError

    (written,) = asyncio.run(writes_of(fail, "GET"))
    assert written.startswith(b"HTTP/1.1 200")


async def answers_of_a_busy_loop() -> bytes:
    """The client's second request has arrived, but the loop has not read it when the connection's idle time ends."""
    config = uvicorn.Config(PlainTextResponse("body"), http=BoundedProtocol, log_config=None)
    config.load()
    protocol = BoundedProtocol(config, ServerState(), {})
    server = await asyncio.get_running_loop().create_server(lambda: protocol, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(LIVE + b"\r\n")
        first = await reader.readuntil(b"body")
        writer.write(LIVE + b"connection: close\r\n\r\n")
        protocol.timeout_keep_alive_handler()
        answers = first + await reader.read()
        writer.close()
    return answers


def test_a_request_that_has_arrived_when_the_idle_time_ends_is_answered() -> None:
    assert asyncio.run(answers_of_a_busy_loop()).count(b"HTTP/1.1 200") == 2


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when data arrived")
async def test_a_request_arrives_when_its_data_does_however_late_a_busy_loop_reads_it() -> None:
    ages = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        ages.append(time.monotonic() - scope[ARRIVED])
        await PlainTextResponse("body")(scope, receive, send)

    config = uvicorn.Config(app, log_config=None)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: BoundedProtocol(config, ServerState(), {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for busy in (0.0, 0.2):
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        time.sleep(busy)
        await reader.readuntil(b"body")
    writer.close()
    server.close()
    assert ages[0] < 0.1 < ages[1]
