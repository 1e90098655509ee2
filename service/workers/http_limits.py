"""uvicorn's HTTP protocol with limits on everything but bodies, which the application limits, and strict framing.

Without limits, heads and trailers of any size stay in memory, and a silent client keeps its connection for ever. After
an early response (such as 413) the rest of the body is read and dropped, within limits: if the connection closed while
bytes arrive, the client would see a reset and no response.
"""

import asyncio
import re
import socket
import struct
import sys
import time

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.api.body import BODY_ARRIVED
from service.api.deadlines import ARRIVED
from service.api.middleware import REFUSALS

LINGER_SECONDS = 1.0
HEAD_BYTES = 64 * 1024  # plus one read, which is bounded
_HOST = re.compile(rb"[\w.~!$&'()*+,;=%:\[\]-]*")  # a host and a port (RFC 3986, section 3.2.2)
_LAST_RECEIVED = struct.Struct("52xI")  # tcpi_last_data_recv, in milliseconds, of Linux's struct tcp_info


class BoundedProtocol(HttpToolsProtocol):
    """Sends refusals through the application, then closes the connection."""

    head_seconds = 30.0
    dropping_seconds = 10.0
    dropping_bytes = 2**30
    unread_seconds = 30.0  # in which a client reads nothing of its response
    probe_seconds = 1.0
    reading_seconds = 0.01  # more than zero, so that the loop reads what has arrived

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        is_tcp = connection is not None and connection.family in {socket.AF_INET, socket.AF_INET6}
        self._tcp = connection if is_tcp and sys.platform == "linux" else None
        if len(self.connections) > 1:
            self.let_others_run()
        self._in_head = True
        self._idle_bytes = 0  # since the head began, or since the last bytes of a body
        self._dropped_bytes = 0
        self._close_after_body = False
        self._refused = False
        self._unread: asyncio.TimerHandle | None = None
        self._expect_head()

    def let_others_run(self) -> None:
        """Leaves the core to the other workers, which share the listening socket, before the next connection.

        When many connections arrive at once, the worker that wakes first would take all of them, and serve them alone
        for as long as they are open.
        """
        time.sleep(1e-6)

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        if self._unread:
            self._unread.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._idle_bytes += len(data)
        if self._dropping:
            self._dropped_bytes += len(data)
        self._parse(data)
        if self._idle_bytes > HEAD_BYTES:
            self._refuse(431, f"The headers are larger than the {HEAD_BYTES:,} bytes allowed; send fewer.")
        elif self._dropped_bytes > self.dropping_bytes:
            self.transport.close()
        elif self._idle_bytes and self._in_head and not self._answering and self._late.cancelled():
            self._expect_head()  # the next head has begun; most arrive whole, and need no timer

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keeps the connection of a client that has only closed its sending side (RFC 9112, section 9.6)."""
        if not self._in_head or not self._answering or self._refused:
            return False
        self.cycle.keep_alive = False  # of the last request
        self.loop.call_later(self.probe_seconds, self._probe)
        return True

    def timeout_keep_alive_handler(self) -> None:
        """Closes an idle connection, unless a busy loop has not read its next request yet: that would reset it."""
        self.timeout_keep_alive_task = self.loop.call_later(self.reading_seconds, super().timeout_keep_alive_handler)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Drops trailers: uvicorn would make them headers of a request in progress."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Raises HttpParserError, which ends parsing, after it has answered a request that it cannot accept."""
        if refusal := self._head_refusal():
            self._refuse(*refusal)
            raise HttpParserError
        if self.parser.should_upgrade():
            return  # _parse reads this head again, without the offer
        self._in_head = False
        self._idle_bytes = 0
        self._late.cancel()
        self.scope[ARRIVED] = time.monotonic() - self._seconds_unread()  # type: ignore[literal-required]
        super().on_headers_complete()
        self.cycle.transport = _AfterBody(self, self.cycle)  # type: ignore[assignment]
        # After a final status in place of 100 Continue, the client may or may not send the body.
        self.cycle.keep_alive &= not self.expect_100_continue

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        if self._dropping:
            self._dropped_bytes = 0
            self._late.cancel()
            if self._close_after_body:
                self.transport.close()
            else:
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
        self._in_head = True
        self._idle_bytes = 0
        self.scope[BODY_ARRIVED] = True  # type: ignore[literal-required]
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._dropping:
            self._late = self.loop.call_later(self.dropping_seconds, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread:
            self._unread.cancel()

    def end(self, *, body_arrives: bool) -> None:
        """Closes the connection after its last response, but not while bytes arrive: that would reset it."""
        self.pipeline.clear()  # a request after the last response is not answered (RFC 9112, section 9.6)
        if body_arrives:
            self._close_after_body = True
        elif self._refused:
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()
            return
        self.transport.write_eof()

    def _parse(self, data: bytes) -> None:
        """Parses data, and ignores offers of an upgrade (RFC 9110, section 7.8).

        httptools stops reading the message at the head of a request that offers an upgrade, and takes the body for the
        next request. So the head is parsed again without its Upgrade headers.
        """
        self._unset_keepalive_if_required()
        rest = memoryview(data)  # not copied for each of many pipelined requests
        try:
            while True:
                try:
                    self.parser.feed_data(rest)
                except HttpParserUpgrade as offer:
                    rest = rest[offer.args[0] :]
                    head = self._head_without_upgrade()
                    self.parser = HttpRequestParser(self)
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
                    self.parser.feed_data(head)
                else:
                    return
        except HttpParserError:
            self._refuse(400, "The request is not valid HTTP/1.1.")

    def _head_without_upgrade(self) -> bytes:
        request_line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        headers = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([request_line, *headers, b"", b""])

    def _head_refusal(self) -> tuple[int, str] | None:
        """Returns status and detail if the end of this request is uncertain (RFC 9112, sections 2.3, 3.2 and 6.1)."""
        version = self.parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            return 505, f"HTTP/{version} is not supported; use HTTP/1.1."
        if self.parser.get_method() == b"CONNECT":
            return 501, "CONNECT is not supported: this service is not a proxy."
        if fault := self._host_fault(version):
            return 400, fault
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings and version == "1.0":
            return 400, "HTTP/1.0 has no Transfer-Encoding; send Content-Length."
        if codings not in ([], [b"chunked"]):
            return 501, "The only supported Transfer-Encoding is chunked."
        return None

    def _host_fault(self, version: str) -> str:
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and version == "1.1"):
            return f"The request has {len(hosts)} Host headers; HTTP/1.1 requires exactly one."
        return "" if all(map(_HOST.fullmatch, hosts)) else "The Host header is not the name or address of a host."

    def _seconds_unread(self) -> float:
        """Returns how long ago the last data arrived. A busy event loop reads it late."""
        if self._tcp is None:
            return 0.0
        (milliseconds,) = _LAST_RECEIVED.unpack(self._tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 56))
        return float(milliseconds / 1000)

    @property
    def _answering(self) -> bool:
        """Whether a request that has arrived is in progress or in the pipeline."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _dropping(self) -> bool:
        """Whether the arriving request has been answered: uvicorn reads the rest and keeps nothing."""
        return not self._in_head and self.cycle is not None and self.cycle.response_complete

    def _expect_head(self) -> None:
        self._late = self.loop.call_later(self.head_seconds, self._too_late)

    def _too_late(self) -> None:
        if not self._idle_bytes:  # a connection opened in advance: a 408 would look like the response to its request
            self.transport.close()
        self._refuse(408, f"The head of the request did not arrive within {self.head_seconds:.0f} seconds.")

    def _expect_reading(self) -> None:
        """Aborts the connection if the client goes on to read nothing."""
        before = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() < before:
                self._expect_reading()
            else:
                self.transport.abort()

        self._unread = self.loop.call_later(self.unread_seconds, look)

    def _probe(self) -> None:
        """Tells whether the client has closed both sides: its system then resets the connection at the second probe.

        Clients ignore 100 Continue, whether or not they expect it (RFC 9110, section 15.2).
        """
        if self._answering and not self.transport.is_closing():
            if not self.cycle.response_started and not self.pipeline and self.cycle.scope["http_version"] == "1.1":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.loop.call_later(self.probe_seconds, self._probe)

    def _refuse(self, status: int, detail: str) -> None:
        """Answers the arriving request with an error, after those before it, and reads nothing more."""
        if self._refused or self.transport.is_closing():
            return
        if self._dropping or (not self._in_head and not self._withdraw()):
            self.transport.close()
            return
        self._refused = self._in_head = True
        self._late.cancel()
        self.on_message_begin()
        self.url, self.app = b"/", self.app_state[REFUSALS]
        self.scope[REFUSALS] = (status, detail)  # type: ignore[literal-required]
        super().on_headers_complete()
        self.cycle.transport = _AfterBody(self, self.cycle)  # type: ignore[assignment]
        self.cycle.keep_alive = self.cycle.more_body = False

    def _withdraw(self) -> bool:
        """Drops the request whose body turned out bad. Returns False if its response has begun."""
        for waiting in self.pipeline:
            if waiting[0] is self.cycle:
                self.pipeline.remove(waiting)
                return True
        if self.cycle.response_started:
            return False
        self.cycle.waiting_for_100_continue = False
        self.cycle.disconnected = self.cycle.response_complete = (
            True  # the application learns of it, and writes nothing
        )
        self.cycle.message_event.set()
        return True


class _AfterBody:
    """The transport of one response: it writes the head with the first of the body, and the protocol closes it."""

    def __init__(self, protocol: BoundedProtocol, cycle: RequestResponseCycle) -> None:
        self.is_closing = protocol.transport.is_closing
        self._protocol = protocol
        self._cycle = cycle
        self._head: bytes | None = None
        self._holds_head = cycle.scope["method"] != "HEAD"  # uvicorn writes nothing after the head

    def write(self, data: bytes) -> None:
        if self._holds_head and self._cycle.response_started:
            self._holds_head = False
            self._head = data
        elif self._head is None:
            self._protocol.transport.write(data)
        else:
            self._protocol.transport.writelines([self._head, data])
            self._head = None

    def close(self) -> None:
        if self._head is not None:  # the application failed before the body
            self.write(b"")
        self._protocol.end(body_arrives=self._cycle.response_complete and self._cycle.more_body)
