import asyncio
import gzip
import json
import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from service.api.app import create_app
from service.api.body import read_body
from service.api.decompression import PIECE_BYTES, Decompression
from service.errors import BodyTooLargeError, MalformedBodyError
from service.settings import Device, Settings
from tests.service.conftest import Serve
from tests.support.asgi_server import answer_on, listening
from tests.support.bundles import solid
from tests.support.http_requests import b64, form, labels_of, npy, problem_of

PLAIN = np.random.default_rng(0).bytes(300_000) + bytes(300_000)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZIP", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
}


class Upload:
    """A body that comes in these chunks, read by read_body behind the middleware."""

    def __init__(self, chunks: Sequence[bytes], encoding: str = "gzip", **headers: str) -> None:
        self.chunks = list(chunks)
        self.received = 0
        self.largest = 0
        self.headers = [(b"content-encoding", encoding.encode())]
        self.headers += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]

    def read(self, limit: int = 10**7) -> bytes:
        read: list[bytes] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def watched() -> Message:
                message = await receive()
                self.largest = max(self.largest, len(message.get("body", b"")))
                return message

            request = Request(scope, watched)
            assert "content-encoding" not in request.headers
            read.append(await read_body(request, limit, math.inf))
            assert (await receive())["type"] == "http.disconnect"

        async def receive() -> Message:
            if self.received == len(self.chunks):
                return {"type": "http.disconnect"}
            self.received += 1
            more = self.received < len(self.chunks)
            return {"type": "http.request", "body": self.chunks[self.received - 1], "more_body": more}

        async def send(message: Message) -> None: ...

        scope = {"type": "http", "method": "POST", "path": "/", "headers": self.headers}
        asyncio.run(Decompression(app, limit)(scope, receive, send))
        return read[0]


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("size", [1, 1000, 10**7])
def test_a_packed_body_is_read_as_if_it_were_not(packer: str, size: int) -> None:
    encoding, pack = PACKERS[packer]
    packed = pack(PLAIN)
    if size == 1:
        packed = pack(PLAIN[:2000])
    upload = Upload([packed[i : i + size] for i in range(0, len(packed), size)], encoding, content_length="7")
    assert upload.read() == (PLAIN[:2000] if size == 1 else PLAIN)


@pytest.mark.parametrize("size", [1, 7, 10**7])
def test_gzip_of_several_members_is_read_whole(size: int) -> None:
    packed = b"".join(gzip.compress(part) for part in (PLAIN[:1000], b"", PLAIN[1000:2000], b""))
    chunks = [packed[i : i + size] for i in range(0, len(packed), size)]
    assert Upload(chunks).read() == PLAIN[:2000]
    assert Upload([*chunks, b""]).read() == PLAIN[:2000]


def test_the_limit_is_that_of_all_members_together() -> None:
    member = gzip.compress(bytes(600))
    assert len(Upload([member * 2]).read(1200)) == 1200
    with pytest.raises(BodyTooLargeError):
        Upload([member * 2]).read(1199)
    with pytest.raises(BodyTooLargeError):  # members of nothing
        Upload([gzip.compress(b"") * 10] * 50).read(1000)


@pytest.mark.parametrize("second", [gzip.compress(PLAIN)[:-1], b"\x1f\x8b", b"\x1f", b"plain", bytes(512)])
def test_what_follows_a_member_must_be_a_whole_one(second: bytes) -> None:
    for chunks in ([gzip.compress(PLAIN) + second], [gzip.compress(PLAIN), second]):
        with pytest.raises(MalformedBodyError, match="gzip"):
            Upload(chunks).read()


@pytest.mark.parametrize("packer", PACKERS)
def test_an_empty_body_is_empty(packer: str) -> None:
    encoding, pack = PACKERS[packer]
    assert Upload([b""], encoding).read() == b""
    assert Upload([pack(b"")], encoding).read() == b""


@pytest.mark.parametrize("packer", PACKERS)
def test_a_bomb_is_refused_at_the_limit_and_never_unpacked_beyond_it(packer: str) -> None:
    encoding, pack = PACKERS[packer]
    upload = Upload([pack(bytes(50_000_000)), b"the rest of it"], encoding)
    with pytest.raises(BodyTooLargeError):
        upload.read(1_000_000)
    assert upload.received == 1
    assert upload.largest <= PIECE_BYTES + 2**16


def test_a_body_just_within_the_limit_is_taken() -> None:
    assert len(Upload([gzip.compress(bytes(1000))]).read(1000)) == 1000
    with pytest.raises(BodyTooLargeError):
        Upload([gzip.compress(bytes(1001))]).read(1000)


