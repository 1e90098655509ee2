import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from concurrent.futures import wait as wait_for
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.image import Pixels
from service.api.app import create_app
from service.errors import InferenceError
from service.settings import Device, Settings
from tests.service.conftest import Serve
from tests.support.altered_bundles import flip_byte
from tests.support.bundles import COLOURS, solid, write_bundle
from tests.support.fake_runtimes import Gate, colours
from tests.support.http_requests import b64, npy
from tests.support.inference_protocol import body_of, elements, error_of, outputs_of, pixels, uint8

INFER = "/v2/models/colours/infer"
RED = pixels("red")
GOOD = body_of({"inputs": [uint8(RED)]}, RED.tobytes())


def test_any_content_type_or_none_is_accepted(client: TestClient) -> None:
    headers: list[dict[str, str]] = [{}, {"content-type": "application/octet-stream"}, {"content-type": "text/plain"}]
    for more in headers:
        response = client.post(INFER, content=GOOD["content"], headers=GOOD["headers"] | more)
        assert outputs_of(response)["shape"] == [1, 3]


def test_encoded_images_in_json_are_base64(client: TestClient) -> None:
    images = [b64(solid(colour, (20, 10), "JPEG"))["b64"] for colour in COLOURS]
    tensor = {"name": "images", "shape": [3], "datatype": "BYTES"}
    request = {"inputs": [tensor | {"data": images}]}
    values = np.array(outputs_of(client.post(INFER, json=request))["data"]).reshape(3, 3)
    assert values.argmax(axis=1).tolist() == [0, 1, 2]
    request = {"inputs": [tensor | {"data": [images[0], "%", images[2]]}]}
    assert "Image 1 of 3 (counted from 0) cannot be used" in error_of(client.post(INFER, json=request), 400)


def test_a_bare_tensor_is_answered_in_binary(client: TestClient) -> None:
    response = client.post(INFER, content=RED.tobytes(), headers={"Inference-Header-Content-Length": "0"})
    length = int(response.headers["inference-header-content-length"])
    assert response.headers["content-type"] == "application/octet-stream"
    assert np.frombuffer(response.content[length:], "<f4").argmax() == 0


@given(
    images=st.integers(1, 4).flatmap(
        lambda count: st.binary(min_size=count * RED.size, max_size=count * RED.size).map(
            lambda data: np.frombuffer(data, np.uint8).reshape(count, 8, 8, 3)
        )
    )
)
@settings(max_examples=25, deadline=None)
def test_every_tensor_encoding_gives_the_probabilities_of_predict(served: TestClient, images: Pixels) -> None:
    predicted = served.post(
        "/predict?top_k=3", content=npy(images), headers={"content-type": "application/x-npy"}
    ).json()["predictions"]
    expected = [
        [one["probability"] for one in sorted(prediction["top"], key=lambda one: int(one["index"]))]
        for prediction in predicted
    ]
    for body in (
        body_of({"inputs": [uint8(images)]}, images.tobytes()),
        body_of({"inputs": [uint8(images, images.tolist())]}),
        body_of({"inputs": [uint8(images, images.ravel().tolist())]}),
    ):
        output = outputs_of(served.post(INFER, **body))
        assert output["shape"] == [len(images), 3]
        assert np.array_equal(np.reshape(output["data"], (-1, 3)), expected)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    artifacts = tmp_path_factory.mktemp("artifacts")
    write_bundle(artifacts)
    with TestClient(create_app(Settings(artifacts=artifacts, device=Device.CPU))) as client:
        yield client


def test_a_body_over_the_limit_is_413(serve: Serve) -> None:
    client = serve(max_body_bytes=1000)
    assert "larger than the 1,000 bytes" in error_of(client.post(INFER, content=b"x" * 1001), 413)
    assert client.post(INFER, **GOOD).status_code == 200


