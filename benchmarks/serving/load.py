"""The load generators: wrk for a number of busy connections, h2load for a fixed rate of requests, and GET probes."""

import http.client
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

SCRIPT = Path(__file__).with_name("wrk.lua")
OPEN_CONNECTIONS = 2000  # of the open loop; it sends later than planned if all of them wait for a response


@dataclass(frozen=True)
class Request:
    """One POST request. Every server gets the same body where it takes the same format."""

    path: str
    content_type: str
    body: bytes
    images: int = 1


@dataclass(frozen=True)
class Load:
    """What wrk measured. Latencies in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    failed: int


def closed_loop(port: int, request: Request, connections: int, seconds: int) -> Load:
    """Keeps this many connections busy with one thread of wrk."""
    with _file(request.body) as body:
        environment = {"WRK_BODY": body, "WRK_CONTENT_TYPE": request.content_type}
        options = ("-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(SCRIPT))
        output = _call(("wrk", *options, _url(port, request.path)), "wrk", environment)
    line = next(line for line in output.splitlines() if line.startswith("RESULT "))
    found = json.loads(line.removeprefix("RESULT "))
    return Load(
        found["requests"], found["microseconds"] / 1e6, found["p50"] / 1000, found["p99"] / 1000, found["failed"]
    )


@dataclass(frozen=True)
class OpenLoad:
    """What h2load measured: the latencies in milliseconds by status code, and the time to the last response."""

    seconds: float
    latencies: Mapping[int, npt.NDArray[np.float64]]

    def percentile(self, status: int, percent: float) -> float | None:
        """In milliseconds; None without a response of this status."""
        found = self.latencies.get(status)
        return None if found is None else float(np.percentile(found, percent))


def open_loop(port: int, request: Request, rate: float, seconds: int, deadline: float) -> OpenLoad:
    """Sends requests at an even rate, whether or not earlier ones are answered. Each has a deadline in seconds."""
    connections = min(OPEN_CONNECTIONS, int(rate * seconds))
    with _file(request.body) as body, tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "requests.tsv"
        options = ("--h1", "-t1", f"-c{connections}", f"-n{int(rate * seconds)}", f"--rps={rate / connections:.6f}")
        # Connections open one after another, so that their requests are spread over the time between two of them.
        pace = (f"-r{max(1, round(rate / 100))}", "--rate-period=10ms")
        headers = ("-H", f"content-type: {request.content_type}", "-H", f"x-request-timeout: {deadline}")
        sent = (*headers, "-d", body, "--log-file", str(log))
        _call(("h2load", *options, *pace, *sent, _url(port, request.path)), "nghttp2-client")
        began, status, took = np.loadtxt(log, dtype=np.int64, ndmin=2).T  # in microseconds
    by_status = {int(code): took[status == code] / 1000 for code in np.unique(status)}
    return OpenLoad(float((began + took).max() - began.min()) / 1e6, by_status)


def ask(port: int, request: Request) -> bytes:
    """Returns the body of one response. Raises SystemExit if its status is not 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", request.path, request.body, {"Content-Type": request.content_type})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != 200:
        raise SystemExit(f"{request.path} returned {response.status}: {body[:200]!r}")
    return body


@contextmanager
def probing(port: int, path: str, interval: float = 0.02) -> Iterator[list[float]]:
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


def _call(command: Sequence[str], package: str, environment: Mapping[str, str] | None = None) -> str:
    """Returns the standard output. Raises SystemExit if the program is not installed."""
    try:
        return subprocess.run(  # noqa: S603 - our own arguments
            command, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=True
        ).stdout
    except FileNotFoundError as error:
        raise SystemExit(f"{command[0]} is not installed; apt-get install {package}.") from error


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name


def _url(port: int, path: str) -> str:
    return f"http://127.0.0.1:{port}{path}"
