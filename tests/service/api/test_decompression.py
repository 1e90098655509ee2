import asyncio
import gzip
import json
import math
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.api.body import BodyMemory, decompress, read_body
from service.errors import BodyTooLargeError, MalformedBodyError, OverloadedError
from service.settings import Device, Settings
from tests.service.conftest import Serve
from tests.support.asgi_server import answer_on, listening
from tests.support.bundles import solid
from tests.support.http_requests import b64, form, labels_of, npy, problem_of
from tests.support.request_bodies import Connection

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


def chunked(body: bytes, size: int) -> list[bytes]:
    return [body[i : i + size] for i in range(0, len(body), size)] or [b""]


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("size", [1000, 10**7])
def test_a_compressed_body_is_read_as_its_content(packer: str, size: int) -> None:
    coding, compress = PACKERS[packer]
    assert Connection(chunked(compress(PLAIN), size), content_encoding=coding).read() == PLAIN


@pytest.mark.parametrize("size", [1, 7, 10**7])
def test_gzip_with_several_members_is_read_whole(size: int) -> None:
    body = b"".join(gzip.compress(part) for part in (PLAIN[:1000], b"", PLAIN[1000:2000], b""))
    assert Connection([*chunked(body, size), b""], content_encoding="gzip").read() == PLAIN[:2000]


def test_many_small_members_are_read_in_linear_time() -> None:
    """Copying what follows each member would take 20 GB here."""
    members = 20_000
    tracemalloc.start()
    assert decompress(gzip.compress(b"x") * members + gzip.compress(PLAIN), "gzip", 10**7)[:members] == b"x" * members
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_the_limit_applies_to_all_members_together() -> None:
    member = gzip.compress(bytes(600))
    assert len(Connection([member * 2], content_encoding="gzip").read(1200)) == 1200
    for body in (member * 2, gzip.compress(b"") * 500):  # 500 empty members exceed it by themselves
        with pytest.raises(BodyTooLargeError):
            Connection([body], content_encoding="gzip").read(1199)


@pytest.mark.parametrize("rest", [gzip.compress(PLAIN)[:-1], b"\x1f\x8b", b"\x1f", b"plain", bytes(512)])
def test_data_after_a_gzip_member_must_be_a_whole_member(rest: bytes) -> None:
    with pytest.raises(MalformedBodyError, match="gzip"):
        Connection([gzip.compress(PLAIN) + rest], content_encoding="gzip").read()


@pytest.mark.parametrize("packer", PACKERS)
def test_an_empty_body_is_read_as_no_bytes(packer: str) -> None:
    coding, compress = PACKERS[packer]
    for body in (b"", compress(b"")):
        assert Connection([body], content_encoding=coding).read() == b""


@pytest.mark.parametrize("packer", PACKERS)
def test_a_bomb_is_refused_and_never_decompressed_beyond_the_limit(packer: str) -> None:
    coding, compress = PACKERS[packer]
    bomb = compress(bytes(50_000_000))
    connection = Connection([bomb], content_encoding=coding)
    tracemalloc.start()
    with pytest.raises(BodyTooLargeError):
        connection.read(1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000


def test_a_small_body_with_much_content_does_not_block_the_event_loop() -> None:
    async def turns_of_the_loop() -> int:
        connection, turns = Connection([gzip.compress(bytes(10**6))], content_encoding="gzip"), 0
        with BodyMemory(10**7).hold() as held:
            reading = asyncio.create_task(read_body(connection.request, held, 10**7, math.inf))
            while not reading.done():
                await asyncio.sleep(0)
                turns += 1
        assert len(await reading) == 10**6
        return turns

    assert asyncio.run(turns_of_the_loop()) > 2  # one starts the task, and one notices its end


def test_the_memory_for_bodies_bounds_what_is_decompressed() -> None:
    memory = BodyMemory(limit=1000)
    memory.held = 500  # of others
    with pytest.raises(OverloadedError):
        Connection([gzip.compress(bytes(10**6))], content_encoding="gzip").read(memory=memory)
    assert memory.held == 500
    assert len(decompress(gzip.compress(bytes(10**6)), "gzip", 500)) == 501


def test_a_body_at_the_limit_is_accepted() -> None:
    assert len(Connection([gzip.compress(bytes(1000))], content_encoding="gzip").read(1000)) == 1000
    with pytest.raises(BodyTooLargeError):
        Connection([gzip.compress(bytes(1001))], content_encoding="gzip").read(1000)


def test_compressed_bytes_without_content_are_limited_too() -> None:
    connection = Connection([b"\x00\x00\x00\xff\xff" * 100] * 50, content_encoding="deflate")
    with pytest.raises(BodyTooLargeError):
        connection.read(1000)
    assert connection.received == 3


def test_a_content_length_over_the_limit_is_refused_before_reading() -> None:
    connection = Connection([b"\x1f\x8b not read"], content_encoding="gzip", content_length="2000")
    with pytest.raises(BodyTooLargeError):
        connection.read(1000)
    assert connection.received == 0


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize(
    "broken",
    [lambda data: data[:-1], lambda data: data[:2], lambda data: b"plain text", lambda data: data + b"more"],
    ids=["truncated", "its header alone", "not compressed", "more after its end"],
)
def test_a_broken_body_is_malformed(packer: str, broken: Callable[[bytes], bytes]) -> None:
    coding, compress = PACKERS[packer]
    with pytest.raises(MalformedBodyError, match=coding.lower().removeprefix("x-")):
        Connection([broken(compress(PLAIN))], content_encoding=coding).read()


@pytest.mark.parametrize("packer", PACKERS)
def test_every_body_format_may_be_compressed(serve: Serve, packer: str) -> None:
    encoding, compress = PACKERS[packer]
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
        assert labels_of(client.post("/predict", content=compress(body.read()), headers=headers)) == ["red"]


def test_an_error_of_a_compressed_body_is_described(serve: Serve) -> None:
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
def test_identity_among_the_codings_is_ignored(client: TestClient, encoding: str) -> None:
    body = gzip.compress(json.dumps({"instances": [b64(solid("red"))]}).encode())
    headers = {"content-type": "application/json", "content-encoding": encoding}
    assert labels_of(client.post("/predict", content=body, headers=headers)) == ["red"]


def test_a_body_with_a_compressed_transfer_encoding_is_refused(artifacts: Path) -> None:
    body = gzip.compress(solid("red"))
    head = "POST /predict HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Type: image/png\r\n"
    head += "Transfer-Encoding: {}\r\n\r\n"
    chunked = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    with listening(create_app(Settings(artifacts=artifacts, device=Device.CPU))) as address:
        with address.connect() as caller:
            caller.sendall(head.format("gzip, chunked").encode() + chunked)
            answer = answer_on(caller)
        assert answer.startswith(b"HTTP/1.1 415")
        assert b"Transfer-Encoding gzip is not supported; send it as Content-Encoding" in answer
        with address.connect() as caller:
            caller.sendall(head.format("Chunked\r\nContent-Encoding: gzip").encode() + chunked)
            assert answer_on(caller).startswith(b"HTTP/1.1 200")
