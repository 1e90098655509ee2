"""The real program in a process of its own: how it starts, refuses to start, and stops."""

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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from service.session import CUDA, OnnxRuntime
from service.settings import Device
from tests.bundles import solid
from tests.service.asking import b64

REPOSITORY = Path(__file__).parents[2]
SOON = 60  # seconds; only a service that never comes up takes so long


def environment(**settings: object) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CONVOY_")}
    return clean | {f"CONVOY_{name.upper()}": str(value) for name, value in settings.items()}


def start(**settings: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "service"],
        cwd=REPOSITORY,
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Service:
    """A started service. Its log is read all the time, so that it never stands still for a full pipe."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        self.log.extend(self.process.stderr)

    def address(self) -> str:
        while True:
            for line in self.log:
                if found := re.search(r"serving on (http://\S+)", line):
                    return found[1]
            assert self.process.poll() is None, "".join(self.log)
            time.sleep(0.02)

    def get(self, path: str, body: object = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.address() + path, data, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=SOON) as response:  # noqa: S310
            return json.load(response)

    def wait_until_ready(self) -> Any:
        while True:
            with suppress(urllib.error.URLError):
                return self.get("/readyz")
            assert self.process.poll() is None, "".join(self.log)
            time.sleep(0.05)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(SOON)
        self._reader.join(SOON)
        return status


@contextmanager
def serving(**settings: object) -> Iterator[Service]:
    process = start(port=0, device="cpu", **settings)
    try:
        service = Service(process)
        service.wait_until_ready()
        yield service
    finally:
        process.kill()
        process.communicate()


def refusal(**settings: object) -> tuple[int, str]:
    process = start(**settings)
    output, error = process.communicate(timeout=SOON)
    assert output == ""
    assert "Traceback" not in error
    return process.returncode, error.splitlines()[-1]


@pytest.mark.timeout(90)
@pytest.mark.parametrize("workers", [1, 2])
def test_it_becomes_ready_answers_and_ends_on_sigterm(artifacts: Path, workers: int) -> None:
    with serving(artifacts=artifacts, workers=workers) as service:
        answer = service.get("/predict", {"instances": [b64(solid("green"))]})
        assert answer["predictions"][0]["label"] == "green"
        assert service.get("/livez") == {"status": "live"}
        assert service.end() in {0, -signal.SIGTERM, 128 + signal.SIGTERM}
        log = "".join(service.log)
    assert "Traceback" not in log
    assert "models run on CPUExecutionProvider" in log
    assert "colours version 1 serves as fp32" in log


def test_a_misspelt_variable_is_said(artifacts: Path) -> None:
    with serving(artifacts=artifacts, prot=1) as service:
        assert any("CONVOY_PROT is no setting" in line for line in service.log)


def test_a_bad_setting_is_one_sentence_and_status_2(artifacts: Path) -> None:
    status, said = refusal(artifacts=artifacts, port="http")
    assert status == 2
    assert said.startswith("convoy: CONVOY_PORT=http cannot be used")


def test_a_missing_artifacts_folder_is_one_sentence_and_status_1(tmp_path: Path) -> None:
    status, said = refusal(artifacts=tmp_path / "nowhere")
    assert status == 1
    assert said.startswith("convoy: The folder of bundles")


def test_a_port_that_is_taken_is_one_sentence_and_status_1(artifacts: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, said = refusal(artifacts=artifacts, port=port, device="cpu")
    assert status == 1
    assert said.startswith(f"convoy: Port {port} of 127.0.0.1 cannot be used")


@pytest.mark.parametrize("workers", [1, 2])
def test_cuda_where_there_is_none_is_one_sentence_and_status_1(artifacts: Path, workers: int) -> None:
    if OnnxRuntime(Device.AUTO, threads=1, spin=False).provider == CUDA:
        pytest.skip("CUDA works here")
    process = start(artifacts=artifacts, port=0, device="cuda", workers=workers)
    _, error = process.communicate(timeout=SOON)
    assert process.returncode == 1
    assert "convoy: CONVOY_DEVICE=cuda, but CUDA cannot be used: " in error
    assert "Traceback" not in error
