"""`python -m benchmarks.execution_modes ARTIFACTS`: one process, its model on the event loop and in the thread.

Each run is of one model whose batches are made to take a number of milliseconds more. It reports the requests per
second of wrk, the server's CPU time per request, and the latency of /livez meanwhile. Needs wrk.
"""

import hashlib
import http.client
import io
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import uvicorn
from PIL import Image

from benchmarks.processes import started
from schemas.bundle import FloatArray, open_bundle
from schemas.image import Pixels
from service.api.app import create_app
from service.backends.base import CPU, Session
from service.backends.onnx import OnnxRuntime
from service.inference import execution
from service.inference.execution import Mode
from service.settings import Device, Settings

SLOWED_MS = tuple(map(float, __import__("os").environ.get("MS", "0,1,2,3,5,10").split(",")))
CONNECTIONS = tuple(map(int, __import__("os").environ.get("CONNS", "1,16").split(",")))
SECONDS = 4
_PROBE_SECONDS = 0.02


class SlowedSession:
    """A session whose batches take longer by work that releases the GIL. Its provider decides its mode."""

    def __init__(self, session: Session, seconds: float, mode: Mode) -> None:
        self.provider = CPU if mode is Mode.EVENT_LOOP else "the thread, for this measurement"
        self.inputs, self.outputs, self.warm_batches = session.inputs, session.outputs, session.warm_batches
        self._session = session
        self._work = bytes(round(seconds * _bytes_per_second()))

    def run(self, images: Pixels) -> FloatArray:
        if self._work:
            hashlib.sha256(self._work)
        return self._session.run(images)


class SlowedRuntime:
    def __init__(self, seconds: float, mode: Mode) -> None:
        self._runtime = OnnxRuntime(Device.CPU, threads=1, spin=False)
        self.provider, self.reason = self._runtime.provider, self._runtime.reason
        self._seconds = seconds
        self._mode = mode

    def open(self, model: bytes) -> Session:
        return SlowedSession(self._runtime.open(model), self._seconds, self._mode)


def _bytes_per_second() -> float:
    block = bytes(2**22)
    fastest = math.inf
    for _ in range(5):
        started_at = time.thread_time()
        hashlib.sha256(block)
        fastest = min(fastest, time.thread_time() - started_at)
    return len(block) / fastest


def serve(mode: str, milliseconds: str) -> None:
    execution.LOOP_SECONDS = math.inf
    settings = Settings()
    app = create_app(settings, SlowedRuntime(float(milliseconds) / 1000, Mode(mode)))
    uvicorn.run(app, port=settings.port, loop="uvloop", http="httptools", log_level="warning", access_log=False)


def measure(artifacts: Path, mode: Mode, milliseconds: float, connections: int, image: bytes) -> dict[str, object]:
    command = ["-m", "benchmarks.execution_modes", "serve", mode.value, str(milliseconds)]
    with started(command, {"CONVOY_ARTIFACTS": str(artifacts.absolute())}) as (process, port):
        _wrk(port, connections, 1, image)
        before, batches_before = process.cpu_times(), _batches(port)
        with tempfile.TemporaryFile() as output:
            load = _start_wrk(port, connections, SECONDS, image, output)
            latencies = []
            while load.poll() is None:
                latencies.append(_livez(port))
                time.sleep(_PROBE_SECONDS)
            output.seek(0)
            text = output.read().decode()
        after, batches_after = process.cpu_times(), _batches(port)
    found = re.search(r"(\d+) requests in", text)
    requests = int(found[1]) if found else 0
    cpu = after.user + after.system - before.user - before.system
    return {
        "mode": mode.value,
        "slowed_ms": milliseconds,
        "connections": connections,
        "requests_per_second": round(requests / SECONDS),
        "cpu_us_per_request": round(1e6 * cpu / max(requests, 1)),
        "images_per_batch": round(requests / max(batches_after - batches_before, 1), 1),
        "livez_p50_ms": round(1000 * float(np.percentile(latencies, 50)), 2),
        "livez_p99_ms": round(1000 * float(np.percentile(latencies, 99)), 2),
    }


def _livez(port: int) -> float:
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/livez")
    connection.getresponse().read()
    connection.close()
    return time.perf_counter() - began


def _batches(port: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("convoy_batch_images_count"))


def _wrk(port: int, connections: int, seconds: int, image: bytes) -> None:
    with tempfile.TemporaryFile() as output:
        _start_wrk(port, connections, seconds, image, output).wait()


def _start_wrk(port: int, connections: int, seconds: int, image: bytes, output: object) -> "subprocess.Popen[bytes]":
    folder = Path(tempfile.gettempdir())
    (folder / "execution-modes.png").write_bytes(image)
    script = folder / "execution-modes.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "image/png"\n'
        f'wrk.body = io.open("{folder / "execution-modes.png"}", "rb"):read("*a")\n'
    )
    url = f"http://127.0.0.1:{port}/predict"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "-s", str(script), url]
    return subprocess.Popen(command, stdout=output)  # type: ignore[call-overload, no-any-return]  # noqa: S603


def main(artifacts: Path) -> None:
    manifest = open_bundle(next(artifacts.glob("*/*/manifest.json")).parent).manifest
    pixels = np.random.default_rng(0).integers(0, 256, manifest.input.shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
    for milliseconds in SLOWED_MS:
        for connections in CONNECTIONS:
            for mode in (*Mode, *Mode):
                row = measure(artifacts, mode, milliseconds, connections, buffer.getvalue())
                sys.stdout.write(json.dumps(row) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        main(Path(sys.argv[1]))
