"""A request -> its Submission: which kind of body it is, no more bytes of it than allowed, and its parsing."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.codecs.archive import NPZ, ZIP
from service.codecs.base import BodyKind, Incoming, OpenApi, Purpose, Submission
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
from service.inference.retry_after import Throughput, retry_after
from service.settings import Settings

# The memory that the bodies of all requests in a process may take together.
#
# Only what has really come counts: a caller that announces much and sends little takes no one's place.

_STATE = "held_body"


class HeldBody:
    """What one request holds of a memory."""

    def __init__(self, memory: "BodyMemory | None" = None) -> None:
        """Without a memory there is no bound."""
        self._memory = memory
        self._bytes = 0
        self._since = 0.0

    def has_room(self, size: int) -> bool:
        """For so many bytes in all. A lone request always has."""
        if self._memory is None:
            return True
        others = self._memory.held - self._bytes
        return not others or others + size <= self._memory.limit

    def refused(self, size: int) -> OverloadedError:
        """Says so of a size for which there is no room."""
        wait = self._memory.refuse(size - self._bytes) if self._memory else 0.0
        return OverloadedError(
            "The bodies of other requests take all the memory allowed for them; ask again later.", retry_after(wait)
        )

    def resize(self, size: int) -> None:
        if self._memory is not None:
            self._memory.held += size - self._bytes
            self._memory.holders += bool(size) - bool(self._bytes)
            if not self._bytes:
                self._since = self._memory.clock()
        self._bytes = size

    def release(self) -> None:
        """At the end of the request."""
        if self._memory is not None and self._bytes:
            self._memory.released.add(self._bytes, self._memory.clock() - self._since)
        self.resize(0)


class BodyMemory:
    """ASGI middleware: every request has a HeldBody, which is released when the request has ended."""

    def __init__(
        self,
        app: ASGIApp,
        limit: int,
        on_refusal: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """limit in bytes. on_refusal is told of every request that finds no room."""
        self._app = app
        self._on_refusal = on_refusal
        self.limit = limit
        self.clock = clock
        self.held = 0  # bytes
        self.holders = 0  # requests that hold some of them
        self.released = Throughput()  # bytes a second, by each of the holders

    def refuse(self, more: int) -> float:
        """Seconds until there is room for so many bytes more, at the rate at which requests gave theirs back."""
        self._on_refusal()
        return self.released.seconds_for(self.held + more - self.limit) / max(self.holders, 1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held = scope.setdefault("state", {})[_STATE] = HeldBody(self)
        try:
            await self._app(scope, receive, send)
        finally:
            held.release()


def held_body(scope: Mapping[str, Any]) -> HeldBody:
    """The request's; one without a bound where the middleware is not there."""
    held = scope.get("state", {}).get(_STATE)
    return held if isinstance(held, HeldBody) else HeldBody()


KINDS: Sequence[BodyKind] = (JSON, MULTIPART, RAW_IMAGE, NPY, ZIP, NPZ)

# Below this, a hop to another thread costs more than the parsing.
INLINE_BYTES = 64 * 1024


async def read_submission(request: Request, purpose: Purpose, settings: Settings, deadline: float) -> Submission:
    """Raises UnsupportedMediaTypeError, or as read_as."""
    return await read_as(choose_kind(request, purpose), request, purpose, settings, deadline)


async def read_as(
    kind: BodyKind, request: Request, purpose: Purpose, settings: Settings, deadline: float
) -> Submission:
    """Whatever Content-Type says. Raises what read_body or the kind's parse raises."""
    incoming = Incoming(
        body=await read_body(request, settings.max_body_bytes, deadline),
        content_type=request.headers.get("content-type", ""),
        purpose=purpose,
        max_images=settings.max_images,
        max_pixels=settings.max_pixels,
        max_json_values=settings.max_json_values,
        max_archive_bytes=settings.max_archive_bytes,
        max_archived_image_bytes=settings.max_body_bytes,
    )
    if len(incoming.body) <= INLINE_BYTES:
        return kind.parse(incoming)
    return await run_in_threadpool(kind.parse, incoming)


def choose_kind(request: Request, purpose: Purpose) -> BodyKind:
    """By Content-Type alone. Raises UnsupportedMediaTypeError."""
    offered = [kind for kind in KINDS if purpose in kind.openapi]
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    for kind in offered:
        if kind.matches(media_type):
            return kind
    taken = ", ".join(kind.media_type for kind in offered)
    said = f"A body of {media_type} is not taken here" if media_type else "The request has no Content-Type"
    raise UnsupportedMediaTypeError(f"{said}; send one of {taken}.")


async def read_body(request: Request, limit: int, deadline: float) -> bytes:
    """The body, within limit bytes, the memory left for bodies, and the deadline (in time.monotonic() seconds).

    Content-Length is looked at first, and what comes is counted all the same. Raises BodyTooLargeError or
    OverloadedError as soon as that is known, and leaves the rest to the server (service/workers/http_limits.py);
    DeadlineError; ClientDisconnect.
    """
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        raise MalformedBodyError("Content-Length is no number.")
    try:
        async with asyncio.timeout(None if math.isinf(deadline) else deadline - time.monotonic()):
            return await _read(request, int(length), limit)
    except TimeoutError as error:
        raise BodyTimeoutError from error


async def _read(request: Request, length: int, limit: int) -> bytes:
    held, body, more = held_body(request.scope), bytearray(), True
    refused = _refusal(held, length, limit, length)
    if refused:
        raise refused
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
        refused = _refusal(held, len(body), limit)
        if refused:
            raise refused
        held.resize(len(body))
    return bytes(body)


def _refusal(
    held: HeldBody, size: int, limit: int, announced: int | None = None
) -> BodyTooLargeError | OverloadedError | None:
    if size > limit:
        return BodyTooLargeError(limit, announced)
    if not held.has_room(size):
        return held.refused(size)
    return None


def request_body(purpose: Purpose) -> OpenApi:
    """OpenAPI's request body: every kind that serves the purpose."""
    return {
        "required": True,
        "content": {kind.media_type: kind.openapi[purpose] for kind in KINDS if purpose in kind.openapi},
    }
