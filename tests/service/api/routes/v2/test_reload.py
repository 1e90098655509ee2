"""Loads and unloads by the protocol, down to the models that answer."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.settings import Reload
from tests.service.conftest import Serve
from tests.support.bundles import write_bundle
from tests.support.inference_protocol import body_of, error_of, pixels, uint8

RED = pixels("red")
GOOD = body_of({"inputs": [uint8(RED)]}, RED.tobytes())
INFER = "/v2/models/colours/infer"
REPOSITORY = "/v2/repository/models/colours"
INDEX = "/v2/repository/index"


@pytest.fixture
def client(artifacts: Path, serve: Serve) -> TestClient:
    write_bundle(artifacts, version=2)
    return serve(versions="all", reload=Reload.EXPLICIT)


def answering(client: TestClient) -> str:
    version: str = client.post(INFER, **GOOD).json()["model_version"]
    return version


def test_every_version_that_serves_is_named_and_can_be_asked(client: TestClient) -> None:
    assert client.get("/v2/models/colours").json()["versions"] == ["1", "2"]
    assert answering(client) == "2"
    assert client.post("/v2/models/colours/versions/1/infer", **GOOD).json()["model_version"] == "1"
    assert [entry["version"] for entry in client.post(INDEX).json()] == ["1", "2"]


def test_a_load_of_a_version_pins_it_until_the_next_load(client: TestClient) -> None:
    assert client.post(f"{REPOSITORY}/load", json={"parameters": {"version": 1}}).status_code == 200
    assert answering(client) == "1"
    assert client.get("/v2/models/colours").json()["versions"] == ["1"]
    assert client.get("/v2/models/colours/versions/2/ready").status_code == 400
    error_of(client.post(f"{REPOSITORY}/load", json={"parameters": {"version": 3}}), 404)
    assert client.post(f"{REPOSITORY}/load").status_code == 200
    assert answering(client) == "2"


def test_what_is_unloaded_is_listed_as_unavailable_and_loaded_again(client: TestClient) -> None:
    assert client.post(f"{REPOSITORY}/unload").status_code == 200
    error_of(client.post(INFER, **GOOD), 503)
    assert client.get("/v2/models/colours/ready").status_code == 400
    assert {(entry["state"], bool(entry["reason"])) for entry in client.post(INDEX).json()} == {("UNAVAILABLE", True)}
    assert client.post(INDEX, json={"ready": True}).json() == []
    assert client.post(f"{REPOSITORY}/load").status_code == 200
    assert answering(client) == "2"


def test_a_load_after_an_unload_serves_the_newest_good_version_and_says_what_is_bad(
    artifacts: Path, serve: Serve
) -> None:
    write_bundle(artifacts, version=2)
    (write_bundle(artifacts, version=3) / "model.onnx").write_bytes(b"no graph")
    client = serve(reload=Reload.EXPLICIT)
    assert client.post(f"{REPOSITORY}/unload").status_code == 200
    said = error_of(client.post(f"{REPOSITORY}/load"), 503)
    assert said.startswith("colours version 3 was refused, and version 2 serves: ")
    assert client.get("/readyz").status_code == 200
    assert answering(client) == "2"


def test_what_was_asked_is_counted(client: TestClient) -> None:
    before = counted(client)
    client.post(INFER, **GOOD)
    both = pixels("red", "blue")
    client.post(INFER, **body_of({"inputs": [uint8(both)]}, both.tobytes()))
    assert counted(client) == before + 3


def counted(client: TestClient) -> int:
    (one,) = client.get("/v2/models/colours/versions/2/stats").json()["model_stats"]
    count: int = one["inference_count"]
    return count
