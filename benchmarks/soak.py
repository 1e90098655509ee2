"""Soak test: sends many mixed requests to the service and checks for wrong status codes and memory growth.

    python -m benchmarks.soak --artifacts artifacts --model digits            # 100,000 requests, then the control

The control is the same test with a deliberate leak: if it is not detected, the test proves nothing.
Writes docs/soak.json and docs/soak.md.
"""

import argparse
import http.client
import os
import platform
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil

from benchmarks.processes import ROOT, started
from benchmarks.soak_bodies import BODY_LIMIT, SoakRequest, request_generator
from schemas.base import Frozen
from schemas.bundle import Bundle, open_bundle

RESULT, TABLE = ROOT / "docs" / "soak.json", ROOT / "docs" / "soak.md"

ALWAYS_ALLOWED = {503, 504}  # overload and an exceeded deadline are valid responses
WARM_UP = 0.25  # fraction of the requests before memory is measured
MAX_SLOPE = 100.0  # bytes per request: about the size of one small leaked object
SAMPLE_SECONDS = 0.5


class Soaked(Frozen):
    """The result of one soak test. slope is the growth of resident memory after the warm-up, in bytes per request."""

    service: str
    requests: int
    seconds: float
    kinds: dict[str, dict[int, int]]
    unexpected: dict[str, int]
    lost: int
    rss_start: int
    rss_warm: int
    rss_end: int
    slope: float

    @property
    def leaks(self) -> bool:
        return self.slope > MAX_SLOPE


class Soaks(Frozen):
    service: Soaked
    control: Soaked
    machine: str


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--model", default="digits")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    bundle = open_bundle(max((options.artifacts / options.model).iterdir(), key=lambda path: path.name))
    soaks = []
    for module in ("service", "benchmarks.leaky_service"):
        soaked = soak(module, options.artifacts, bundle, options.requests, options.clients)
        print(
            f"{module}: {soaked.requests:,} requests in {soaked.seconds:.0f} s, {soaked.slope:+.1f} bytes per request"
        )
        soaks.append(soaked)
    result = Soaks(service=soaks[0], control=soaks[1], machine=f"{os.cpu_count()} cores, {platform.system()}")
    RESULT.write_text(result.model_dump_json(indent=1) + "\n")
    TABLE.write_text(render(result))
    bad = result.service.unexpected or result.service.lost or result.service.leaks or not result.control.leaks
    return int(bool(bad))


def soak(
    module: str, artifacts: Path, bundle: Bundle, requests: int, clients: int, sample: float = SAMPLE_SECONDS
) -> Soaked:
    """Starts `python -m module` with the bundle and sends the requests over one connection per client.

    Memory is sampled every `sample` seconds; the line fit needs at least two samples after the warm-up.
    """
    manifest = bundle.manifest
    draw = request_generator(
        [sample.image for sample in bundle.golden_samples()], manifest.labels, manifest.input.shape
    )
    environment = {
        "CONVOY_ARTIFACTS": str(artifacts),
        "CONVOY_DEFAULT_MODEL": manifest.name,
        "CONVOY_MAX_BODY_BYTES": str(BODY_LIMIT),
        "CONVOY_LOG_LEVEL": "warning",
    }
    with started(("-m", module), environment) as (process, port):
        memory = _MemorySamples(process)
        pool = _ClientPool(port, manifest.name, draw, requests, clients)
        began = time.monotonic()
        pool.start()
        while pool.alive:
            memory.add(pool.done)
            time.sleep(sample)
        seconds = time.monotonic() - began
        memory.add(pool.done)
    done, rss = np.array(memory.samples, dtype=np.float64).T
    warm = done >= requests * WARM_UP
    return Soaked(
        service=module,
        requests=pool.done,
        seconds=seconds,
        kinds={kind: dict(sorted(counts.items())) for kind, counts in sorted(pool.statuses.items())},
        unexpected=dict(pool.unexpected),
        lost=pool.lost,
        rss_start=int(rss[0]),
        rss_warm=int(rss[warm][0]),
        rss_end=int(rss[-1]),
        slope=float(np.polyfit(done[warm], rss[warm], 1)[0]),
    )