def test_more_images_than_allowed_are_413(serve: Serve) -> None:
    client = serve(max_images=1)
    both = pixels("red", "blue")
    tensor = {"name": "images", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 8}}
    for body in (
        body_of({"inputs": [uint8(both)]}, both.tobytes()),
        body_of({"inputs": [tensor]}, elements(b"", b"")),
    ):
        assert "more than the 1 images allowed" in error_of(client.post(INFER, **body), 413)
    assert client.post(INFER, **GOOD).status_code == 200


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_lengths_count_bytes_before_compression(
    client: TestClient, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    many = pixels(*["red"] * 500)
    body = body_of({"inputs": [uint8(many)], "parameters": {"binary_data_output": True}}, many.tobytes())
    headers = body["headers"] | {"content-encoding": encoding, "accept-encoding": encoding}
    response = client.post(INFER, content=compress(body["content"]), headers=headers)
    assert response.headers.get("content-encoding") == ("gzip" if encoding == "gzip" else None)
    length = int(response.headers["inference-header-content-length"])
    assert json.loads(response.content[:length])["outputs"][0]["shape"] == [500, 3]
    assert len(response.content) == length + 500 * 3 * 4


@pytest.mark.parametrize("header", ["-1", "x", str(2**64), "99999999999999999999999999"])
def test_an_invalid_json_length_is_400(client: TestClient, header: str) -> None:
    response = client.post(INFER, content=GOOD["content"], headers={"Inference-Header-Content-Length": header})
    assert "must be the length of the JSON" in error_of(response, 400)


def test_a_bad_body_does_not_affect_the_next_request(client: TestClient) -> None:
    content = GOOD["content"]
    for cut in range(0, len(content), 17):
        error_of(client.post(INFER, content=content[:cut], headers=GOOD["headers"]), 400)
        error_of(client.post(INFER, content=content[:cut]), 400)
    assert client.post(INFER, **GOOD).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/colours/nothing", 404),
        ("GET", "/v2/models", 404),
        ("GET", INFER, 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/v2/repository/index", 405),
        ("POST", "/v2/models/dogs/infer", 404),
        ("POST", "/v2/models/colours/versions/2/infer", 404),
        ("POST", "/v2/models/colours/versions/latest/infer", 400),
        ("POST", "/v2/models/colours/versions/0/infer", 400),
        ("GET", "/v2/models/colours/versions/0/ready", 400),
        ("GET", "/v2/models/dogs/config", 404),
        ("GET", "/v2/trace/setting", 404),
        ("POST", "/v2/models/%2e%2e%2fsecret/infer", 404),
    ],
)
def test_every_error_has_the_format_of_the_protocol(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    error_of(response, status)
    assert (status == 405) == ("allow" in response.headers)


def test_similar_paths_outside_the_protocol_get_problem_documents(client: TestClient) -> None:
    assert client.get("/v22").headers["content-type"] == "application/problem+json"
    assert client.get("/v3").headers["content-type"] == "application/problem+json"


def test_a_failure_is_500_without_details(serve: Serve) -> None:
    def fail(images: Pixels) -> None:
        if (images == 77).all():
            raise InferenceError("secret of the inside")

    client = serve(colours(fail))
    grey = np.full_like(RED, 77)
    response = client.post(INFER, **body_of({"inputs": [uint8(grey)]}, grey.tobytes()))
    assert "secret" not in error_of(response, 500)
    assert client.post(INFER, **GOOD).status_code == 200


def test_overload_is_503_with_retry_after(serve: Serve) -> None:
    gate = Gate()
    client = serve(colours(gate), queue_images=1, max_batch=1)
    grey, two = np.full_like(RED, 77), pixels("red", "red")
    both = body_of({"inputs": [uint8(two)]}, two.tobytes())
    with ThreadPoolExecutor(3) as callers:
        running = callers.submit(client.post, INFER, **body_of({"inputs": [uint8(grey)]}, grey.tobytes()))
        assert gate.entered.wait(20)
        # Of two requests of two images, the empty queue admits one; for the other there is no place left.
        waiting = [callers.submit(client.post, INFER, **both) for _ in range(2)]
        refused = next(as_completed(waiting, timeout=20)).result()
        gate.go_on.set()
        error_of(refused, 503)
        assert int(refused.headers["retry-after"]) >= 1
        assert running.result(20).status_code == 200


@pytest.mark.parametrize(("allowed", "microseconds"), [(60.0, 1000), (0.3, 60_000_000)])
def test_the_deadline_is_the_shorter_of_the_requested_and_the_allowed(
    serve: Serve, allowed: float, microseconds: int
) -> None:
    gate = Gate()
    client = serve(colours(gate), max_batch=1, request_timeout=allowed)
    grey = np.full_like(RED, 77)
    limited = {"inputs": [uint8(RED)], "parameters": {"timeout": microseconds}}
    with ThreadPoolExecutor(2) as callers:
        callers.submit(client.post, INFER, **body_of({"inputs": [uint8(grey)]}, grey.tobytes()))
        assert gate.entered.wait(20)
        late = callers.submit(client.post, INFER, **body_of(limited, RED.tobytes()))
        wait_for([late], timeout=1)  # whether it is told at once or when its turn comes
        gate.go_on.set()
        error_of(late.result(20), 504)


def test_a_refused_model_is_503_and_not_ready(artifacts: Path, serve: Serve) -> None:
    flip_byte(write_bundle(artifacts, "bad") / "model.onnx")
    client = serve()
    assert "SHA-256 of model.onnx differs" in error_of(client.post("/v2/models/bad/infer", **GOOD), 503)
    assert "SHA-256 of model.onnx differs" in error_of(client.get("/v2/models/bad"), 503)
    ready = client.get("/v2/models/bad/ready")
    assert (ready.status_code, ready.content) == (400, b"")
    assert client.get("/v2/health/ready").status_code == 200


def test_with_no_model_the_server_is_live_and_not_ready(artifacts: Path, serve: Serve) -> None:
    flip_byte(artifacts / "colours" / "1" / "model.onnx")
    client = serve()
    live, ready = client.get("/v2/health/live"), client.get("/v2/health/ready")
    assert (live.status_code, live.content) == (200, b"")
    assert (ready.status_code, ready.content) == (400, b"")
