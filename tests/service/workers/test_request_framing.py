"""Where one request ends and the next begins, compared with h11 on random streams (RFC 9112, sections 6 and 7).

A server and a proxy that disagree about this let a client smuggle a request past the proxy.
"""

import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise

import h11
import pytest
from fastapi import FastAPI, Request, Response
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from service.api.middleware import REFUSALS, refusals
from service.telemetry.metrics import Telemetry
from service.workers.http_limits import BoundedProtocol
from tests.support.asgi_server import Address, listening

Seen = tuple[str, str, bytes]  # method, target, body
HIDDEN = b"GET /hidden HTTP/1.1\r\nhost: test\r\n\r\n"
OFFERS = [
    b"connection: Upgrade\r\nupgrade: h2c\r\n",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    b"connection: keep-alive, upgrade\r\nupgrade: websocket\r\n",
    b"connection: upgrade\r\nupgrade: TLS/1.0\r\nupgrade: h2c\r\n",
    b"connection: upgrade\r\n",
    b"upgrade: h2c\r\n",
    b"proxy-connection: upgrade\r\nupgrade: h2c\r\n",
]


@dataclass(frozen=True)
class Recorder:
    """A listening application that answers every request with 200, and the requests that reached it."""

    address: Address
    seen: list[Seen]

    def send(self, *parts: bytes) -> tuple[list[Seen], list[int]]:
        """Sends the parts; returns the requests that ran and the status codes that came until the server closed."""
        self.seen.clear()
        with self.address.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with suppress(ConnectionError):  # the server has closed: after Connection: close, it drops what follows
                for part in parts:
                    connection.sendall(part)
            answers = b""
            with suppress(ConnectionResetError):  # by what arrived after the service had closed
                while chunk := connection.recv(65536):
                    answers += chunk
        return list(self.seen), [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", answers)]


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    seen: list[Seen] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, ASGIApp]]:
        yield {REFUSALS: refusals(Telemetry("CPU"), access_log=False)}

    app = FastAPI(lifespan=lifespan, openapi_url=None)

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def record(request: Request) -> Response:
        seen.append((request.method, request.url.path, await request.body()))
        return Response()

    with listening(app, http=BoundedProtocol) as address:
        yield Recorder(address, seen)


def read_by_h11(stream: bytes) -> list[Seen]:
    """Returns the complete requests up to the first one that h11 refuses, or that closes the connection.

    Both parsers may skip empty lines before a request (RFC 9112, section 2.2). llhttp also skips a bare CR or LF there.
    """
    seen: list[Seen] = []
    open_for_more = True
    while open_for_more:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(stream.lstrip(b"\r\n"))
        try:
            request, body = connection.next_event(), b""
            while isinstance(event := connection.next_event(), h11.Data):
                body += event.data
        except h11.RemoteProtocolError:
            break
        if not (isinstance(request, h11.Request) and isinstance(event, h11.EndOfMessage)):
            break
        seen.append((request.method.decode(), request.target.decode(), body))
        stream, _ = connection.trailing_data
        connection.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))  # declines an upgrade
        open_for_more = connection.their_state is h11.DONE
    return seen


def post(headers: bytes, body: bytes) -> bytes:
    return b"POST /predict HTTP/1.1\r\nhost: test\r\n" + headers + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


LAST = b"GET /last HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("offer", OFFERS)
def test_an_upgrade_offer_is_ignored_and_the_body_read(recorder: Recorder, offer: bytes, apart: bool) -> None:
    for head, body in (
        (post(offer + b"content-length: %d\r\n" % len(HIDDEN), b""), HIDDEN),
        (post(offer + b"transfer-encoding: chunked\r\n", b""), chunked(HIDDEN)),
        (post(b"content-length: %d\r\n" % len(HIDDEN) + offer, b""), HIDDEN),
    ):
        parts = (head, body, LAST) if apart else (head + body + LAST,)
        seen, statuses = recorder.send(*parts)
        assert seen == [("POST", "/predict", HIDDEN), ("GET", "/last", b"")]
        assert statuses == [200, 200]


