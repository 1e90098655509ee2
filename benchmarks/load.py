"""A small HTTP load generator: one thread sends the same request over many persistent connections."""

import re
import selectors
import socket
import time
from dataclasses import dataclass, field

import numpy as np

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Load:
    """The result of a load test. seconds are the latencies of all requests, in the order of completion."""

    requests: int
    duration: float
    seconds: tuple[float, ...]
    failed: int

    @property
    def rate(self) -> float:
        return self.requests / self.duration

    def percentile(self, percent: float) -> float:
        """Returns a percentile of the latency, in milliseconds."""
        return float(np.percentile(self.seconds, percent)) * 1000


@dataclass
class _Connection:
    socket: socket.socket
    sent: float = 0.0
    received: bytearray = field(default_factory=bytearray)

    def send(self, request: bytes) -> None:
        self.sent = time.perf_counter()
        self.received.clear()
        self.socket.sendall(request)

    def status(self) -> int | None:
        """Returns the status code, or None while the response is incomplete."""
        end = self.received.find(_END)
        if end < 0:
            return None
        length = _LENGTH.search(self.received, 0, end)
        if length is None or len(self.received) < end + len(_END) + int(length[1]):
            return None
        return int(self.received[9:12])


def post(path: str, content_type: str, body: bytes) -> bytes:
    """Returns the bytes of a POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
    return head.encode() + _END + body


def load(port: int, request: bytes, connections: int, seconds: float) -> Load:
    """Sends the request for this many seconds. A status other than 200 counts as failed.

    Raises OSError if a connection breaks.
    """
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        connection = _Connection(socket.create_connection(("127.0.0.1", port), timeout=60))
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.send(request)
    latencies, failed, began = [], 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for key, _ in selector.select(timeout=1):
            connection = key.data
            connection.received += connection.socket.recv(65536)
            status = connection.status()
            if status is None:
                continue
            latencies.append(time.perf_counter() - connection.sent)
            failed += status != 200
            connection.send(request)
    duration = time.perf_counter() - began
    for key in list(selector.get_map().values()):
        key.data.socket.close()
    return Load(len(latencies), duration, tuple(latencies), failed)
