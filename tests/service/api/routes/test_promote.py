from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.settings import Reload
from tests.service.conftest import Serve
from tests.support.bundles import solid, write_bundle
from tests.support.http_requests import b64, problem_of

PROMOTE = "/models/colours/promote"


def served(client: TestClient) -> int:
    version: int = client.post("/predict", json={"instances": [b64(solid("red"))]}).json()["version"]
    return version


def test_promotes_and_rolls_back_and_answers_with_the_record(artifacts: Path, serve: Serve) -> None:
    write_bundle(artifacts, version=2)
    client = serve()
    assert served(client) == 2
    for version, previous in ((1, 2), (2, 1)):
        answer = client.post(PROMOTE, json={"version": version})
        assert answer.status_code == 200
        record = {"version": version, "previous": previous, "by": "api", "comparison": None}
        assert record.items() <= answer.json().items()
        assert served(client) == version


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid_request"),
        ({"version": 0}, 422, "invalid_request"),
        ({"version": "1"}, 422, "invalid_request"),
        ({"version": 1, "x": 1}, 422, "invalid_request"),
        ({"version": 7}, 404, "model_not_found"),
    ],
)
def test_answers_a_wrong_body_with_a_problem(client: TestClient, body: dict[str, Any], status: int, code: str) -> None:
    problem_of(client.post(PROMOTE, json=body), status, code)


def test_answers_400_without_json_and_404_for_an_unknown_model(client: TestClient) -> None:
    problem_of(client.post(PROMOTE), 400, "invalid_request")
    problem_of(client.post("/models/dogs/promote", json={"version": 1}), 404, "model_not_found")


def test_answers_409_when_promoted_json_cannot_be_written(artifacts: Path, serve: Serve) -> None:
    client = serve(reload=Reload.EXPLICIT)
    (artifacts / "colours" / "promoted.json").mkdir()
    assert "cannot be written" in problem_of(client.post(PROMOTE, json={"version": 1}), 409, "conflict").detail


def test_needs_an_admin_key(serve: Serve) -> None:
    client = serve(api_keys="user", admin_keys="admin")
    body = {"version": 1}
    problem_of(client.post(PROMOTE, json=body), 401, "unauthorized")
    problem_of(client.post(PROMOTE, json=body, headers={"X-API-Key": "user"}), 403, "forbidden")
    assert client.post(PROMOTE, json=body, headers={"X-API-Key": "admin"}).status_code == 200
