import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.api.auth import Access, required_access
from service.api.export_openapi import main, render
from tests.support.bundles import solid
from tests.support.http_requests import form, npy

SCHEMA: dict[str, Any] = json.loads(render())
REPOSITORY = Path(__file__).parents[3]
KINDS = {
    "predict": {
        *("application/json", "multipart/form-data", "image/*", "application/x-npy", "application/octet-stream")
    },
    "evaluate": {
        *("application/json", "multipart/form-data", "application/zip", "application/x-npz", "application/octet-stream")
    },
    "infer": {"application/json", "application/octet-stream"},
    "load": {"application/json"},
    "unload": {"application/json"},
    "index": {"application/json"},
    "{name}:predict": {"application/json"},
}
PROTOCOLS = ("/v1/", "/v2")

OPERATIONS = [
    (path, method, operation) for path, methods in SCHEMA["paths"].items() for method, operation in methods.items()
]
VERSIONED = [each for each in OPERATIONS if "{version}" in each[0]]
POSTS = [(path, operation) for path, method, operation in OPERATIONS if method == "post"]
ASKING = [
    (path, operation)
    for path, operation in POSTS
    if required_access("POST", path) is Access.CLIENT and not path.startswith(PROTOCOLS)
]
PROTOCOL = [(path, operation) for path, operation in POSTS if path.startswith(PROTOCOLS)]
EXAMPLES = [
    pytest.param(path, example["value"], id=f"{path} {name}")
    for path, operation in POSTS
    for name, example in operation["requestBody"]["content"]["application/json"].get("examples", {}).items()
]


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        return {node["$ref"]} if "$ref" in node else set().union(*map(references, node.values()), set())
    return set().union(*map(references, node), set()) if isinstance(node, list) else set()


def test_the_exported_schema_is_the_served_one_and_stable(client: TestClient) -> None:
    assert client.get("/openapi.json").json() == SCHEMA
    assert render() == render()


def test_the_file_in_the_repository_is_up_to_date() -> None:
    assert (REPOSITORY / "openapi.json").read_text() == render()


def test_check_fails_for_an_outdated_file_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "openapi.json"
    assert main(["--check", str(path)]) == 1
    assert main([str(path)]) == 0
    assert main(["--check", str(path)]) == 0
    path.write_text(path.read_text() + " ")
    assert main(["--check", str(path)]) == 1
    assert "run make openapi" in capsys.readouterr().err


def test_every_reference_resolves() -> None:
    schemas = SCHEMA["components"]["schemas"]
    assert references(SCHEMA) == {f"#/components/schemas/{name}" for name in schemas}
    assert "HTTPValidationError" not in schemas


@pytest.mark.parametrize(("path", "operation"), ASKING, ids=[path for path, _ in ASKING])
def test_every_body_format_and_every_status_is_described(path: str, operation: dict[str, Any]) -> None:
    assert set(operation["requestBody"]["content"]) == KINDS[path.rpartition("/")[2]]
    assert set(operation["responses"]) == {"200", "400", "401", "404", "405", "413", "415", "422", "500", "503", "504"}


def test_a_promotion_is_described_with_every_status() -> None:
    operation = SCHEMA["paths"]["/models/{name}/promote"]["post"]
    assert set(operation["requestBody"]["content"]) == {"application/json"}
    admin_only, conflict = "403", "409"
    statuses = {"200", "400", "401", admin_only, "404", "405", conflict, "413", "422", "500", "503", "504"}
    assert set(operation["responses"]) == statuses


def test_every_route_but_health_describes_its_keys() -> None:
    assert set(SCHEMA["components"]["securitySchemes"]) == {"bearer", "apiKey"}
    for path, method, operation in OPERATIONS:
        needed = required_access(method.upper(), path) is not Access.PUBLIC
        assert ("security" in operation, "401" in operation["responses"]) == (needed, needed), path
    assert "security" not in SCHEMA["paths"]["/livez"]["get"]


@pytest.mark.parametrize(("path", "operation"), PROTOCOL, ids=[path for path, _ in PROTOCOL])
def test_every_body_format_of_a_protocol_is_described(path: str, operation: dict[str, Any]) -> None:
    assert set(operation["requestBody"]["content"]) == KINDS[path.rpartition("/")[2]]
    assert set(operation["responses"]) >= {"200", "400", "405", "413", "500"}
    assert "422" not in operation["responses"]


def test_every_error_is_a_problem_or_the_error_of_its_protocol() -> None:
    errors = [(p, r) for p, _, o in OPERATIONS for status, r in o["responses"].items() if status >= "400"]
    assert len(errors) > 100
    for path, response in errors:
        ours = not path.startswith(PROTOCOLS)
        media_type, message = ("application/problem+json", "Problem") if ours else ("application/json", "ErrorMessage")
        if path.endswith(("/ready", "/live")) and "content" not in response:
            continue  # the protocol's health: an empty body
        assert references(response) == {f"#/components/schemas/{message}"}, path
        assert set(response["content"]) == {media_type}, path


@pytest.mark.parametrize(("path", "method", "operation"), VERSIONED, ids=[path for path, _, _ in VERSIONED])
@pytest.mark.parametrize("version", ["0", "-1", "latest", "1.0"])
def test_the_error_of_an_invalid_version_is_described(
    client: TestClient, path: str, method: str, operation: dict[str, Any], version: str
) -> None:
    url = path.format(name="colours", version=version, file="curves.png")
    assert str(client.request(method, url).status_code) in operation["responses"]


@pytest.mark.parametrize(("path", "body"), EXAMPLES)
def test_every_example_works_when_sent(client: TestClient, path: str, body: Any) -> None:
    response = client.post(path.format(name="colours", version=1), json=body)
    assert response.status_code == 200, response.text


def test_each_described_body_format_is_accepted(client: TestClient) -> None:
    image = solid("red")
    requests: dict[str, dict[str, Any]] = {
        "multipart/form-data": {"files": form(image)},
        "image/*": {"content": image, "headers": {"content-type": "image/png"}},
        "application/x-npy": {
            "content": npy(np.zeros((1, 8, 8), np.uint8)),
            "headers": {"content-type": "application/x-npy"},
        },
        "application/json": {"json": {"instances": [[[1, 2], [3, 4]]]}},
        "application/octet-stream": {"content": image, "headers": {"content-type": "application/octet-stream"}},
    }
    assert set(requests) == KINDS["predict"]
    for kind, request in requests.items():
        assert client.post("/predict", **request).status_code == 200, kind
