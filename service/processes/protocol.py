"""uvicorn's HTTP, with an end to how large the head of a request may be and how long it may take to come.

The limits on bodies do not see the head: without this, one header of any size is kept in memory, and a connection that
never says anything is kept for ever.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from schemas.problem import ProblemCode
from service.problems import problem_response

LINGER_SECONDS = 1.0
HEAD_BYTES = 64 * 1024  # more may come with the last read, which is bounded


class BoundedProtocol(HttpToolsProtocol):
    """What it refuses is answered with a problem document, and the connection is closed."""

    head_seconds = 30.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._in_head = True
        self._head_bytes = 0
        self._refused = False
        self._late = self.loop.call_later(self.head_seconds, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._late.cancelled():  # a further request of this connection begins
                self._late = self.loop.call_later(self.head_seconds, self._too_late)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES:
            self._refuse(431, f"The headers are larger than the {HEAD_BYTES:,} bytes allowed; send fewer.")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._late.cancel()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _too_late(self) -> None:
        self._refuse(408, f"The head of the request did not come within {self.head_seconds:.0f} seconds.")

    def _refuse(self, status: int, detail: str) -> None:
        if self._refused or self.transport.is_closing():
            return
        response = problem_response(status, ProblemCode.INVALID_REQUEST, detail, headers={"Connection": "close"})
        head = [f"HTTP/1.1 {status} \r\n".encode(), *(b"%b: %b\r\n" % header for header in response.raw_headers)]
        self.transport.write(b"".join([*head, b"\r\n", bytes(response.body)]))
        # Closed at once, with bytes still coming, the connection would be reset and the answer lost.
        self._refused = True
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
