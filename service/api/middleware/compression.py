"""Answers by gzip or deflate, as Accept-Encoding asks. Starlette's middleware, with deflate and weights beside it."""

import zlib
from functools import lru_cache

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import GZipResponder, IdentityResponder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MINIMUM_BYTES = 1024  # what fits into one packet comes no sooner for being smaller

# HTTP's deflate is what zlib writes, with its header (RFC 9110, section 8.4.1.2).
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class Compression:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        encoding = accepted_encoding(Headers(scope=scope).get("accept-encoding", ""))
        responder = _Responder(self._app, encoding) if encoding else IdentityResponder(self._app, MINIMUM_BYTES)

        async def weakened(message: Message) -> None:
            if message["type"] == "http.response.start":
                _weaken_etag(MutableHeaders(scope=message))
            await send(message)

        await responder(scope, receive, weakened)


class _Responder(GZipResponder):
    def __init__(self, app: ASGIApp, encoding: str) -> None:
        super().__init__(app, MINIMUM_BYTES, zlib.Z_DEFAULT_COMPRESSION)
        self.content_encoding = encoding
        self._compressor = None

    @property
    def compressor(self) -> "zlib._Compress":
        if self._compressor is None:
            self._compressor = zlib.compressobj(self.compresslevel, zlib.DEFLATED, _WINDOW_BITS[self.content_encoding])
        return self._compressor


@lru_cache(maxsize=64)  # clients send the same few
def accepted_encoding(header: str) -> str | None:
    """The one of ours with the highest weight, gzip among equals; None where the caller wants none of them."""
    weights: dict[str, float] = {}
    for part in header.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        weights[name] = float(weight) if weight.replace(".", "", 1).isdecimal() and weight.isascii() else 0.0
    ours = {name: weights.get(name, weights.get("*", 0.0)) for name in _WINDOW_BITS}
    best = max(ours, key=lambda name: ours[name])
    return best if ours[best] > 0 else None


def _weaken_etag(headers: MutableHeaders) -> None:
    """The bytes are no longer those that the tag stands for."""
    etag = headers.get("etag", "")
    if "content-encoding" in headers and etag.startswith('"'):
        headers["ETag"] = f"W/{etag}"
