"""uvicorn's HTTP, with bounds on the head of a request, and on the rest of a body that was answered before it had come.

The limits on bodies do not see the head: without this, one header of any size is kept in memory, and a connection that
never says anything is kept for ever.

Who is answered early (413, say) may still be sending, and read only then. Closed at once, with bytes still coming, its
connection would be reset and the answer lost; so the rest is read and dropped, within bounds.
"""

import asyncio
import uuid

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from schemas.problem import ProblemCode
from service.middleware.safe_headers import SAFE_HEADERS
from service.problems import TITLES, problem_response
from service.route_template import UNMATCHED
from service.telemetry import TELEMETRY, Telemetry

LINGER_SECONDS = 1.0
HEAD_BYTES = 64 * 1024  # more may come with the last read, which is bounded


class BoundedProtocol(HttpToolsProtocol):
    """What it refuses is answered with a problem document and counted; then the connection is closed."""

    head_seconds = 30.0
    dropping_seconds = 10.0
    dropping_bytes = 2**30

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._in_head = True
        self._head_bytes = 0
        self._dropped_bytes = 0
        self._ending = False  # with the body that is dropped
        self._refused = False
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._late.cancelled():  # a further request of this connection begins
                self._expect_head()
        elif self._dropping:
            self._dropped_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES:
            self._refuse(431, f"The headers are larger than the {HEAD_BYTES:,} bytes allowed; send fewer.")
        elif self._dropped_bytes > self.dropping_bytes:
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Raises HttpParserError, which ends the parsing, where the Host is not there once (RFC 9112, section 3.2)."""
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            self._refuse(400, f"The request has {hosts} Host headers; HTTP/1.1 wants one.")
            raise HttpParserError
        self._in_head = False
        self._head_bytes = 0
        self._late.cancel()
        super().on_headers_complete()
        self.cycle.transport = _AfterBody(self, self.cycle)  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        if self._dropping:
            self._dropped_bytes = 0
            self._late.cancel()
            if self._ending:
                self.transport.close()
        self._in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._dropping:
            self._late = self.loop.call_later(self.dropping_seconds, self.transport.close)

    def end_after_body(self) -> None:
        """The last answer of this connection is written, and its request is still coming."""
        self._ending = True
        self.transport.write_eof()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    @property
    def _dropping(self) -> bool:
        """The request that is coming in was answered already: uvicorn reads it on and keeps nothing."""
        return not self._in_head and self.cycle is not None and self.cycle.response_complete

    def _expect_head(self) -> None:
        self._began = self.loop.time()
        self._late = self.loop.call_later(self.head_seconds, self._too_late)

    def _too_late(self) -> None:
        self._refuse(408, f"The head of the request did not come within {self.head_seconds:.0f} seconds.")

    def _refuse(self, status: int, detail: str) -> None:
        if self._refused or self.transport.is_closing():
            return
        if self._dropping:
            self.transport.close()
            return
        said = {"Connection": "close", "X-Request-ID": uuid.uuid4().hex}
        response = problem_response(status, ProblemCode.INVALID_REQUEST, detail, headers=said)
        headers = [*self.server_state.default_headers, *SAFE_HEADERS.items(), *response.raw_headers]
        lines = [f"HTTP/1.1 {status} {TITLES[status]}".encode(), *(b"%b: %b" % header for header in headers)]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
        telemetry: Telemetry = self.app_state[TELEMETRY]
        telemetry.request(UNMATCHED, status, self.loop.time() - self._began)
        # Closed at once, with bytes still coming, the connection would be reset and the answer lost.
        self._refused = True
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


class _AfterBody:
    """The transport as one request sees it: closed by its answer, it closes when the request has come."""

    def __init__(self, protocol: BoundedProtocol, cycle: RequestResponseCycle) -> None:
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing
        self._protocol = protocol
        self._cycle = cycle

    def close(self) -> None:
        if self._cycle.response_complete and self._cycle.more_body:
            self._protocol.end_after_body()
        else:
            self._protocol.transport.close()
