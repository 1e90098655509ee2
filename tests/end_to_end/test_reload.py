"""New versions appear while the service is under load: clients see only the version number change."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.bundles import solid, write_bundle
from tests.support.service_process import Service, serving_bundles, until

pytestmark = pytest.mark.slow

IN_A_ROW = 50  # responses of the new version after which no worker still serves the old one


def ask(service: Service, end: threading.Event, answers: list[tuple[int, int]]) -> None:
    with service.client() as client:
        while not end.is_set():
            response = client.post("/predict", content=solid("red"), headers={"Content-Type": "image/png"})
            answers.append((response.status_code, response.json().get("version", 0)))


def await_version(version: int, answers: list[tuple[int, int]]) -> None:
    until(lambda: answers[-IN_A_ROW:] == [(200, version)] * IN_A_ROW, lambda: str(answers[-IN_A_ROW:]))


def test_no_request_fails_while_good_and_bad_versions_appear(tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    write_bundle(artifacts)
    end = threading.Event()
    answers: list[tuple[int, int]] = []
    with serving_bundles(artifacts) as service, ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(ask, service, end, answers) for _ in range(4)]
        try:
            for version in (2, 3):
                write_bundle(tmp_path / "new", version=version).rename(artifacts / "colours" / str(version))
                await_version(version, answers)
            bad = write_bundle(tmp_path / "new", version=4)
            (bad / "model.onnx").write_bytes(b"no graph")
            bad.rename(artifacts / "colours" / "4")
            with service.client() as client:
                until(lambda: bool(client.get("/readyz").json()["refused"]))
                refused = client.get("/readyz").json()["refused"]
        finally:
            end.set()
        for caller in callers:
            caller.result()
    assert [model["version"] for model in refused] == [4]
    assert refused[0]["reason"].startswith("The SHA-256 of model.onnx differs")
    assert answers[-1] == (200, 3)
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} == {1, 2, 3}