def test_packed_bytes_that_unpack_to_nothing_have_an_end() -> None:
    empty_blocks = b"\x00\x00\x00\xff\xff" * 100
    upload = Upload([empty_blocks] * 50, "deflate")
    with pytest.raises(BodyTooLargeError):
        upload.read(1000)
    assert upload.received == 3


def test_a_length_over_the_limit_is_refused_before_anything_is_unpacked() -> None:
    upload = Upload([b"\x1f\x8b not read", b"..."], content_length="2000", expect="100-continue")
    with pytest.raises(BodyTooLargeError):
        upload.read(1000)
    assert upload.received == 0


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize(
    "broken",
    [lambda data: data[:-1], lambda data: data[:2], lambda data: b"plain text", lambda data: data + b"more"],
    ids=["cut short", "its head alone", "not packed", "more after its end"],
)
def test_a_broken_body_is_malformed(packer: str, broken: Callable[[bytes], bytes]) -> None:
    encoding, pack = PACKERS[packer]
    with pytest.raises(MalformedBodyError, match=encoding.lower().removeprefix("x-")):
        Upload([broken(pack(PLAIN))], encoding).read()


def test_a_caller_that_hangs_up_midway_is_not_taken_for_one_that_sent_all() -> None:
    async def hang_up() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert (await receive())["type"] == "http.disconnect"

        async def gone() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None: ...

        await Decompression(app, 10)({"type": "http", "headers": [(b"content-encoding", b"gzip")]}, gone, send)

    asyncio.run(hang_up())


@pytest.mark.parametrize("packer", PACKERS)
def test_every_kind_of_body_may_be_packed(serve: Serve, packer: str) -> None:
    encoding, pack = PACKERS[packer]
    client = serve()
    bodies = [
        client.build_request("POST", "/predict", json={"instances": [b64(solid("red"))]}),
        client.build_request("POST", "/predict", files=form(solid("red"))),
        client.build_request("POST", "/predict", content=solid("red"), headers={"content-type": "image/png"}),
    ]
    array = npy(np.array([[[[255, 0, 0]]]], np.uint8))
    bodies.append(
        client.build_request("POST", "/predict", content=array, headers={"content-type": "application/x-npy"})
    )
    for body in bodies:
        headers = {"content-type": body.headers["content-type"], "content-encoding": encoding}
        assert labels_of(client.post("/predict", content=pack(body.read()), headers=headers)) == ["red"]


def test_what_is_wrong_with_a_packed_body_is_said(serve: Serve) -> None:
    client = serve(max_body_bytes=10_000)

    def ask(body: bytes, encoding: str) -> httpx2.Response:
        headers = {"content-type": "application/json", "content-encoding": encoding}
        return client.post("/predict", content=body, headers=headers)

    problem_of(ask(gzip.compress(bytes(100_000)), "gzip"), 413, "body_too_large")
    problem_of(ask(b"{}", "gzip"), 400, "invalid_request")
    for encoding in ("br", "gzip, gzip", "zstd"):
        assert encoding in problem_of(ask(b"{}", encoding), 415, "unsupported_media_type").detail
    for encoding in ("identity", "identity, Identity"):
        problem_of(ask(b"{}", encoding), 422, "invalid_request")


@pytest.mark.parametrize("encoding", ["gzip, identity", "Identity,GZip"])
def test_identity_among_the_encodings_is_nothing(client: TestClient, encoding: str) -> None:
    body = gzip.compress(json.dumps({"instances": [b64(solid("red"))]}).encode())
    headers = {"content-type": "application/json", "content-encoding": encoding}
    assert labels_of(client.post("/predict", content=body, headers=headers)) == ["red"]


def test_a_body_packed_by_transfer_encoding_is_refused_and_not_read_as_it_is(artifacts: Path) -> None:
    body = gzip.compress(solid("red"))
    head = "POST /predict HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Type: image/png\r\n"
    head += "Transfer-Encoding: {}\r\n\r\n"
    chunked = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    with listening(create_app(Settings(artifacts=artifacts, device=Device.CPU))) as address:
        with address.connect() as caller:
            caller.sendall(head.format("gzip, chunked").encode() + chunked)
            answer = answer_on(caller)
        assert answer.startswith(b"HTTP/1.1 415")
        assert b"Transfer-Encoding gzip is not read; name it as Content-Encoding" in answer
        with address.connect() as caller:
            caller.sendall(head.format("Chunked\r\nContent-Encoding: gzip").encode() + chunked)
            assert answer_on(caller).startswith(b"HTTP/1.1 200")
