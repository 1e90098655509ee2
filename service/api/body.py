"""Reading a request's body: its format, its size, the memory that it takes, and its decompression."""

import asyncio
import math
import time
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec, Self, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request

from service.codecs.archive import NPZ, ZIP
from service.codecs.base import BodyFormat, OpenApi, Purpose, RequestBody, Submission
from service.codecs.image import RAW_IMAGE
from service.codecs.json import JSON
from service.codecs.multipart import MULTIPART
from service.codecs.npy import NPY
from service.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    MalformedBodyError,
    OverloadedError,
    UnsupportedMediaTypeError,
)
from service.inference.pipeline import LOOP_DECODE_COST
from service.inference.retry_after import Throughput, retry_after
from service.validation import shortened

_LABELLED = (JSON, MULTIPART, RAW_IMAGE, NPY, ZIP, NPZ)
_UNLABELLED = "application/octet-stream"

# The event loop parses what it may decode: parsing takes less time, and a hop to another thread has a cost.
INLINE_BYTES = LOOP_DECODE_COST

BODY_ARRIVED = "convoy.body_arrived"
"""In the scope of a request: whether the server has its whole body, so that receiving it does not wait."""

_CONTENT_CODINGS = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
_BLOCK_BYTES = 64 * 1024

P = ParamSpec("P")
T = TypeVar("T")


