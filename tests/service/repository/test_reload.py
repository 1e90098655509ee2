"""Versions that come and go while requests are answered: the real application over real bundles."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.backends.base import Session
from service.backends.fake import FakeRuntime
from service.repository.registry import Registry
from service.settings import Reload
from tests.service.conftest import Serve
from tests.support.altered_bundles import alter_golden, flip_byte
from tests.support.bundles import solid, write_bundle
from tests.support.fake_runtimes import Gate, colours
from tests.support.http_requests import b64, labels_of, problem_of
from tests.support.inference_protocol import error_of
from tests.support.service_process import SOON, until

BODY = {"instances": [b64(solid("red"))]}
SLACK_KIB = 8 * 1024  # 200 sound reloads were seen to take 1.7 MiB, leaking ones 29


def put(artifacts: Path, version: int, damage: Callable[[Path], None] = lambda bundle: None) -> None:
    """Writes a version as the trainer does: it appears complete, by a rename."""
    bundle = write_bundle(artifacts.parent / "elsewhere", version=version)
    damage(bundle)
    bundle.rename(artifacts / "colours" / str(version))


def app_of(client: TestClient) -> FastAPI:
    assert isinstance(client.app, FastAPI)
    return client.app


def registry_of(client: TestClient) -> Registry:
    registry: Registry = app_of(client).state.registry
    return registry


def change(client: TestClient, call: str, *arguments: object) -> None:
    """Runs a load, an unload or a refresh on the application's own event loop."""
    assert client.portal
    client.portal.call(getattr(app_of(client).state.control, call), *arguments)


def version_of(client: TestClient) -> int:
    response = client.post("/predict", json=BODY)
    assert labels_of(response) == ["red"]
    version: int = response.json()["version"]
    return version


