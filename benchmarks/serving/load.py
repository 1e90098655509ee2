"""The two load generators: wrk for a fixed number of connections, and an open loop for a fixed rate of requests."""

import http.client
import json
import os
import selectors
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Request:
    """One POST request. Every server gets the same body where it takes the same format."""

    path: str
    content_type: str
    body: bytes
    images: int = 1

    def encode(self) -> bytes:
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {self.content_type}\r\n"
        return f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body


@dataclass(frozen=True)
class Load:
    """What wrk measured. Latencies in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    failed: int


def closed_loop(port: int, request: Request, connections: int, seconds: float) -> Load:
    """Keeps so many connections busy with wrk (one thread). Raises SystemExit if wrk is not installed."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(request.body)
        body.flush()
        environment = os.environ | {"WRK_BODY": body.name, "WRK_CONTENT_TYPE": request.content_type}
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(SCRIPT)]
        try:
            output = subprocess.run(  # noqa: S603 - our own arguments
                [*command, f"http://127.0.0.1:{port}{request.path}"],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        except FileNotFoundError as error:
            raise SystemExit("wrk is not installed; apt-get install wrk") from error
    line = next(line for line in output.splitlines() if line.startswith("RESULT "))
    found = json.loads(line.removeprefix("RESULT "))
    return Load(
        found["requests"], found["microseconds"] / 1e6, found["p50"] / 1000, found["p99"] / 1000, found["failed"]
    )


def ask(port: int, request: Request) -> bytes:
    """The body of one answer. Raises SystemExit if its status is not 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", request.path, request.body, {"Content-Type": request.content_type})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != 200:
        raise SystemExit(f"{request.path} answered {response.status}: {body[:200]!r}")
    return body


@dataclass
class OpenLoad:
    """One open loop: seconds from the planned time of each request to its answer, by status code (0: no answer)."""

    planned: int = 0
    seconds: dict[int, list[float]] = field(default_factory=dict)

    def percentile(self, status: int, percent: float) -> float | None:
        """In milliseconds; None without such an answer."""
        found = self.seconds.get(status)
        return float(np.percentile(found, percent)) * 1000 if found else None


def open_loop(port: int, request: Request, rate: float, seconds: float, connections: int = 2000) -> OpenLoad:
    """Sends requests at a fixed rate, whether or not earlier ones are answered, up to a number of open connections.

    A request that finds no free connection counts as planned and unanswered.
    """
    loop = _OpenLoop(port, request.encode(), connections)
    began = time.perf_counter()
    while (now := time.perf_counter() - began) < seconds or (loop.sent and now < seconds + 5):
        while loop.result.planned < int(min(now, seconds) * rate):
            loop.plan(began + loop.result.planned / rate)
        loop.receive()
    loop.close()
    return loop.result


class _OpenLoop:
    def __init__(self, port: int, data: bytes, connections: int) -> None:
        self.result = OpenLoad()
        self.sent: dict[socket.socket, float] = {}
        self._port, self._data, self._allowed = port, data, connections
        self._selector = selectors.DefaultSelector()
        self._free: list[socket.socket] = []
        self._received: dict[socket.socket, bytearray] = {}

    def plan(self, planned_at: float) -> None:
        self.result.planned += 1
        if self._free:
            connection = self._free.pop()
        elif len(self._received) < self._allowed:
            connection = socket.create_connection(("127.0.0.1", self._port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(connection, selectors.EVENT_READ, connection)
        else:
            return
        self.sent[connection], self._received[connection] = planned_at, bytearray()
        connection.sendall(self._data)

    def receive(self) -> None:
        for key, _ in self._selector.select(timeout=0.001):
            connection: socket.socket = key.data
            chunk = connection.recv(65536)
            self._received[connection] += chunk
            status = _status(self._received[connection]) if chunk else 0
            if status is not None and connection in self.sent:
                self.result.seconds.setdefault(status, []).append(time.perf_counter() - self.sent.pop(connection))
                self._free.append(connection)
            if not chunk:
                self._free.remove(connection)
                self._selector.unregister(connection)
                del self._received[connection]
                connection.close()

    def close(self) -> None:
        for connection in self._received:
            connection.close()


def _status(received: bytearray) -> int | None:
    """The status code of a whole answer with a Content-Length."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(received[:end]).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
    return int(head[9:12]) if len(received) >= end + 4 + length else None


@contextmanager
def probing(port: int, path: str, interval: float = 0.05) -> Iterator[list[float]]:
    """Sends a GET every interval seconds for as long as the block runs; collects the latencies in milliseconds."""
    latencies: list[float] = []
    stop = threading.Event()

    def probe() -> None:
        while not stop.wait(interval):
            started = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", path)
            connection.getresponse().read()
            connection.close()
            latencies.append((time.perf_counter() - started) * 1000)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield latencies
    finally:
        stop.set()
        thread.join()
