import asyncio
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from service.api.app import create_app
from service.api.body import BodyMemory, HeldBody, choose_kind, read_body
from service.codecs.base import Purpose
from service.errors import BodyTooLargeError, MalformedBodyError, OverloadedError, UnsupportedMediaTypeError
from service.inference.retry_after import RETRY_SECONDS
from service.settings import Device, Settings
from tests.support.asgi_server import Address, answer_on, listening, request_bytes
from tests.support.bundles import solid
from tests.support.http_requests import b64


class Connection:
    """A request whose body comes in these chunks; received counts those that were asked for."""

    def __init__(self, chunks: Sequence[bytes] = (b"",), **headers: str) -> None:
        self._chunks = chunks
        self.received = 0
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.request = Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, self._receive)

    async def _receive(self) -> Message:
        assert self.received < len(self._chunks), "a server would wait here until the caller hangs up"
        chunk = self._chunks[self.received]
        self.received += 1
        return {"type": "http.request", "body": chunk, "more_body": self.received < len(self._chunks)}

    def read(self, limit: int) -> bytes:
        return asyncio.run(read_body(self.request, limit, math.inf))


def test_a_body_within_the_limit_is_read_whole() -> None:
    assert Connection([b"ab", b"cd"], content_length="4").read(4) == b"abcd"


def test_a_length_over_the_limit_is_refused_before_anything_is_read() -> None:
    connection = Connection([b"abc", b"de"], content_length="5")
    with pytest.raises(BodyTooLargeError, match="The body of 5 bytes is larger than the 4 bytes allowed") as refused:
        connection.read(4)
    assert not refused.value.headers
    assert connection.received == 0


def test_a_body_without_a_length_is_counted_while_it_comes() -> None:
    connection = Connection([b"abc", b"de", b"f"])
    with pytest.raises(BodyTooLargeError) as refused:
        connection.read(4)
    assert not refused.value.headers
    assert connection.received == 2


def test_a_caller_that_hangs_up_is_not_taken_for_one_that_sent_all() -> None:
    async def hung_up() -> Message:
        return {"type": "http.disconnect"}

    request = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, hung_up)
    with pytest.raises(ClientDisconnect):
        asyncio.run(read_body(request, 4, math.inf))


def test_a_length_that_lies_does_not_get_more_in() -> None:
    with pytest.raises(BodyTooLargeError):
        Connection([b"abc", b"de"], content_length="2").read(4)


def test_who_asks_before_sending_is_refused_before_it_sends() -> None:
    connection = Connection([b"abcde"], content_length="5", expect="100-continue")
    with pytest.raises(BodyTooLargeError):
        connection.read(4)
    assert connection.received == 0


@pytest.mark.parametrize("length", ["-1", "many", "1e3"])
def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    with pytest.raises(MalformedBodyError):
        Connection([b"a"], content_length=length).read(4)


@pytest.mark.parametrize(
    ("content_type", "chosen"),
    [
        ("application/json; charset=utf-8", "application/json"),
        ("Application/JSON", "application/json"),
        ("multipart/form-data; boundary=x", "multipart/form-data"),
        ("image/webp", "image/*"),
        ("application/x-npy", "application/x-npy"),
    ],
)
def test_the_content_type_chooses_the_kind(content_type: str, chosen: str) -> None:
    assert choose_kind(Connection(content_type=content_type).request, Purpose.PREDICT).media_type == chosen


@pytest.mark.parametrize(
    ("purpose", "headers", "said"),
    [
        (Purpose.PREDICT, {}, "The request has no Content-Type; send one of application/json, multipart/form-data"),
        (Purpose.PREDICT, {"content_type": "text/plain"}, "A body of text/plain is not taken here"),
        (Purpose.EVALUATE, {"content_type": "image/png"}, "send one of application/json, multipart/form-data"),
        (Purpose.EVALUATE, {"content_type": "application/x-npy"}, "is not taken here"),
    ],
)
def test_another_kind_is_refused_with_those_that_are_taken(
    purpose: Purpose, headers: dict[str, str], said: str
) -> None:
    with pytest.raises(UnsupportedMediaTypeError, match=said):
        choose_kind(Connection([b""], **headers).request, purpose)


async def nothing(*_: object) -> None: ...


