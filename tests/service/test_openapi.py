import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.openapi import main, render
from tests.bundles import solid
from tests.service.asking import form, npy

SCHEMA: dict[str, Any] = json.loads(render())
REPOSITORY = Path(__file__).parents[2]
KINDS = {
    "predict": {"application/json", "multipart/form-data", "image/*", "application/x-npy"},
    "evaluate": {"application/json", "multipart/form-data"},
}

OPERATIONS = [
    (path, method, operation) for path, methods in SCHEMA["paths"].items() for method, operation in methods.items()
]
ASKING = [(path, operation) for path, method, operation in OPERATIONS if method == "post"]
EXAMPLES = [
    pytest.param(path, example["value"], id=f"{path} {name}")
    for path, operation in ASKING
    for name, example in operation["requestBody"]["content"]["application/json"]["examples"].items()
]


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        return {node["$ref"]} if "$ref" in node else set().union(*map(references, node.values()), set())
    return set().union(*map(references, node), set()) if isinstance(node, list) else set()


def test_it_is_what_the_service_serves_and_the_same_each_time(client: TestClient) -> None:
    assert client.get("/openapi.json").json() == SCHEMA
    assert render() == render()


def test_the_file_in_the_repository_is_up_to_date() -> None:
    assert (REPOSITORY / "openapi.json").read_text() == render()


def test_check_tells_an_old_file_from_a_new_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "openapi.json"
    assert main(["--check", str(path)]) == 1
    assert main([str(path)]) == 0
    assert main(["--check", str(path)]) == 0
    path.write_text(path.read_text() + " ")
    assert main(["--check", str(path)]) == 1
    assert "run make openapi" in capsys.readouterr().err


def test_every_reference_leads_somewhere() -> None:
    schemas = SCHEMA["components"]["schemas"]
    assert references(SCHEMA) == {f"#/components/schemas/{name}" for name in schemas}
    assert "HTTPValidationError" not in schemas


@pytest.mark.parametrize(("path", "operation"), ASKING, ids=[path for path, _ in ASKING])
def test_every_kind_of_body_and_every_status_is_described(path: str, operation: dict[str, Any]) -> None:
    assert set(operation["requestBody"]["content"]) == KINDS[path.rpartition("/")[2]]
    assert set(operation["responses"]) == {"200", "400", "404", "405", "413", "415", "422", "500", "503", "504"}


def test_every_error_is_a_problem() -> None:
    errors = [r for _, _, o in OPERATIONS for status, r in o["responses"].items() if status >= "400"]
    assert len(errors) > 40
    assert all(references(response) == {"#/components/schemas/Problem"} for response in errors)
    assert all(set(response["content"]) == {"application/problem+json"} for response in errors)


@pytest.mark.parametrize(("path", "body"), EXAMPLES)
def test_every_example_works_when_sent(client: TestClient, path: str, body: Any) -> None:
    response = client.post(path.format(name="colours", version=1), json=body)
    assert response.status_code == 200, response.text


def test_each_described_kind_of_body_is_taken(client: TestClient) -> None:
    image = solid("red")
    requests: dict[str, dict[str, Any]] = {
        "multipart/form-data": {"files": form(image)},
        "image/*": {"content": image, "headers": {"content-type": "image/png"}},
        "application/x-npy": {
            "content": npy(np.zeros((1, 8, 8), np.uint8)),
            "headers": {"content-type": "application/x-npy"},
        },
        "application/json": {"json": {"instances": [[[1, 2], [3, 4]]]}},
    }
    assert set(requests) == KINDS["predict"]
    for kind, request in requests.items():
        assert client.post("/predict", **request).status_code == 200, kind
