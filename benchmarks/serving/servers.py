"""The servers that are compared: a process per core with one thread each, unless the name says otherwise."""

import dataclasses
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.processes import ROOT, started

CORES = os.cpu_count() or 1
PEERS = Path(__file__).parent / "peers"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"


@dataclass(frozen=True)
class Server:
    """command follows the interpreter, and runs in folder.

    `--port` at its end gets the port, as do the variables PORT and CONVOY_PORT.
    """

    name: str
    command: tuple[str, ...]
    form_field: str = "file"
    ready: str = "/openapi.json"
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    python: Path = Path(sys.executable)
    folder: Path = ROOT

    @property
    def convoy(self) -> bool:
        return self.name.startswith("convoy")

    @contextmanager
    def running(self, bundle: Path) -> "Iterator[Running]":
        """Starts the server on a free port, and ends it after the block."""
        environment = {"MODEL": str(bundle), "WORKERS": str(CORES), **self.environment}
        if self.convoy:
            environment |= {
                "CONVOY_ARTIFACTS": str(bundle.parent.parent),
                "CONVOY_DEFAULT_MODEL": bundle.parent.name,
                "CONVOY_LOG_LEVEL": "warning",
                "CONVOY_DEVICE": "cpu",
            }
        with started(self.command, environment, self.ready, str(self.python), self.folder) as (process, port):
            yield Running(self, process, port)


@dataclass(frozen=True)
class Running:
    server: Server
    process: psutil.Process
    port: int


def _uvicorn(module: str, workers: int) -> tuple[str, ...]:
    app = f"benchmarks.serving.peers.{module}:app"
    return ("-m", "uvicorn", app, "--log-level", "warning", "--workers", str(workers), "--port")


TUTORIAL = Server("tutorial", _uvicorn("tutorial", CORES), environment={"THREADS": "1"})
TUTORIAL_ALONE = Server("tutorial, one process", _uvicorn("tutorial", 1))
FLOOR = Server("FastAPI, constant answer", _uvicorn("floor", CORES))
FP32 = Server("convoy fp32", ("-m", "service"), "files", "/readyz", {"CONVOY_VARIANT": "fp32"})
DEFAULT = Server("convoy default", ("-m", "service"), "files", "/readyz")
# Each process may use every core for one batch: one client of a large network waits less.
FP32_THREADS, DEFAULT_THREADS = (
    dataclasses.replace(
        server,
        name=f"{server.name}, a thread per core",
        environment={**server.environment, "CONVOY_THREADS": str(CORES)},
    )
    for server in (FP32, DEFAULT)
)

# These need an environment of their own, which `make bench` creates from requirements/peers.txt.
PEER_SERVERS = (
    Server("LitServe", (str(PEERS / "litserve_app.py"),), ready="/health", python=PEERS_PYTHON),
    Server(
        "BentoML",
        ("-m", "bentoml", "serve", "bentoml_app:Classifier", "--working-dir", str(PEERS), "--port"),
        ready="/readyz",
        python=PEERS_PYTHON,
    ),
    Server("Ray Serve", (str(PEERS / "ray_app.py"),), python=PEERS_PYTHON),
)


def cpu_seconds(process: psutil.Process) -> float:
    """Returns the CPU time of the process and all its descendants so far."""
    total: float = 0.0
    for one in [process, *process.children(recursive=True)]:
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def worker_memory(process: psutil.Process) -> float:
    """Returns the MiB of the largest worker process, in which shared pages count in part (PSS)."""
    workers = process.children(recursive=True) or [process]
    return float(max(one.memory_full_info().pss for one in workers)) / 2**20
