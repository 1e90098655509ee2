"""One round over all cases and servers; the raw results of all rounds are docs/benchmarks.json."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import ROOT
from benchmarks.serving.bodies import copies, encode_npy, form, photo
from benchmarks.serving.load import Request, ask, closed_loop, open_loop, probing
from benchmarks.serving.servers import (
    DEFAULT,
    FLOOR,
    OURS,
    PEER_SERVERS,
    TUTORIAL,
    TUTORIAL_ALONE,
    Running,
    Server,
    cpu_seconds,
    worker_memory,
)
from schemas.base import Frozen
from schemas.bundle import open_bundle
from schemas.manifest import VariantName


class Measured(Frozen):
    """One server in one case of one round. Latencies in milliseconds, CPU in microseconds of one core per image."""

    case: str
    server: str
    round: int
    images_per_second: float
    p50: float | None = None
    p99: float | None = None
    cpu_us: float | None = None
    decode_us: float | None = None
    run_us: float | None = None
    failed: int = 0


class Overload(Frozen):
    """An open loop at a multiple of the measured capacity. Rates per second, latencies in milliseconds."""

    case: str
    round: int
    capacity: float
    offered: float
    goodput: float
    refusal_p50: float | None
    accepted_p99: float | None
    statuses: dict[int, int]


class Probe(Frozen):
    """GET latencies in milliseconds while 64 connections saturate the service."""

    path: str
    round: int
    p50: float
    p99: float


class Start(Frozen):
    """Seconds from the command to a ready service, and MiB of its largest worker."""

    server: str
    round: int
    seconds: float
    worker_mib: float


class Results(Frozen):
    small: str
    large: str | None
    machine: str
    seconds: float
    measured: tuple[Measured, ...] = ()
    overloads: tuple[Overload, ...] = ()
    probes: tuple[Probe, ...] = ()
    starts: tuple[Start, ...] = ()


class Bench:
    """Measures round by round, so that servers alternate and noise meets all of them."""

    def __init__(self, small: Path, large: Path | None, seconds: int) -> None:
        self.small, self.large, self.seconds = small, large, seconds
        self.png = open_bundle(small).golden_samples()[0].image
        shape = open_bundle(small).manifest.input.shape
        self.npy = encode_npy(np.random.default_rng(0).integers(0, 256, (256, *shape), dtype=np.uint8))
        self.expected: dict[str, Any] | None = None
        self.number = 0
        self.measured: list[Measured] = []
        self.overloads: list[Overload] = []
        self.probes: list[Probe] = []
        self.starts: list[Start] = []

    def round(self, *, peers: bool) -> None:
        """Measures every case once; with peers, the servers of other projects too."""
        self.number += 1
        for server in (TUTORIAL, TUTORIAL_ALONE, FLOOR, *OURS, *(PEER_SERVERS if peers else ())):
            request = Request("/predict", *form(server.form_field, [self.png], "png"))
            with server.running(self.small) as running:
                self._compare(server, running.port, request)
                for connections in (1, 16, 64):
                    self._closed(f"PNG, {connections} connections", running, request, connections)
                if server.convoy:
                    self._other_bodies(running)
                if server is DEFAULT:
                    self._probe(running.port, request)
                    self._overload("small network", running.port, request, factor=2)
        self._bare("PNG", self.small, self.png, ".png", batch=16)
        self._bare("npy", self.small, self.npy, ".npy", batch=64)
        if self.large:
            self._large_network(self.large)
        for server in (TUTORIAL, DEFAULT):
            self._start(server)

    def _other_bodies(self, running: Running) -> None:
        many = Request("/predict", *form("files", [self.png] * 32, "png"), images=32)
        self._closed("raw PNG, 16 connections", running, Request("/predict", "image/png", self.png), 16)
        self._closed("32 PNGs a request", running, many, 8)
        self._closed("npy of 256", running, Request("/predict", "application/x-npy", self.npy, images=256), 4)

    def _large_network(self, bundle: Path) -> None:
        jpeg = photo(500, 375)
        for server in (TUTORIAL, *OURS):
            request = Request("/predict", *form(server.form_field, [jpeg], "jpeg"))
            with server.running(bundle) as running:
                for connections in (1, 16):
                    self._closed(f"JPEG, {connections} connections", running, request, connections)
                if server is DEFAULT:
                    self._overload("large network", running.port, request, factor=10)
        self._bare("JPEG", bundle, jpeg, ".jpeg", batch=4)

    def _closed(self, case: str, running: Running, request: Request, connections: int) -> None:
        closed_loop(running.port, request, connections, max(1, self.seconds // 4))  # warm up
        before = cpu_seconds(running.process)
        load = closed_loop(running.port, request, connections, self.seconds)
        cpu = cpu_seconds(running.process) - before
        images = load.requests * request.images
        self._note(
            Measured(
                case=case,
                server=running.server.name,
                round=self.number,
                images_per_second=images / load.seconds,
                p50=load.p50,
                p99=load.p99,
                cpu_us=cpu / images * 1e6,
                failed=load.failed,
            )
        )

    def _probe(self, port: int, request: Request) -> None:
        for path in ("/livez", "/metrics"):
            with probing(port, path) as latencies:
                closed_loop(port, request, 64, self.seconds)
            p50, p99 = np.percentile(latencies, [50, 99])
            self.probes.append(Probe(path=path, round=self.number, p50=p50, p99=p99))

    def _overload(self, case: str, port: int, request: Request, factor: float) -> None:
        """The capacity is that of the same open loop's client, at the rate of a closed loop just before."""
        load = closed_loop(port, request, 64, self.seconds)
        capacity = load.requests / load.seconds
        found = open_loop(port, request, capacity * factor, self.seconds)
        self.overloads.append(
            Overload(
                case=case,
                round=self.number,
                capacity=capacity,
                offered=found.planned / self.seconds,
                goodput=len(found.seconds.get(200, ())) / self.seconds,
                refusal_p50=found.percentile(503, 50),
                accepted_p99=found.percentile(200, 99),
                statuses={status: len(times) for status, times in found.seconds.items()},
            )
        )
        print(self.overloads[-1], flush=True)

    def _bare(self, case: str, bundle: Path, data: bytes, suffix: str, batch: int) -> None:
        for variant in open_bundle(bundle).manifest.variants:
            if variant.name is VariantName.FP16:
                continue
            with tempfile.NamedTemporaryFile(suffix=suffix) as file:
                file.write(data)
                file.flush()
                arguments = [str(bundle / variant.file), str(bundle), file.name, str(batch), str(self.seconds)]
                command = [sys.executable, "-m", "benchmarks.serving.peers.bare_loop", *arguments]
                output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout  # noqa: S603
            found = json.loads(output)
            server = f"bare loop {variant.name}"
            self._note(Measured(case=f"{case}, bare loop", server=server, round=self.number, **found))

    def _start(self, server: Server) -> None:
        """With three small models for Convoy, and with one for the tutorial."""
        request = Request("/predict", *form(server.form_field, [self.png], "png"))
        with tempfile.TemporaryDirectory() as folder:
            bundle = copies(self.small, Path(folder)) if server.convoy else self.small
            began = time.perf_counter()
            with server.running(bundle) as running:
                seconds = time.perf_counter() - began
                ask(running.port, request)
                mib = worker_memory(running.process)
        self.starts.append(Start(server=server.name, round=self.number, seconds=seconds, worker_mib=mib))

    def _compare(self, server: Server, port: int, request: Request) -> None:
        """Raises SystemExit unless the server answers as the first one, the tutorial, did."""
        if server is FLOOR:
            return
        answer = json.loads(ask(port, request))
        got = answer["predictions"][0] if server.convoy else answer
        self.expected = expected = self.expected or got
        tolerance = 0.1 if server is DEFAULT else 1e-3  # the default variant may be int8
        if got["label"] != expected["label"] or abs(got["probability"] - expected["probability"]) > tolerance:
            raise SystemExit(f"{server.name} answers {got}, but the tutorial answers {expected}.")

    def _note(self, measured: Measured) -> None:
        self.measured.append(measured)
        print(measured, flush=True)
