"""The direct routes of inference answer exactly as FastAPI's, which are those of OpenAPI."""

import gzip
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.settings import Device, Settings
from tests.support.bundles import solid
from tests.support.http_requests import b64, form

JSON = {"content-type": "application/json"}
PNG = {"content-type": "image/png"}
PATHS = [
    "/predict",
    "/predict/",
    "/models/colours/predict",
    "/models/dogs/predict",
    "/models/col%6furs/predict",
    "/models/a%2Fb/predict",
    "/models/colours/versions/1/predict",
    "/models/colours/versions/2/predict",
    "/models/colours/versions/0/predict",
    "/models/colours/versions/first/predict",
    "/v2/models/colours/infer",
    "/v2/models/dogs/infer",
    "/v2/models/colours/versions/1/infer",
    "/v2/models/colours/versions/first/infer",
    "/predict%0A",
    "/models//predict",
    "/models/colours/predictions",
]
INFER: dict[str, Any] = {
    "inputs": [{"name": "images", "shape": [1], "datatype": "BYTES", "data": [b64(solid("red"))["b64"]]}]
}
BODIES: dict[str, dict[str, Any]] = {
    "json": {"json": {"instances": [b64(solid("red"))]}},
    "form": {"files": form(solid("red"), solid("blue")), "data": {"top_k": "2"}},
    "image": {"content": solid("red"), "headers": PNG},
    "unlabelled": {"content": solid("red")},
    "v2": {"json": INFER},
    "gzip": {"content": gzip.compress(solid("red")), "headers": PNG | {"content-encoding": "gzip"}},
    "not gzip": {"content": b"red", "headers": PNG | {"content-encoding": "gzip"}},
    "brotli": {"content": b"red", "headers": PNG | {"content-encoding": "br"}},
    "many answers": {"json": {"instances": [b64(solid("red"))] * 40}},
    "malformed": {"content": b"{", "headers": JSON},
    "broken image": {"content": b"red", "headers": PNG},
    "text": {"content": b"red", "headers": {"content-type": "text/plain"}},
    "too large": {"content": bytes(20_001), "headers": PNG},
    "empty": {"content": b""},
    "options": {"content": solid("red"), "headers": PNG, "params": {"top_k": "2", "on_error": "item"}},
    "bad option": {"content": solid("red"), "headers": PNG, "params": {"top_k": "0"}},
    "unknown option": {"content": solid("red"), "headers": PNG, "params": {"topk": "1"}},
    "repeated option": {"content": solid("red"), "headers": PNG, "params": [("top_k", "1"), ("top_k", "2")]},
    "late": {"content": solid("red"), "headers": PNG | {"x-request-timeout": "0.000001"}},
    "bad timeout": {"content": solid("red"), "headers": PNG | {"x-request-timeout": "soon"}},
    "no gzip": {"content": solid("red"), "headers": PNG | {"accept-encoding": "identity"}},
}
METHODS = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]
KEY = "secret-0123456789abcdef"
KEYS = [{}, {"x-api-key": KEY}, {"x-api-key": "wrong"}, {"authorization": f"Bearer {KEY}"}]
PER_REQUEST = {"x-request-id", "server-timing"}


class Pair:
    """The same service with and without the direct routes."""

    def __init__(self, stack: ExitStack, **settings: Any) -> None:
        self._apps = []
        for direct in (True, False):
            app = create_app(Settings(device=Device.CPU, max_body_bytes=20_000, **settings))
            if not direct:
                app.entry = None
            client = TestClient(app, "http://127.0.0.1", raise_server_exceptions=False, client=("127.0.0.1", 50000))
            self._apps.append(stack.enter_context(client))

    def answers(self, method: str, path: str, **request: Any) -> list[tuple[int, dict[str, str], bytes]]:
        responses = [app.request(method, path, **request) for app in self._apps]
        return [
            (
                response.status_code,
                {name: value for name, value in response.headers.items() if name not in PER_REQUEST},
                response.content,
            )
            for response in responses
        ]

    def counts(self) -> list[list[str]]:
        """The number of requests by route and status."""
        key = {"x-api-key": KEY}
        texts = [app.get("/metrics", headers=key).text for app in self._apps]
        return [[line for line in text.splitlines() if line.startswith("convoy_requests_total")] for text in texts]


@pytest.fixture
def stack() -> Any:
    with ExitStack() as entered:
        yield entered


@pytest.mark.parametrize("path", PATHS)
def test_direct_routes_answer_as_fastapi_does(artifacts: Path, stack: ExitStack, path: str) -> None:
    pair = Pair(stack, artifacts=artifacts)
    for request in BODIES.values():
        direct, routed = pair.answers("POST", path, **request)
        assert direct == routed
    for method in METHODS:
        direct, routed = pair.answers(method, path)
        assert direct == routed
    direct_counts, routed_counts = pair.counts()
    assert direct_counts == routed_counts


@pytest.mark.parametrize("path", ["/predict", "/models/dogs/predict", "/v2/models/colours/infer"])
def test_direct_routes_need_the_same_keys_as_fastapi(artifacts: Path, stack: ExitStack, path: str) -> None:
    pair = Pair(stack, artifacts=artifacts, api_keys=KEY)
    for key in KEYS:
        direct, routed = pair.answers("POST", path, json={"instances": [b64(solid("red"))]}, headers=key)
        assert direct == routed
    assert pair.answers("POST", path, json={})[0][0] == 401
    direct_counts, routed_counts = pair.counts()
    assert direct_counts == routed_counts
