import gzip
import zlib
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.api.middleware.compression import MINIMUM_BYTES, accepted_encoding
from tests.service.conftest import Serve


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip", "gzip"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip; q=0", None),
        ("*", "gzip"),
        ("*;q=0", None),
        ("gzip;q=0, *", "deflate"),
        ("identity", None),
        ("br, zstd", None),
        ("gzip;q=nonsense", None),
        ("gzip;q=-1", None),
        ("gzip;q=inf", None),
        ("notgzip", None),
        ("", None),
    ],
)
def test_the_callers_weights_choose(header: str, encoding: str | None) -> None:
    assert accepted_encoding(header) == encoding


def raw(client: TestClient, path: str, accept: str) -> tuple[dict[str, Any], bytes]:
    with client.stream("GET", path, headers={"accept-encoding": accept}) as answer:
        return dict(answer.headers), b"".join(answer.iter_raw())


def test_a_long_answer_is_packed_as_asked_and_keeps_its_headers(client: TestClient) -> None:
    plain_headers, plain = raw(client, "/openapi.json", "identity")
    assert "content-encoding" not in plain_headers
    assert plain_headers["vary"] == "Accept-Encoding"
    for encoding, unpack in (("gzip", gzip.decompress), ("deflate", zlib.decompress)):
        headers, packed = raw(client, "/openapi.json", encoding)
        assert headers["content-encoding"] == encoding
        assert headers["vary"] == "Accept-Encoding"
        assert int(headers["content-length"]) == len(packed) < len(plain)
        assert unpack(packed) == plain
        assert {"x-request-id", "server-timing", "x-content-type-options"} <= set(headers)


def test_a_short_answer_is_not_packed(client: TestClient) -> None:
    headers, body = raw(client, "/livez", "gzip")
    assert len(body) < MINIMUM_BYTES
    assert "content-encoding" not in headers


def test_an_image_is_not_packed_again(serve: Serve) -> None:
    assert "content-encoding" not in raw(serve(), "/models/colours/report/curves.png", "gzip")[0]


def test_the_tag_of_a_packed_file_is_weak_and_still_matches(client: TestClient) -> None:
    strong = raw(client, "/static/page.js", "identity")[0]["etag"]
    weak = raw(client, "/static/page.js", "gzip")[0]["etag"]
    assert weak == f"W/{strong}"
    assert client.get("/static/page.js", headers={"if-none-match": weak}).status_code == 304