def test_many_pipelined_upgrade_offers_are_all_answered(recorder: Recorder) -> None:
    offer = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: b\r\n\r\n"
    seen, statuses = recorder.send(offer * 2000 + LAST)
    assert statuses == [200] * 2001
    assert len(seen) == 2001


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"content-length: 5\r\ncontent-length: 5\r\n", 400),
        (b"content-length: 5\r\ncontent-length: 40\r\n", 400),
        (b"content-length: 5, 5\r\n", 400),
        (b"content-length: +5\r\n", 400),
        (b"content-length: 0x5\r\n", 400),
        (b"content-length: -5\r\n", 400),
        (b"content-length: \r\n", 400),
        (b"content-length : 5\r\n", 400),
        (b"content-length: 18446744073709551621\r\n", 400),
        (b"content-length: 5\r\ntransfer-encoding: chunked\r\n", 400),
        (b"transfer-encoding: chunked\r\ncontent-length: 5\r\n", 400),
        (b"transfer-encoding: identity\r\n", 501),
        (b"transfer-encoding: xchunked\r\n", 501),
        (b"transfer-encoding: gzip, chunked\r\n", 501),
        (b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", 501),
        (b"transfer-encoding: chunked, gzip\r\n", 400),
        (b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", 400),
        (b"transfer-encoding : chunked\r\n", 400),
        (b"transfer-encoding:\r\n chunked\r\n", 400),
        (b"x: a\r\n b\r\n", 400),
        (b"x: a\nb: c\r\n", 400),
        (b"x: a\rb: c\r\n", 400),
        (b"x: a\0b\r\n", 400),
        (b"x\r\n", 400),
        (b": x\r\n", 400),
    ],
)
def test_an_ambiguous_head_is_refused_and_ends_the_connection(
    recorder: Recorder, request_head: bytes, status: int
) -> None:
    for offer in (b"", OFFERS[0]):
        seen, statuses = recorder.send(post(offer + request_head, HIDDEN + LAST))
        assert (seen, statuses) == ([], [status])


@pytest.mark.parametrize(
    "body",
    [
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5;a\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\ncontent-length: 5\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\n",
    ],
)
def test_odd_chunks_are_refused_and_end_the_connection(recorder: Recorder, body: bytes) -> None:
    seen, statuses = recorder.send(post(b"transfer-encoding: chunked\r\n", body + LAST))
    assert statuses[0] == 400
    assert len(statuses) == 1
    assert [body for _, _, body in seen if body] == []


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        (b"GET /\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\nhost: test\r\n\r\n", 505),
        (b"CONNECT test:80 HTTP/1.1\r\nhost: test\r\n\r\n" + HIDDEN, 501),
        (b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nhost: test\n\n", 400),
        (b"GET / HTTP/1.1\r\n host: test\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: test\r\n\n" + HIDDEN, 400),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nhost: test\r\n\r\n" + HIDDEN, 400),
    ],
)
def test_a_request_that_is_not_http_1_ends_the_connection(recorder: Recorder, stream: bytes, status: int) -> None:
    assert recorder.send(stream) == ([], [status])


def test_data_after_connection_close_is_not_a_request(recorder: Recorder) -> None:
    assert recorder.send(LAST + HIDDEN) == ([("GET", "/last", b"")], [200])


@pytest.mark.parametrize("ending", [b"connection: close\r\n", b"expect: 100-continue\r\n"])
@pytest.mark.parametrize("rest", [b"!", HIDDEN + b"!", post(b"content-length : 5\r\n", HIDDEN)])
def test_nothing_is_answered_after_the_last_response(recorder: Recorder, ending: bytes, rest: bytes) -> None:
    seen, statuses = recorder.send(post(ending + b"content-length: 5\r\n", b"hello" + rest))
    assert seen == [("POST", "/predict", b"hello")]
    assert [status for status in statuses if status != 100] == [200]


def test_data_after_the_announced_body_is_refused(recorder: Recorder) -> None:
    seen, statuses = recorder.send(post(b"content-length: 5\r\n", b"hello and more"))
    assert seen == [("POST", "/predict", b"hello")]
    assert statuses == [200, 400]


