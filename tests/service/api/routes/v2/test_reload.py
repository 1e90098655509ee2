"""Loads and unloads through the protocol, with real models."""

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


def test_every_served_version_is_listed_and_answers(client: TestClient) -> None:
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


def test_an_unloaded_model_is_unavailable_until_it_is_loaded_again(client: TestClient) -> None:
    assert client.post(f"{REPOSITORY}/unload").status_code == 200
    error_of(client.post(INFER, **GOOD), 503)
    assert client.get("/v2/models/colours/ready").status_code == 400
    assert {(entry["state"], bool(entry["reason"])) for entry in client.post(INDEX).json()} == {("UNAVAILABLE", True)}
    assert client.post(INDEX, json={"ready": True}).json() == []
    assert client.post(f"{REPOSITORY}/load").status_code == 200
    assert answering(client) == "2"


def test_a_load_serves_the_newest_valid_version_and_describes_the_refused_one(artifacts: Path, serve: Serve) -> None:
    write_bundle(artifacts, version=2)
    (write_bundle(artifacts, version=3) / "model.onnx").write_bytes(b"no graph")
    client = serve(reload=Reload.EXPLICIT)
    assert client.post(f"{REPOSITORY}/unload").status_code == 200
    message = error_of(client.post(f"{REPOSITORY}/load"), 503)
    assert message.startswith("colours version 3 was refused: ")
    assert message.endswith(" Version 2 serves.")
    assert client.get("/readyz").status_code == 200
    assert answering(client) == "2"


def test_inferences_are_counted(client: TestClient) -> None:
    before = counted(client)
    client.post(INFER, **GOOD)
    both = pixels("red", "blue")
    client.post(INFER, **body_of({"inputs": [uint8(both)]}, both.tobytes()))
    assert counted(client) == before + 3


def counted(client: TestClient) -> int:
    (one,) = client.get("/v2/models/colours/versions/2/stats").json()["model_stats"]
    count: int = one["inference_count"]
    return count
