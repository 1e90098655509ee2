"""The two programs as real processes."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 60


@dataclass(frozen=True)
class Service:
    url: str
    log: list[str]

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)


def train(*arguments: str | Path, artifacts: Path) -> str:
    """Runs the trainer; its standard output."""
    where = ["--artifacts", str(artifacts), "--runs", str(artifacts.parent / "runs")]
    command = [sys.executable, "-m", "trainer", "train", *map(str, arguments), *where]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@contextmanager
def serving(artifacts: Path, **settings: str) -> Iterator[Service]:
    """The service over artifacts on a free port, once it says that it is ready or that it has no model."""
    port = _free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONVOY_")}
    environment |= {"CONVOY_ARTIFACTS": str(artifacts), "CONVOY_PORT": str(port), "CONVOY_DEVICE": "cpu"}
    environment |= {"CONVOY_VARIANT": "fp32", **settings}  # whether a bundle has int8 depends on how fast it was here
    process = subprocess.Popen(
        [sys.executable, "-m", "service"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    log: list[str] = []
    assert process.stderr is not None
    reader = threading.Thread(target=log.extend, args=(process.stderr,), daemon=True)
    reader.start()
    try:
        service = Service(f"http://127.0.0.1:{port}", log)
        _await_answer(service, process)
        yield service
    finally:
        process.terminate()
        process.wait(START_SECONDS)
        reader.join()
        process.stderr.close()


def _await_answer(service: Service, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "".join(service.log)
        try:
            httpx.get(f"{service.url}/readyz")
        except httpx.TransportError:
            threading.Event().wait(0.1)
        else:
            return
    raise AssertionError("the service did not answer:\n" + "".join(service.log))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
