"""Starts the server under test in its own process."""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
READY_SECONDS = 120.0


@contextmanager
def started(
    command: Sequence[str],
    environment: Mapping[str, str],
    ready: str = "/readyz",
    python: str = sys.executable,
    folder: Path = ROOT,
) -> Iterator[tuple[psutil.Process, int]]:
    """Runs `python COMMAND` in folder on a free port, and terminates it at the end. Yields once `ready` returns 200.

    CONVOY_PORT holds the port. If the command ends with --port, the port is also appended.
    """
    port = _free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CONVOY_")}
    variables = {"CONVOY_PORT": str(port), "PORT": str(port), "ORT_DISABLE_TELEMETRY": "1", **environment}
    arguments = [python, *command, *([str(port)] if command[-1] == "--port" else [])]
    with subprocess.Popen(arguments, cwd=folder, env=clean | variables) as process:  # noqa: S603 - modules of this repository
        try:
            _await_ready(port, ready, process)
            yield psutil.Process(process.pid), port
        finally:
            _end(psutil.Process(process.pid))


def _end(process: psutil.Process) -> None:
    """Ends the process and all its descendants; kills those that do not end in time."""
    family = [process, *process.children(recursive=True)]
    process.terminate()
    _, alive = psutil.wait_procs(family, timeout=15)
    for one in alive:
        one.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_ready(port: int, path: str, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise SystemExit("The server is not ready; see its log.")
