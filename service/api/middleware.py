"""The one ASGI layer around the application.

request   X-Request-ID (replaced if missing or unusual), traceparent (W3C Trace Context), HEAD on every GET route,
          a trailing slash in the path (ignored)
response  X-Request-ID, Server-Timing in milliseconds (W3C), security headers, gzip, an error for any exception
scope     state["timings"]: the Timings of the request, which inference fills
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import Iterable
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.problem import ProblemCode
from service.api.exception_handlers import answer_exception
from service.api.headers import request_headers
from service.api.problems import problem_response
from service.api.route_template import route_template
from service.errors import NotReadyError
from service.telemetry.logging import ACCESS, RequestIds, current_request
from service.telemetry.metrics import Telemetry
from service.telemetry.timings import Timings
from service.telemetry.tracing import add_timings, current_trace_id

TIMINGS = "timings"
REFUSALS = "refusals"
"""In the lifespan's state: the application that answers refused requests. In their scopes: (status, detail)."""
CLIENT_CLOSED_REQUEST = 499  # nginx's status of a request whose client left before the response
COMPRESSED_BYTES = 1024  # a smaller response fits into one packet anyway

PAGES_WITH_SLASH = {"/", "/docs/", "/redoc/"}

# Browsers keep to the Content-Type, send no Referer, and let no other site frame or embed a response. Pages add their
# own policies (api/routes/pages.py).
SECURITY_HEADERS = {
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}
_DEFAULT_HEADERS = tuple((SECURITY_HEADERS | {b"vary": b"Accept-Encoding"}).items())

_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# version-trace-parent-flags. Versions after 00 may append fields; ff is invalid.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))")

logger = logging.getLogger(ACCESS)


def refusals(telemetry: Telemetry, *, access_log: bool) -> ASGIApp:
    """Returns the application that answers what the server refuses, such as malformed HTTP."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        status, detail = scope[REFUSALS]
        await problem_response(status, ProblemCode.INVALID_REQUEST, detail)(scope, receive, send)

    return RequestMiddleware(refuse, telemetry, access_log=access_log)


class RequestMiddleware:
    def __init__(self, app: ASGIApp, telemetry: Telemetry, *, access_log: bool, traced: bool = False) -> None:
        """traced says whether requests have OpenTelemetry spans."""
        self._app = app
        self._traced = traced
        self._compressed = GZipMiddleware(app, COMPRESSED_BYTES, compresslevel=6)
        self._telemetry = telemetry
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["path"] = without_trailing_slash(scope["path"])
        headers = request_headers(scope)
        ids = request_ids(headers, current_trace_id() if self._traced else None)
        current_request.set(ids)  # the task belongs to the request: the server's later log lines have the IDs too
        response = _Response(send, ids.request_id, bodiless=scope["method"] == "HEAD", traced=self._traced)
        scope.setdefault("state", {})[TIMINGS] = response.timings
        # The server must still see HEAD, so the application gets a copy of the scope.
        inner = {**scope, "method": "GET"} if response.bodiless else scope
        app = self._compressed if accepts_gzip(headers.get("accept-encoding", "")) else self._app
        try:
            await app(inner, receive, response.send)
        except (Exception, asyncio.CancelledError) as error:
            if response.status is not None:
                raise  # the response has begun; the server closes the connection
            if isinstance(error, asyncio.CancelledError):  # by the server, at the end of the grace period
                error = NotReadyError("The service shut down before it could answer this request; send it again.")
            await (await answer_exception(Request(inner), error))(inner, receive, response.send)
        finally:
            self._record(scope["method"], inner, response)
            if response.bodiless:
                scope.update(inner, method="HEAD")

    def _record(self, method: str, scope: Scope, response: "_Response") -> None:
        route, status, seconds = route_template(scope), response.status or CLIENT_CLOSED_REQUEST, response.elapsed
        self._telemetry.request(route, status, seconds)
        if self._access_log:
            fields = {"method": method, "route": route, "status": status}
            fields |= {"seconds": round(seconds, 6), "bytes": response.bytes}
            logger.info("%s %s %d %.6f s %d bytes", *fields.values(), extra={"fields": fields})


class _Response:
    """Adds headers to one response and measures it."""

    def __init__(self, send: Send, request_id: str, *, bodiless: bool, traced: bool) -> None:
        self._send = send
        self._request_id = request_id
        self._started = time.perf_counter()
        self._traced = traced
        self.bodiless = bodiless
        self.timings = Timings()
        self.status: int | None = None
        self.bytes = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the request arrived."""
        return time.perf_counter() - self._started

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = self._headers(message.get("headers", ()))
            if self._traced:
                add_timings(self.timings)
            await self._send(message)
            if self.bodiless:  # ends the response: the client may leave before the application has made the body
                await self._send({"type": "http.response.body"})
        elif not self.bodiless:
            self.bytes += len(message.get("body", b""))
            await self._send(message)

    def _headers(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        made = list(headers)
        names = {name for name, _ in made}
        if b"content-encoding" in names:  # a strong ETag stands for the bytes before compression
            made = [(n, b"W/" + v if n == b"etag" and v.startswith(b'"') else v) for n, v in made]
        made += [header for header in _DEFAULT_HEADERS if header[0] not in names]
        made.append((b"x-request-id", self._request_id.encode()))
        made.append((b"server-timing", server_timing(self.timings, self.elapsed).encode()))
        return made


def without_trailing_slash(path: str) -> str:
    """A slash at the end of a path means nothing, except for pages: a browser would resolve their links differently."""
    return path[:-1] if path.endswith("/") and path not in PAGES_WITH_SLASH else path


@lru_cache(maxsize=64)  # clients send the same few values
def accepts_gzip(accept_encoding: str) -> bool:
    """Whether the client accepts gzip, which q=0 forbids."""
    return _GZIP.search(accept_encoding) is not None


def request_ids(headers: Headers, trace_id: str | None = None) -> RequestIds:
    """Returns the client's X-Request-ID or a new one, and the trace ID of the service's span or else of the client."""
    sent, parent = headers.get("x-request-id"), headers.get("traceparent")
    request_id = sent if sent and _SANE_ID.fullmatch(sent) else os.urandom(16).hex()
    if parent and not trace_id:
        traced = _TRACEPARENT.fullmatch(parent)
        trace_id = traced[2] if traced and (traced[1] != "00" or not traced[3]) else None
    return RequestIds(request_id, trace_id)


def server_timing(timings: Timings, total: float) -> str:
    """Seconds -> the header's milliseconds. Stages that the request did not reach are left out."""
    stages = (("decode", timings.decode), ("queue", timings.queue), ("inference", timings.inference), ("total", total))
    return ", ".join([f"{name};dur={seconds * 1000:.3f}" for name, seconds in stages if seconds])