class BodyMemory:
    """Bounds the memory that the bodies of all requests in this process take together.

    Only bytes that have arrived count: a client that announces much and sends little takes no room from others.
    """

    def __init__(
        self,
        limit: int,
        on_refusal: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """limit is in bytes. on_refusal is called for each request that finds no room."""
        self.limit = limit
        self.clock = clock
        self.held = 0  # bytes
        self.holders = 0  # requests that hold some of them
        self.released = Throughput()  # bytes per second of one holder
        self._on_refusal = on_refusal

    def hold(self) -> "HeldBody":
        """Returns the share of one request; leaving its block releases it."""
        return HeldBody(self)

    def refusal(self, more: int) -> OverloadedError:
        """Retry-After is the time until `more` bytes are free, at the rate at which requests release theirs."""
        self._on_refusal()
        seconds = self.released.seconds_for(self.held + more - self.limit) / max(self.holders, 1)
        message = "The bodies of other requests fill the memory allowed for bodies; retry later."
        return OverloadedError(message, retry_after(seconds))


class HeldBody:
    """The bytes that one request holds of a BodyMemory."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self._bytes = 0
        self._since = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def room(self) -> float:
        """Bytes that this body may have in all. A lone body has no bound here."""
        others = self._memory.held - self._bytes
        return self._memory.limit - others if others else math.inf

    def check(self, size: int) -> None:
        """Raises OverloadedError if there is no room for a body of this size."""
        if size > self.room:
            raise self._memory.refusal(size - self._bytes)

    def resize(self, size: int) -> None:
        """Raises OverloadedError as check does; the share then keeps its size."""
        self.check(size)
        self._set(size)

    def release(self) -> None:
        if self._bytes:
            self._memory.released.add(self._bytes, self._memory.clock() - self._since)
        self._set(0)

    def _set(self, size: int) -> None:
        if not self._bytes:
            self._since = self._memory.clock()
        self._memory.held += size - self._bytes
        self._memory.holders += bool(size) - bool(self._bytes)
        self._bytes = size


async def read_body(request: Request, held: HeldBody, limit: int, deadline: float) -> bytes:
    """Returns the body, decompressed, of at most `limit` bytes. deadline is in time.monotonic() seconds.

    Raises UnsupportedMediaTypeError, MalformedBodyError, BodyTooLargeError, OverloadedError, BodyTimeoutError, or
    ClientDisconnect. The server discards what is left of a refused body (service/workers/http_limits.py).
    """
    coding, length = _content_coding(request.headers), request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        raise MalformedBodyError("Content-Length is not a number.")
    if int(length) > limit:
        raise BodyTooLargeError(limit, int(length))
    held.check(int(length))
    if request.scope.get(BODY_ARRIVED):  # a timer takes longer than reading a small body
        body = await _receive(request, held, limit)
    else:
        try:
            async with asyncio.timeout(None if math.isinf(deadline) else deadline - time.monotonic()):
                body = await _receive(request, held, limit)
        except TimeoutError as error:
            raise BodyTimeoutError from error
    if coding:
        most = int(min(limit, held.room))
        body = await run_in_threadpool(decompress, body, coding, most)  # the content can be 1,000 times as large
        if len(body) > limit:
            raise BodyTooLargeError(limit)
        held.resize(len(body))
    return body


async def _receive(request: Request, held: HeldBody, limit: int) -> bytes:
    chunks, size, more = [], 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        more = message.get("more_body", False)
        if size > limit:
            raise BodyTooLargeError(limit)
        held.resize(size)
    return b"".join(chunks)


def _content_coding(headers: Headers) -> str | None:
    transfer = _codings(headers, "transfer-encoding", "chunked")
    if transfer:
        raise UnsupportedMediaTypeError(
            f"Transfer-Encoding {shortened(transfer)} is not supported; send it as Content-Encoding."
        )
    coding = _codings(headers, "content-encoding", "identity")
    if coding and coding not in _CONTENT_CODINGS:
        raise UnsupportedMediaTypeError(
            f"Content-Encoding {shortened(coding)} is not supported; send gzip, deflate or an uncompressed body."
        )
    return _CONTENT_CODINGS.get(coding)


def _codings(headers: Headers, name: str, neutral: str) -> str:
    """Returns the header's codings, without the neutral one, which leaves a body as it is."""
    values = headers.getlist(name)
    if not values:
        return ""
    codings = (coding.strip().lower() for coding in ",".join(values).split(","))
    return ", ".join(coding for coding in codings if coding not in {"", neutral})


def decompress(body: bytes, coding: str, limit: int) -> bytes:
    """Returns the content of gzip (all members, RFC 1952, 2.2) or deflate data, at most limit + 1 bytes.

    Raises MalformedBodyError.
    """
    bits, content, rest = _window_bits(coding, body), bytearray(), memoryview(body)
    decoder = zlib.decompressobj(bits)
    try:
        while rest and len(content) <= limit:
            if decoder.eof and coding != "gzip":
                raise MalformedBodyError(f"The body continues after the end of its {coding} data; remove the rest.")
            if decoder.eof:
                decoder = zlib.decompressobj(bits)
            block = rest[:_BLOCK_BYTES]  # each member copies what follows it in its block
            content += decoder.decompress(block, limit + 1 - len(content))
            rest = rest[len(block) - len(decoder.unused_data) :]
    except zlib.error as error:
        raise MalformedBodyError(f"The body is not {coding} data, although its Content-Encoding says so.") from error
    if body and len(content) <= limit and not decoder.eof:
        raise MalformedBodyError(f"The body's {coding} data is truncated; send all of it.")
    return bytes(content)


def _window_bits(coding: str, data: bytes) -> int:
    """Some clients send deflate without the zlib header that HTTP requires; the header's checksum tells."""
    if coding == "gzip":
        return 16 + zlib.MAX_WBITS
    has_header = len(data) >= 2 and data[0] & 0x0F == zlib.DEFLATED and (data[0] * 256 + data[1]) % 31 == 0
    return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS


async def run_off_loop(large: bool, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls work in a thread if it is large, so that it does not block the event loop, or else at once."""
    return await run_in_threadpool(work, *args, **kwargs) if large else work(*args, **kwargs)


def choose_format(request: Request, purpose: Purpose) -> BodyFormat:
    """Returns the format that the Content-Type names. Raises UnsupportedMediaTypeError."""
    return _format(request.headers.get("content-type", "").partition(";")[0].strip().lower(), purpose)


@lru_cache(maxsize=64)  # clients send the same few types
def _format(media_type: str, purpose: Purpose) -> BodyFormat:
    for body_format in FORMATS:
        if purpose in body_format.openapi and body_format.matches(media_type):
            return body_format
    raise _unsupported(f"{shortened(media_type)} is not supported", purpose)


def _parse_by_content(body: RequestBody) -> Submission:
    """Parses a body whose Content-Type is absent or application/octet-stream. Raises UnsupportedMediaTypeError."""
    for body_format in _LABELLED:
        if body.purpose in body_format.openapi and body_format.recognizes(body.data):
            return body_format.parse(body)
    label = (
        f"The Content-Type is {shortened(body.content_type)}"
        if body.content_type
        else "The request has no Content-Type"
    )
    unknown = "the format of the body is unknown" if body.data else "the body is empty"
    raise _unsupported(f"{label}, and {unknown}", body.purpose)


def _unsupported(fault: str, purpose: Purpose) -> UnsupportedMediaTypeError:
    names = ", ".join(body_format.media_type for body_format in _LABELLED if purpose in body_format.openapi)
    return UnsupportedMediaTypeError(
        f"{fault}; send one of {names}. With curl, send image files by -F files=@image.png, or name the format, as in "
        "-H 'Content-Type: application/json'."
    )


def _by_content(files: str) -> OpenApi:
    description = f"{files}, recognised by its content. A body without Content-Type is read in the same way."
    return {"schema": {"type": "string", "format": "binary", "description": description}}


BY_CONTENT = BodyFormat(
    _UNLABELLED,
    _parse_by_content,
    {
        Purpose.PREDICT: _by_content("An image file or an .npy file"),
        Purpose.EVALUATE: _by_content("A zip or an .npz file"),
    },
    aliases=("", "binary/octet-stream"),  # the second is the default of S3
)
FORMATS = (*_LABELLED, BY_CONTENT)


def request_body(purpose: Purpose) -> OpenApi:
    """Returns OpenAPI's request body, with every format of this purpose."""
    return {
        "required": True,
        "content": {form.media_type: form.openapi[purpose] for form in FORMATS if purpose in form.openapi},
    }
