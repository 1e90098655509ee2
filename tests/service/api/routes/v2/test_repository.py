import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.settings import Device, Settings
from service.telemetry.counters import Report
from service.telemetry.metrics import Telemetry
from tests.service.conftest import Serve
from tests.support.altered_bundles import flip_byte
from tests.support.asgi_server import answer_on, listening, request_bytes
from tests.support.bundles import write_bundle
from tests.support.inference_protocol import error_of
from tests.support.model_controls import RecordingControl, SlowControl

LOAD = "/v2/repository/models/colours/load"
UNLOAD = "/v2/repository/models/colours/unload"
INDEX = "/v2/repository/index"


@pytest.fixture
def control(client: TestClient) -> RecordingControl:
    control = RecordingControl()
    assert isinstance(client.app, FastAPI)
    client.app.state.control = control
    return control


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"parameters": {}}', b' {"parameters":{"version":null}}\n', b"\xef\xbb\xbf", b"\xef\xbb\xbf{}"],
)
def test_a_load_without_parameters_loads_the_model(client: TestClient, control: RecordingControl, body: bytes) -> None:
    response = client.post(LOAD, content=body)
    assert (response.status_code, response.content) == (200, b"")
    assert control.calls == [("load", "colours", None)]


def test_a_load_can_pin_a_version(client: TestClient, control: RecordingControl) -> None:
    assert client.post(LOAD, json={"parameters": {"version": 3}}).status_code == 200
    assert control.calls == [("load", "colours", 3)]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"parameters": {"unload_dependents": true}}'])
def test_an_unload_unloads_the_model(client: TestClient, control: RecordingControl, body: bytes) -> None:
    response = client.post(UNLOAD, content=body)
    assert (response.status_code, response.content) == (200, b"")
    assert control.calls == [("unload", "colours")]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"config": '{"backend": "x"}'}, "Unknown field parameters.config; remove it"),
        ({"file:1/model.onnx": "AAAA"}, "Unknown field parameters.file:1/model.onnx; remove it"),
        ({"path": "/etc/passwd"}, "Unknown field parameters.path; remove it"),
        ({"url": "http://127.0.0.1/"}, "Unknown field parameters.url; remove it"),
        ({"version": "3"}, "parameters.version must be an integer"),
        ({"version": 3.0}, "parameters.version must be an integer"),
        ({"version": True}, "parameters.version must be an integer"),
        ({"version": 0}, "parameters.version must be 1 or more"),
        ([], "parameters must be a JSON object"),
    ],
)
def test_no_load_can_name_or_send_a_file(
    client: TestClient, control: RecordingControl, parameters: Any, message: str
) -> None:
    assert message in error_of(client.post(LOAD, json={"parameters": parameters}), 400)
    error_of(client.post(UNLOAD, json={"parameters": parameters}), 400)
    assert control.calls == []


@pytest.mark.parametrize("body", [b"[]", b"3", b"null", b"{", b"\xff", b'{"version": 3}', b"[" * 60_000])
def test_another_body_is_400(client: TestClient, control: RecordingControl, body: bytes) -> None:
    for path in (LOAD, UNLOAD, INDEX):
        error_of(client.post(path, content=body), 400)
    assert control.calls == []


def test_a_large_body_is_413(client: TestClient, control: RecordingControl) -> None:
    body = json.dumps({"parameters": {"config": "x" * 100_000}}).encode()
    error_of(client.post(LOAD, content=body), 413)
    assert control.calls == []


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2f..%2fetc", "a%00b", "dogs"])
def test_an_unknown_name_is_404(client: TestClient, control: RecordingControl, name: str) -> None:
    error_of(client.post(f"/v2/repository/models/{name}/load"), 404)
    assert control.calls == []


def test_the_index_lists_refused_versions_with_their_reason(artifacts: Path, serve: Serve) -> None:
    flip_byte(write_bundle(artifacts, "bad") / "model.onnx")
    client = serve()
    bad, good = client.post(INDEX).json()
    assert good == {"name": "colours", "version": "1", "state": "READY", "reason": ""}
    assert (bad["name"], bad["version"], bad["state"]) == ("bad", "1", "UNAVAILABLE")
    assert "SHA-256 of model.onnx differs" in bad["reason"]
    assert client.post(INDEX, json={}).json() == [bad, good]
    assert client.post(INDEX, json={"ready": True}).json() == [good]
    error_of(client.post(INDEX, json={"ready": "yes"}), 400)


def test_statistics_of_a_version_that_does_not_serve_are_404(client: TestClient, control: RecordingControl) -> None:
    assert len(client.get("/v2/models/colours/versions/1/stats").json()["model_stats"]) == 1
    error_of(client.get("/v2/models/colours/versions/2/stats"), 404)
    error_of(client.get("/v2/models/dogs/stats"), 404)


@pytest.mark.parametrize(
    ("seconds", "headers"), [(0.1, {}), (60, {"x_request_timeout": "0.1"})], ids=["ours", "theirs"]
)
@pytest.mark.parametrize("path", [INDEX, LOAD, UNLOAD])
def test_a_body_that_does_not_arrive_is_504(
    artifacts: Path, path: str, seconds: float, headers: dict[str, str]
) -> None:
    control = RecordingControl()
    settings = Settings(artifacts=artifacts, device=Device.CPU, request_timeout=seconds)
    with listening(create_app(settings, control=control)) as address, address.connect() as connection:
        connection.sendall(request_bytes(path, b"{", content_length="100", host="127.0.0.1", **headers))
        head, _, body = answer_on(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 504")
    assert "before the request's body had arrived" in json.loads(body)["error"]
    assert control.calls == []


@pytest.mark.parametrize("path", [LOAD, UNLOAD])
def test_a_load_or_unload_continues_after_its_504(client: TestClient, path: str) -> None:
    assert isinstance(client.app, FastAPI)
    control = client.app.state.control = SlowControl()
    late = client.post(path, headers={"X-Request-Timeout": "0.05"})
    assert "The change continues in the background; GET /models shows the result" in error_of(late, 504)
    assert client.portal
    client.portal.call(control.let.set)
    assert control.finished.wait(20)
    assert len(control.calls) == 1


def test_a_load_may_take_longer_than_the_request_timeout(serve: Serve) -> None:
    client = serve(request_timeout=0.05)
    assert isinstance(client.app, FastAPI)
    control = client.app.state.control = SlowControl()
    assert client.portal
    client.portal.start_task_soon(_let_after, control, 0.2)
    assert client.post(LOAD).status_code == 200


@pytest.mark.parametrize("path", ["models/stats", "models/colours/stats", "models/colours/versions/1/stats"])
@pytest.mark.parametrize(
    ("seconds", "headers"), [(0.05, {}), (60, {"X-Request-Timeout": "0.05"})], ids=["ours", "theirs"]
)
def test_late_statistics_are_504(artifacts: Path, path: str, seconds: float, headers: dict[str, str]) -> None:
    async def never() -> Report:
        await asyncio.Event().wait()
        return Report({}, {})

    settings = Settings(artifacts=artifacts, device=Device.CPU, request_timeout=seconds)
    with TestClient(create_app(settings, telemetry=Telemetry("CPU", gather=never))) as client:
        assert "before every worker had sent" in error_of(client.get(f"/v2/{path}", headers=headers), 504)


async def _let_after(control: SlowControl, seconds: float) -> None:
    await asyncio.sleep(seconds)
    control.let.set()