class _MemorySamples:
    """Samples of (requests done, resident bytes of the process and its children)."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.samples: list[tuple[int, int]] = []

    def add(self, done: int) -> None:
        family = [self._process, *self._process.children(recursive=True)]
        self.samples.append((done, sum(process.memory_info().rss for process in family)))


class _ClientPool:
    """Clients that send requests one after the other, each over its own persistent connection."""

    def __init__(
        self, port: int, model: str, draw: Callable[[random.Random], SoakRequest], requests: int, clients: int
    ) -> None:
        self._port, self._model, self._draw = port, model, draw
        self._threads = [
            threading.Thread(target=self._send_all, args=(i, requests // clients), daemon=True) for i in range(clients)
        ]
        self._lock = threading.Lock()
        self.statuses: dict[str, Counter[int]] = {}
        self.unexpected: Counter[str] = Counter()
        self.lost = 0
        self.done = 0

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _send_all(self, seed: int, requests: int) -> None:
        generator = random.Random(seed)  # noqa: S311 - it chooses requests, not secrets
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            for _ in range(requests):
                request = self._draw(generator)
                try:
                    status = self._send(connection, request)
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    self._count(request, None, repr(error))
                else:
                    self._count(request, status, "")

    def _send(self, connection: http.client.HTTPConnection, request: SoakRequest) -> int:
        path = request.path.replace("{model}", self._model)
        connection.request("POST", path, request.body, {"Content-Type": request.content_type})
        response = connection.getresponse()
        response.read()
        return response.status

    def _count(self, request: SoakRequest, status: int | None, error: str) -> None:
        with self._lock:
            self.done += 1
            if status is None:
                self.lost += 1
                self.unexpected[f"{request.kind}: {error}"] += 1
                return
            self.statuses.setdefault(request.kind, Counter())[status] += 1
            if status != request.status and status not in ALWAYS_ALLOWED:
                self.unexpected[f"{request.kind}: {status} instead of {request.status}"] += 1


def render(soaks: Soaks) -> str:
    """Returns the text of docs/soak.md."""
    service, control = soaks.service, soaks.control
    rows = [
        f"| {kind} | {', '.join(f'{status}: {count:,}' for status, count in counts.items())} |"
        for kind, counts in service.kinds.items()
    ]
    unexpected = "; ".join(f"{description} ({count})" for description, count in service.unexpected.items()) or "none"
    return "\n".join(
        [
            "# Soak test",
            "",
            *conclusion(soaks),
            "",
            "`python -m benchmarks.soak` writes this page from [soak.json](soak.json).",
            "It sends mixed requests to the service and samples the resident memory of all its processes every "
            f"{SAMPLE_SECONDS} seconds.",
            f"A line is fitted to the samples after the first {WARM_UP:.0%} of the requests; "
            f"a slope above {MAX_SLOPE:.0f} bytes per request is a leak.",
            "The control is the same test with a session that leaks 1 KiB per batch.",
            "",
            "| | Requests | Seconds | MiB at start | MiB after warm-up | MiB at end | Bytes per request | Leak? |",
            "|---|---|---|---|---|---|---|---|",
            _row("service", service),
            _row("control", control),
            "",
            f"Machine: {soaks.machine}. Unexpected responses of the service: {unexpected}. Lost connections: "
            f"{service.lost}.",
            "",
            "| Request | Responses by status |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def conclusion(soaks: Soaks) -> tuple[str, str]:
    """Returns two sentences: whether every response was as expected, and whether memory grew."""
    service, control = soaks.service, soaks.control
    unexpected = sum(service.unexpected.values())
    growth = f"Its memory {'leaks' if service.leaks else 'does not leak'} ({service.slope:+.1f} bytes per request)"
    detected = "is detected" if control.leaks else "is not detected, so this result means nothing"
    return (
        f"The service answered {service.requests:,} mixed requests with {unexpected or 'no'} unexpected responses and "
        f"{service.lost or 'no'} lost connections.",
        f"{growth}, and the leak of the control ({control.slope:+.1f}) {detected}.",
    )


def _row(name: str, soaked: Soaked) -> str:
    mib = " | ".join(f"{size / 2**20:.1f}" for size in (soaked.rss_start, soaked.rss_warm, soaked.rss_end))
    verdict = "yes" if soaked.leaks else "no"
    return f"| {name} | {soaked.requests:,} | {soaked.seconds:.0f} | {mib} | {soaked.slope:+.1f} | {verdict} |"


if __name__ == "__main__":
    sys.exit(main())