good_headers = st.sampled_from([b"", b"x: y\r\n", b"accept: */*\r\n", *OFFERS])
odd_headers = st.sampled_from(
    [
        b"content-length: 3\r\n",
        b"content-length: 0\r\n",
        b"content-length: 03\r\n",
        b"content-length:3\r\n",
        b"content-length: 3,3\r\n",
        b"content-length: 3 3\r\n",
        b"content-length: \t3\t\r\n",
        b"transfer-encoding: chunked\r\n",
        b"transfer-encoding: Chunked\r\n",
        b"transfer-encoding:\tchunked \r\n",
        b"transfer-encoding: chunked, chunked\r\n",
        b"transfer-encoding: ,chunked\r\n",
        b"transfer-encoding: chunked,\r\n",
        b'transfer-encoding: "chunked"\r\n',
        b"transfer-encoding: chunked;a=b\r\n",
        b"transfer_encoding: chunked\r\n",
        b"te: chunked\r\n",
        b"x: y\r\n z\r\n",
        b"x: y\n",
        b"x: y\r",
        b"x: \x7f\r\n",
        b"x: \xff\r\n",
        b"x y: z\r\n",
        b"x\x00: z\r\n",
        b"expect: 100-continue\r\n",
        b"host: other\r\n",
        b"connection: close\r\n",
        b"connection: content-length, transfer-encoding\r\n",
    ]
)
bodies = st.binary(max_size=20) | st.just(HIDDEN)
odd_chunks = st.sampled_from(
    [
        b"3\r\nabc\r\n",
        b"03\r\nabc\r\n",
        b"3;a=b\r\nabc\r\n",
        b"3 ;a\r\nabc\r\n",
        b"3\nabc\n",
        b"A\r\n0123456789\r\n",
        b"3\r\nabcd\r\n",
        b"ff\r\n",
        b"0\r\n\r\n",
        b"0\r\nx: y\r\n\r\n",
        b"0;a\r\n\r\n",
        b"00\r\n\r\n",
        b"0\r\nx\r\n\r\n",
    ]
)


@st.composite
def good_requests(draw: st.DrawFn) -> bytes:
    """A valid request, perhaps with an upgrade offer, whose body may look like a request."""
    body, headers = draw(bodies), draw(good_headers)
    if draw(st.booleans()):
        framing, body = b"transfer-encoding: chunked\r\n", chunked(body) if body else b"0\r\n\r\n"
    else:
        framing = b"content-length: %d\r\n" % len(body)
    return post(headers + framing if draw(st.booleans()) else framing + headers, body)


@st.composite
def odd_requests(draw: st.DrawFn) -> bytes:
    headers = draw(st.lists(odd_headers | good_headers, max_size=3))
    framing = draw(st.sampled_from([b"", b"content-length: 3\r\n", b"transfer-encoding: chunked\r\n"]))
    headers.insert(draw(st.integers(0, len(headers))), framing)
    body = b"".join(draw(st.lists(odd_chunks, max_size=3) | st.lists(bodies, max_size=1)))
    return post(b"".join(headers), body)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges) if a < b]


@settings(max_examples=150, deadline=None)
@given(st.lists(good_requests(), min_size=1, max_size=4), st.lists(st.integers(0, 1000), max_size=3))
def test_valid_streams_are_read_as_h11_reads_them(recorder: Recorder, requests: list[bytes], places: list[int]) -> None:
    stream = b"".join(requests) + LAST
    expected = read_by_h11(stream)
    assert len(expected) == len(requests) + 1
    seen, statuses = recorder.send(*cut(stream, places))
    assert seen == expected
    assert statuses == [200] * len(expected)


@settings(max_examples=500, deadline=None)
@given(st.lists(good_requests() | odd_requests(), min_size=1, max_size=3), st.lists(st.integers(0, 1000), max_size=2))
def test_no_stream_runs_a_request_that_h11_does_not_read(
    recorder: Recorder, requests: list[bytes], places: list[int]
) -> None:
    stream = b"".join(requests) + LAST + b"!" * 300  # ends every chunk that has begun
    expected = read_by_h11(stream)
    seen, statuses = recorder.send(*cut(stream, places))
    assert seen == expected[: len(seen)]
    if len(seen) < len(expected):
        assert b"expect:" in stream or statuses[-1] in {400, 501}  # the service closes after such a request
