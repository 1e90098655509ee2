"""Every request gets an id, a clock and a line in the figures; every answer says so in its headers.

request   X-Request-ID (ours where there is none, or an odd one), traceparent (W3C Trace Context)
answer    X-Request-ID, Server-Timing in milliseconds (W3C)
scope     state["timings"]: the request's Timings, which the core fills
"""

import logging
import re
import time
import uuid
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.route_template import route_template
from service.telemetry.logging import ACCESS, RequestIds, current_request
from service.telemetry.metrics import Telemetry
from service.telemetry.timings import Timings
from service.telemetry.tracing import add_timings, current_trace_id

TIMINGS = "timings"
LEFT = 499  # the status, as nginx has it, of a request whose caller left before there was an answer

_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# version-trace-parent-flags; a later version than 00 may have more after them, ff is none.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

logger = logging.getLogger(ACCESS)


class Observation:
    """Outermost, so that it sees the answer as the caller does."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry, *, access_log: bool) -> None:
        self._app = app
        self._telemetry = telemetry
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        ids = request_ids(Headers(scope=scope))
        current_request.set(ids)  # for this task, which is the request's own: what the server logs after us has it too
        answer = _Answer(ids.request_id, send)
        scope.setdefault("state", {})[TIMINGS] = answer.timings
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            answer.status = answer.status or 500
            raise
        finally:
            self._tell(scope, answer)

    def _tell(self, scope: Scope, answer: "_Answer") -> None:
        route, status, seconds = route_template(scope), answer.status or LEFT, answer.elapsed
        self._telemetry.request(route, status, seconds)
        if self._access_log:
            said = {"method": scope["method"], "route": route, "status": status}
            said |= {"seconds": round(seconds, 6), "bytes": answer.bytes}
            logger.info("%s %s %d %.6f s %d bytes", *said.values(), extra={"fields": said})


@dataclass
class _Answer:
    """Sends on what it is given, with our headers, and keeps count."""

    request_id: str
    to: Send
    timings: Timings = field(default_factory=Timings)
    started: float = field(default_factory=time.perf_counter)
    status: int | None = None
    bytes: int = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the request came."""
        return time.perf_counter() - self.started

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.request_id
            headers["Server-Timing"] = server_timing(self.timings, self.elapsed)
            add_timings(self.timings)
        self.bytes += len(message.get("body", b""))
        await self.to(message)


def request_ids(headers: Headers) -> RequestIds:
    given = headers.get("x-request-id", "")
    traced = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    trace_id = traced[2] if traced and (traced[1] != "00" or not traced[3]) else None
    return RequestIds(given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex, current_trace_id() or trace_id)


def server_timing(timings: Timings, total: float) -> str:
    """Seconds -> the header's milliseconds; stages that the request did not go through are left out."""
    stages = {"decode": timings.decode, "queue": timings.queue, "inference": timings.inference}
    shown = {name: seconds for name, seconds in stages.items() if seconds} | {"total": total}
    return ", ".join(f"{name};dur={seconds * 1000:.3f}" for name, seconds in shown.items())
