from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import Serve
from tests.support.altered_bundles import flip_byte
from tests.support.bundles import write_bundle
from tests.support.http_requests import problem_of


def test_ready_names_what_serves(client: TestClient) -> None:
    assert client.get("/readyz").json() == {"status": "ready", "models": ["colours"], "refused": []}


def test_ready_while_at_least_one_model_serves_and_names_the_refused(artifacts: Path, serve: Serve) -> None:
    flip_byte(write_bundle(artifacts, "bad") / "model.onnx")
    ready = serve().get("/readyz")
    assert (ready.status_code, ready.json()["models"]) == (200, ["colours"])
    (refused,) = ready.json()["refused"]
    assert refused["name"] == "bad"
    assert "SHA-256" in refused["reason"]


def test_where_keys_are_set_who_has_none_learns_the_status_and_nothing_else(artifacts: Path, serve: Serve) -> None:
    flip_byte(write_bundle(artifacts, "bad") / "model.onnx")
    client = serve(api_keys="key", admin_keys="admin")
    for headers in ({}, {"X-API-Key": "wrong"}):
        answer = client.get("/readyz", headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"status": "ready"})
    for key in ("key", "admin"):
        ready = client.get("/readyz", headers={"Authorization": "Bearer gateway", "X-API-Key": f" {key} "}).json()
        assert (ready["models"], ready["refused"][0]["name"]) == (["colours"], "bad")


def test_where_keys_are_set_who_has_none_does_not_learn_why_nothing_serves(artifacts: Path, serve: Serve) -> None:
    flip_byte(artifacts / "colours" / "1" / "model.onnx")
    client = serve(api_keys="key")
    assert problem_of(client.get("/readyz"), 503, "not_ready").detail == "No model serves."
    with_key = client.get("/readyz", headers={"X-API-Key": "key"})
    assert "colours was refused" in problem_of(with_key, 503, "not_ready").detail


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready"])
def test_the_protocol_s_health_names_nothing(serve: Serve, path: str) -> None:
    assert serve(api_keys="key").get(path).content == b""


def test_with_admin_keys_alone_asking_is_open_and_so_is_what_is_ready(serve: Serve) -> None:
    assert serve(admin_keys="admin").get("/readyz").json()["models"] == ["colours"]


def test_not_ready_where_every_model_was_refused_but_alive(artifacts: Path, serve: Serve) -> None:
    flip_byte(artifacts / "colours" / "1" / "model.onnx")
    client = serve()
    problem = problem_of(client.get("/readyz"), 503, "not_ready")
    assert "colours was refused: The SHA-256 of model.onnx differs" in problem.detail
    assert client.get("/livez").status_code == 200


def test_not_ready_without_models(tmp_path: Path, serve: Serve) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    client = serve(artifacts=empty)
    assert "make train" in problem_of(client.get("/readyz"), 503, "not_ready").detail
    problem_of(client.post("/predict", json={"instances": [1]}), 503, "not_ready")