def test_what_all_hold_is_bounded_but_a_lone_one_always_has_room() -> None:
    memory = BodyMemory(nothing, limit=10)
    first, second = HeldBody(memory), HeldBody(memory)
    assert first.has_room(50)
    first.resize(6)
    assert second.has_room(4)
    assert not second.has_room(5)
    second.resize(4)
    assert not first.has_room(7)
    first.resize(0)
    assert second.has_room(50)
    assert memory.held == 4


def test_who_finds_no_room_is_told_when_there_will_be_at_the_rate_at_which_others_gave_theirs_back() -> None:
    now = 0.0
    memory = BodyMemory(nothing, limit=100, clock=lambda: now)
    assert HeldBody(memory).refused(50).retry_after == 1.0  # nothing is known yet
    for _ in range(3):
        done = HeldBody(memory)
        done.resize(40)
        now += 20.0
        done.release()  # 2 bytes a second
    for size in (60, 40):
        HeldBody(memory).resize(size)
    assert HeldBody(memory).refused(80).retry_after == 80 / 2 / 2  # both give back meanwhile
    assert HeldBody(memory).refused(100_000).retry_after == RETRY_SECONDS[1]


def test_a_body_that_is_refused_halfway_says_nothing_of_how_long_others_take() -> None:
    now = 0.0
    memory = BodyMemory(nothing, limit=100, clock=lambda: now)
    done, refused = HeldBody(memory), HeldBody(memory)
    done.resize(40)
    refused.resize(40)
    refused.resize(0)
    refused.release()
    now += 20.0
    done.release()
    HeldBody(memory).resize(100)
    assert HeldBody(memory).refused(10).retry_after == 10 / 2


def test_a_body_that_is_refused_halfway_holds_nothing_while_its_rest_is_thrown_away() -> None:
    held: list[int] = []
    chunks = iter([b"abc", b"de", b"fgh"])

    async def receive() -> Message:
        held.append(memory.held)
        chunk = next(chunks)
        return {"type": "http.request", "body": chunk, "more_body": chunk != b"fgh"}

    async def read(scope: Scope, receive: Receive, _: Send) -> None:
        await read_body(Request(scope, receive), 100, math.inf)

    async def send(_: Message) -> None: ...

    memory = BodyMemory(read, limit=10)
    memory.held = 6  # others'
    with pytest.raises(OverloadedError) as refused:
        asyncio.run(memory({"type": "http", "headers": []}, receive, send))
    assert "Connection" not in refused.value.headers
    assert held == [6, 9]
    assert memory.held == 6


def ask(address: Address, body: bytes, **headers: str) -> tuple[bytes, bytes]:
    """(head, body) of the answer, on a connection that the service must keep open."""
    with address.connect() as connection:
        connection.sendall(request_bytes("/predict", body, **headers))
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        head, _, rest = received.partition(b"\r\n\r\n")
        (length,) = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        while len(rest) < int(length):
            rest += connection.recv(65536)
        return head, rest


def test_a_body_for_which_there_is_no_memory_is_503_until_another_request_has_ended(artifacts: Path) -> None:
    settings = Settings(artifacts=artifacts, device=Device.CPU, body_memory_bytes=1000)
    body = json.dumps({"instances": [b64(solid("red"))]}).encode().ljust(600)
    with listening(create_app(settings)) as address:
        assert ask(address, body)[0].startswith(b"HTTP/1.1 200")
        with address.connect() as slow:
            slow.sendall(request_bytes("/predict", body[:500], content_length="600"))
            announced = b""
            while not announced.startswith(b"HTTP/1.1 503"):  # until the half of the slow one has come
                announced, problem = ask(address, body)
            unannounced = request_bytes("/predict", b"", transfer_encoding="chunked").replace(
                b"content-length: 0\r\n", b""
            )
            with address.connect() as chunked:
                chunked.sendall(unannounced + b"258\r\n" + body + b"\r\n0\r\n\r\n")
                assert chunked.recv(65536).startswith(b"HTTP/1.1 503")
            assert ask(address, body[:400])[0].startswith(b"HTTP/1.1 200")  # there is room for so much
            slow.sendall(body[500:])
            assert slow.recv(65536).startswith(b"HTTP/1.1 200")
        assert re.search(rb"\r\nretry-after: [1-9]", announced.lower())
        with address.connect() as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
            (refused,) = re.findall(rb'overloaded_total{model="",reason="body_memory"} (\S+)', answer_on(connection))
        assert float(refused) >= 2
        assert b"connection: close" not in announced.lower()
        assert json.loads(problem)["code"] == "overloaded"
        assert ask(address, body)[0].startswith(b"HTTP/1.1 200")