class Callers:
    """Send requests without a pause, and record for each which version served at its start and which answered."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.answers: list[tuple[int, int, int]] = []
        self._end = threading.Event()

    @contextmanager
    def asking(self, number: int) -> Iterator[None]:
        with ThreadPoolExecutor(number) as pool:
            callers = [pool.submit(self._ask) for _ in range(number)]
            try:
                yield
            finally:
                self._end.set()
        for caller in callers:
            caller.result()

    def wait_for_more(self, number: int) -> None:
        enough = len(self.answers) + number
        until(lambda: len(self.answers) > enough)

    def _ask(self) -> None:
        while not self._end.is_set():
            with registry_of(self.client).lease() as model:
                before = model.manifest.version
            response = self.client.post("/predict", json=BODY)
            self.answers.append((response.status_code, before, response.json().get("version", 0)))


def test_no_request_fails_or_gets_an_older_version_while_new_versions_appear(artifacts: Path, serve: Serve) -> None:
    client = serve(reload=Reload.EXPLICIT)
    callers = Callers(client)
    with callers.asking(4):
        for version in range(2, 8):
            put(artifacts, version)
            change(client, "refresh")
            callers.wait_for_more(20)
    assert {status for status, _, _ in callers.answers} == {200}
    assert all(answered >= before for _, before, answered in callers.answers)
    assert {answered for _, _, answered in callers.answers} >= {2, 7}
    assert [loaded.ref.version for loaded in registry_of(client).loaded] == [7]


def test_serves_a_new_version_without_a_call(artifacts: Path, serve: Serve) -> None:
    client = serve()
    assert version_of(client) == 1
    put(artifacts, 2)
    until(lambda: version_of(client) == 2)


def test_serves_the_first_model_of_an_empty_folder(tmp_path: Path, serve: Serve) -> None:
    (tmp_path / "empty").mkdir()
    client = serve(artifacts=tmp_path / "empty")
    problem_of(client.get("/readyz"), 503, "not_ready")
    write_bundle(tmp_path / "new")
    (tmp_path / "new" / "colours").rename(tmp_path / "empty" / "colours")
    until(lambda: client.get("/readyz").status_code == 200)
    assert version_of(client) == 1


def test_a_bad_new_version_leaves_the_old_serving_and_shows_its_reason(artifacts: Path, serve: Serve) -> None:
    client = serve(reload=Reload.EXPLICIT)
    put(artifacts, 2, damage=lambda bundle: flip_byte(bundle / "model.onnx"))
    change(client, "refresh")
    assert version_of(client) == 1
    first, second = client.get("/models").json()["models"]
    assert (first["version"], first["state"], first["current"]) == (1, "ready", True)
    assert (second["version"], second["state"], second["current"]) == (2, "refused", False)
    assert "The SHA-256 of model.onnx differs" in second["reason"]
    assert client.get("/models/colours").json()["version"] == 1
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["refused"][0]["version"]) == (200, 2)
    problem_of(client.post("/models/colours/versions/2/predict", json=BODY), 503, "model_refused")


def test_models_shows_why_a_load_was_refused_after_its_caller_stopped_waiting(artifacts: Path, serve: Serve) -> None:
    gate = GatedRuntime()
    client = serve(gate, reload=Reload.EXPLICIT)
    change(client, "load", "colours", 1)
    put(artifacts, 2, damage=alter_golden)
    gate.open_go_on.clear()
    body = {"parameters": {"version": 2}}
    late = client.post("/v2/repository/models/colours/load", json=body, headers={"X-Request-Timeout": "0.3"})
    assert "GET /models shows the result" in error_of(late, 504)
    gate.open_go_on.set()
    until(lambda: len(client.get("/models").json()["models"]) == 2)
    pinned, refused = client.get("/models").json()["models"]
    assert (pinned["state"], pinned["current"], refused["state"]) == ("ready", True, "refused")
    assert "Golden sample" in refused["reason"]
    assert [entry["version"] for entry in client.post("/v2/repository/index").json()] == ["1", "2"]
    problem_of(client.post("/models/colours/versions/2/predict", json=BODY), 503, "model_refused")


def test_all_versions_may_serve_beside_each_other(artifacts: Path, serve: Serve) -> None:
    put(artifacts, 2)
    client = serve(versions="all")
    assert version_of(client) == 2
    for version in (1, 2):
        asked = client.post(f"/models/colours/versions/{version}/predict", json=BODY)
        assert (labels_of(asked), asked.json()["version"]) == (["red"], version)
    listed = client.get("/models").json()
    assert [(model["version"], model["current"]) for model in listed["models"]] == [(1, False), (2, True)]
    assert listed["default"] == "colours"
    assert client.get("/readyz").json()["models"] == ["colours"]
    detail = problem_of(client.post("/models/colours/versions/3/predict", json=BODY), 404, "model_not_found").detail
    assert detail == "colours version 3 is not served. Serving: 1, 2."


def test_a_pin_rolls_back_and_an_unload_is_shown(artifacts: Path, serve: Serve) -> None:
    put(artifacts, 2)
    client = serve(reload=Reload.EXPLICIT)
    change(client, "load", "colours", 1)
    assert version_of(client) == 1
    change(client, "unload", "colours")
    assert "was unloaded" in problem_of(client.post("/predict", json=BODY), 503, "not_ready").detail
    problem_of(client.get("/readyz"), 503, "not_ready")
    (model,) = client.get("/models").json()["models"]
    assert (model["state"], model["current"], model["labels"]) == ("unloaded", False, ["red", "green", "blue"])
    assert "A call unloaded it" in model["reason"]
    change(client, "load", "colours")
    assert version_of(client) == 2


def test_a_deleted_model_no_longer_serves(artifacts: Path, serve: Serve) -> None:
    write_bundle(artifacts, "more")
    client = serve(reload=Reload.EXPLICIT)
    shutil.rmtree(artifacts / "more")
    change(client, "refresh")
    problem_of(client.post("/models/more/predict", json=BODY), 404, "model_not_found")
    assert version_of(client) == 1  # and of the one that is left nobody must say the name


class GatedRuntime(Gate):
    """A runtime that also can be made to stop while it opens a session."""

    provider, reason, wide = FakeRuntime.provider, FakeRuntime.reason, None

    def __init__(self) -> None:
        super().__init__()
        self.opening, self.open_go_on = threading.Event(), threading.Event()
        self.open_go_on.set()
        self.opened_in: set[threading.Thread] = set()
        self._runtime = colours(self)

    def open(self, model: bytes) -> Session:
        self.opened_in.add(threading.current_thread())
        self.opening.set()
        assert self.open_go_on.wait(SOON)
        return self._runtime.open(model)


def test_a_request_keeps_its_version_until_it_is_answered(artifacts: Path, serve: Serve) -> None:
    gate = GatedRuntime()
    client = serve(gate, reload=Reload.EXPLICIT)
    (old,) = registry_of(client).loaded
    with ThreadPoolExecutor(2) as pool:
        # Two requests: one whose batch runs, and one that still waits in the queue of the old version.
        asked = [pool.submit(client.post, "/predict", json={"instances": [[[77]]]})]
        assert gate.entered.wait(SOON)
        asked.append(pool.submit(client.post, "/predict", json=BODY))
        until(lambda: old.leases == 2)
        put(artifacts, 2)
        change(client, "refresh")
        assert version_of(client) == 2
        assert batchers() == 2
        gate.go_on.set()
        for request in asked:
            response = request.result(SOON)
            assert (response.status_code, response.json()["version"]) == (200, 1)
    until(lambda: batchers() == 1)


def batchers() -> int:
    return sum(thread.name.startswith("batcher-") for thread in threading.enumerate())


def test_requests_are_answered_while_another_thread_loads_a_version(artifacts: Path, serve: Serve) -> None:
    gate = GatedRuntime()
    client = serve(gate, reload=Reload.EXPLICIT)
    assert client.portal
    loop_thread = client.portal.call(threading.current_thread)
    version_of(client)
    (batcher,) = (thread for thread in threading.enumerate() if thread.name.startswith("batcher-"))
    gate.opening.clear()
    gate.open_go_on.clear()
    put(artifacts, 2)
    with ThreadPoolExecutor(1) as pool:
        refreshed = pool.submit(change, client, "refresh")
        assert gate.opening.wait(SOON)
        assert [version_of(client) for _ in range(5)] == [1] * 5
        gate.open_go_on.set()
        refreshed.result(SOON)
    assert version_of(client) == 2
    assert not gate.opened_in & {loop_thread, batcher}


def test_nothing_below_the_artifacts_is_written(artifacts: Path, serve: Serve) -> None:
    """Records the files that are opened for writing: root can write to a read-only folder."""
    put(artifacts, 2, damage=lambda bundle: flip_byte(bundle / "model.onnx"))
    written: list[object] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:  # a hook stays for the life of the process
            return
        if event in {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.utime"}:
            path, flags = arguments[0], arguments[2] if event == "open" else os.O_RDWR
            inside = isinstance(path, str | Path) and Path(path).is_relative_to(artifacts)
            if inside and isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                written.append((event, path))

    watching = True
    sys.addaudithook(watch)
    client = serve(reload=Reload.EXPLICIT)
    for call in (("refresh",), ("unload", "colours"), ("load", "colours", 1)):
        change(client, *call)
    assert version_of(client) == 1
    client.get("/models/colours/report/curves.png")
    assert written == []
    (artifacts / "control").write_text("the watch sees it")
    watching = False
    assert len(written) == 1


def growth_of_reloads(artifacts: Path, kind: str) -> tuple[int, int]:
    """Returns (KiB, threads) of a separate process, without the free memory that other tests have left."""
    command = [sys.executable, "-m", "tests.support.reload_memory", str(artifacts), kind]
    ended = subprocess.run(command, cwd=Path(__file__).parents[3], check=True, capture_output=True, text=True)
    memory, threads = map(int, ended.stdout.split())
    return memory, threads


@pytest.mark.slow
def test_200_reloads_leave_memory_and_threads_where_they_were(artifacts: Path) -> None:
    memory, threads = growth_of_reloads(artifacts, "sound")
    assert memory < SLACK_KIB
    assert threads == 0


@pytest.mark.slow
def test_the_same_reloads_over_a_runtime_that_leaks_are_flagged(artifacts: Path) -> None:
    memory, _ = growth_of_reloads(artifacts, "leaking")
    assert memory > SLACK_KIB
