"""Runs the groups of the benchmark. In each round the servers take turns, so that noise affects all of them."""

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import ROOT
from benchmarks.serving.bodies import copies, encode_npy, form, photo
from benchmarks.serving.load import Request, ask, closed_loop, open_loop, probing
from benchmarks.serving.results import Bare, Closed, Group, Overload, Probe, Row, Stages, Start
from benchmarks.serving.servers import (
    DEFAULT,
    DEFAULT_THREADS,
    FLOOR,
    FP32,
    FP32_THREADS,
    PEER_SERVERS,
    TUTORIAL,
    TUTORIAL_ALONE,
    Running,
    Server,
    cpu_seconds,
    worker_memory,
)
from benchmarks.serving.stages import sampling, shares
from schemas.bundle import open_bundle
from schemas.manifest import VariantName

DEADLINE = 1.0  # seconds, of each request of an overload
_STAGE_SECONDS = 10


class Bench:
    def __init__(self, small: Path, large: Path, seconds: int, before: Path | None = None) -> None:
        """small and large are bundles; each measurement takes this many seconds, after a warm-up of one second.

        before is the checkout of an earlier version, whose stages are measured too.
        """
        self.small, self.large, self.seconds, self.before = small, large, seconds, before
        self.png = open_bundle(small).golden_samples()[0].image
        self.jpeg = photo()
        shape = open_bundle(small).manifest.input.shape
        self.npy = encode_npy(np.random.default_rng(0).integers(0, 256, (256, *shape), dtype=np.uint8))
        self.expected: dict[Path, Any] = {}
        self.round = 1

    def run(self, group: Group) -> Iterator[Row]:
        """Yields the rows of one round."""
        groups = {
            Group.SMALL: self._small_network,
            Group.LARGE: self._large_network,
            Group.OVERLOAD: self._overloads,
            Group.PROBES: self._probes,
            Group.STARTS: self._starts,
            Group.PEERS: self._peers,
            Group.STAGES: self._stages,
        }
        return groups[group]()

    def _png(self, server: Server) -> Request:
        return Request("/predict", *form(server.form_field, [self.png], "png"))

    def _jpeg(self, server: Server) -> Request:
        return Request("/predict", *form(server.form_field, [self.jpeg], "jpeg"))

    def _small_network(self) -> Iterator[Row]:
        for server in (TUTORIAL, TUTORIAL_ALONE, FLOOR, FP32):
            yield from self._connections(server, self.small, "PNG", self._png(server), (1, 16, 64))
        many = Request("/predict", *form("files", [self.png] * 32, "png"), images=32)
        with DEFAULT.running(self.small) as running:
            self._compare(running, self.small, self._png(DEFAULT))
            for connections in (1, 16, 64):
                yield self._closed(f"PNG, {connections} connections", running, self._png(DEFAULT), connections)
            yield self._closed("raw PNG, 16 connections", running, Request("/predict", "image/png", self.png), 16)
            yield self._closed("32 PNGs a request", running, many, 8)
            yield self._closed("npy of 256", running, Request("/predict", "application/x-npy", self.npy, 256), 4)
        yield from self._bare("PNG", self.small, self.png, ".png", batch=16)
        yield from self._bare("npy", self.small, self.npy, ".npy", batch=64)

    def _large_network(self) -> Iterator[Row]:
        for server in (TUTORIAL, FP32, FP32_THREADS, DEFAULT, DEFAULT_THREADS):
            yield from self._connections(server, self.large, "JPEG", self._jpeg(server), (1, 16))
        yield from self._bare("JPEG", self.large, self.jpeg, ".jpeg", batch=4)

    def _peers(self) -> Iterator[Row]:
        for server in (TUTORIAL, *PEER_SERVERS):
            yield from self._connections(server, self.small, "PNG", self._png(server), (1, 16, 64))

    def _connections(
        self, server: Server, bundle: Path, case: str, request: Request, numbers: tuple[int, ...]
    ) -> Iterator[Row]:
        with server.running(bundle) as running:
            self._compare(running, bundle, request)
            for connections in numbers:
                yield self._closed(f"{case}, {connections} connections", running, request, connections)

    def _closed(self, case: str, running: Running, request: Request, connections: int) -> Closed:
        closed_loop(running.port, request, connections, 1)  # warm up
        before = cpu_seconds(running.process)
        load = closed_loop(running.port, request, connections, self.seconds)
        cpu = cpu_seconds(running.process) - before
        images = load.requests * request.images
        return Closed(
            case=case,
            server=running.server.name,
            round=self.round,
            images_per_second=images / load.seconds,
            p50=load.p50,
            p99=load.p99,
            cpu_us=cpu / max(images, 1) * 1e6,
            failed=load.failed,
        )

    def _probes(self) -> Iterator[Row]:
        with DEFAULT.running(self.small) as running:
            for path in ("/livez", "/metrics"):
                with probing(running.port, path) as latencies:
                    closed_loop(running.port, self._png(DEFAULT), 64, self.seconds)
                p50, p99 = np.percentile(latencies, [50, 99])
                yield Probe(path=path, round=self.round, p50=p50, p99=p99)

    def _overloads(self) -> Iterator[Row]:
        yield self._overload("small network", self.small, self._png(DEFAULT), factor=2)
        yield self._overload("large network", self.large, self._jpeg(DEFAULT), factor=10)

    def _overload(self, case: str, bundle: Path, request: Request, factor: float) -> Overload:
        with DEFAULT.running(bundle) as running:
            closed_loop(running.port, request, 16, 1)
            load = closed_loop(running.port, request, 16, self.seconds)
            capacity = load.requests / load.seconds
            found = open_loop(running.port, request, capacity * factor, 2 * self.seconds, DEADLINE)
        accepted = found.latencies.get(200, np.zeros(0))
        return Overload(
            case=case,
            round=self.round,
            deadline=DEADLINE,
            capacity=capacity,
            offered=sum(map(len, found.latencies.values())) / found.seconds,
            goodput=int(np.count_nonzero(accepted <= 1000 * DEADLINE)) / found.seconds,
            refusal_p50=found.percentile(503, 50),
            accepted_p99=found.percentile(200, 99),
            statuses={status: len(latencies) for status, latencies in found.latencies.items()},
        )

    def _bare(self, case: str, bundle: Path, data: bytes, suffix: str, batch: int) -> Iterator[Row]:
        for variant in open_bundle(bundle).manifest.variants:
            if variant.name is VariantName.FP16:
                continue
            with tempfile.NamedTemporaryFile(suffix=suffix) as file:
                file.write(data)
                file.flush()
                arguments = [str(bundle / variant.file), str(bundle), file.name, str(batch), str(self.seconds)]
                command = [sys.executable, "-m", "benchmarks.serving.peers.bare_loop", *arguments]
                output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout  # noqa: S603
            yield Bare(case=case, variant=variant.name.value, round=self.round, **json.loads(output))

    def _starts(self) -> Iterator[Row]:
        for server in (TUTORIAL, DEFAULT):
            yield self._start(server)

    def _start(self, server: Server) -> Start:
        """With three small models for Convoy, and with one for the tutorial."""
        with tempfile.TemporaryDirectory() as folder:
            bundle = copies(self.small, Path(folder)) if server.convoy else self.small
            began = time.perf_counter()
            with server.running(bundle) as running:
                seconds = time.perf_counter() - began
                closed_loop(running.port, self._png(server), 16, 1)  # every worker has used its memory
                mib = worker_memory(running.process)
        return Start(server=server.name, round=self.round, seconds=seconds, worker_mib=mib)

    def _stages(self) -> Iterator[Row]:
        for server in (FP32, DEFAULT):
            if self.before:
                yield self._profile("before", dataclasses.replace(server, folder=self.before.resolve()))
            yield self._profile("now", server)

    def _profile(self, version: str, server: Server) -> Stages:
        alone = dataclasses.replace(server, environment={**server.environment, "CONVOY_WORKERS": "1"})
        with alone.running(self.small) as running:
            (worker,) = running.process.children()
            closed_loop(running.port, self._png(server), 16, 1)
            with sampling(worker.pid, _STAGE_SECONDS - 2) as samples:
                before = cpu_seconds(worker)
                load = closed_loop(running.port, self._png(server), 16, _STAGE_SECONDS)
                cpu = cpu_seconds(worker) - before
        return Stages(version=version, server=server.name, us=shares(samples, cpu / load.requests * 1e6))

    def _compare(self, running: Running, bundle: Path, request: Request) -> None:
        """Raises SystemExit unless the server answers as the first server did, which is the tutorial."""
        server = running.server
        if server is FLOOR:
            return
        answer = json.loads(ask(running.port, request))
        got = answer["predictions"][0] if server.convoy else answer
        expected = self.expected.setdefault(bundle, got)
        may_be_int8 = server in (DEFAULT, DEFAULT_THREADS)
        tolerance = 0.1 if may_be_int8 else 1e-3
        if got["label"] != expected["label"] or abs(got["probability"] - expected["probability"]) > tolerance:
            raise SystemExit(f"{server.name} answers {got}, but the tutorial answers {expected}.")
