"""Every inference route goes through the same steps in the same order."""

from pathlib import Path
from typing import Any

import pytest

from service.api.app import create_app
from service.settings import Device, Settings
from tests.service.conftest import Serve
from tests.support.altered_bundles import flip_byte
from tests.support.asgi_server import answer_on, listening, request_bytes
from tests.support.bundles import write_bundle

ROUTES = ["/models/{}/predict", "/models/{}/evaluate", "/v1/models/{}:predict", "/v2/models/{}/infer"]
VERSIONS = ["/models/{}/versions/{}/predict", "/models/{}/versions/{}/evaluate", "/v2/models/{}/versions/{}/infer"]
MALFORMED: dict[str, Any] = {"content": b"{", "headers": {"content-type": "application/json"}}


@pytest.mark.parametrize("route", ROUTES)
def test_an_unknown_or_refused_model_is_answered_before_errors_of_the_body(
    artifacts: Path, serve: Serve, route: str
) -> None:
    flip_byte(write_bundle(artifacts, "bad") / "model.onnx")
    client = serve(max_body_bytes=100)
    compressed: dict[str, Any] = {"content": b"{}", "headers": {"content-encoding": "br"}}
    for body in (MALFORMED, {"content": bytes(101)}, compressed):
        assert client.post(route.format("dogs"), **body).status_code == 404
        assert client.post(route.format("bad"), **body).status_code == 503
    assert client.post(route.format("colours"), **MALFORMED).status_code == 400
    headers = {"content-type": "application/json"}
    assert client.post(route.format("colours"), content=bytes(101), headers=headers).status_code == 413


@pytest.mark.parametrize("route", VERSIONS)
def test_an_unknown_version_is_answered_before_errors_of_the_body(serve: Serve, route: str) -> None:
    client = serve()
    assert client.post(route.format("colours", 2), **MALFORMED).status_code == 404
    assert client.post(route.format("colours", 0), **MALFORMED).status_code == (400 if "/v2/" in route else 422)
    assert client.post(route.format("colours", 1), **MALFORMED).status_code == 400


@pytest.mark.parametrize("route", ROUTES)
def test_an_unknown_model_is_answered_without_waiting_for_the_body(artifacts: Path, route: str) -> None:
    app = create_app(Settings(artifacts=artifacts, device=Device.CPU))
    with listening(app) as address, address.connect() as connection:
        connection.sendall(request_bytes(route.format("dogs"), b"{", content_length="1000", connection="close"))
        head, _, body = answer_on(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404")
    assert b"dogs" in body
