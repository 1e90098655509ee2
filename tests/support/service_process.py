"""The service as a real program, in processes of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

REPOSITORY = Path(__file__).parents[2]
SERVICE = (sys.executable, "-m", "service")
SOON = 60  # seconds; only a service that never comes up takes so long


def environment(**settings: object) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CONVOY_")}
    return clean | {f"CONVOY_{name.upper()}": str(value) for name, value in settings.items()}


def start(
    also: Mapping[str, str] | None = None,
    command: Sequence[str] = SERVICE,
    stderr: int = subprocess.PIPE,
    /,
    **settings: object,
) -> subprocess.Popen[str]:
    """also are variables other than the settings."""
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment(**settings) | dict(also or {}),
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


class Service:
    """A started service. A thread reads its log, so that a full pipe never blocks the service."""

    def __init__(self, process: subprocess.Popen[str], url: str | None = None) -> None:
        """Without a url, the log names the address."""
        self.process = process
        self._url = url
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        self.log.extend(self.process.stderr or ())

    def wait_for_log(self, pattern: str) -> re.Match[str]:
        """Waits for a line that matches and returns the match."""
        found: list[re.Match[str]] = []
        until(lambda: bool(found) or self._look(pattern, found), lambda: "".join(self.log))
        return found[0]

    def _look(self, pattern: str, found: list[re.Match[str]]) -> bool:
        ended = self.process.poll() is not None
        if ended:
            self._reader.join(SOON)
        found += [match for line in list(self.log) if (match := re.search(pattern, line))]
        assert found or not ended, f"{pattern} is not in its log:\n" + "".join(self.log)
        return bool(found)

    @property
    def url(self) -> str:
        return self._url or self.wait_for_log(r"serving on (http://\S+)")[1]

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=SOON)

    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def get(self, path: str, body: object = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=SOON) as response:  # noqa: S310
            return json.load(response)

    def metrics(self) -> str:
        with urllib.request.urlopen(self.url + "/metrics", timeout=SOON) as response:  # noqa: S310
            text: str = response.read().decode()
            return text

    def wait_until_ready(self) -> Any:
        while True:
            with suppress(urllib.error.URLError):
                return self.get("/readyz")
            assert self.process.poll() is None, "".join(self.log)
            time.sleep(0.05)

    def answers(self) -> bool:
        assert self.process.poll() is None, "".join(self.log)
        try:
            socket.create_connection(("127.0.0.1", self.port())).close()
        except ConnectionRefusedError:
            return False
        return True

    def workers(self) -> list[int]:
        """Returns the process IDs of the workers that have started and are alive."""
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,command="], capture_output=True, text=True, check=True
        ).stdout
        rows = [line.split(maxsplit=2) for line in listed.splitlines()]
        return [int(pid) for pid, parent, command in rows if int(parent) == self.process.pid and "service" in command]

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Waits for the end and returns the exit status. The log is complete then."""
        status = self.process.wait(SOON)
        self._reader.join(SOON)
        return status


@contextmanager
def serving(also: Mapping[str, str] | None = None, **settings: object) -> Iterator[Service]:
    process = start(also, port=0, device="cpu", **settings)
    try:
        service = Service(process)
        service.wait_until_ready()
        yield service
    finally:
        process.kill()
        process.communicate()


@contextmanager
def serving_bundles(artifacts: Path, **variables: str) -> Iterator[Service]:
    """Starts the service on a free port. Yields once its log reports that it is ready, or that it has no model."""
    # Whether a bundle has an int8 variant depends on the speed of this machine.
    process = start({"CONVOY_VARIANT": "fp32", **variables}, artifacts=artifacts, port=0, device="cpu")
    service = Service(process)
    try:
        until(service.answers, lambda: "the service did not answer:\n" + "".join(service.log))
        yield service
    finally:
        service.end()
        process.communicate()


def until(true: Callable[[], bool], else_say: Callable[[], str] = lambda: "it never became true") -> None:
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline, else_say()
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
