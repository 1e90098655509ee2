import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi.testclient import TestClient

from schemas.image import Pixels
from service import errors
from service.api.app import onnx_runtime
from service.api.problems import TITLES
from service.backends.base import CPU
from service.settings import Device, Settings, usable_cores
from service.version import __version__
from tests.service.conftest import Serve
from tests.support.bundles import colour_model, solid
from tests.support.fake_runtimes import Gate, colours
from tests.support.http_requests import b64, labels_of, problem_of

BODY = {"instances": [b64(solid("red"))]}


def test_every_error_has_a_status_with_a_title() -> None:
    def subclasses(error: type[errors.ServiceError]) -> list[type[errors.ServiceError]]:
        return [error, *(below for kind in error.__subclasses__() for below in subclasses(kind))]

    assert {error.status for error in subclasses(errors.ServiceError)} <= set(TITLES)


@pytest.mark.parametrize(
    "path", ["/nothing", "/models/colours/nothing", "/predict/nothing", "/static/nothing.js", "/static"]
)
def test_an_unknown_path_is_404(client: TestClient, path: str) -> None:
    assert path in problem_of(client.get(path), 404, "not_found").detail


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/predict", "POST"),
        ("DELETE", "/models/colours/predict", "POST"),
        ("POST", "/models", "GET"),
        ("PUT", "/readyz", "GET"),
        ("POST", "/docs", "GET"),
        ("PATCH", "/openapi.json", "GET"),
    ],
)
def test_another_method_is_405_with_the_allowed_methods(client: TestClient, method: str, path: str, allow: str) -> None:
    response = client.request(method, path)
    assert allow in problem_of(response, 405, "method_not_allowed").detail
    assert allow in response.headers["allow"]


YELLOW: dict[str, Any] = {"instances": [[[[255, 255, 0]] * 8] * 8]}


@pytest.mark.parametrize("kind", [errors.InferenceError, ValueError])
def test_a_failure_is_500_without_details_and_the_next_request_succeeds(
    serve: Serve, kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(images: Pixels) -> None:
        if (images[..., :2] == 255).all():
            raise kind("secret of the inside")

    client = serve(colours(fail))
    response = client.post("/predict", json=YELLOW)
    problem_of(response, 500, "internal")
    assert "secret" not in response.text
    assert "secret of the inside" in caplog.text
    assert labels_of(client.post("/predict", json=BODY)) == ["red"]


def test_overload_is_503_with_retry_after(serve: Serve) -> None:
    gate = Gate()
    client = serve(colours(gate), queue_images=1, max_batch=1)
    with ThreadPoolExecutor(3) as callers:
        running = callers.submit(client.post, "/predict", json={"instances": [[[77]]]})
        assert gate.entered.wait(20)
        # Of two requests of two images, the empty queue admits one; for the other there is no place left.
        both = [callers.submit(client.post, "/predict", json={"instances": BODY["instances"] * 2}) for _ in range(2)]
        refused = next(as_completed(both, timeout=20))
        gate.go_on.set()
        problem_of(refused.result(), 503, "overloaded")
        assert int(refused.result().headers["retry-after"]) >= 1
        (admitted,) = set(both) - {refused}
        assert len(labels_of(running.result(20)) + labels_of(admitted.result(20))) == 3


def test_the_service_imports_nothing_of_the_training_stack() -> None:
    code = (
        "import sys, service.api.app, service.workers.supervisor;"
        "found = {'torch', 'torchvision', 'onnx', 'sklearn', 'matplotlib', 'trainer'} & set(sys.modules);"
        "sys.exit(f'loaded {found}' if found else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_the_version_equals_that_of_pyproject() -> None:
    pyproject = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert f'version = "{__version__}"' in pyproject


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads of the process")
@pytest.mark.parametrize(
    ("settings", "threads"),
    [
        (Settings(device=Device.CPU, workers=1, threads=4), 4),
        (Settings(device=Device.CPU, workers=2, threads=3), 3),
        (Settings(device=Device.CPU, workers=usable_cores()), 1),
        (Settings(device=Device.CPU, workers=1), usable_cores()),
    ],
)
def test_an_inference_uses_the_threads_of_the_settings(settings: Settings, threads: int) -> None:
    runtime = onnx_runtime(settings)
    process = psutil.Process()
    before = process.num_threads()
    session = runtime.open(colour_model())  # the thread that runs it is one of them
    assert process.num_threads() - before == threads - 1
    assert session.provider == CPU


@pytest.mark.parametrize(
    ("settings", "has_more_threads"),
    [
        (Settings(device=Device.CPU, workers=2 * usable_cores()), usable_cores() > 1),
        (Settings(device=Device.CPU, workers=1), False),
        (Settings(device=Device.CPU, workers=2, threads=1), False),
    ],
)
def test_an_inference_that_runs_alone_uses_all_cores_unless_the_settings_name_the_threads(
    settings: Settings, has_more_threads: bool
) -> None:
    assert (onnx_runtime(settings).wide is not None) == has_more_threads
