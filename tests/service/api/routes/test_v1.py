from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import Serve
from tests.support.altered_bundles import flip_byte
from tests.support.bundles import COLOURS, solid, write_bundle
from tests.support.http_requests import BROKEN, b64
from tests.support.inference_protocol import error_of

PREDICT = "/v1/models/colours:predict"
ALL = [b64(solid(colour)) for colour in COLOURS]


def test_v1_predictions_equal_those_of_predict(client: TestClient) -> None:
    body = {"instances": [*ALL, [[[255, 0, 0]]]], "top_k": 2}
    answered = client.post(PREDICT, json=body).json()
    assert set(answered) == {"predictions"}
    assert answered["predictions"] == client.post("/predict", json=body).json()["predictions"]
    assert [one["label"] for one in answered["predictions"]] == [*COLOURS, "red"]


def test_no_content_type_is_needed(client: TestClient) -> None:
    for headers in ({}, {"content-type": "application/x-www-form-urlencoded"}):
        response = client.post(PREDICT, content=b'{"instances": [[[7]]]}', headers=headers)
        assert response.status_code == 200


def test_on_error_item_answers_the_valid_images(client: TestClient) -> None:
    body: dict[str, Any] = {"instances": [b64(BROKEN), *ALL]}
    assert "Image 0 of 4" in error_of(client.post(PREDICT, json=body), 400)
    failed, *good = client.post(PREDICT, json=body | {"on_error": "item"}).json()["predictions"]
    assert failed["error"]["index"] == 0
    assert [one["label"] for one in good] == list(COLOURS)


@pytest.mark.parametrize(
    ("body", "status"), [(b"", 400), (b"{", 400), (b"{}", 400), (b'{"instances": []}', 400), (b'{"inputs": [1]}', 400)]
)
def test_an_invalid_body_has_the_protocols_error(client: TestClient, body: bytes, status: int) -> None:
    error_of(client.post(PREDICT, content=body), status)


def test_more_instances_than_allowed_are_413(serve: Serve) -> None:
    error_of(serve(max_images=2).post(PREDICT, json={"instances": ALL}), 413)


def test_models_are_listed_by_name_and_ready_when_they_serve(artifacts: Path, serve: Serve) -> None:
    flip_byte(write_bundle(artifacts, "bad") / "model.onnx")
    client = serve()
    assert client.get("/v1/models").json() == {"models": ["bad", "colours"]}
    assert client.get("/v1/models/colours").json() == {"name": "colours", "ready": True}
    assert "SHA-256 of model.onnx differs" in error_of(client.get("/v1/models/bad"), 503)
    error_of(client.get("/v1/models/dogs"), 404)
    error_of(client.post("/v1/models/dogs:predict", json={"instances": ALL}), 404)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/models/colours", 405),
        ("POST", "/v1/models/colours:explain", 405),
        ("DELETE", PREDICT, 405),
        ("GET", "/v1/nothing", 404),
    ],
)
def test_an_unknown_path_has_the_protocols_error(client: TestClient, method: str, path: str, status: int) -> None:
    error_of(client.request(method, path), status)


def test_the_query_has_the_options_of_predict(client: TestClient) -> None:
    instances = {"instances": [b64(solid("red")), b64(BROKEN)]}
    response = client.post("/v1/models/colours:predict?on_error=item&top_k=1", json=instances)
    good, bad = response.json()["predictions"]
    assert (len(good["top"]), bad["error"]["index"]) == (1, 1)
    refused = client.post("/v1/models/colours:predict?foo=bar", json=instances)
    assert refused.status_code == 400
    assert "foo" in refused.json()["error"]
