import asyncio
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from service.api.app import create_app
from service.api.body import BodyMemory, HeldBody, choose_format, read_body
from service.codecs.base import Purpose
from service.errors import BodyTooLargeError, MalformedBodyError, OverloadedError, UnsupportedMediaTypeError
from service.inference.retry_after import RETRY_SECONDS
from service.settings import Device, Settings
from tests.support.asgi_server import Address, answer_on, listening, request_bytes
from tests.support.bundles import solid
from tests.support.http_requests import b64, npy
from tests.support.request_bodies import Connection, request_body
from tests.support.zip_files import zipped


def test_a_body_within_the_limit_is_read_whole() -> None:
    assert Connection([b"ab", b"cd"], content_length="4").read(4) == b"abcd"


def test_a_content_length_over_the_limit_is_refused_before_reading() -> None:
    connection = Connection([b"abc", b"de"], content_length="5")
    with pytest.raises(BodyTooLargeError, match="The body of 5 bytes is larger than the 4 bytes allowed") as refused:
        connection.read(4)
    assert not refused.value.headers
    assert connection.received == 0


def test_a_body_without_content_length_is_counted_as_it_arrives() -> None:
    connection = Connection([b"abc", b"de", b"f"])
    with pytest.raises(BodyTooLargeError) as refused:
        connection.read(4)
    assert not refused.value.headers
    assert connection.received == 2


def test_a_client_that_disconnects_has_not_sent_a_whole_body() -> None:
    async def hung_up() -> Message:
        return {"type": "http.disconnect"}

    request = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, hung_up)
    with pytest.raises(ClientDisconnect):
        asyncio.run(read_body(request, HeldBody(BodyMemory(8)), 4, math.inf))


def test_a_body_longer_than_its_content_length_is_still_limited() -> None:
    with pytest.raises(BodyTooLargeError):
        Connection([b"abc", b"de"], content_length="2").read(4)


def test_an_expect_100_request_is_refused_before_its_body_is_sent() -> None:
    connection = Connection([b"abcde"], content_length="5", expect="100-continue")
    with pytest.raises(BodyTooLargeError):
        connection.read(4)
    assert connection.received == 0


@pytest.mark.parametrize("length", ["-1", "many", "1e3"])
def test_a_content_length_that_is_not_a_number_is_malformed(length: str) -> None:
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
def test_the_content_type_chooses_the_format(content_type: str, chosen: str) -> None:
    assert choose_format(Connection(content_type=content_type).request, Purpose.PREDICT).media_type == chosen


NPY_BODY, ZIP_BODY = npy(np.zeros((1, 8, 8), np.uint8)), zipped({"red/1.png": solid("red")})


@pytest.mark.parametrize(
    "content_type", ["", "application/octet-stream", "Application/Octet-Stream; charset=binary", "binary/octet-stream"]
)
@pytest.mark.parametrize(
    ("purpose", "data"),
    [
        *((Purpose.PREDICT, solid("red", image_format=name)) for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")),
        (Purpose.PREDICT, solid("red", image_format="PPM")),
        (Purpose.PREDICT, NPY_BODY),
        (Purpose.EVALUATE, ZIP_BODY),
    ],
)
def test_a_body_without_a_useful_content_type_is_read_by_its_content(
    purpose: Purpose, data: bytes, content_type: str
) -> None:
    body_format = choose_format(Connection(content_type=content_type).request, purpose)
    assert len(body_format.parse(request_body(data, content_type, purpose)).images) == 1


@pytest.mark.parametrize(
    ("purpose", "data", "state"),
    [
        (Purpose.PREDICT, b"", "the body is empty"),
        (Purpose.PREDICT, b"text", "the format of the body is unknown"),
        (Purpose.PREDICT, b'{"instances": []}', "the format of the body is unknown"),
        (Purpose.PREDICT, ZIP_BODY, "the format of the body is unknown"),
        (Purpose.EVALUATE, solid("red"), "the format of the body is unknown"),
        (Purpose.EVALUATE, NPY_BODY, "the format of the body is unknown"),
    ],
)
def test_another_body_without_content_type_is_refused_with_curls_missing_option(
    purpose: Purpose, data: bytes, state: str
) -> None:
    body_format = choose_format(Connection().request, purpose)
    fault = rf"no Content-Type, and {state}; send one of application/json.* -F files=@.* -H 'Con"
    with pytest.raises(UnsupportedMediaTypeError, match=fault):
        body_format.parse(request_body(data, "", purpose))


@pytest.mark.parametrize(
    ("purpose", "headers", "said"),
    [
        (Purpose.PREDICT, {"content_type": "text/plain"}, "text/plain is not supported"),
        (
            Purpose.PREDICT,
            {"content_type": "application/x-www-form-urlencoded"},
            "With curl, .* -F files=@.* or .* -H '",
        ),
        (Purpose.EVALUATE, {"content_type": "image/png"}, "send one of application/json, multipart/form-data"),
        (Purpose.EVALUATE, {"content_type": "application/x-npy"}, "is not supported; send one of application/json"),
    ],
)
def test_another_content_type_is_refused_with_the_supported_ones(
    purpose: Purpose, headers: dict[str, str], said: str
) -> None:
    with pytest.raises(UnsupportedMediaTypeError, match=said):
        choose_format(Connection([b""], **headers).request, purpose)


def test_the_memory_bounds_all_bodies_but_a_lone_body_always_has_room() -> None:
    memory = BodyMemory(limit=10)
    first, second = HeldBody(memory), HeldBody(memory)
    first.check(50)
    first.resize(6)
    second.check(4)
    for check in (second.check, second.resize):
        with pytest.raises(OverloadedError):
            check(5)
    second.resize(4)
    with pytest.raises(OverloadedError):
        first.check(7)
    first.release()
    second.check(50)
    assert memory.held == 4


def test_retry_after_is_the_time_until_there_is_room_at_the_rate_at_which_others_release_theirs() -> None:
    now = 0.0
    memory = BodyMemory(limit=100, clock=lambda: now)
    assert memory.refusal(50).retry_after == 1.0  # nothing is known yet
    for _ in range(3):
        with memory.hold() as done:
            done.resize(40)
            now += 20.0  # 2 bytes a second
    for size in (60, 40):
        HeldBody(memory).resize(size)
    with pytest.raises(OverloadedError) as refused:
        HeldBody(memory).check(80)
    assert refused.value.retry_after == 80 / 2 / 2  # two holders release at the same time
    assert memory.refusal(100_000).retry_after == RETRY_SECONDS[1]


def test_a_refused_body_holds_nothing_more_and_is_released() -> None:
    memory = BodyMemory(limit=10)
    memory.held = 6  # of others
    connection = Connection([b"abc", b"de", b"fgh"])
    with pytest.raises(OverloadedError) as refused:
        connection.read(memory=memory)
    assert "Connection" not in refused.value.headers
    assert connection.received == 2
    assert memory.held == 6


def ask(address: Address, body: bytes, **headers: str) -> tuple[bytes, bytes]:
    """Returns (head, body) of the response, on a connection that the service must keep open."""
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
