"""The service on a Ray cluster of two nodes on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.settings import Device, Settings
from tests.support.bundles import COLOURS, solid, write_bundle
from tests.support.http_requests import form, npy
from tests.support.service_process import REPOSITORY, environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra [ray] is not installed"),
]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    for version in (1, 2):
        write_bundle(folder, version=version)
    return folder


@pytest.fixture(scope="module")
def cluster(artifacts: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Yields the address of the proxy, and the process that has started the cluster."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The limits are out of reach: on a busy machine, a replica that is alone would refuse requests as overload.
    variables = environment(artifacts=artifacts, device="cpu", queue_images=200_000, request_timeout=600) | {
        "PYTHONPATH": str(REPOSITORY),
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "service.ray_serve:middlewares",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.ray_cluster", str(port)],
        cwd=REPOSITORY,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    lines = iter(process.stdout.readline, "")
    assert any(line == "serving on 2 nodes\n" for line in lines)
    yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    process.communicate(timeout=120)


def replicas(owner: psutil.Process) -> list[int]:
    """Returns the process IDs of the replicas."""
    children = owner.children(recursive=True)
    return [child.pid for child in children if "ServeReplica" in " ".join(child.cmdline())]


def test_the_answers_are_those_of_the_plain_service(cluster: tuple[str, psutil.Process], artifacts: Path) -> None:
    bodies = [
        {"content": solid("red"), "headers": {"Content-Type": "image/png"}},
        {"files": form(*[solid(name) for name in COLOURS])},
        {"json": {"instances": [[[[255, 0, 0]] * 8] * 8]}},
        {"json": {"instances": [{"b64": "AAAA"}]}},
        {"content": b"x", "headers": {"Content-Type": "text/plain"}},
    ]
    paths = ("/predict?top_k=2", "/v2/models/colours/infer", "/models/nosuch/predict")
    settings = Settings(artifacts=artifacts, device=Device.CPU)
    with httpx.Client(base_url=cluster[0], timeout=60) as ray, TestClient(create_app(settings)) as plain:
        statuses = set()
        for path in paths:
            for body in bodies:
                expected = plain.post(path, **body)  # type: ignore[arg-type]
                found = ray.post(path, **body)  # type: ignore[arg-type]
                assert (found.status_code, found.json()) == (expected.status_code, expected.json())
                statuses.add(found.status_code)
        assert statuses >= {200, 404, 415, 422}


def test_a_killed_replica_fails_only_its_requests_in_flight_and_one_retry_succeeds(
    cluster: tuple[str, psutil.Process],
) -> None:
    url, owner = cluster
    body = npy(np.zeros((10_000, 8, 8, 3), np.uint8))  # takes long enough to be in flight
    statuses: Counter[str] = Counter()
    retried: Counter[str] = Counter()
    killed = threading.Event()

    def ask(client: httpx.Client) -> httpx.Response:
        return client.post("/predict", content=body, headers={"Content-Type": "application/x-npy"})

    def ask_often() -> None:
        with httpx.Client(base_url=url, timeout=600) as client:
            after = 0
            while after < 5:
                after += killed.is_set()
                answer = ask(client)
                statuses["answered" if answer.status_code == 200 else answer.text] += 1
                if answer.status_code != 200:
                    time.sleep(float(answer.headers["Retry-After"]))
                    again = ask(client)
                    retried["answered" if again.status_code == 200 else again.text] += 1

    clients = [threading.Thread(target=ask_often) for _ in range(8)]
    for client in clients:
        client.start()
    while statuses["answered"] < 20:
        time.sleep(0.01)
    # Serve prefers the replica on the proxy's own node.
    busiest = max(replicas(owner), key=lambda pid: psutil.Process(pid).cpu_times().user)
    os.kill(busiest, signal.SIGKILL)
    killed.set()
    for client in clients:
        client.join()
    del statuses["answered"]
    (lost,) = statuses
    assert json.loads(lost)["status"] == 503
    assert "replica that worked on this request has ended" in lost
    assert statuses[lost] <= len(clients)
    assert retried == {"answered": statuses[lost]}


def test_a_promoted_version_reaches_every_replica(cluster: tuple[str, psutil.Process]) -> None:
    url, owner = cluster
    with httpx.Client(base_url=url, timeout=60) as client:
        while len(replicas(owner)) < 2:
            time.sleep(0.1)
        for version in (1, 2):
            answer = client.post("/models/colours/promote", json={"version": version})
            assert answer.status_code == 200, answer.text
            in_a_row = 0
            while in_a_row < 50:
                answer = client.post("/predict", content=solid("red"), headers={"Content-Type": "image/png"})
                assert answer.status_code == 200
                in_a_row = in_a_row + 1 if answer.json()["version"] == version else 0
