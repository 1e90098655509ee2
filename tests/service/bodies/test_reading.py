import asyncio
import math
from collections.abc import Sequence

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from service.api.body import choose_kind, read_body
from service.codecs.base import Purpose
from service.errors import BodyTooLargeError, MalformedBodyError, UnsupportedMediaTypeError


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
    assert not refused.value.closes
    assert connection.received == 0


def test_a_body_without_a_length_is_counted_while_it_comes() -> None:
    connection = Connection([b"abc", b"de", b"f"])
    with pytest.raises(BodyTooLargeError) as refused:
        connection.read(4)
    assert not refused.value.closes
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
