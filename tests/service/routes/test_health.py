from pathlib import Path

from fastapi.testclient import TestClient

from tests.bundles import write_bundle
from tests.service.asking import problem_of
from tests.service.conftest import Serve
from tests.service.variant_bundles import flip_byte


def test_ready_names_what_serves(client: TestClient) -> None:
    assert client.get("/readyz").json() == {"status": "ready", "models": ["colours"], "refused": []}


def test_ready_while_at_least_one_model_serves_and_names_the_refused(artifacts: Path, serve: Serve) -> None:
    flip_byte(write_bundle(artifacts, "bad") / "model.onnx")
    ready = serve().get("/readyz")
    assert (ready.status_code, ready.json()["models"]) == (200, ["colours"])
    (refused,) = ready.json()["refused"]
    assert refused["name"] == "bad"
    assert "sha256" in refused["reason"]


def test_not_ready_where_every_model_was_refused_but_alive(artifacts: Path, serve: Serve) -> None:
    flip_byte(artifacts / "colours" / "1" / "model.onnx")
    client = serve()
    problem = problem_of(client.get("/readyz"), 503, "not_ready")
    assert "colours was refused: model.onnx does not have the sha256" in problem.detail
    assert client.get("/livez").status_code == 200


def test_not_ready_without_models(tmp_path: Path, serve: Serve) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    client = serve(artifacts=empty)
    assert "make train" in problem_of(client.get("/readyz"), 503, "not_ready").detail
    problem_of(client.post("/predict", json={"instances": [1]}), 503, "not_ready")
